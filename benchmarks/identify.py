"""How often a measured infrared spectrum finds its molecule, by library, pipeline and way to score.

    python -m benchmarks.identify BANDS.csv --out DIR [--library bundled bundled-library]

BANDS.csv lists the bands of measured spectra: smiles, position_cm-1, relative_absorbance, fwhm_cm-1. Each
spectrum is written as an instrument would: a sum of Gaussians of at least 9 cm⁻¹ width on points 2 cm⁻¹
apart, with an offset and a slope of a few per cent and noise of 0.3 % (seed 0). Molecules that the library
does not have are left out. Indices are made in DIR and used again.
"""

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from molspectra.chem.identity import identity_from_smiles
from molspectra.chem.readers import from_smiles
from molspectra.search.library import Library
from molspectra.search.pipeline import Pipeline
from molspectra.spectra.files.measured import MeasuredSpectrum
from molspectra.spectra.units import FWHM_PER_SIGMA

WIDTH, STEP, NOISE = 9.0, 2.0, 0.003
PIPELINES = {"none": Pipeline("none"), "measured": Pipeline()}


def queries(path: Path) -> dict[str, MeasuredSpectrum]:
    """Spectra by SMILES."""
    bands = defaultdict(list)
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            values = (row["position_cm-1"], row["relative_absorbance"], row["fwhm_cm-1"])
            bands[row["smiles"]].append([float(value) for value in values])
    generator, axis = np.random.default_rng(0), np.arange(500.0, 4000.1, STEP)
    found = {}
    for smiles, rows in bands.items():
        position, height, width = np.array(rows).T[:, :, None]
        sigma = np.maximum(width, WIDTH) / FWHM_PER_SIGMA
        values = (height * np.exp(-0.5 * ((axis - position) / sigma) ** 2)).sum(0)
        values = values / values.max() + generator.normal(0, NOISE, len(axis))
        values += generator.uniform(0, 0.05) + generator.uniform(-0.03, 0.03) * (axis - 500) / 3500
        found[smiles] = MeasuredSpectrum(axis, values, "cm⁻¹", "absorbance", "ir")
    return found


def ranks(library: Library, spectra: dict[str, MeasuredSpectrum], by_formula: bool, **options) -> np.ndarray:
    """Rank of the right molecule of every query."""
    found = []
    for smiles, spectrum in spectra.items():
        formula = from_smiles(smiles).formula if by_formula else None
        hits = library.search({"ir": spectrum}, formula=formula, top=len(library), **options)
        identities = hits.table["identity"].to_pylist()
        found.append(identities.index(identity_from_smiles(smiles)) + 1)
    return np.array(found)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bands", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--library", nargs="+", default=["bundled", "bundled-library"])
    parser.add_argument("--model", default="base")
    parser.add_argument(
        "--by", nargs="+", default=["match", "shape", "cosine", "sid", "embedding", "learned"]
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    every = queries(options.bands)
    print("library          pipeline  by         top 1  top 10  median | formula: top 1  top 10")
    for name in options.library:
        folder = options.out / name
        library = Library(folder) if folder.exists() else Library.build(folder, name, options.model)
        known = set(library.table["identity"].to_pylist())
        spectra = {smiles: each for smiles, each in every.items() if identity_from_smiles(smiles) in known}
        for choice, pipeline in PIPELINES.items():
            for way in options.by:
                cells = [f"{name:16} {choice:9} {way:9}"]
                for by_formula in (False, True):
                    found = ranks(library, spectra, by_formula, by=way, pipeline=pipeline)
                    cells.append(f"{np.mean(found == 1):5.2f}  {np.mean(found <= 10):6.2f}")
                    if not by_formula:
                        cells.append(f"{np.median(found):6.1f} |         ")
                print("  ".join(cells), flush=True)
        print(f"{name}: {len(spectra)} queries among {len(set(known))} molecules")


if __name__ == "__main__":
    main()
