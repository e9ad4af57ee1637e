"""Build the bundled trajectory: ethanol at 500 K with GFN2-xTB energies and forces, 2,000 frames.

    python scripts/build_trajectory.py            # sample; interrupted, it continues where it stopped
    python scripts/build_trajectory.py --pack     # write the store and its manifest from the journal

The first step takes about 20 minutes on one idle core, the second a few seconds.
"""

import argparse
import dataclasses
import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import from_smiles
from molspectra.data.store.bundled import bundled_path
from molspectra.data.store.store import write_store
from molspectra.datasets.frames import frame_rows, trajectory_metadata
from molspectra.errors import InputError, ValueRangeError
from molspectra.simulation.dynamics import (
    DynamicsSettings,
    Frame,
    State,
    dynamics_frames,
    dynamics_level,
    relaxed_structure,
)

ROOT = Path(__file__).resolve().parents[1]
JOURNAL = ROOT / "build" / "trajectory" / "ethanol.jsonl"
SMILES, NAME = "CCO", "ethanol"
SETTINGS = DynamicsSettings(temperature=500.0, interval_fs=200.0, seed=0)
FRAMES = 2000
TORSION = (0, 1, 2, 8)
"""Atoms C, C, O and H of the hydroxyl torsion, the slowest motion; its autocorrelation is reported."""


def start() -> Molecule:
    """Return relaxed ethanol."""
    return relaxed_structure(from_smiles(SMILES, name=NAME, seed=SETTINGS.seed))


def line_of(frame: Frame) -> str:
    """Return a frame as one line of the journal; numbers are written so that they read back exactly."""
    values = {
        "positions": frame.positions.tolist(),
        "energy": frame.energy,
        "forces": frame.forces.tolist(),
        "temperature": frame.temperature,
        "state": {
            "positions": frame.state.positions.tolist(),
            "momenta": frame.state.momenta.tolist(),
            "random": frame.state.random,
        },
    }
    return json.dumps(values) + "\n"


def frame_of(line: str) -> Frame:
    """Return the frame of one line of the journal."""
    values = json.loads(line)
    state = values["state"]
    return Frame(
        np.array(values["positions"]),
        values["energy"],
        np.array(values["forces"]),
        values["temperature"],
        State(np.array(state["positions"]), np.array(state["momenta"]), state["random"]),
    )


def read_journal(path: Path) -> list[Frame]:
    """Return the complete frames of the journal; an incomplete last one is removed from the file."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        path.write_text("".join(lines[:-1]), encoding="utf-8")
        lines = lines[:-1]
    return [frame_of(line) for line in lines]


def compute(journal: Path, frames: int) -> None:
    """Sample the frames that are not in the journal yet."""
    done = read_journal(journal)
    journal.parent.mkdir(parents=True, exist_ok=True)
    source = dynamics_frames(start(), SETTINGS, done[-1].state if done else None)
    with journal.open("a", encoding="utf-8") as file:
        for number in range(len(done), frames):
            file.write(line_of(next(source)))
            file.flush()
            if (number + 1) % 100 == 0:
                print(f"{number + 1} of {frames} frames", flush=True)


def autocorrelation(values: npt.NDArray[np.float64]) -> float:
    """Return the autocorrelation of a quantity [T] one frame apart."""
    centred = values - values.mean()
    return float((centred[1:] * centred[:-1]).mean() / (centred**2).mean())


def torsion_cosine(positions: npt.NDArray[np.float64], atoms: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return the cosine of a torsion angle in every frame [T] of positions [T, N, 3]."""
    a, b, c, d = (positions[:, atom] for atom in atoms)
    first, second = np.cross(a - b, c - b), np.cross(b - c, d - c)
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return (first * second).sum(-1) / lengths


def statistics_of(frames: list[Frame]) -> dict[str, object]:
    """Return statistics of the trajectory."""
    positions = np.stack([frame.positions for frame in frames])
    energies = np.array([frame.energy for frame in frames])
    forces = np.stack([frame.forces for frame in frames])
    temperatures = np.array([frame.temperature for frame in frames])
    return {
        "mean_kinetic_temperature_K": round(float(temperatures.mean()), 1),
        "energy_kcal_per_mol": {"mean": round(energies.mean(), 3), "sd": round(energies.std(), 3)},
        "force_component_sd_kcal_per_mol_per_A": round(float(forces.std()), 3),
        "autocorrelation_one_frame_apart": {
            "energy": round(autocorrelation(energies), 3),
            "kinetic_temperature": round(autocorrelation(temperatures), 3),
            "cosine_of_torsion_C-C-O-H": round(autocorrelation(torsion_cosine(positions, TORSION)), 3),
        },
    }


def pack(journal: Path, count: int, target: Path) -> None:
    """Write the store and, beside it, its manifest."""
    frames = read_journal(journal)[:count]
    if len(frames) < count:
        raise ValueRangeError(f"{journal} has {len(frames)} of {count} frames; run without --pack first")
    molecule = start()
    versions = {name: version(name) for name in ("molspectra", "tblite", "ase", "numpy", "rdkit")}
    versions["python"] = platform.python_version()
    statistics = statistics_of(frames)
    metadata = trajectory_metadata(
        source="computed by molspectra (scripts/build_trajectory.py)",
        licence="MIT",
        level=dynamics_level(),
        notes={
            "sampling": "Langevin dynamics, " + json.dumps(dataclasses.asdict(SETTINGS)),
            "statistics": json.dumps(statistics),
            "versions": json.dumps(versions),
            "caution": "GFN2-xTB, not density functional theory: never to be compared with MD17 or rMD17",
        },
    )
    rows = frame_rows(
        molecule,
        np.stack([frame.positions for frame in frames]),
        np.array([frame.energy for frame in frames]),
        np.stack([frame.forces for frame in frames]),
    )
    written = write_store(target, rows, metadata, overwrite=True)
    manifest = {
        "frames": written.rows,
        "molecule": {"smiles": SMILES, "name": NAME},
        "content_sha256": written.hash,
        "file_sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
        "bytes": target.stat().st_size,
        "level": metadata.level,
        "settings": dataclasses.asdict(SETTINGS),
        **statistics,
        "versions": versions,
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    target.with_suffix(".json").write_text(text, encoding="utf-8")
    print(f"{target}: {text}")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--journal", type=Path, default=JOURNAL)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--pack", action="store_true", help="write the store instead of sampling")
    parser.add_argument("--out", type=Path, default=None, help="store written by --pack")
    options = parser.parse_args()
    try:
        if options.pack:
            pack(options.journal, options.frames, options.out or bundled_path("bundled-ethanol"))
        else:
            compute(options.journal, options.frames)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
