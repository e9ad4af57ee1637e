"""Files of users' own data, damaged at random: nothing but one clear line may come of it."""

import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from molspectra.datasets.registry import importer
from molspectra.errors import InputError, MolspectraError

XYZ = "2\nProperties=species:S:1:pos:R:3:F:R:3 name=H2 E=-1.1\nH 0 0 0 0 0 1\nH 0 0 0.74 0 0 -1\n"
SDF = """h2
  by hand         3D

  2  1  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 H   0  0
    0.7400    0.0000    0.0000 H   0  0
  1  2  1  0
M  END
>  <E [eV]>
-31.7

$$$$
"""
PIECES = [
    b"nan",
    b"inf",
    b"-1",
    b"1e400",
    b"9" * 400,
    b"$$$$\n",
    b"M  END\n",
    b"1_0",
    b"\xff",
    b"\0",
    b'"',
    b",",
]
OPTIONS = {"extxyz": {"unit.E": "eV", "forces": "F", "unit.forces": "eV/Å"}}


def whole(name, path):
    if name == "npz":
        np.savez(
            path, n_atoms=[2, 2], z=[1] * 4, pos=np.arange(12.0).reshape(4, 3), name=np.array(["a", "b"])
        )
    elif name == "parquet":
        positions = [[[0.0, 0.0, 0.0], [0.0, 0.0, 0.74]]]
        pq.write_table(pa.table({"numbers": [[1, 1]], "positions": positions, "gap [eV]": [1.0]}), path)
    else:
        path.write_text(
            {"sdf": SDF * 2, "extxyz": XYZ * 2, "csv": "name,smiles,gap [eV]\na,CO,1\nb,O,\n"}[name]
        )
    return path.read_bytes()


def damaged(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice([1, 2, 5, 20])):
        place = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            data[place : place + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            data[place:place] = rng.choice(PIECES)
        elif kind == 2:
            del data[place : place + rng.randrange(1, 30)]
        elif kind == 3:
            other = rng.randrange(len(data) + 1)
            data[place:place] = data[other : other + rng.randrange(1, 60)]
        elif rng.random() < 0.3:
            del data[place:]
    return bytes(data)


@pytest.mark.parametrize("name", ["sdf", "extxyz", "csv", "npz", "parquet"])
def test_random_damage_gives_one_clear_line_or_none(tmp_path, name):
    path = tmp_path / f"a.{name}"
    data, rng = whole(name, path), random.Random(7)
    said = []
    for _ in range(60):
        path.write_bytes(damaged(data, rng))
        try:
            opened = importer(name).open(path, OPTIONS.get(name, {}))
            for candidate in opened.candidates(0):
                try:
                    candidate.make()
                except MolspectraError as error:
                    said.append(str(error))
        except InputError as error:
            said.append(str(error))
    assert len(said) > 10
    assert not [line for line in said if "\n" in line or len(line) > 600]
