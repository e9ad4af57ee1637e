"""One thread, no display, the same hypothesis examples on every machine, and fixtures that packages share."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from hypothesis import settings
from made_up_rows import make_row as make_row
from made_up_rows import metadata as metadata
from tiny_runs import runs as runs
from tiny_runs import store_path as store_path
from tiny_runs import tiny as tiny

settings.register_profile("molspectra", derandomize=True, deadline=None, database=None)
settings.register_profile("long", deadline=None, database=None, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "molspectra"))
