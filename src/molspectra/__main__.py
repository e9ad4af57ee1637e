"""`python -m molspectra`."""

import sys

from molspectra.apps.cli import main

sys.exit(main())
