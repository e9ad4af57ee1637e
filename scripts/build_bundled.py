"""Build the bundled dataset: simulate every molecule of a SMILES list, then pack the results into one store.

    python scripts/build_bundled.py            # simulate; interrupted, it continues where it stopped
    python scripts/build_bundled.py --pack     # write the store and its manifest from the journal

The first step takes about 1¼ hours on 2 idle cores, the second a few seconds.
"""

import argparse
import csv
import hashlib
import json
import platform
import statistics
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np

from molspectra.chem.identity import identity_from_smiles
from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import from_smiles
from molspectra.data.store.bundled import bundled_path
from molspectra.data.store.store import write_store
from molspectra.datasets.simulated import simulated_metadata, simulated_row
from molspectra.errors import InputError, NotFoundError, ValueRangeError
from molspectra.simulation.api import Simulation
from molspectra.simulation.records import Record, read_journal
from molspectra.simulation.runner import simulate_many

ROOT = Path(__file__).resolve().parents[1]
MOLECULES = ROOT / "datasets" / "bundled" / "molecules.csv"
JOURNAL = ROOT / "build" / "bundled" / "journal.jsonl"
SEED = 0
MAX_BYTES = 8_000_000
"""Largest size of the store, bytes."""

BROKEN_RATIO = 1.30
FORMED_RATIO = 1.15
"""Distances, in sums of covalent radii, above which a bond is broken and below which one has formed."""


def read_list(path: Path) -> list[dict[str, str]]:
    """Return the rows of the list: smiles and name."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def start_structures(rows: list[dict[str, str]]) -> Iterator[Molecule]:
    """Yield start structures in the order of the list; print molecules without a conformer, and skip them."""
    for row in rows:
        try:
            yield from_smiles(row["smiles"], name=row["name"] or None, seed=SEED)
        except InputError as error:
            print(error, file=sys.stderr)


def has_same_bonds(molecule: Molecule) -> bool:
    """Whether the optimised structure still has exactly the bonds of its SMILES."""
    from rdkit import Chem

    graph = Chem.AddHs(Chem.MolFromSmiles(molecule.smiles))
    if [atom.GetAtomicNum() for atom in graph.GetAtoms()] != molecule.numbers.tolist():
        raise SystemExit(f"{molecule.smiles}: atoms of the record are not in the order of the SMILES")
    table = Chem.GetPeriodicTable()
    radii = np.array([table.GetRcovalent(int(number)) for number in molecule.numbers])
    ratio = np.linalg.norm(molecule.positions[:, None] - molecule.positions, axis=-1)
    ratio /= radii[:, None] + radii
    bonded = Chem.GetAdjacencyMatrix(graph).astype(bool)
    not_bonded = ~bonded & ~np.eye(len(radii), dtype=bool)
    return bool((ratio[bonded] < BROKEN_RATIO).all() and (ratio[not_bonded] > FORMED_RATIO).all())


def sort_records(rows: list[dict[str, str]], journal: Path) -> tuple[list[Record], list[dict[str, str]]]:
    """Return the usable records in the order of the list, and the molecules left out with their reasons."""
    records = {record.identity: record for record in read_journal(journal)}
    kept: list[Record] = []
    left_out: list[dict[str, str]] = []
    for row in rows:
        record = records.get(identity_from_smiles(row["smiles"]))
        if record is None:
            reason = "not simulated (no conformer found, or the run is not complete)"
        elif record.simulation is None:
            reason = record.error or "failed"
        elif not has_same_bonds(record.simulation.molecule):
            reason = "rearranged or fell apart during the optimisation"
        else:
            kept.append(record)
            continue
        left_out.append({"smiles": row["smiles"], "name": row["name"], "reason": reason})
    return kept, left_out


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pack(rows: list[dict[str, str]], journal: Path, source: Path, target: Path) -> None:
    """Write the store and, beside it, its manifest."""
    kept, left_out = sort_records(rows, journal)
    simulations = [record.simulation for record in kept if record.simulation is not None]
    if not simulations:
        raise NotFoundError(f"{journal} has no results to pack")
    example = max(simulations, key=lambda simulation: len(simulation.properties))
    versions = {name: version(name) for name in ("molspectra", "tblite", "pyscf", "numpy", "scipy", "rdkit")}
    versions["python"] = platform.python_version()
    metadata = simulated_metadata(
        example,
        source="computed by molspectra (scripts/build_bundled.py)",
        licence="MIT",
        notes={"versions": json.dumps(versions), "conformer seed": str(SEED)},
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    written = write_store(target, map(simulated_row, simulations), metadata, overwrite=True)
    size = target.stat().st_size
    if size > MAX_BYTES:
        raise ValueRangeError(f"{target} has {size} bytes, more than {MAX_BYTES}")
    seconds = [record.seconds for record in kept]
    manifest = {
        "molecules": written.rows,
        "named": sum(record.name is not None for record in kept),
        "content_sha256": written.hash,
        "file_sha256": file_hash(target),
        "bytes": size,
        "list": {"file": source.name, "sha256": file_hash(source), "molecules": len(rows)},
        "conformer_seed": SEED,
        "levels": example.levels,
        "properties": {name: [value.unit, value.level] for name, value in example.properties.items()},
        "lines": line_counts(simulations),
        "versions": versions,
        "process_seconds": {"total": round(sum(seconds)), "median": round(statistics.median(seconds), 1)},
        "left_out": left_out,
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    target.with_name("manifest.json").write_text(text, encoding="utf-8")
    print(f"{written.rows} molecules, {size / 1e6:.2f} MB, {len(left_out)} left out: {target}")
    for entry in left_out:
        print(f"  {entry['name'] or entry['smiles']}: {entry['reason']}")


def line_counts(simulations: list[Simulation]) -> dict[str, int]:
    """Return the number of lines of each modality."""
    names = simulations[0].lines
    return {name: sum(len(simulation.lines[name]) for simulation in simulations) for name in names}


def compute(options: argparse.Namespace) -> None:
    """Simulate the molecules that are not in the journal yet."""
    result = simulate_many(
        start_structures(read_list(options.molecules)[: options.limit]),
        options.journal,
        processes=options.processes,
        by_geometry=False,
    )
    print(f"{result.computed} computed, {result.reused} from the journal, {len(result.failures)} failed")
    for record in result.failures:
        print(f"  {record.label}: {record.error}")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--molecules", type=Path, default=MOLECULES)
    parser.add_argument("--journal", type=Path, default=JOURNAL)
    parser.add_argument("--processes", type=int, default=None, help="default: one per core")
    parser.add_argument("--limit", type=int, default=None, help="only the first so many molecules")
    parser.add_argument("--pack", action="store_true", help="write the store instead of simulating")
    parser.add_argument("--out", type=Path, default=bundled_path(), help="store written by --pack")
    options = parser.parse_args()
    try:
        if options.pack:
            rows = read_list(options.molecules)[: options.limit]
            pack(rows, options.journal, options.molecules, options.out)
        else:
            compute(options)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
