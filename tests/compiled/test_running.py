import signal
import threading
import time
from types import SimpleNamespace

import pytest
import torch

numba = pytest.importorskip("numba")

from molspectra.compiled.simd import array_of, real_of
from molspectra.compiled.threads import run


def counting_kernel():
    reals = array_of(real_of(torch.float64))

    @numba.njit(nogil=True)
    def kernel(first, last, count):
        count = reals(count)
        for task in range(first, last):
            count[task] += 1.0

    return kernel


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("tasks", [0, 1, 2, 7, 1000])
def test_every_task_is_done_once(threads, number, tasks):
    threads(number)
    count = torch.zeros(1000, dtype=torch.float64)
    run(counting_kernel(), tasks, count)
    assert count[:tasks].eq(1).all()
    assert not count[tasks:].any()


def test_several_python_threads_at_once(threads):
    threads(2)
    kernel, counts = counting_kernel(), [torch.zeros(500, dtype=torch.float64) for _ in range(4)]
    users = [threading.Thread(target=run, args=(kernel, 500, count)) for count in counts]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert all(count.eq(1).all() for count in counts)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals to one thread")
def test_an_interrupt_waits_for_what_still_runs(threads):
    threads(2)
    caller, started, finished = threading.get_ident(), threading.Event(), threading.Event()

    class Slow:
        stats = SimpleNamespace(cache_misses={})

        def __call__(self, first, last):
            if last > first and threading.get_ident() == caller:
                assert started.wait(10)
            elif last > first:
                started.set()
                time.sleep(0.1)  # until the caller has done the other pieces and waits
                signal.pthread_kill(caller, signal.SIGINT)
                time.sleep(0.2)
                finished.set()

    # a shell that starts us in the background has it ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(Slow(), 8)
    finally:
        signal.signal(signal.SIGINT, before)
    assert finished.is_set()


def test_strided_inputs_are_taken_as_they_look():
    reals = array_of(real_of(torch.float64))

    @numba.njit(nogil=True)
    def kernel(first, last, source, target):
        source, target = reals(source), reals(target)
        for task in range(first, last):
            target[task] = source[task]

    target = torch.zeros(3, dtype=torch.float64)
    run(kernel, 3, torch.arange(6, dtype=torch.float64)[::2], target)
    assert target.tolist() == [0, 2, 4]


def test_an_error_in_a_kernel_is_raised(threads):
    threads(2)

    class Broken:
        stats = SimpleNamespace(cache_misses={})

        def __call__(self, first, last):
            if last > first:
                raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        run(Broken(), 8)
