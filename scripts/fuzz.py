"""Feed mutated settings or XYZ files to their readers; anything but a value or an InputError is a finding.

`python scripts/fuzz.py settings --seconds 300 --seed 1` prints executions and findings; `--out FOLDER` keeps
the input of each. A finding is told apart by its exception and line; more than 5 s for one input is one, too.
"""

import argparse
import random
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from molspectra.chem.xyz import xyz_entries
from molspectra.errors import InputError
from molspectra.training.config import FinetuneConfig, PretrainConfig
from molspectra.training.settings import from_dict, read_yaml, recipes, settings_of, to_dict

LONGEST = 1 << 16
"""Characters of an input; long ones are left to the corpus of the tests."""

SLOW = 5
"""Seconds for one input."""

NUMBERS = """
0 -1 1 2 3 999 1e400 -1e308 1e-400 nan inf -inf .nan .inf 1_0 0x10 0o7 1:30 ² ٣ 1e5 1.0 True 1.2D-6 1.2*^-6
2147483648 4294967296 9223372036854775807 9223372036854775808 99999999999999999999999 -0 +1 1. .5 1e
"""
SETTINGS_WORDS = """
{ } [ ] : - ? & * ! | > ' " % @ ` # , null ~ true yes {} [] &a *a << !!python/name:os.system !!binary !!set
!!omap !!int !!timestamp 2020-01-01 2020-99-99 kind et egnn --- ...
"""
XYZ_WORDS = """
Properties= species:S:1:pos:R:3 :forces:R:3 :Z:I:1 :charge:R:1 Lattice= pbc= smiles= name= charge= q= T F " '
total_charge= { } [ ] = : H C Xx X1 D 119 -1 gdb C1CC [Fe] C.C * \\ \\"
"""
SIGNS = ("\n", "\n\n", "\n  ", ": ", " ", "\t", "\0", "\r", "\x1c", "\x85", "\ufeff", "\u2028", "\x1b[31m")
XYZ = (
    "3\nwater\nO 0 0 0.1\nH 0 0.76 -0.48\nH 0 -0.76 -0.48\n",
    '1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1.5 charge=0 pbc="F F F" smiles=C name="a b"\n'
    "He 0 0 0 1 2 3\n",
    "2\n-1 2\nH 0 0 0\nH 0 0 0.74\n1\ncharge: +1\n8 0 0 0\n",
    '1\nLattice="0 0 0 0 0 0 0 0 0" Properties=Z:I:1:pos:R:3:charge:R:1\n6 1e-3 1.0D-2 2.*^-1 0.5\n',
    "2\nq=1 a={1 2} b=[1, 2] c='x y'\nN 0 0 0\nN 0 0 1.1\n\n\n1\n\nC 0 0 0\n",
)


def read_settings(path: Path) -> None:
    """Read a file as the settings of each kind of run; what was read must survive being written."""
    values = read_yaml(path)
    for cls in (PretrainConfig, FinetuneConfig):
        try:
            config = from_dict(cls, values, "fuzz")
        except InputError:
            continue
        assert to_dict(from_dict(cls, to_dict(config), "again")) == to_dict(config)


def read_xyz(path: Path) -> None:
    """Read all of a file of frames; a frame that cannot be read does not end it."""
    first: InputError | None = None
    for entry in xyz_entries(path):
        reads: list[Callable[[], object]] = [entry.molecule, entry.fields]
        if entry.vectors is not None:
            reads.append(partial(entry.vectors, "forces"))
        for read in reads:
            try:
                read()
            except InputError as error:
                first = first or error
    if first is not None:
        raise first


def settings_seeds() -> list[str]:
    """Return the shipped recipes, and each setting alone."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(recipes().values())]
    for cls in (PretrainConfig, FinetuneConfig):
        for setting in settings_of(cls):
            *groups, last = setting.name.split(".")
            lines = [f"{'  ' * depth}{group}:" for depth, group in enumerate(groups)]
            texts.append("\n".join([*lines, f"{'  ' * len(groups)}{last}: 1"]) + "\n")
    return texts


def mutated(text: str, texts: list[str], words: list[str], draw: random.Random) -> str:
    """Return a text after one to eight changes."""
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        start, stop = sorted(draw.randrange(len(text) + 1) for _ in range(2))
        stop = min(stop, start + draw.choice((1, 3, 20, 1000)))
        other = draw.choice(texts)
        cut = draw.randrange(len(other) + 1)
        kind = draw.randrange(9)
        if kind == 0:
            text = text[:start] + text[stop:]
        elif kind == 1:
            text = text[:start] + text[start:stop] * draw.choice((2, 3, 10, 300)) + text[stop:]
        elif kind in (2, 3):
            text = text[:start] + draw.choice(words) + text[start:]
        elif kind == 4:
            text = (
                text[:start] + chr(draw.choice((draw.randrange(128), draw.randrange(0x3000)))) + text[stop:]
            )
        elif kind == 5:
            text = text[:start] + other[cut : cut + 200] + text[stop:]
        elif kind == 6:
            lines = text.splitlines(keepends=True)
            draw.shuffle(lines)
            text = "".join(lines)
        else:  # most of what is read is numbers and words
            spans = [match.span() for match in re.finditer(r"[-+.\w]+", text)]
            if spans:
                start, stop = draw.choice(spans)
                text = (
                    text[:start]
                    + draw.choice((*NUMBERS.split(), "9" * 5000, draw.choice(words)))
                    + text[stop:]
                )
    return text[:LONGEST]


def too_slow(_signal: int, _frame: FrameType | None) -> None:
    """Raise in the reader, so that the finding names its line."""
    raise TimeoutError(f"more than {SLOW} s")


TARGETS: dict[str, tuple[Callable[[Path], None], Callable[[], list[str]], str]] = {
    "settings": (read_settings, settings_seeds, SETTINGS_WORDS),
    "xyz": (read_xyz, lambda: list(XYZ), XYZ_WORDS),
}


def fuzz(target: str, seconds: float, seed: int, out: Path | None) -> int:
    """Run one target for a time, print what was found, and return the number of findings."""
    read, seeds, text = TARGETS[target]
    words = [*text.split(), *SIGNS]
    texts, draw = seeds(), random.Random(seed)
    findings: set[str] = set()
    executions = accepted = 0
    signal.signal(signal.SIGALRM, too_slow)
    end = time.monotonic() + seconds
    with TemporaryDirectory() as folder:
        path = Path(folder, "input")
        while time.monotonic() < end:
            text = mutated(draw.choice(texts), texts, words, draw)
            path.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
            executions += 1
            signal.alarm(SLOW)
            try:
                read(path)
                accepted += 1
                if len(text) < 2000 and draw.random() < 0.02:  # what is read is a start for more
                    texts.append(text)
            except InputError as error:
                if "\n" in str(error):
                    print(f"a message of two lines: {error!r:.200}", flush=True)
            except Exception as error:
                frame = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
                if where not in findings:
                    findings.add(where)
                    print(f"{where}: {error!s:.200}\n  input: {text!r:.500}", flush=True)
                    if out is not None:
                        out.mkdir(parents=True, exist_ok=True)
                        (out / f"{target}-{seed}-{executions}").write_bytes(path.read_bytes())
            finally:
                signal.alarm(0)
    print(f"{target}: {executions} executions in {seconds:.0f} s, {accepted} read, {len(findings)} findings")
    return len(findings)


def main() -> int:
    """Parse the options and fuzz; returns 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("target", choices=tuple(TARGETS))
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for the inputs of findings")
    options = parser.parse_args()
    return int(fuzz(options.target, options.seconds, options.seed, options.out) > 0)


if __name__ == "__main__":
    sys.exit(main())
