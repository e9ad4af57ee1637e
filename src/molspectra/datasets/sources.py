"""Addresses, sizes and published hashes of the files of the published datasets.

A hash marked "figshare" is the MD5 that figshare shows for the file; SHA-256 values come from users who
fetched the file and confirmed its published MD5. A file without a published hash is not pinned and is marked.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from molspectra.datasets.fetch.download import RemoteFile
from molspectra.errors import NotFoundError, hint

_FIGSHARE = "https://ndownloader.figshare.com/files/"
_DEEPCHEM = "https://deepchemdata.s3-us-west-1.amazonaws.com/datasets/"
_OGB = "ogb-data.stanford.edu/data/lsc/"
_SGDML = "https://sgdml.org/secure_proxy.php?file=data/npz/"
_NO_HASH = "its publisher shows none"


@dataclass(frozen=True)
class Source:
    """A published dataset.

    Attributes:
        name: name of the dataset in `molspectra prepare`.
        title: its name in listings.
        home: page of its publisher.
        licence: as stated there, "" where it is not stated.
        files: files that can be fetched.
    """

    name: str
    title: str
    home: str
    licence: str
    files: tuple[RemoteFile, ...]


_QM9 = (
    RemoteFile(
        "dsgdb9nsd.xyz.tar.bz2",
        f"{_FIGSHARE}3195389",
        86_144_227,
        "ad1ebd51ee7f5b3a6e32e974e5d54012",
        "3a63848ac80691bdb8d41834b575afad345b9300d7a2db0c38adb7f6eaa8360c",
        "figshare",
    ),
    RemoteFile(
        "uncharacterized.txt",
        f"{_FIGSHARE}3195404",
        486_752,
        "a361887bacb427b8a0ce7903d92a53b4",
        "3aa5115d540b356de94791d4a74c3bf1ed91c469ecf52a4f5d7cc0506fe02e24",
        "figshare",
    ),
    RemoteFile(
        "atomref.txt", f"{_FIGSHARE}3195395", 964, "2d30b2df8329d8fd805c0a4d158a0a0f", source="figshare"
    ),
    RemoteFile(
        "gdb9.tar.gz",
        f"{_DEEPCHEM}gdb9.tar.gz",
        md5="560f62d8e6c992ca0cf8ed8d013f9131",
        source="TorchDrug; the other form: gdb9.sdf and gdb9.sdf.csv",
        usual=False,
    ),
)

_QM9S = tuple(
    RemoteFile(
        name,
        source="none could be pinned here; figshare tells size and MD5 when asked",
        listing="https://api.figshare.com/v2/articles/24235333/versions/3",
        usual=usual,
    )
    for name, usual in (
        ("qm9s.pt", True),
        ("ir_boraden.csv", True),
        ("raman_boraden.csv", True),
        ("uv_boraden.csv", True),
        ("qm9s_csv.zip", False),
        ("readme.txt", True),
    )
)

_PCQM4MV2 = (
    RemoteFile(
        "pcqm4m-v2-train.sdf.tar.gz",
        f"http://{_OGB}pcqm4m-v2-train.sdf.tar.gz",  # as OGB gives it; the hash is pinned
        1_559_712_928,
        "fd72bce606e7ddf36c2a832badeec6ab",
        "8690db7b573405e3dbd617482fe10092e18be2b86e4d8500c3892d301dd5817c",
        "OGB",
    ),
    RemoteFile(
        "pcqm4m-v2_xyz.zip", f"https://{_OGB}pcqm4m-v2_xyz.zip", source=f"{_NO_HASH}; 2.7 GB", usual=False
    ),
)

_MD17 = tuple(
    RemoteFile(f"md17_{name}.npz", f"{_SGDML}md17_{name}.npz", source=_NO_HASH)
    for name in (
        "aspirin",
        "benzene2017",
        "ethanol",
        "malonaldehyde",
        "naphthalene",
        "salicylic",
        "toluene",
        "uracil",
    )
)

_RMD17 = (
    *(
        RemoteFile(f"rmd17_{name}.npz", f"{_FIGSHARE}{number}", size, md5, source="figshare")
        for name, number, size, md5 in (
            ("aspirin", 62265757, 153_601_803, "17fd6fb69066888613f7e16b358a7553"),
            ("azobenzene", 62265754, 175_180_782, "be79df918468eb3579aa73a0becf7390"),
            ("benzene", 62265739, 88_801_794, "18c9242bc90fbf28215f6dd81e650f16"),
            ("ethanol", 62265733, 67_201_791, "eb837fb8deb27d4e0d52f71a03aff776"),
            ("malonaldehyde", 62265736, 67_201_791, "cdc1d70c0c34062ddde6e5071eb6fe21"),
            ("naphthalene", 62265751, 132_001_800, "0efba19c9907e3852318b1e6008b3b9e"),
            ("paracetamol", 62265760, 146_401_802, "ba10784f7b67635427085f6d7ec2dd97"),
            ("salicylic", 62265748, 117_601_798, "900fedf242da438400fa4293348d7dd1"),
            ("toluene", 62265742, 110_401_797, "0f2913d51f8149c90ab28d697a076f64"),
            ("uracil", 62265745, 88_801_794, "992a4479c28a07e0cce6da964805be31"),
        )
    ),
    *(
        RemoteFile(f"index_{part}_0{fold}.csv", f"{_FIGSHARE}{number}", md5=md5, source="figshare")
        for part, fold, number, md5 in (
            ("train", 1, 62265793, "22264dcf2e42d6133362411abbbe4ce8"),
            ("train", 2, 62265772, "28dbc9a3d5e7c47e653b1cc01809df35"),
            ("train", 3, 62265775, "8de68b1b288c790e633c9d05ff5f04dd"),
            ("train", 4, 62265766, "3764257abf8121a0905f364468ba83da"),
            ("train", 5, 62265778, "4670362bd554c9c22581c936432236b3"),
            ("test", 1, 62265781, "124c8a0849e84e244d6ce8424e1c05cf"),
            ("test", 2, 62265769, "9dc098724c1680daca038b785ee4f602"),
            ("test", 3, 62265787, "fd96f4623291dc23dd80b24dd634ca0b"),
            ("test", 4, 62265790, "f0acce759fa4fe46b3a0b2a450e7e260"),
            ("test", 5, 62265784, "4892da12e88a3c30c9a15f1f95e6eaac"),
        )
    ),
    RemoteFile(
        "rmd17.tar.bz2",
        f"{_FIGSHARE}23950376",
        1_066_301_513,
        "cb1a927628d96f2e966025da4fb63d18",
        "cddeea2ec2c4b22a9de16a9a65a3eeedac5b29da9c99c20bbff0153912bf922b",
        "figshare, version 3; all in one",
        usual=False,
    ),
)

_QM8 = (
    RemoteFile(
        "gdb8.tar.gz",
        f"{_DEEPCHEM}gdb8.tar.gz",
        md5="b7e2a2c823c75b35c596f3013319c86e",
        source="TorchDrug; qm8.sdf and qm8.sdf.csv",
    ),
    RemoteFile("qm8.csv", f"{_DEEPCHEM}qm8.csv", source=_NO_HASH, usual=False),
)

SOURCES = {
    dataset.name: dataset
    for dataset in (
        Source("qm9", "QM9 (Ramakrishnan 2014)", "https://doi.org/10.6084/m9.figshare.c.978904", "CC0", _QM9),
        Source(
            "qm9s",
            "QM9S (Zou 2023), version 3",
            "https://doi.org/10.6084/m9.figshare.24235333.v3",
            "CC BY 4.0",
            _QM9S,
        ),
        Source(
            "pcqm4mv2",
            "PCQM4Mv2 (OGB-LSC), structures",
            "https://ogb.stanford.edu/docs/lsc/pcqm4mv2/",
            "CC BY 4.0",
            _PCQM4MV2,
        ),
        Source("md17", "MD17 (Chmiela 2017)", "https://www.sgdml.org/#datasets", "", _MD17),
        Source(
            "rmd17",
            "rMD17 (Christensen 2020)",
            "https://doi.org/10.6084/m9.figshare.12672038",
            "CC0",
            _RMD17,
        ),
        Source("qm8", "QM8 (Ramakrishnan 2015)", "http://quantum-machine.org/datasets/", "", _QM8),
    )
}
"""The datasets by name."""


def source(name: str) -> Source:
    """Return a dataset by its name."""
    if name not in SOURCES:
        raise NotFoundError(f"unknown dataset {name!r}; {hint(name.lower(), SOURCES, cutoff=0.5)}")
    return SOURCES[name]


def chosen_files(dataset: Source, patterns: Sequence[str] = ()) -> list[RemoteFile]:
    """Return the files whose names match any of the patterns (with `*`); without any, the usual."""
    if not patterns:
        return [file for file in dataset.files if file.usual]
    chosen: set[str] = set()
    for pattern in patterns:
        matches = [file.name for file in dataset.files if fnmatch.fnmatchcase(file.name, pattern)]
        if not matches:
            names = ", ".join(file.name for file in dataset.files)
            raise NotFoundError(f"{dataset.name}: no file {pattern!r}; it has: {names}")
        chosen.update(matches)
    return [file for file in dataset.files if file.name in chosen]
