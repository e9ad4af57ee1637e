"""Infrared spectra from a learned dipole against computed ones, on molecules that `base` has not seen.

    python -m benchmarks.derivative_spectra --label dipoles.arrow [--store STORE]
    molspectra finetune --config base-gap --data.store dipoles.arrow --target dipole --vectors dipole
        --model.readout sum --loop.steps 1000 --out runs/dipole
    python -m benchmarks.derivative_spectra --dipole runs/dipole

The first command computes GFN2-xTB dipoles of the molecules of STORE: of each at its minimum, and of two
copies whose coordinates are displaced at random (0.04 Å), so that labels tell how a dipole changes. The
default split then trains on what `base` was trained on and tests on what it has not seen.

The last command prints medians over the molecules unseen by `base`, as `benchmarks.predicted_spectra` does:
of the learned dipole, of the spectrum head of `base`, and of the modes with equal intensities, which is what
the normal modes alone give away.
"""

import argparse
import time

import numpy as np

from benchmarks.predicted_spectra import MEASURES, computed, measures, unseen
from molspectra.apps.predict_spectra import predict_spectra
from molspectra.data.store.store import Metadata, Quantity, Row, write_store
from molspectra.simulation.autocorrelation import xtb_dipoles
from molspectra.spectra.spectrum import LineSpectrum
from molspectra.training.data import open_store
from molspectra.training.seen import seen_by

DISPLACED, SPREAD = 2, 0.04


def label(source: str, out: str) -> None:
    """Write a store of the molecules of `source` with their dipoles."""
    store, generator, rows = open_store(source), np.random.default_rng(0), []
    for index, identity in enumerate(store.identities):
        molecule = store.molecule(index)
        if molecule.charge:
            continue
        shape = molecule.positions.shape
        moves = [np.zeros(shape), *(generator.normal(0, SPREAD, shape) for _ in range(DISPLACED))]
        frames = [molecule.positions + move for move in moves]
        for frame, dipole in zip(frames, xtb_dipoles(molecule, frames), strict=True):
            values = {f"dipole_{axis}": float(value) for axis, value in zip("xyz", dipole, strict=True)}
            rows.append(Row(molecule.with_positions(frame), {}, values, identity=identity))
    units = {f"dipole_{axis}": Quantity("D", "GFN2-xTB") for axis in "xyz"}
    write_store(
        out, rows, Metadata(f"molecules of {source}, displaced", store.metadata.licence, properties=units)
    )


def compare(run: str) -> None:
    """Print the measures of a run of the dipole."""
    store = open_store("bundled")
    rows = unseen(store, seen_by("base"))
    rows = rows[store.has("ir")[rows]]
    true = computed(store, rows, "ir")
    rows, true = rows[true.any(1)], true[true.any(1)]
    molecules = [store.molecule(int(row)) for row in rows]
    start = time.process_time()
    learned = predict_spectra(molecules, dipole=run)
    seconds = (time.process_time() - start) / len(rows)
    lines = [store.spectrum(int(row), "ir") for row in rows]
    equal = [LineSpectrum("ir", each.position, np.ones(len(each))).broadened().values for each in lines]
    predictions = {
        "learned dipole": learned.intensities["ir"],
        "spectrum head": predict_spectra(molecules, "base", modalities=["ir"]).intensities["ir"],
        "equal intensities": np.array(equal, dtype=np.float32),
    }
    print(f"{len(rows)} molecules, {seconds:.2f} s of processor time each with the learned dipole")
    print("| ir | " + " | ".join(MEASURES) + " |\n|---|" + "---|" * len(MEASURES))
    for name, values in predictions.items():
        found = measures(values, true)
        print(f"| {name} | " + " | ".join(f"{np.median(found[one]):.3f}" for one in MEASURES) + " |")


def main() -> None:
    """Parse the command line; label or compare."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.derivative_spectra",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--label", help="store to write, with dipoles")
    action.add_argument("--dipole", help="run to compare")
    parser.add_argument("--store", default="bundled", help="store with the molecules to label")
    options = parser.parse_args()
    if options.label is not None:
        label(options.store, options.label)
    else:
        compare(options.dipole)


if __name__ == "__main__":
    main()
