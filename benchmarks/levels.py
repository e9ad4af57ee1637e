"""Which part of a better level of theory finds more measured infrared spectra: frequencies or intensities.

    python -m benchmarks.levels BANDS.csv build/library INDEX

For every molecule of BANDS.csv (see `benchmarks.identify`) whose B3LYP Hessian is in build/library/dft, where
`scripts/build_library.py --dft` leaves it, the entry of the right molecule in INDEX gets lines of each level
in turn; the entries of all others stay as they are. "hybrid" has the corrected force field of GFN2-xTB and
the dipole derivatives of B3LYP; "frequencies" has the force field of B3LYP and the corrected dipole
derivatives of GFN2-xTB.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.identify import queries
from molspectra.chem.identity import identity_from_smiles
from molspectra.search import network, score
from molspectra.search.library import Library
from molspectra.search.vectors import coarse, unit
from molspectra.simulation.valence import corrected
from molspectra.simulation.vibrations import infrared, masses_of, normal_modes
from molspectra.simulation.xtb import FieldDerivatives
from molspectra.spectra.modality import IR
from molspectra.spectra.spectrum import LineSpectrum

LEVELS = ("gfn2", "scaled", "hybrid", "frequencies", "dft")


def lines_by_level(path: Path) -> dict[str, LineSpectrum]:
    """Infrared lines of one molecule at each level, B3LYP's in the frame of the GFN2-xTB minimum."""
    data = np.load(path)
    numbers, positions, count = data["numbers"], data["x0"], len(data["numbers"])
    left, _, right = np.linalg.svd((data["x"] - data["x"].mean(0)).T @ (positions - positions.mean(0)))
    left[:, -1] *= np.sign(np.linalg.det(left @ right))
    turn = left @ right
    turns = np.kron(np.eye(count), turn)
    none = np.zeros((3 * count, 3, 3))
    plain = data["H0"], data["d0"]
    better = turns.T @ data["H"] @ turns, turns.T @ data["d"] @ turn

    def with_corrections(method: str, hessian: np.ndarray, dipole: np.ndarray) -> tuple:
        fixed, fields = corrected(method, numbers, positions, hessian, FieldDerivatives(dipole, none))
        return fixed, fields.dipole

    scaled = with_corrections("GFN2-xTB", *plain)
    dft = with_corrections("B3LYP/def2-SVP", *better)
    parts = (plain, scaled, (scaled[0], dft[1]), (dft[0], scaled[1]), dft)
    found = {}
    for level, (hessian, dipole) in zip(LEVELS, parts, strict=True):
        modes = normal_modes(masses_of(numbers), positions, hessian)
        strength = infrared(modes, FieldDerivatives(dipole, none))
        found[level] = LineSpectrum("ir", modes.wavenumbers, strength, level)
    return found


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bands", type=Path)
    parser.add_argument("hessians", type=Path)
    parser.add_argument("index", type=Path)
    options = parser.parse_args()
    library = Library(options.index)
    row_of = {identity: row for row, identity in enumerate(library.table["identity"].to_pylist())}
    ranks: dict[tuple[str, str], list[int]] = {}
    used = 0
    for smiles, spectrum in queries(options.bands).items():
        identity = identity_from_smiles(smiles)
        path = options.hessians / "dft" / f"{identity}.npz"
        if identity not in row_of or not path.exists():
            continue
        used += 1
        query = library.query({"ir": spectrum}, ["shape", "match"])
        others = {way: np.nan_to_num(library.scores(way, query, None)) for way in ("shape", "match")}
        for level, lines in lines_by_level(path).items():
            samples = unit(coarse(lines.broadened().values[None].astype(np.float32), IR))
            arrays = {"samples-ir": samples, network.ARRAY: network.vectors(samples)}
            for way, scores in others.items():
                own = float(score.scores(way, arrays, query, slice(None))[0, 0])
                better = np.delete(scores, row_of[identity]) > own
                ranks.setdefault((way, level), []).append(int(better.sum()) + 1)
    print(f"{used} molecules among {len(library)}: first, among ten, geometric mean of the ranks")
    for (way, level), values in ranks.items():
        found = np.array(values)
        cells = f"{np.mean(found == 1):.2f}  {np.mean(found <= 10):.2f}  {np.exp(np.log(found).mean()):5.1f}"
        print(f"{way:6} {level:12} {cells}")


if __name__ == "__main__":
    main()
