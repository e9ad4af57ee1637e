"""One thread, no display, and the same hypothesis examples on every machine."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from hypothesis import settings

settings.register_profile("molspectra", derandomize=True, deadline=None, database=None)
settings.load_profile("molspectra")
