"""A made-up dataset of waters, which can be pickled."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from molspectra.chem.molecule import Molecule
from molspectra.data.store.schema import Metadata, Quantity
from molspectra.datasets.importer import Candidate, Opened, Row
from molspectra.spectra.spectrum import LineSpectrum

WATER = np.array([[0.0, 0.0, 0.117], [0.0, 0.757, -0.469], [0.0, -0.757, -0.469]])


def water(i: int, scale: float = 1.0) -> Row:
    """Water number i, each a little different."""
    positions = WATER.copy()
    positions[0, 0] += 2e-4 * i
    lines = LineSpectrum("ir", [1600.0, 3700.0], [60.0, 2.0 + i])
    molecule = Molecule([8, 1, 1], positions * scale, name=f"w{i}")
    return Row(
        molecule, {"ir": lines}, {"energy": float(i)}, identity="XLYOFNOQVPJJNP" if i % 7 else f"ID{i:012}"
    )


class Waters:
    """A dataset of `total` waters whose record `i` is what `special` makes of it, if it names one."""

    name = "waters"
    title = "Waters"
    files = "anything"
    options: Mapping[str, str] = {"colour": "of the water"}

    def __init__(
        self,
        total: int,
        special: Mapping[int, Callable[[], Row]] | None = None,
        stop: int | None = None,
        said: int | None = None,
    ):
        """Reading is interrupted before record `stop`; `said` is the expected number, -1 for unknown."""
        self.total, self.special, self.stop = total, special or {}, stop
        self.said = total if said is None else said
        self.starts: list[int] = []

    def open(self, raw: Path, options: Mapping[str, str]) -> Opened:
        def candidates(start: int) -> Iterator[Candidate]:
            self.starts.append(start)
            for i in range(start, self.total):
                if i == self.stop:
                    raise KeyboardInterrupt
                yield Candidate(f"w{i}", self.special.get(i, partial(water, i)))

        metadata = Metadata("made up", "CC0", lines={"ir": ""}, properties={"energy": Quantity("eV")})
        said = None if self.said < 0 else self.said
        return Opened(metadata, candidates, total=said, expected=self.total, excluded={"odd": 1})


def _raise(error: Exception) -> Row:
    raise error


def raising(error: Exception) -> Callable[[], Row]:
    """What raises an error in place of a record."""
    return partial(_raise, error)


def ends_its_process(i: int, before: Path | None = None) -> Row:
    """Water number i for which the process is killed; only once if `before` is a file to make before that."""
    if before is None or not before.exists():
        if before is not None:
            before.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return water(i)


def slow(i: int) -> Row:
    """Water number i, which takes a while."""
    time.sleep(0.02)
    return water(i)
