"""Limit the numerical libraries of a simulation to one thread."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module


@contextmanager
def one_thread(libraries: Sequence[str] = ("tblite.interface",)) -> Iterator[None]:
    """Limit every BLAS and OpenMP library to one thread inside the block, for calls from this thread.

    The matrices of a small molecule are too small for several threads: two on two cores double the wall time
    and take three times the CPU time, and much more if other programs use the cores. To use many cores,
    compute many molecules at once.

    Args:
        libraries: modules that the block uses; the limit does not reach libraries loaded later.
    """
    from threadpoolctl import threadpool_limits

    for name in libraries:
        import_module(name)
    with threadpool_limits(1):
        yield
