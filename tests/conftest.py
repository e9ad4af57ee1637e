"""One thread, no display, the same hypothesis examples on every machine, and fixtures that packages share."""

import os
from collections.abc import Generator
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
from hypothesis import settings
from made_up_rows import make_row as make_row
from made_up_rows import metadata as metadata
from tiny_runs import runs as runs
from tiny_runs import store_path as store_path
from tiny_runs import tiny as tiny
from worker_processes import library as library

settings.register_profile("molspectra", derandomize=True, deadline=None, database=None)
settings.register_profile("long", deadline=None, database=None, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "molspectra"))

WORKER = 2 * 1024**3
"""Bytes that a worker and the processes that its tests start get along with."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many processes `-n auto` shares the tests among: none but this one where there is one core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    workers = min(cores, memory // WORKER, 8)
    return workers if workers > 1 else 0


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Reports of workers: what a test printed may hold lone surrogates, which cannot be sent."""
    return encodable((yield))


def encodable(data: Any) -> Any:
    """The same lists, dictionaries and tuples with strings that UTF-8 can hold."""
    if isinstance(data, str):
        return data.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(data, dict):
        return {encodable(key): encodable(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return type(data)(map(encodable, data))
    return data
