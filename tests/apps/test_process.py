"""What the command line arranges for its process: freed memory stays, waiting threads sleep."""

import os
import platform
import subprocess
import sys

import pytest

from molspectra.apps import process

GLIBC = platform.libc_ver()[0] == "glibc"

FAULTS = """
import resource
from molspectra.apps.process import prepare_process
{prepare}
import numpy as np
def use():
    np.ones(8 << 20, np.uint8)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def printed_by(code: str, **environment: str) -> str:
    """What a new interpreter prints that has none of the variables concerned but those given."""
    concerned = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", *process.ALLOCATOR}
    clean = {name: value for name, value in os.environ.items() if name not in concerned}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.skipif(not GLIBC, reason="only glibc gives memory back at once")
def test_freed_memory_is_used_again() -> None:
    before, after = (int(printed_by(FAULTS.format(prepare=call))) for call in ("", "prepare_process()"))
    page = os.sysconf("SC_PAGE_SIZE")
    assert after < 2 * (8 << 20) / page / 10  # else every page of every array is faulted in again
    assert after < before / 10


@pytest.mark.skipif(not GLIBC, reason="glibc's variables")
@pytest.mark.parametrize("name", process.ALLOCATOR)
def test_what_the_user_set_wins(name: str) -> None:
    code = "from molspectra.apps.process import keep_freed_memory; print(keep_freed_memory())"
    value = "glibc.malloc.mmap_threshold=131072" if name == "GLIBC_TUNABLES" else "131072"
    assert printed_by(code) == "True"
    assert printed_by(code, **{name: value}) == "False"


def test_another_libc_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not process.keep_freed_memory()


POLICY = """
import os
from molspectra.apps import cli
try:
    cli.main(["report", "--help"])
except SystemExit:
    pass
print(os.environ.get("OMP_WAIT_POLICY"))
"""


def test_commands_let_threads_sleep_unless_told_otherwise() -> None:
    assert printed_by(POLICY).endswith("PASSIVE")
    assert printed_by(POLICY, OMP_WAIT_POLICY="ACTIVE").endswith("ACTIVE")


def test_importing_the_package_changes_nothing() -> None:
    code = "import os, molspectra, molspectra.apps.process; print(os.environ.get('OMP_WAIT_POLICY'))"
    assert printed_by(code) == "None"


def test_it_comes_before_torch() -> None:
    code = "import sys\nfrom molspectra.apps import cli, process\nprint('torch' in sys.modules)"
    assert printed_by(code) == "False"


def test_messages_of_the_package_are_shown() -> None:
    code = "import logging, sys; sys.stderr = sys.stdout; from molspectra.apps.process import show_messages; "
    code += (
        "show_messages(); show_messages(); logging.getLogger('molspectra.x').info('compiled %s', 'a kernel')"
    )
    assert printed_by(code) == "molspectra: compiled a kernel"
