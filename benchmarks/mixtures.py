"""How often the components of mixtures of two and three are found, and how near their shares are.

    python -m benchmarks.mixtures BANDS.csv INDEX [--number 40]

Mixtures have random shares of the area, none below 0.2 (of two: 0.3 to 0.7). "measured": sums of the spectra
of `benchmarks.identify` whose molecules are in the index, without baseline. "like": sums of spectra of named
molecules of the index, disturbed as measured ones differ. Each is fitted among all molecules, and among ten
named ones, the right ones and random others (seed 0).
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.identify import queries
from molspectra.chem.identity import identity_from_smiles
from molspectra.search.calibrate import measured_like
from molspectra.search.library import Library
from molspectra.search.mixture import mixture
from molspectra.search.query import Prepared, prepare
from molspectra.search.vectors import coarse
from molspectra.spectra.modality import IR

OFFERED = 10  # molecules to choose from


def measured(bands: Path, library: Library) -> dict[str, np.ndarray]:
    """Spectra [points] of area 1 without baseline, by identity."""
    known = set(library.table["identity"].to_pylist())
    spectra = {identity_from_smiles(smiles): each for smiles, each in queries(bands).items()}
    signed = {key: prepare(each, "ir").signed for key, each in spectra.items() if key in known}
    return {key: each / each.sum() for key, each in signed.items()}


def like(library: Library, count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Disturbed spectra [points] of area 1 of some named molecules, by identity."""
    named = [row for row, name in enumerate(library.table["name"].to_pylist()) if name]
    rows = np.sort(generator.choice(named, count, replace=False))
    stored = np.concatenate([segment.arrays["samples-ir"] for segment in library.segments])[rows]
    centres = coarse(IR.axis(), IR)
    fine = np.stack([np.interp(IR.axis(), centres, row) for row in stored]).astype(np.float32)
    identities = library.table["identity"].to_pylist()
    return {
        identities[row]: each / each.sum() for row, each in zip(rows, measured_like(fine, "ir"), strict=True)
    }


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bands", type=Path)
    parser.add_argument("index", type=Path)
    parser.add_argument("--number", type=int, default=40)
    options = parser.parse_args()
    library = Library(options.index)
    generator = np.random.default_rng(0)
    table = library.table.select(["identity", "name", "smiles"]).to_pylist()
    smiles = {row["identity"]: row["smiles"] for row in table}
    named = [row["identity"] for row in table if row["name"]]
    everywhere = np.ones(IR.points, bool)
    print("spectra   of  among  found all  of each  right number  share: error  uncertainty", flush=True)
    for kind in ("measured", "like"):
        pool = measured(options.bands, library) if kind == "measured" else like(library, 120, generator)
        known = everywhere & (IR.axis() >= 500) if kind == "measured" else everywhere
        single = np.random.default_rng(0).permutation(list(pool)).tolist()  # each only once
        for components in (1, 2, 3):
            found: dict[str, list] = {"all": [], str(OFFERED): []}
            for number in range(options.number):
                picked = generator.choice(list(pool), components, replace=False).tolist()
                if components == 1:
                    picked = [single[number % len(single)]]
                low = 0.3 if components == 2 else 0.2
                share = low + (1 - components * low) * generator.dirichlet(np.ones(components))
                signed = np.sum([s * pool[key] for s, key in zip(share, picked, strict=True)], 0)
                signed /= signed.max()
                spectrum = Prepared(np.maximum(signed, 0), signed, known, known, False)
                others = [key for key in generator.permutation(named).tolist() if key not in picked]
                offered = [smiles[key] for key in (picked + others)[:OFFERED]]
                for among in (None, offered):
                    rows = list(
                        mixture(library, {"ir": spectrum}, components=max(components, 2), among=among)
                    )
                    right = {row["identity"]: row for row in rows if row["identity"] in picked}
                    errors = [
                        (abs(right[key]["share"] - s), right[key]["uncertainty"])
                        for s, key in zip(share, picked, strict=True)
                        if len(right) == components == len(rows)
                    ]
                    found[str(OFFERED) if among else "all"].append((len(right), len(rows), errors))
            for among, each in found.items():
                counts, numbers = (np.array([case[place] for case in each]) for place in (0, 1))
                errors = np.array([error for case in each for error in case[2]]).reshape(-1, 2)
                told = "  ".join(f"{value:12.3f}" for value in errors.mean(0)) if len(errors) else ""
                print(
                    f"{kind:9} {components}  {among:>5}  {np.mean(counts == components):9.2f}  "
                    f"{counts.mean() / components:7.2f}  {np.mean(numbers == components):12.2f}  {told}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
