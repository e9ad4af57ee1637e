"""One thread for the numerical libraries of a simulation."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module


@contextmanager
def one_thread(libraries: Sequence[str] = ("tblite.interface",)) -> Iterator[None]:
    """Hold every BLAS and OpenMP library to one thread inside the block, for what this thread calls.

    The matrices of a small molecule are too small to share: two threads on two cores double the time and take
    three times the CPU-seconds, and where other programs want the cores too, they wait for each other without
    end. Many molecules at once are the way to use many cores.

    Args:
        libraries: modules that the block uses; those loaded later would not be held.
    """
    from threadpoolctl import threadpool_limits

    for each in libraries:
        import_module(each)
    with threadpool_limits(1):
        yield
