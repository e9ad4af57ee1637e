"""Build the bundled dataset: simulate every molecule of a SMILES list, then pack the results into one store.

    python scripts/build_bundled.py            # simulate; interrupted, it continues where it stopped
    python scripts/build_bundled.py --pack     # write the store and its manifest from the journal

The first step takes about 1¼ hours on 2 idle cores.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path

from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import from_smiles
from molspectra.errors import InputError
from molspectra.simulate.runner import simulate_many

ROOT = Path(__file__).resolve().parents[1]
MOLECULES = ROOT / "datasets" / "bundled" / "molecules.csv"
JOURNAL = ROOT / "build" / "bundled" / "journal.jsonl"
SEED = 0


def molecules(path: Path, limit: int | None) -> Iterator[Molecule]:
    """Start structures of the list in its order."""
    with open(path, encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=1):
            if limit is not None and number > limit:
                return
            try:
                yield from_smiles(row["smiles"], name=row["name"] or None, seed=SEED)
            except InputError as error:
                print(f"{path.name}, record {number}: {error}", file=sys.stderr)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--molecules", type=Path, default=MOLECULES)
    parser.add_argument("--journal", type=Path, default=JOURNAL)
    parser.add_argument("--processes", type=int, default=None, help="default: one per core")
    parser.add_argument("--limit", type=int, default=None, help="only the first so many molecules")
    options = parser.parse_args()
    result = simulate_many(
        molecules(options.molecules, options.limit),
        options.journal,
        processes=options.processes,
        by_geometry=False,
    )
    print(f"{result.computed} computed, {result.reused} from the journal, {len(result.failures)} failed")
    for record in result.failures:
        print(f"  {record.label}: {record.error}")


if __name__ == "__main__":
    main()
