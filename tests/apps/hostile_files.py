"""Files made to do harm, of each kind that a user may give, and a process that opens each within limits.

`python hostile_files.py FOLDER RUNS` writes every file below FOLDER, runs its command in a child with
`MEMORY` bytes and `SECONDS` of its own, and prints one JSON object per file. All children are forked from one
process that has imported everything, since starting Python for each would take minutes. RUNS has finished
runs `stage1`, `stage2` and `gap`.
"""

from __future__ import annotations

import gc
import gzip
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from molspectra.apps.process import ALLOCATOR

MEMORY = 1_000_000_000
"""Bytes that a child may map in addition to what its parent had, which is the libraries."""

SECONDS = 10
"""Processor time of a child; it is killed at that."""

Content = Callable[[], str | bytes]
Make = Callable[[], list[str]]
"""Writes the files of a case into the current folder and returns the command to run there."""

CASES: dict[str, Make] = {}
RUNS = Path()

WATER = "3\nwater\nO 0 0 0.1\nH 0 0.76 -0.48\nH 0 -0.76 -0.48\n"
SMALL = ("--model", "small", "--out", "out.csv", "--quiet")
DOORS: dict[str, tuple[str, ...]] = {
    "embed": ("embed", "--molecules", "FILE", *SMALL),
    "skip": ("embed", "--molecules", "FILE", *SMALL, "--on-error", "skip"),
    "predict": ("predict", "--molecules", "FILE", "--model", "RUNS/gap", "--out", "out.csv", "--quiet"),
    "index": ("index", "FILE", "--model", "small", "--out", "out"),
    "simulate": ("simulate", "--input", "FILE", "--out", "out.arrow", "--quiet", "--processes", "1"),
    "spectra": ("embed", "--spectra", "FILE", *SMALL, "--modality", "ir"),
    "search": ("search", "RUNS/index", "--ir", "FILE"),
    "read": ("read", "FILE"),
    "pretrain": ("pretrain", "--config", "FILE", "--out", "out", "--quiet"),
    "finetune": ("finetune", "--config", "FILE", "--out", "out", "--quiet"),
    "import": ("import-reference", "FILE", "--out", "out"),
    **{
        name: ("prepare", name, "--raw", "FILE", "--out", "out.arrow", "--quiet")
        for name in ("qm9", "qm8", "pcqm4mv2", "md17", "rmd17", "qm9s", "qm9s-processed")
    },
    **{
        name: ("prepare", name, "--raw", "FILE", "--out", "out.arrow", "--quiet", "--on-error", "raise")
        for name in ("sdf", "extxyz", "csv", "parquet", "outputs", "npz")
    },
}
"""Commands that read a file."""


def command(door: str, file: str) -> list[str]:
    """Return the command of a door for a file."""
    return [file if word == "FILE" else word.replace("RUNS", str(RUNS)) for word in DOORS[door]]


def add(doors: str, file: str, **contents: Content | str | bytes) -> None:
    """Add cases of one kind of file; the doors, in one text, take turns, so that each sees some."""
    names = doors.split()
    for number, (name, content) in enumerate(contents.items()):
        door = names[number % len(names)]

        def make(door: str = door, content: Content | str | bytes = content) -> list[str]:
            written = content() if callable(content) else content
            Path(file).write_bytes(
                written.encode("utf-8", "surrogateescape") if isinstance(written, str) else written
            )
            return command(door, file)

        key = f"{door}-{Path(file).suffix[1:] or file}-{name}"
        assert key not in CASES, key
        CASES[key] = make


def repeated(part: str, times: int, before: str = "", after: str = "") -> Content:
    """Return a content that is made when it is needed."""
    return lambda: before + part * times + after


def clique(size: int) -> str:
    """Return a SMILES of iron atoms that are all bound to each other; it has countless shortest rings."""
    closures: list[list[str]] = [[] for _ in range(size)]
    number = 0
    for first in range(size):
        for second in range(first + 2, size):
            number += 1
            closures[first].append(f"%({number})")
            closures[second].append(f"%({number})")
    return "".join(f"[Fe]{''.join(each)}" for each in closures)


# molecules ------------------------------------------------------------------------------------------------

add(
    "embed predict index simulate",
    "bad.smi",
    endless_line=repeated("C", 5_000_000),
    long_chain=repeated("C", 30_000, after=" chain\n"),
    long_chain_of_silicon=repeated("[SiH2]", 3_000, after=" chain\n"),
    branches=repeated("C(", 50_000),
    nested=lambda: "C(" * 5_000 + "C" + ")" * 5_000,
    open_brackets=repeated("[", 300_000),
    ring_number="C%(99999999999999999999)C",
    open_rings=lambda: "".join(f"C%({number})" for number in range(20_000)),
    clique=lambda: clique(60),
    charge="[C+99999999999999]",
    isotope="[99999999999C]",
    hydrogens="[CH4294967297]",
    element="[#99999]",
    fragments=repeated("C.", 50_000, after="C"),
    stereo=repeated("/C=C", 50_000),
    nul="C\0C\n",
    utf16="CCO\n".encode("utf-16"),
    latin="C é\n".encode("latin-1"),
    escape="C1\x1b[31m\x07 name\x1b]0;title\x07\n",
    override="C1 \u202ename\u2066\n",
    lines_of_rings=repeated("C1 name\n", 300_000),
    comments_alone=repeated("# C\n", 500_000),
    aromatic=repeated("c1ccccc1", 400),
    bars=repeated("|", 100_000, "C "),
)
add(
    "embed extxyz predict simulate index skip",
    "bad.xyz",
    count="999999999999999999\n\nH 0 0 0\n",
    count_of_memory="100000000\n\nH 0 0 0\n",
    count_negative="-5\n\nH 0 0 0\n",
    count_digits=repeated("9", 100_000, after="\n\nH 0 0 0\n"),
    count_line=repeated("9", 10_000_000),
    count_spaces=repeated(" ", 2_000_000, after="x\n\nH 0 0 0\n"),
    count_separators="\x1c1\x1d\n\nH 0 0 0\n",
    count_superscript="²\n\nH 0 0 0\n",
    keys=lambda: "1\n" + " ".join(f"k{n}={n}" for n in range(30_000)) + " charge=x\nH 0 0 0\n",
    same_keys=repeated("a=1 ", 30_000, "1\n", "\nH 0 0 0\n"),
    quotes=repeated('"', 500_001, "1\n", "\nH 0 0 0\n"),
    backslashes=repeated("\\", 500_001, '1\na="', "\nH 0 0 0\n"),
    equals=repeated("=", 500_000, "1\n", "\nH 0 0 0\n"),
    braces=repeated("{", 300_000, "1\nLattice=", "\nH 0 0 0\n"),
    columns="1\nProperties=species:S:1:pos:R:3000000000\nH 0 0 0\n",
    many_columns=repeated(":a:R:1", 50_000, "1\nProperties=species:S:1:pos:R:3", "\nH 0 0 0\n"),
    infinite="1\n\nH 1e400 0 0\n",
    digits=repeated("1", 2_000_000, "1\n\nH 0 0 ", "\n"),
    symbol=repeated("H", 2_000_000, "1\n\n", " 0 0 0\n"),
    fields=repeated(" 0", 2_000_000, "1\n\nH", "\n"),
    charge="1\ncharge=-1e18\nH 0 0 0\n",
    far="2\n\nH 0 0 0\nH 1e200 0 0\n",
    one_place=repeated("H 0 0 0\n", 1_500, "1500\n\n"),
    atoms=repeated("H 0 0 0\n", 1_000_000, "1000000\n\n"),
    frames=repeated("1\n\nXx 0 0 0\n", 100_000),
    empty_lines=repeated("\n", 1_000_000),
    endless_comment=repeated("x", 20_000_000, "1\n"),
    elements="1\n\n\x1b[2J 0 0 0\n",
    packed=lambda: gzip.compress(WATER.encode()),
    smiles=lambda: f"1\nsmiles={clique(60)}\nFe 0 0 0\n",
)

HEAD = "\n  made up\n\n"


def mol(counts: str, *rest: str) -> str:
    """Return a record of an SDF file."""
    return "\n".join([HEAD + counts, *rest, "M  END", "$$$$", ""])


ATOM = "    0.0000    0.0000    1.0000 He  0  0"
ONE = mol("  1  0  0  0  0  0  0  0  0  0999 V2000", ATOM)
V3 = "  0  0  0     0  0            999 V3000"
add(
    "sdf embed predict simulate index skip",
    "bad.sdf",
    counts=mol("999999  0  0  0  0  0  0  0  0999 V2000", ATOM),
    counts_negative=mol(" -1 -1  0  0  0  0  0  0  0  0999 V2000", ATOM),
    counts_of_v3000=mol(V3, "M  V30 BEGIN CTAB", "M  V30 COUNTS 999999999 9 0 0 0", "M  V30 BEGIN ATOM"),
    counts_too_large=mol(V3, "M  V30 BEGIN CTAB", "M  V30 COUNTS 99999999999999999999 0 0 0 0"),
    continued=lambda: mol(V3, *["M  V30 -"] * 300_000),
    atom_index=mol(
        V3,
        "M  V30 BEGIN CTAB",
        "M  V30 COUNTS 1 0 0 0 0",
        "M  V30 BEGIN ATOM",
        "M  V30 4294967295 H 0 0 0 0",
        "M  V30 END ATOM",
        "M  V30 END CTAB",
    ),
    bond="".join(mol("  1  1  0  0  0  0  0  0  0  0999 V2000", ATOM, "  1999  1  0")),
    isotope=mol("  1  0  0  0  0  0  0  0  0  0999 V2000", ATOM, "M  ISO  1   1 999"),
    charges=lambda: mol("  1  0  0  0  0  0  0  0  0  0999 V2000", ATOM, *["M  CHG  1 999  15"] * 100_000),
    digits=lambda: mol("  1  0  0  0  0  0  0  0  0  0999 V2000", "1" * 1_000_000 + ATOM),
    no_end=repeated("x" * 79 + "\n", 250_000, HEAD),
    endless_line=repeated("x", 20_000_000, HEAD),
    arrows=lambda: ONE.replace("$$$$", ">" * 1_000_000 + "\n1\n\n$$$$").replace(" He", " Xx"),
    field=lambda: ONE.replace("$$$$", "> " + "<" * 1_000_000 + "\n1\n\n$$$$").replace(" He", " Xx"),
    fields=lambda: ONE.replace("$$$$", "".join(f"> <k{n}>\n1\n\n" for n in range(60_000)) + "$$$$"),
    same_fields=ONE.replace("$$$$", "> <k>\n1\n\n> <k>\n2\n\n$$$$"),
    title=lambda: "\x1b[31m" + "x" * 1_000_000 + ONE.replace(" He", " Xx"),
    charge=ONE.replace("$$$$", "> <charge>\n1e308\n\n$$$$"),
    records=repeated("$$$$\n", 100_000),
    nul=ONE.replace("made", "m\0de"),
)
add(
    "csv embed predict simulate index skip",
    "bad.csv",
    nul="smiles\nC\0C\n",
    columns=lambda: ",".join(f"c{n}" for n in range(100_000)) + "\n1\n",
    same_columns=lambda: "smiles" + ",a" * 30_000 + "\nC\n",
    parentheses=lambda: "smiles," + "(" * 200_000 + "\nC,1\n",
    header_spaces=lambda: "smiles,a" + " " * 200_000 + "b\nC1,1\n",
    open_quote=repeated("C\n", 5_000_000, 'smiles\n"'),
    quotes=repeated('"', 1_000_001, "smiles\n"),
    separators=repeated(",", 3_000_000, "smiles\n"),
    endless_header=repeated("x", 20_000_000),
    endless_line=repeated("C", 20_000_000, "smiles\n"),
    cells=repeated(",1", 300_000, "smiles,a\nC", "\n"),
    number=lambda: "smiles,gap [eV]\nC," + "9" * 100_000 + "\n",
    charge="smiles,charge\nC,99999999999999999999\n",
    underscore="smiles,gap [eV]\nC,1_0\n",
    escape="smiles,\x1b[31m\nC1,1\n",
    rows=repeated("C1\n", 300_000, "smiles\n"),
)


# Arrow and Parquet ----------------------------------------------------------------------------------------


@cache
def store_bytes() -> bytes:
    """Return a store of one molecule."""
    from molspectra.chem.readers import from_smiles
    from molspectra.data.store.store import Metadata, Row, write_store

    path = RUNS / "good.arrow"
    write_store(path, [Row(from_smiles("CCO"))], Metadata("made up", "CC0"))
    return path.read_bytes()


def with_bytes(make: Callable[[], bytes], place: int, new: bytes) -> Content:
    """Return a content with some bytes replaced; a negative place counts from the end."""

    def content() -> bytes:
        data = bytearray(make())
        at = place % len(data)
        data[at : at + len(new)] = new
        return bytes(data)

    return content


def scrambled(make: Callable[[], bytes], seed: int) -> Content:
    """Return a content of which one byte in 40 is another."""

    def content() -> bytes:
        data, draw = bytearray(make()), random.Random(seed)
        for _ in range(len(data) // 40 + 1):
            data[draw.randrange(8, len(data) - 8)] = draw.randrange(256)
        return bytes(data)

    return content


def parquet_bytes(**columns: Any) -> bytes:
    """Return a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue()


def nested_parquet() -> bytes:
    """Return a Parquet file with lists of lists of lists."""
    import pyarrow as pa

    kind: Any = pa.int8()
    for _ in range(60):
        kind = pa.list_(kind)
    return parquet_bytes(smiles=["C"], x=pa.array([None], kind))


def numbers_parquet(values: list[Any], **more: Any) -> bytes:
    """Return a Parquet file of structures."""
    return parquet_bytes(numbers=values, positions=[[[0.0, 0.0, 0.0]] for _ in values], **more)


good_parquet = partial(parquet_bytes, smiles=["CCO", "CC"])
add(
    "embed predict index spectra",
    "bad.arrow",
    cut=lambda: store_bytes()[: len(store_bytes()) // 2],
    magic=b"ARROW1\0\0" + b"\xff" * 100 + b"\xff\xff\xff\x7fARROW1",
    footer=with_bytes(store_bytes, -10, b"\xff\xff\xff\x7f"),
    footer_negative=with_bytes(store_bytes, -10, b"\xff\xff\xff\xff"),
    message=with_bytes(store_bytes, 8, b"\xff\xff\xff\xff\xff\xff\xff\x7f"),
    scrambled=scrambled(store_bytes, 1),
    scrambled_again=scrambled(store_bytes, 2),
    scrambled_more=scrambled(store_bytes, 3),
    json=lambda: store_bytes().replace(b'{"', b'[["', 1),
)
add(
    "parquet embed predict index",
    "bad.parquet",
    magic=b"PAR1" + b"\x15" * 1000 + b"\xff\xff\xff\x7fPAR1",
    footer=with_bytes(good_parquet, -8, b"\xff\xff\xff\x7f"),
    thrift=lambda: b"PAR1" + b"\x1c" * 100_000 + struct.pack("<I", 100_000) + b"PAR1",
    lists=lambda: b"PAR1" + b"\x19\xfc\xff\xff\xff\xff\x0f" * 100 + struct.pack("<I", 700) + b"PAR1",
    cut=lambda: good_parquet()[:-20],
    scrambled=scrambled(good_parquet, 4),
    scrambled_again=scrambled(good_parquet, 5),
    bomb=lambda: parquet_bytes(smiles=["C" * 20_000_000]),
    bomb_of_a_list=lambda: numbers_parquet([np.ones(10_000_000, np.int32)]),
    nested=nested_parquet,
    numbers=lambda: numbers_parquet([[2**31 - 1]]),
    atoms=lambda: numbers_parquet([[1] * 100_000]),
)


# archives, arrays, pickles --------------------------------------------------------------------------------


def npy(descr: str, shape: str, data: bytes = b"", *, length: int | None = None) -> bytes:
    """Return a NumPy file whose header says anything."""
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(head) if length is None else length) + head + data


def zipped(**members: bytes) -> bytes:
    """Return a ZIP archive; __ in a name stands for a dot."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)
    return sink.getvalue()


def with_numbers(positions: bytes) -> bytes:
    """Return an NPZ file of one hydrogen atom with any file of positions, for two datasets."""
    numbers = io.BytesIO()
    np.save(numbers, np.array([1]))
    energies = io.BytesIO()
    np.save(energies, np.array([1.0]))
    return zipped(
        R__npy=positions, pos__npy=positions, F__npy=positions, z__npy=numbers.getvalue(),
        n_atoms__npy=numbers.getvalue(), E__npy=energies.getvalue(),
    )  # fmt: skip


class Harm:
    """Pickled, it is a command that leaves a file in the folder above."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch ../harm",))


def harmful_array() -> bytes:
    """Return a NumPy file of objects."""
    sink = io.BytesIO()
    np.save(sink, np.array([Harm()], dtype=object), allow_pickle=True)
    return sink.getvalue()


def zip_bomb() -> bytes:
    """Return an NPZ file with 100 MB of zeros, all of which the header of the array needs."""
    return with_numbers(npy("'<f8'", "(4166666, 1, 3)", bytes(100_000_000)))


def patched_zip(place: int, new: bytes) -> Content:
    """Return an archive whose first directory entry is changed at an offset."""

    def content() -> bytes:
        data = bytearray(with_numbers(npy("'<f8'", "(1, 1, 3)", bytes(24))))
        at = data.index(b"PK\x01\x02") + place
        data[at : at + len(new)] = new
        return bytes(data)

    return content


add(
    "npz md17",
    "bad.npz",
    shape=lambda: with_numbers(npy("'<f8'", "(1000000000000000000, 1, 3)")),
    shape_of_zero=lambda: with_numbers(npy("'<f8'", "(1000000000000000000, 0, 3)")),
    shape_overflow=lambda: with_numbers(npy("'<f8'", f"({2**62}, {2**62}, 3)")),
    shape_negative=lambda: with_numbers(npy("'<f8'", "(-1, 1, 3)")),
    shape_digits=lambda: with_numbers(npy("'<f8'", f"({'9' * 5000}, 1, 3)")),
    shape_nested=lambda: with_numbers(npy("'<f8'", "(" * 5000 + ")" * 5000)),
    dimensions=lambda: with_numbers(npy("'<f8'", f"({'1, ' * 100})", bytes(8))),
    text=lambda: with_numbers(npy("'<U999999999'", "(1, 1, 3)")),
    fields=lambda: with_numbers(npy("[('a', '<f8', (1000000000,))]", "(1,)")),
    header_length=lambda: with_numbers(npy("'<f8'", "(1,)", length=2**32 - 1)),
    header=lambda: with_numbers(npy("'<f8'", "(1,)" + " " * 5_000_000)),
    objects=lambda: with_numbers(harmful_array()),
    cut=lambda: with_numbers(npy("'<f8'", "(1, 1, 3)"))[:-30],
    bomb=zip_bomb,
    bomb_again=zip_bomb,
    encrypted=patched_zip(8, b"\x01"),
    method=patched_zip(10, b"\x63"),
    crc=patched_zip(16, b"\x00\x00\x00\x00"),
    size=patched_zip(24, b"\xff\xff\xff\x7f"),
    offset=patched_zip(42, b"\xff\xff\xff\x7f"),
    outside=lambda: zipped(**{"../../outside__npy": harmful_array()}),
    empty=zipped,
    directory=b"PK\x05\x06" + b"\0\0\0\0\xff\xff\xff\xff" + b"\xff" * 8 + b"\0\0",
    plain=harmful_array,
    kind=lambda: with_numbers(npy("'|V99999999'", "(1, 1, 3)")),
)


def tarred(*members: tuple[str, bytes, bytes], mode: str = "w:gz") -> bytes:
    """Return a tar archive of (name, type, content or target of a link)."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode=mode) as archive:  # type: ignore[call-overload]
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.linkname = content.decode()
                archive.addfile(info)
    return sink.getvalue()


FIRST = "dsgdb9nsd_000001.xyz"


def pax(key: str, value: str) -> bytes:
    """Return an archive with one further header."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo(FIRST)
        info.pax_headers = {key: value}
        archive.addfile(info, io.BytesIO())
    return sink.getvalue()


def size_field(field: bytes) -> bytes:
    """Return an archive whose first file has any size."""
    data = bytearray(tarred((FIRST, tarfile.REGTYPE, b"1\n"), mode="w"))
    data[124:136] = field.ljust(12, b"\0")
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


def add_qm9(**archives: Content | bytes) -> None:
    """Add cases of the archive of QM9, which is read beside the list of uncharacterised molecules."""
    for name, content in archives.items():

        def make(content: Content | bytes = content) -> list[str]:
            folder = Path("raw")
            folder.mkdir()
            (folder / "uncharacterized.txt").write_text("1 a b c\n" * 3054)
            written = content() if callable(content) else content
            assert isinstance(written, bytes)
            (folder / "dsgdb9nsd.xyz.tar.bz2").write_bytes(written)
            return [*command("qm9", "raw"), "--option", "keep-uncharacterised=true"]

        CASES[f"qm9-tar-{name}"] = make


add_qm9(
    outside=lambda: tarred(
        ("../../outside", tarfile.REGTYPE, b"x"), (f"../../{FIRST}", tarfile.REGTYPE, b"x")
    ),
    absolute=lambda: tarred((f"/tmp/{FIRST}", tarfile.REGTYPE, b"1\n")),
    link=lambda: tarred((FIRST, tarfile.SYMTYPE, b"/etc/passwd")),
    hard_link=lambda: tarred((FIRST, tarfile.LNKTYPE, b"/etc/passwd")),
    device=lambda: tarred((FIRST, tarfile.CHRTYPE, b"")),
    fifo=lambda: tarred((FIRST, tarfile.FIFOTYPE, b"")),
    bomb=lambda: tarred((FIRST, tarfile.REGTYPE, bytes(200_000_000))),
    gzip_bomb=lambda: gzip.compress(bytes(100_000_000), 1),
    size=lambda: size_field(b"77777777777"),
    size_binary=lambda: size_field(b"\x80" + b"\xff" * 11),
    size_negative=lambda: size_field(b"\xff" * 12),
    pax_size=lambda: pax("size", "9" * 30),
    pax_text=lambda: pax("size", "x"),
    pax_long=lambda: pax("comment", "x" * 5_000_000),
    sparse=lambda: pax("GNU.sparse.map", "0,1," * 100_000),
    cut=lambda: tarred((FIRST, tarfile.REGTYPE, os.urandom(5000)))[:2000],
    count=lambda: tarred((FIRST, tarfile.REGTYPE, b"999999999999\ngdb 1\n")),
    count_line=lambda: tarred((FIRST, tarfile.REGTYPE, b"9" * 900_000)),
    line=lambda: tarred((FIRST, tarfile.REGTYPE, b"1\ngdb 1" + b"\t1" * 400_000 + b"\nH 0 0 0 0\n1\nC\nI\n")),
    power=lambda: tarred(
        (FIRST, tarfile.REGTYPE, b"1\n" + b"\t1" * 17 + b"\nH 0 0 1*^99999999 0\n1\nC C\nI I\n")
    ),
    nothing=b"BZh9" + b"\0" * 100,
)


def add_folder(door: str, what: str, **files: Content | str | bytes) -> None:
    """Add a case of a folder with files; __ in a name stands for a dot."""

    def make() -> list[str]:
        folder = Path("raw")
        folder.mkdir()
        for name, content in files.items():
            written = content() if callable(content) else content
            path = folder / name.replace("__", ".")
            path.write_bytes(written.encode() if isinstance(written, str) else written)
        return command(door, "raw")

    CASES[f"{door}-folder-{what}"] = make


def endless() -> bytes:
    """Return an archive with a table of one line, which is said to be larger than the memory."""
    sink = io.BytesIO()
    info = tarfile.TarInfo("gdb9.sdf.csv")
    info.size = 1_500_000_000
    with gzip.GzipFile(fileobj=sink, mode="wb", compresslevel=1) as packed:
        packed.write(info.tobuf())
        packed.write(b"1" * 40_000_000)
    return sink.getvalue()


ENDLESS = repeated("1", 20_000_000)
add("qm9", "gdb9.tar.gz", endless_line=endless)
add_folder("qm9", "list_endless", uncharacterized__txt=ENDLESS, gdb9__sdf=ONE, gdb9__sdf__csv="mol_id\n")
add_folder("qm9", "table_endless", uncharacterized__txt="1 a\n" * 3054, gdb9__sdf=ONE, gdb9__sdf__csv=ENDLESS)
add_folder(
    "qm9", "sdf_endless", uncharacterized__txt="1 a\n" * 3054, gdb9__sdf=ENDLESS, gdb9__sdf__csv="mol_id\n"
)
add_folder("qm8", "text_endless", gdb8_22k_elec_spec__txt=ENDLESS, qm8__sdf=ONE, qm8__sdf__csv="gdb9_index\n")
add_folder("qm8", "table_endless", qm8__sdf=ONE, qm8__sdf__csv=ENDLESS)
add_folder("qm8", "sdf_endless", qm8__sdf=ENDLESS, qm8__sdf__csv="gdb9_index,E1-CC2\ngdb_1,1\n")
CASES["pcqm4mv2-sdf-endless"] = lambda: (
    Path("pcqm4m-v2-train.sdf").write_bytes(b"x" * 20_000_000),
    command("pcqm4mv2", "pcqm4m-v2-train.sdf"),
)[1]
add_folder("pcqm4mv2", "sdf_no_end", **{"pcqm4m-v2-train__sdf": repeated("x\n", 5_000_000)})
add_folder("qm9s", "table_endless", ir_boraden__csv=ENDLESS, qm9s__pt=lambda: pickle.dumps(Harm()))
add_folder("qm9s", "pickle", ir_boraden__csv="smiles,0\nC,1\n", qm9s__pt=lambda: pickle.dumps(Harm()))
add(
    "pcqm4mv2",
    "pcqm4m-v2_xyz.zip",
    member=lambda: zipped(**{"../1__xyz": b"999999999\n\nH 0 0 0\n"}),
    nothing=zipped,
)
add("rmd17", "rmd17_x.npz", objects=lambda: with_numbers(harmful_array()))


def torch_file(pickled: bytes, **storages: bytes) -> bytes:
    """Return a file of torch with any instructions."""
    members = {f"archive/data/{name}": content for name, content in storages.items()}
    return zipped(
        **{"archive/data__pkl": pickled, "archive/version": b"3\n", "archive/byteorder": b"little", **members}
    )


def memo_bomb() -> bytes:
    """Return instructions for a list of lists of ... whose text has 2^60 parts."""
    code = b"\x80\x02]q\x00"
    for level in range(60):
        code += b"]q" + bytes([level + 1]) + b"(" + (b"h" + bytes([level])) * 2 + b"e"
    return code + b"."


def tensor_code(elements: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> bytes:
    """Return the instructions of a checkpoint with one tensor."""

    def integer(value: int) -> bytes:
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(integer, values)) + b"t"

    storage = (
        b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu" + integer(elements) + b"tQ"
    )
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + integer(offset)
        + numbers(shape)
        + numbers(strides)
    )
    tensor += b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}X\x0a\0\0\0state_dict}X\x01\0\0\0a" + tensor + b"ss."


add(
    "import qm9s-processed",
    "bad.pt",
    harm=lambda: torch_file(pickle.dumps(Harm(), 2)),
    harm_again=lambda: torch_file(pickle.dumps(Harm(), 4)),
    plain=lambda: pickle.dumps(Harm()),
    plain_again=lambda: pickle.dumps({"state_dict": Harm()}, 2),
    memo=lambda: torch_file(memo_bomb()),
    memo_again=lambda: torch_file(memo_bomb()),
    nested=lambda: torch_file(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."),
    nested_again=lambda: torch_file(b"\x80\x02" + b"(" * 1_000_000 + b"t."),
    storage=lambda: torch_file(tensor_code(2**60, (2**60,), (1,)), **{"0": b"\0" * 4}),
    storage_again=lambda: torch_file(tensor_code(1, (2**40,), (0,)), **{"0": b"\0" * 4}),
    strides=lambda: torch_file(tensor_code(1, (2, 2), (2**61, 2**61)), **{"0": b"\0" * 4}),
    offset=lambda: torch_file(tensor_code(1, (1,), (1,), -(2**40)), **{"0": b"\0" * 4}),
    text=lambda: torch_file(b"\x80\x02X\xff\xff\xff\x7fa."),
    text_again=lambda: torch_file(b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7fa."),
    integer=lambda: torch_file(b"\x80\x02\x8b\xff\xff\xff\x7f1."),
    bomb=lambda: torch_file(b"\x80\x02" + b"N0" * 10_000_000 + b"N."),
    memo_place=lambda: torch_file(b"\x80\x02Nr\xff\xff\xff\xff."),
    cut=lambda: torch_file(b"\x80\x02}.")[:-10],
)
CASES["import-gz-bomb"] = lambda: (
    Path("bad.ckpt.gz").write_bytes(gzip.compress(bytes(100_000_000), 1)),
    command("import", "bad.ckpt.gz"),
)[1]


# models ---------------------------------------------------------------------------------------------------


def shipped(name: str = "small") -> Path:
    """Return a shipped model."""
    import molspectra

    return Path(molspectra.__file__).parent / "training" / "weights" / name


def add_model(what: str, **files: Content | str | bytes) -> None:
    """Add a case of a model with some files replaced."""

    def make() -> list[str]:
        shutil.copytree(shipped(), "model")
        for name, content in files.items():
            written = content() if callable(content) else content
            path = Path("model", name.replace("__", "."))
            path.write_bytes(written.encode() if isinstance(written, str) else written)
        Path("good.smi").write_text("C\n")
        return ["embed", "--molecules", "good.smi", "--model", "model", "--out", "out.csv", "--quiet"]

    CASES[f"model-{what}"] = make


def changed_config(path: str, value: Any) -> Content:
    """Return the model's config.json with one value replaced."""

    def content() -> str:
        values = json.loads((shipped() / "config.json").read_text())
        *groups, last = path.split("/")
        inner = values
        for group in groups:
            inner = inner[group]
        inner[last] = value
        return json.dumps(values)

    return content


def safetensors(header: str, data: bytes = b"", length: int | None = None) -> bytes:
    """Return a file of weights whose header says anything."""
    return struct.pack("<Q", len(header) if length is None else length) + header.encode() + data


ABSURD = {
    "channels": ("model/encoder/channels", 10**9),
    "channels_digits": ("model/encoder/channels", 10**4000),
    "channels_zero": ("model/encoder/channels", 0),
    "layers": ("model/encoder/layers", 10**9),
    "layers_text": ("model/encoder/layers", "4"),
    "heads": ("model/encoder/heads", -(2**70)),
    "radial": ("model/encoder/radial", 2**62),
    "cutoff": ("model/encoder/cutoff", 1e300),
    "cutoff_nan": ("model/encoder/cutoff", float("nan")),
    "max_number": ("model/encoder/max_number", 10**12),
    "kind": ("model/encoder/kind", ["et"]),
    "encoder": ("model/encoder", []),
    "stride": ("model/spectrum_encoder/stride", [0, 0, 0]),
    "stride_small": ("model/spectrum_encoder/patch", [10**15, 1, 1]),
    "modalities": ("model/spectrum_encoder/modalities", ["ir"] * 100_000),
    "feed_forward": ("model/spectrum_encoder/feed_forward", 10**15),
    "elements": ("elements", {"H": 1}),
    "elements_number": ("elements", 5),
    "elements_wrong": ("elements", ["\x1b[31m"]),
    "similarity": ("alignment/similarity", [[]]),
    "format": ("format", 10**400),
    "initialised": ("model/spectrum_encoder", 7),
    "step": ("model", None),
}
for key, (setting, absurd) in ABSURD.items():
    add_model(f"config-{key}", config__json=changed_config(setting, absurd))
add_model("config-nested", config__json=repeated("[", 500_000))
add_model("config-nested-keys", config__json=repeated('{"a":', 100_000))
add_model("config-digits", config__json=repeated("9", 5_000_000, '{"format": ', "}"))
add_model("config-endless", config__json=repeated("1,", 8_000_000, "["))
add_model("config-keys", config__json=lambda: json.dumps({f"k{n}": n for n in range(60_000)}))
add_model("config-binary", config__json=b"\xff\xfe\x00")
add_model("weights-length", model__safetensors=safetensors("{}", length=2**63 - 1))
add_model("weights-length-large", model__safetensors=safetensors("{}", length=99_999_999))
add_model("weights-nested", model__safetensors=safetensors('{"a":' * 50_000))
add_model(
    "weights-offsets",
    model__safetensors=safetensors('{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,99999]}}'),
)
add_model("weights-shape", model__safetensors=safetensors(
    f'{{"a":{{"dtype":"F32","shape":[{2**62},{2**62}],"data_offsets":[0,16]}}}}', bytes(16)))  # fmt: skip
add_model(
    "weights-dtype",
    model__safetensors=safetensors('{"a":{"dtype":"X","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
)
add_model("weights-empty", model__safetensors=safetensors("{}"))
add_model("weights-pickle", model__safetensors=lambda: pickle.dumps(Harm()))
add_model("weights-cut", model__safetensors=lambda: (shipped() / "model.safetensors").read_bytes()[:-1])
add_model("weights-none", model__safetensors=b"")
EMPTY = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
add_model(
    "weights-names",
    model__safetensors=lambda: safetensors("{" + ",".join(f'"{n}":{EMPTY}' for n in range(50_000)) + "}"),
)
CASES["model-zip-bomb"] = lambda: (
    Path("model.zip").write_bytes(zipped(config__json=b"{}", model__safetensors=bytes(200_000_000))),
    ["unpack", "model.zip"],
)[1]
CASES["model-zip-outside"] = lambda: (
    Path("model.zip").write_bytes(zipped(**{"../../config__json": b"{}", "../model__safetensors": b""})),
    ["load-unpacked", "model.zip"],
)[1]
CASES["model-zip-twice"] = lambda: (
    Path("model.zip").write_bytes(
        zipped(**{"a/config__json": b"{}", "b/config__json": b"", "model__safetensors": b""})
    ),
    ["unpack", "model.zip"],
)[1]


# spectra --------------------------------------------------------------------------------------------------


def jcamp(*lines: str, **entries: str) -> str:
    """Return a JCAMP-DX file with entries replaced or added."""
    values = {
        "TITLE": "made up", "JCAMPDX": "4.24", "DATA TYPE": "INFRARED SPECTRUM", "XUNITS": "1/CM",
        "YUNITS": "ABSORBANCE", "XFACTOR": "1", "YFACTOR": "1",
        "FIRSTX": "500", "LASTX": "504", "NPOINTS": "5",
    }  # fmt: skip
    values |= entries
    head = [f"##{name}={value}" for name, value in values.items()]
    return "\n".join([*head, *(lines or ("##XYDATA=(X++(Y..Y))", "500 1 2 3 4 5")), "##END=", ""])


TABLE = "##XYDATA=(X++(Y..Y))"
add(
    "read search spectra",
    "bad.jdx",
    points=jcamp(NPOINTS="999999999"),
    points_of_memory=jcamp(NPOINTS="3999999"),
    points_digits=lambda: jcamp(NPOINTS="9" * 100_000),
    points_negative=jcamp(NPOINTS="-5"),
    points_power=jcamp(NPOINTS="1e300"),
    repeats=jcamp(TABLE, "500A0S999999999"),
    repeats_many=lambda: jcamp(TABLE, *["500A0" + "S9999999" * 1000] * 100, NPOINTS="3999999"),
    differences=lambda: jcamp(TABLE, "500A0" + "J" * 3_000_000),
    digits=lambda: jcamp(TABLE, "500 " + "9" * 2_000_000),
    digits_of_x=lambda: jcamp(TABLE, "9" * 2_000_000),
    packed_digits=lambda: jcamp(TABLE, "500A" + "0" * 2_000_000),
    spaces=lambda: jcamp(TABLE, "500" + " " * 3_000_000 + "x"),
    commas=lambda: jcamp("##XYPOINTS=(XY..XY)", "1," * 1_000_000),
    pairs=lambda: jcamp("##XYPOINTS=(XY..XY)", "1,1;" * 500_000),
    signs=lambda: jcamp(TABLE, "500" + "+-" * 1_000_000),
    question=lambda: jcamp(TABLE, "500" + "?" * 1_000_000),
    factor=jcamp(XFACTOR="1e400"),
    factor_zero=jcamp(XFACTOR="0", YFACTOR="0"),
    first_nan=jcamp(FIRSTX="nan"),
    first_digits=lambda: jcamp(FIRSTX="9" * 1_000_000),
    blocks=repeated("##TITLE=x\n", 50_000),
    ends=repeated("##END=\n", 300_000, "##TITLE=x\n"),
    labels=lambda: "##TITLE=x\n" + "".join(f"##L{n}=1\n" for n in range(60_000)),
    label=repeated("_ -/", 1_000_000, "##TITLE=x\n##", "=\n"),
    comments=repeated("$$ x\n", 400_000, "##TITLE=x\n"),
    unit=lambda: jcamp(XUNITS="1/CM" * 300_000),
    unit_spaces=lambda: jcamp(YUNITS="(" * 300_000),
    endless_line=repeated("x", 60_000_000),
    too_long=repeated("x", 70_000_000),
    title="##TITLE=\x1b[31m\x07\n##END=\n",
    binary=bytes(range(256)) * 100,
    link=lambda: "##TITLE=a\n##DATATYPE=LINK\n" + "##TITLE=b\n##DATATYPE=LINK\n" * 20_000,
)
RAMP = "\n".join(f"{x} 1" for x in range(400, 4000, 100))
add(
    "read spectra search",
    "bad.txt",
    digits=lambda: "cm-1 absorbance\n1 " + "9" * 5_000_000 + "\n2 1\n",
    digits_alone=repeated("9", 20_000_000),
    digits_points=repeated("1.", 3_000_000, "cm-1 absorbance\n1 "),
    commas=repeated("1,", 3_000_000, "cm-1 absorbance\n"),
    thousands=repeated("1,000", 1_000_000, "cm-1 absorbance\n1 "),
    thousands_end=repeated(",000", 1_000_000, "cm-1;absorbance\n1", "x;1\n2;1\n"),
    spaces=repeated(" ", 20_000_000, "cm-1 absorbance\n1", "x\n"),
    tabs=repeated("\t", 5_000_000, "cm-1\tabsorbance\n1", "x\n"),
    quotes=repeated('"', 5_000_000, "cm-1;absorbance\n1;"),
    fields=repeated(" 1", 3_000_000, "cm-1 absorbance\n1"),
    headers=repeated("cm-1 absorbance\n", 300_000),
    header=repeated("cm-1 absorbance ", 300_000, "", f"\n{RAMP}\n"),
    header_brackets=repeated("(", 500_000, "cm-1 absorbance ", f"\n{RAMP}x\n"),
    header_words=lambda: "wavenumber " * 100_000 + f"\n{RAMP}\n5 x",
    runs=repeated("1 1\ntext\n", 200_000),
    falling=lambda: "cm-1 absorbance\n" + "1 1\n2 2\n" * 300_000,
    infinite=f"cm-1 absorbance\n{RAMP}\n5000 1e400\n",
    far="cm-1 absorbance\n1 1\n1e308 1\n",
    exponent="cm-1 absorbance\n1 1e99999999999\n2 1\n",
    comments=repeated("# x\n", 400_000),
    nul="cm-1 absorbance\n1 1\0\n",
    utf16=b"\xff\xfe" + b"\x00\xd8" * 1000,
    dos_end=repeated("\x1a", 5_000_000),
    escape="cm-1 absorbance\n1 1\n\x1b[31m\x07\n2 2\n",
    columns=lambda: "cm-1;absorbance" + ";a" * 1_000_000 + "\n1;1\n2;2\n",
    separators="\u2028".join(["1 1"] * 1000),
)
GAUSSIAN = " Entering Gaussian System, Link 0=g16\n"
ORCA = "                                 * O   R   C   A *\n Program Version 5.0.3\n"
ORDINARY = " Standard orientation:\n ----\n"
add(
    "outputs read search",
    "bad.log",
    jobs=repeated(GAUSSIAN, 100_000),
    jobs_routes=repeated(GAUSSIAN + " ------\n #p opt freq\n ------\n", 30_000),
    jobs_ends=repeated(GAUSSIAN + " Normal termination of Gaussian 16\n", 50_000),
    route=lambda: (
        GAUSSIAN + " -----\n #" + "p" * 1_000_000 + "\n -----\n Normal termination of Gaussian 16\n"
    ),
    route_open=lambda: GAUSSIAN + " -----\n #p b3lyp" + "(" * 300_000 + "\n -----\n Normal termination\n",
    route_lines=lambda: (
        GAUSSIAN + " -----\n #p b3lyp\n" + " x\n" * 50_000 + " Normal termination of Gaussian 16\n"
    ),
    orientations=lambda: GAUSSIAN + ORDINARY * 100_000 + " Normal termination of Gaussian 16\n",
    digits=lambda: GAUSSIAN + " NAtoms= " + "9" * 100_000 + "\n Normal termination of Gaussian 16\n",
    atoms=GAUSSIAN
    + " NAtoms= 999999999\n Charge = 999999999999 Multiplicity = 1\n Normal termination of Gaussian 16\n",
    spaces=lambda: GAUSSIAN + " " * 5_000_000 + "x\n Normal termination of Gaussian 16\n",
    frequencies=lambda: (
        GAUSSIAN + " Frequencies -- 1 2 3\n" * 200_000 + " Normal termination of Gaussian 16\n"
    ),
    archive=lambda: GAUSSIAN + " 1\\1\\" + "\\" * 1_000_000 + "@\n Normal termination of Gaussian 16\n",
    orca=repeated(ORCA, 50_000),
    orca_end=lambda: (
        ORCA + "CARTESIAN COORDINATES (ANGSTROEM)\n---\n" * 100_000 + "****ORCA TERMINATED NORMALLY****\n"
    ),
    orca_line=lambda: ORCA + "x" * 20_000_000 + "\n****ORCA TERMINATED NORMALLY****\n",
    orca_spaces=lambda: ORCA + "|  1> !" + " " * 1_000_000 + "x\n****ORCA TERMINATED NORMALLY****\n",
    orca_input=lambda: ORCA + "|  1> ! B3LYP\n" * 50_000 + "****ORCA TERMINATED NORMALLY****\n",
    orca_spectrum=lambda: ORCA + "IR SPECTRUM\n-----\n" * 100_000 + "****ORCA TERMINATED NORMALLY****\n",
    other=lambda: " Q-Chem\n" + " Standard Nuclear Orientation (Angstroms)\n" * 50_000,
    nothing=repeated("x\n", 5_000_000),
    end=lambda: "Gaussian, Inc.\n" + "-" * 3_000_000,
)


# settings, runs, indexes, journals ------------------------------------------------------------------------

add(
    "pretrain finetune",
    "bad.yaml",
    aliases="a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    merge="a: &a {loop: {steps: 1}}\n<<: *a\n",
    itself="&a [*a]\n",
    settings=lambda: "".join(f"k{n}: {n}\n" for n in range(300_000)),
    settings_in_a_line=lambda: "{" + ", ".join(f"k{n}: {n}" for n in range(30_000)) + "}",
    settings_allowed=lambda: "{" + ", ".join(f"k{n}: {n}" for n in range(9_000)) + "}",
    nested=repeated("[", 20_000),
    nested_keys=repeated("{a: ", 10_000),
    nested_dashes=repeated("- ", 60_000),
    question=repeated("? ", 60_000),
    python="!!python/object/apply:os.system ['touch ../harm']\n",
    python_name="loop: !!python/name:os.system\n",
    digits=repeated("9", 120_000, "loop: {steps: ", "}\n"),
    hexadecimal=repeated("f", 100_000, "loop: {steps: 0x", "}\n"),
    sexagesimal=repeated(":59", 30_000, "loop: {steps: 1", "}\n"),
    float_digits=repeated("9", 100_000, "optimizer: {learning_rate: 1.", "x}\n"),
    underscores=repeated("_", 120_000, "loop: {steps: 1", "x}\n"),
    date="loop: {steps: 9999-99-99}\n",
    binary="loop: {steps: !!binary x}\n",
    same="loop: {}\nloop: {}\n",
    key="? [1, 2]\n: 3\n",
    key_long=lambda: "loop: {" + "x" * 100_000 + ": 1}\n",
    value_long=lambda: "data: {store: " + "x" * 100_000 + "}\n",
    nul="loop: {steps: \0}\n",
    value_nul='data: {store: "a\\0b.arrow"}\n',
    escape='data: {store: "\\e[31m.arrow"}\n',
    tabs=repeated("\t", 100_000),
    documents=repeated("---\n", 30_000),
    comments=repeated("#\n", 60_000),
    anchor=lambda: "&" + "a" * 100_000 + " 1\n",
    tag=lambda: "!" + "a" * 100_000 + " 1\n",
    utf16="loop: {}\n".encode("utf-16"),
    latin=b"loop: {\xe9: 1}\n",
    scalar="1\n",
    list="[1]\n",
)
SETTINGS = {
    "batch_size": "loop: {batch_size: 1000000000000000000}",
    "batch_size_zero": "loop: {batch_size: 0}",
    "batch_size_power": "loop: {batch_size: 1e300}",
    "steps": "loop: {steps: 9000000000000000000}",
    "steps_negative": "loop: {steps: -1}",
    "steps_too_large": "loop: {steps: 99999999999999999999999}",
    "seed_large": "loop: {seed: 9223372036854775808}",
    "accumulate": "loop: {accumulate: 1000000000000000}",
    "workers": "loop: {workers: 1000000000}",
    "save_every": "loop: {save_every: -1}",
    "log_every": "loop: {log_every: 0}",
    "rate": "optimizer: {learning_rate: 1e400}",
    "rate_nan": "optimizer: {learning_rate: .nan}",
    "rate_negative": "optimizer: {learning_rate: -1}",
    "fractions": "data: {fractions: [1e308, 1e308, 1e308]}",
    "fractions_many": f"data: {{fractions: [{','.join(['0'] * 2_000)}]}}",
    "channels": "model: {encoder: {channels: 100000000}}",
    "channels_root": "model: {encoder: {channels: 1000000000000000}}",
    "layers": "model: {encoder: {layers: 1000000000, channels: 4096}}",
    "heads": "model: {encoder: {heads: 0}}",
    "radial": "model: {encoder: {radial: 1000000000000}}",
    "cutoff": "model: {encoder: {cutoff: 1e300}}",
    "max_number": "model: {encoder: {max_number: 1000000000000}}",
    "width": "model: {spectrum_encoder: {width: 1000000000}}",
    "patch": "model: {spectrum_encoder: {patch: [1000000000, 1, 1]}}",
    "stride": "model: {spectrum_encoder: {stride: [0, 0, 0]}}",
    "modalities": "model: {spectrum_encoder: {modalities: [ir, ir]}}",
    "kind": "model: {encoder: {kind: [et]}}",
    "group": "model: 1",
    "text": "loop: {steps: '3'}",
    "truth": "loop: {steps: true}",
    "store": "data: {store: /dev/zero}",
    "init": "init: /dev/zero",
    "deviation": "denoising: {deviation: 1e300}",
}
"""Settings beyond all sense, each added to ones that train for two steps."""


def settings_make(text: str) -> list[str]:
    """Write settings for a short run with some of them changed."""
    import yaml

    store = json.loads((RUNS / "stage2" / "config.json").read_text())["data"]["store"]
    values: dict[str, Any] = {
        "data": {"store": store, "fractions": [0.6, 0.2, 0.2]},
        "loop": {"steps": 2, "batch_size": 4, "validate_every": 0, "save_every": 0},
        "model": {"encoder": {"channels": 16, "layers": 1, "heads": 2, "radial": 8}},
    }
    for group, inner in yaml.safe_load(text).items():
        _merge(values, group, inner)
    Path("bad.yaml").write_text(yaml.safe_dump(values))
    return command("pretrain", "bad.yaml")


def _merge(values: dict[str, Any], key: str, new: Any) -> None:
    if isinstance(new, dict) and isinstance(values.get(key), dict):
        for inner, value in new.items():
            _merge(values[key], inner, value)
    else:
        values[key] = new


for key, text in SETTINGS.items():
    CASES[f"settings-{key}"] = partial(settings_make, text)


def copied_make(source: str, file: str, content: Content | str | bytes, words: tuple[str, ...]) -> list[str]:
    """Copy a run or index and replace one of its files."""
    shutil.copytree(RUNS / source, "copy")
    written = content() if callable(content) else content
    (path,) = Path("copy").glob(file)
    path.write_bytes(written.encode() if isinstance(written, str) else written)
    return [word.replace("RUNS", str(RUNS)) for word in words]


ANY: dict[str, Content | str | bytes] = {
    "nested": repeated("[", 200_000),
    "digits": repeated("9", 1_000_000, '{"format": ', "}"),
    "keys": lambda: json.dumps({f"k{n}": n for n in range(60_000)}),
    "nul": b"\0" * 1000,
    "endless": repeated("1", 20_000_000),
    "number": "1e999",
}
"""Contents that no file of a run should have."""

REPORT = ("report", "copy", "--out", "page.html")
RESUME = ("pretrain", "--out", "copy", "--resume", "--quiet")
EVALUATE = ("evaluate", "copy", "--quiet")
SEARCH = ("search", "copy", "--ir", "RUNS/good.txt")
for what, content in ANY.items():
    for door, source, file, words in (
        ("report", "stage1", "config.json", REPORT),
        ("report", "stage1", "record.json", REPORT),
        ("report", "stage1", "metrics.csv", REPORT),
        ("search", "index", "library.json", SEARCH),
    ):
        CASES[f"{door}-{file}-{what}"] = partial(copied_make, source, file, content, words)


def changed_library(path: str, value: Any) -> Make:
    """Return a case of an index with one value of its manifest replaced."""

    def make() -> list[str]:
        words = copied_make("index", "library.json", (RUNS / "index" / "library.json").read_bytes(), SEARCH)
        values = json.loads(Path("copy/library.json").read_text())
        *groups, last = path.split("/")
        inner: Any = values
        for group in groups:
            inner = inner[int(group)] if isinstance(inner, list) else inner[group]
        inner[last] = value
        Path("copy/library.json").write_text(json.dumps(values))
        return words

    return make


for what, (path, value) in {
    "width": ("model/width", 10**15),
    "width_text": ("model/width", "64"),
    "modalities": ("model/modalities", [[]]),
    "rows": ("segments/0/rows", 10**18),
    "name": ("segments/0/name", "../../../etc"),
    "files": ("segments/0/files", {"/etc/passwd": "0"}),
    "segments": ("segments", [{}] * 100_000),
    "typical": ("typical", {"ir": [1e400]}),
    "typical_wrong": ("typical", {"ir": 5}),
    "calibration": ("calibration", {"queries": 1}),
    "vectors": ("vectors", "float9"),
    "approximate": ("approximate", {"file": "/etc/passwd", "hash": "", "rows": 1}),
}.items():
    CASES[f"search-library-{what}"] = changed_library(path, value)


def journal_make(content: Content | str | bytes) -> list[str]:
    """Write a journal that a simulation would continue."""
    written = content() if callable(content) else content
    Path("out.arrow.journal.jsonl").write_bytes(written.encode() if isinstance(written, str) else written)
    Path("good.smi").write_text("C\n")
    return command("simulate", "good.smi")


for what, content in {
    "nested": repeated("[", 200_000, "", "\n{}\n"),
    "nested_keys": repeated('{"a":', 200_000, "", "\n{}\n"),
    "digits": repeated("9", 1_000_000, '{"key": ', "}\n{}\n"),
    "nul": b"\0" * 1000 + b"\n{}\n",
    "latin": b"\xe9\n{}\n",
    "list": "[]\n[]\n",
    "wrong": '{"key": "a", "identity": 5, "smiles": [], "name": {}, "seconds": "x"}\n{}\n',
    "folder": '{"key": 1e999}\n{}\n',
}.items():
    CASES[f"simulate-journal-{what}"] = partial(journal_make, content)


# the process that runs them -------------------------------------------------------------------------------


def run(words: list[str]) -> int:
    """Run a command as the command line does; a few first words are functions instead."""
    from molspectra.apps import cli
    from molspectra.apps.loading import load
    from molspectra.apps.remote_models import unpack
    from molspectra.errors import MolspectraError
    from molspectra.printable import say
    from molspectra.spectra.files.read import read_spectra

    functions: dict[str, Callable[[str], object]] = {
        "read": lambda path: read_spectra(path, "ir", outside="zero"),
        "unpack": lambda path: unpack(Path(path), Path("model")),
        "load-unpacked": lambda path: (unpack(Path(path), Path("model")), load("model")),
    }
    if words[0] not in functions:
        return cli.main(words)
    try:
        functions[words[0]](words[1])
    except MolspectraError as error:
        say(f"molspectra: error: {' '.join(str(error).splitlines())}", error=True)
        return 2
    return 0


def warm(root: Path) -> None:
    """Import what the commands import, by good input, and make the index that is searched."""
    folder = root / "good"
    folder.mkdir()
    os.chdir(folder)
    RUNS.joinpath("good.txt").write_text(
        "cm-1 absorbance\n" + "\n".join(f"{x} {x % 300}" for x in range(400, 4100, 2))
    )
    Path("good.smi").write_text("C\nCC\nCCO\n")
    Path("good.csv").write_text("smiles,gap [eV]\nC,1\n")
    Path("good.xyz").write_text(WATER)
    for words in (
        ["index", "good.smi", "--model", "small", "--out", str(RUNS / "index")],
        ["embed", "--molecules", "good.smi", *SMALL],
        ["predict", "--molecules", "good.xyz", "--model", str(RUNS / "gap"), "--out", "p.csv", "--quiet"],
        ["search", str(RUNS / "index"), "--ir", str(RUNS / "good.txt")],
        ["read", str(RUNS / "good.txt")],
        ["prepare", "csv", "--raw", "good.csv", "--out", "csv.arrow", "--quiet"],
        settings_make("loop: {steps: 1}"),
    ):
        assert run(words) == 0, words
    for words in (["report", "."], ["read", "good.log"], ["simulate", "--smiles", "x", "--out", "s.arrow"]):
        assert run(words) == 2, words
    for module in ("cclib.io.ccio", "pyarrow.parquet", "torch._weights_only_unpickler"):
        import_module(module)


def limited(words: list[str], output: Path) -> None:
    """Run a command in this process, which is a child, within the limits; never returns."""
    code = 99
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, 1)
        os.dup2(file, 2)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        signal.alarm(6 * SECONDS)
        for name in ALLOCATOR:
            os.environ.pop(name, None)
        code = run(words)
    except BaseException:  # what Python would print, without the rest of the parent
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main(root: Path, chosen: list[str]) -> None:
    """Run the cases and print what became of each."""
    (root / "cases").mkdir()
    with redirect_stdout(sys.stderr):
        warm(root)
        store_bytes()
    gc.freeze()  # a collection in a child would copy what it has from here
    known = {path.name for path in root.iterdir()}
    for name in chosen or CASES:
        folder = root / "cases" / "case"
        folder.mkdir()
        os.chdir(folder)
        words = CASES[name]()
        sys.stdout.flush()
        child = os.fork()
        if not child:
            limited(words, root / "output")
        started = time.monotonic()
        _, status, used = os.wait4(child, 0)
        said = (root / "output").read_text(errors="backslashreplace")
        outside = [path.name for path in (root / "cases").iterdir() if path != folder]
        outside += [path.name for path in root.iterdir() if path.name not in {*known, "output"}]
        result = {
            "name": name,
            "code": os.waitstatus_to_exitcode(status),
            "said": said[-4000:],
            "length": len(said),
            "outside": outside,
            "left": sorted(path.name for path in folder.iterdir()),
            "seconds": round(used.ru_utime + used.ru_stime, 2),
            "wall": round(time.monotonic() - started, 2),
        }
        print(json.dumps(result), flush=True)
        os.chdir(root)
        shutil.rmtree(folder)
        (root / "output").unlink()


if __name__ == "__main__":
    RUNS = Path(shutil.copytree(sys.argv[2], Path(sys.argv[1], "runs")))
    # the command line lets a process keep its memory; this one would hand on all that it ever had
    os.environ[ALLOCATOR[0]] = ""
    os.environ["MOLSPECTRA_KERNELS"] = "plain"  # a smaller process to fork
    os.environ["HOME"] = os.environ["TMPDIR"] = sys.argv[1]
    main(Path(sys.argv[1]), sys.argv[3:])
