"""The reader of pickled files: what it reads, what it refuses, and that nothing is ever run."""

import collections
import gzip
import io
import os
import pickle
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qm9s_files import graph_classes, graphs

from molspectra.datasets.formats.inert import Record, Reference, StoredTensor
from molspectra.datasets.formats.pickled import load_pickled, stream_pickled
from molspectra.errors import InputError


def archive(path: Path, pickled: bytes, storages: dict[str, bytes] | None = None, **options: Any) -> Path:
    """A file as torch writes it, around any pickle."""
    with zipfile.ZipFile(path, "w", options.pop("compression", zipfile.ZIP_STORED)) as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/byteorder", options.pop("byteorder", "little"))
        for key, content in (storages or {}).items():
            file.writestr(f"archive/data/{key}", content)
        file.writestr("archive/version", "3\n")
    return path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    size = (value.bit_length() + 8) // 8
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def tensor(
    count: int = 4,
    offset: int = 0,
    shape: tuple[int, ...] = (4,),
    stride: tuple[int, ...] = (1,),
    key: str = "0",
    storage: str = "FloatStorage",
) -> bytes:
    """Pickle of one tensor."""
    sizes, steps = (b"(" + b"".join(map(integer, each)) + b"t" for each in (shape, stride))
    place = b"(" + text("storage") + b"ctorch\n" + storage.encode() + b"\n" + text(key) + text("cpu")
    place += integer(count) + b"tQ"
    made = b"ctorch._utils\n_rebuild_tensor_v2\n(" + place + integer(offset) + sizes + steps
    return b"\x80\x02" + made + b"\x89ccollections\nOrderedDict\n)RtR."


DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_type(tmp_path: Path, dtype: torch.dtype) -> None:
    whole = (torch.arange(60).reshape(3, 4, 5) % 7).to(dtype)
    given = [
        whole,
        whole[1:, ::2, 3:],
        whole.permute(2, 0, 1),
        whole[0, 0, 0],
        whole[:0],
        torch.tensor([], dtype=dtype),
    ]
    torch.save(given, tmp_path / "f.pt")
    for found, expected in zip(load_pickled(tmp_path / "f.pt"), given, strict=True):
        assert torch.equal(found.tensor(), expected)
        assert found.tensor().dtype == dtype
        assert found.tensor().is_contiguous()
        if dtype == torch.bfloat16:
            with pytest.raises(InputError, match="bfloat16"):
                found.array()
        else:
            np.testing.assert_array_equal(found.array(), expected.numpy())
            assert not found.array().flags.writeable


PLAIN = {
    "text": "Å\U0001f600",
    "numbers": [0, 255, 256, 65536, -1, 2**40, -(2**70), 1.5, float("inf"), True, False, None],
    "nested": {"tuple": (1, (2, (3, 4, 5, 6))), "ordered": collections.OrderedDict(a=1, b=2)},
    "set": {1, 2, 3},
    "frozen": frozenset("ab"),
    "bytes": b"\x00\xff",
    "size": torch.Size([2, 3]),
    3: {4.5: "x"},
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values(tmp_path: Path, protocol: int) -> None:
    values = {key: value for key, value in PLAIN.items() if key != "bytes" or protocol > 2}
    torch.save(values, tmp_path / "f.pt", pickle_protocol=protocol)
    assert load_pickled(tmp_path / "f.pt") == values


def test_weights_of_a_module(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    torch.save({"state": module.state_dict(), "parameter": module[0].weight}, tmp_path / "f.pt")
    found = load_pickled(tmp_path / "f.pt")
    assert list(found["state"]) == list(module.state_dict())
    for name, value in module.state_dict().items():
        assert torch.equal(found["state"][name].tensor(), value)
    assert torch.equal(found["parameter"].tensor(), module[0].weight)
    (tmp_path / "f.pt.gz").write_bytes(gzip.compress((tmp_path / "f.pt").read_bytes()))
    assert list(load_pickled(tmp_path / "f.pt.gz")["state"]) == list(module.state_dict())


def test_objects_become_records_only_where_allowed(tmp_path: Path) -> None:
    with graph_classes() as classes:
        graph = graphs([{"number": 7, "z": torch.ones(3)}], *classes)[0]
        torch.save({"graph": graph, "class": type(graph)}, tmp_path / "f.pt")
    with pytest.raises(InputError, match=r"refers to 'torch_geometric.data.data.Data'"):
        load_pickled(tmp_path / "f.pt")
    with pytest.raises(InputError, match="refers to"):
        load_pickled(tmp_path / "f.pt", ("torch_geometric.data.storage",))
    before = set(sys.modules)
    found = load_pickled(tmp_path / "f.pt", ("torch_geometric.",))
    assert set(sys.modules) == before
    assert found["class"] == Reference("torch_geometric.data.data.Data")
    assert isinstance(found["graph"], Record)
    assert found["graph"].name == "torch_geometric.data.data.Data"
    store = found["graph"].state["_store"].state
    assert store["_parent"] is found["graph"]
    assert store["_mapping"]["number"] == 7
    assert repr(found["graph"]) == "<inert record of torch_geometric.data.data.Data>"


class Attack:
    """An object whose pickle calls something."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


class Dictionary(dict[str, int]):
    """A subclass of dict, pickled with its items."""


ATTACKS = [
    (os.system, "touch {0}"),
    (eval, "open({0!r}, 'w')"),
    (exec, "open({0!r}, 'w')"),
    (getattr, "x", "y"),
    (__import__, "os"),
    (open, "{0}", "w"),
    (os.mkdir, "{0}"),
    (pickle.loads, b"cos\nsystem\n(S'touch {0}'\ntR."),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack[0].__name__)
@pytest.mark.parametrize("inert", [(), ("",), ("torch_geometric.",)], ids=["none", "all", "some"])
def test_attacks_are_refused_and_do_nothing(
    tmp_path: Path, attack: tuple[Any, ...], inert: tuple[str, ...]
) -> None:
    function, *arguments = attack
    target = tmp_path / "made"
    filled = [each.format(str(target)) if isinstance(each, str) else each for each in arguments]
    torch.save([1, {"a": Attack(function, *filled)}], tmp_path / "f.pt")
    with pytest.raises(InputError, match=r"refers to '.*nothing of it was run") as caught:
        load_pickled(tmp_path / "f.pt", inert)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError):
        list(stream_pickled(tmp_path / "f.pt", inert))
    assert not target.exists()


def test_calls_become_records(tmp_path: Path) -> None:
    given = [Attack(np.float64, 2.0), np.arange(3), Dictionary(a=1), Path("a/b"), int, np.float32(1.0)]
    torch.save(given, tmp_path / "f.pt")
    with pytest.raises(InputError, match="refers to"):
        load_pickled(tmp_path / "f.pt")
    found = load_pickled(tmp_path / "f.pt", ("",))
    assert [type(each) for each in found] == [Record, Record, Record, Record, Reference, Record]
    assert found[2].entries == {"a": 1}
    assert found[0].arguments == (2.0,)


BAD_TENSORS = {
    "offset": tensor(offset=1),
    "negative offset": tensor(offset=-1),
    "size": tensor(shape=(5,)),
    "huge": tensor(shape=(2**62,)),
    "huge product": tensor(shape=(2**40, 2**40), stride=(0, 0)),
    "repeated": tensor(shape=(1000, 1000), stride=(0, 0)),
    "stride": tensor(shape=(2, 2), stride=(3, 1)),
    "negative stride": tensor(shape=(4,), stride=(-1,)),
    "negative size": tensor(shape=(-4,)),
    "two negative sizes": tensor(shape=(-2, -2), stride=(1, 1)),
    "lengths": tensor(shape=(2, 2), stride=(1,)),
    "dimensions": tensor(shape=(1,) * 70, stride=(1,) * 70),
    "empty but huge": tensor(shape=(0, 2**60), stride=(1, 1)),
    "count": tensor(count=5),
    "negative count": tensor(count=-4),
    "type of numbers": tensor(storage="ComplexFloatStorage"),
    "no such storage": tensor(key="1"),
    "path as a key": tensor(key="../../etc/passwd"),
    "long key": tensor(key="0" * 40),
    "no key": tensor(key=""),
}


@pytest.mark.parametrize("pickled", BAD_TENSORS.values(), ids=BAD_TENSORS)
def test_tensors_outside_of_their_storage(tmp_path: Path, pickled: bytes) -> None:
    path = archive(tmp_path / "f.pt", pickled, {"0": bytes(16)})
    with pytest.raises(InputError, match=r"f\.pt"):
        load_pickled(path)


def test_the_tensor_of_these_tests_is_a_good_one(tmp_path: Path) -> None:
    content = np.arange(4, dtype=np.float32).tobytes()
    found = load_pickled(archive(tmp_path / "f.pt", tensor(shape=(2, 2), stride=(1, 2)), {"0": content}))
    assert found.tensor().tolist() == [[0.0, 2.0], [1.0, 3.0]]


ORDERED = b"ccollections\nOrderedDict\n"
BROKEN = {
    "nothing": b"",
    "no end": b"\x80\x02K\x01",
    "two results": b"\x80\x02K\x01K\x02.",
    "no result": b"\x80\x02.",
    "open mark": b"\x80\x02(K\x01.",
    "mark as result": b"\x80\x02(.",
    "no mark": b"\x80\x02K\x01t.",
    "newer protocol": b"\x80\x7fK\x01.",
    "old text protocol": b"(lp0\nI1\na.",
    "old class": b"(ios\nsystem\n.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent text": b"Pstorage\n.",
    "persistent number": b"\x80\x02K\x01Q.",
    "persistent tuple": b"\x80\x02(" + text("module") + b"K\x01K\x02K\x03K\x04tQ.",
    "persistent type": b"\x80\x02(" + text("storage") + b"K\x01" + text("0") + text("cpu") + b"K\x04tQ.",
    "unknown memo": b"\x80\x02h\x07.",
    "memo of nothing": b"\x80\x02q\x00.",
    "memo of a mark": b"\x80\x02(q\x00.",
    "huge text": b"\x80\x02X\xff\xff\xff\xff.",
    "huge bytes": b"\x80\x03\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "not text": b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
    "list as key": b"\x80\x02}]K\x01s.",
    "tuple as key": b"\x80\x02}K\x01\x85K\x01s.",
    "odd entries": b"\x80\x02}(K\x01u.",
    "entry of a list": b"\x80\x02]K\x01K\x02s.",
    "element of a number": b"\x80\x02K\x01K\x02a.",
    "state of a list": b"\x80\x02]}b.",
    "call of a number": b"\x80\x02K\x01)R.",
    "call without tuple": b"\x80\x02" + ORDERED + b"K\x01R.",
    "ordered of a number": b"\x80\x02" + ORDERED + b"K\x01\x85R.",
    "ordered of texts": b"\x80\x02" + ORDERED + b"]" + text("abc") + b"a\x85R.",
    "new of a number": b"\x80\x02K\x01)\x81.",
    "storage as a function": b"\x80\x02ctorch\nFloatStorage\n)R.",
    "tensor of nothing": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
    "parameter of nothing": b"\x80\x02ctorch._utils\n_rebuild_parameter\n)R.",
    "size of a number": b"\x80\x02ctorch\nSize\nK\x01\x85R.",
    "endless name": b"\x80\x02c" + b"a" * 10_000 + b"\nb\n.",
    "name cut short": b"\x80\x02ctorch",
    "deep": b"\x80\x02" + b"(" * 2_000_000 + b".",
}


@pytest.mark.parametrize("pickled", BROKEN.values(), ids=BROKEN)
def test_broken_structures(tmp_path: Path, pickled: bytes) -> None:
    path = archive(tmp_path / "f.pt", pickled, {"0": bytes(16)})
    for inert in ((), ("",)):
        with pytest.raises(InputError, match=r"f\.pt") as caught:
            load_pickled(path, inert)
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError):
            list(stream_pickled(path, inert))


def test_nothing_grows_with_what_a_file_claims(tmp_path: Path) -> None:
    """References to references cost what they are, not what they stand for."""
    doubling = (
        b"\x80\x02]" + b"".join(b"q" + bytes([k]) + b"h" + bytes([k]) + b"\x86" for k in range(200)) + b"."
    )
    value = load_pickled(archive(tmp_path / "f.pt", doubling))
    assert type(value) is tuple
    far = b"\x80\x02K\x01r\xff\xff\xff\xff0j\xff\xff\xff\xff."  # a memo number of 2^32 - 1
    assert load_pickled(archive(tmp_path / "g.pt", far)) == 1
    nested = b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b"."
    assert type(load_pickled(archive(tmp_path / "h.pt", nested))) is list


def test_archives_that_are_none_of_torch(tmp_path: Path) -> None:
    whole = archive(tmp_path / "f.pt", tensor(), {"0": bytes(16)})
    cases = {
        "no such file": tmp_path / "absent.pt",
        "an empty file": tmp_path / "empty.pt",
        "no zip archive": tmp_path / "text.pt",
        "format of torch before version 1.6": tmp_path / "legacy.pt",
        "another byte order": archive(tmp_path / "big.pt", tensor(), {"0": bytes(16)}, byteorder="big"),
        "compressed or encrypted": archive(
            tmp_path / "packed.pt", bytes(1 << 22), compression=zipfile.ZIP_DEFLATED
        ),
        "not one of torch.save": tmp_path / "other.zip",
        "there twice or not in one folder": tmp_path / "two.pt",
        "end of the archive is missing": tmp_path / "cut.pt",
        "cannot be unzipped": tmp_path / "bad.gz",
    }
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.pt").write_text("hello, world of plain text")
    torch.save([1], tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("a/b", "c")
    with zipfile.ZipFile(tmp_path / "two.pt", "w") as file:
        file.writestr("a/data.pkl", "c")
        file.writestr("b/data.pkl", "c")
    (tmp_path / "cut.pt").write_bytes(whole.read_bytes()[:-40])
    (tmp_path / "bad.gz").write_bytes(b"\x1f\x8b" + bytes(40))
    for message, path in cases.items():
        with pytest.raises(InputError, match=message) as caught:
            load_pickled(path)
        assert str(path) in str(caught.value)


def test_damage_shows_by_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "f.pt"
    torch.save(torch.arange(1000.0), path)
    content = bytearray(path.read_bytes())
    at = content.find(np.arange(1000, dtype=np.float32).tobytes())
    content[at + 2001] ^= 1
    path.write_bytes(content)
    found = load_pickled(path)
    with pytest.raises(InputError, match="does not have its checksum"):
        found.tensor()
    with pytest.raises(InputError, match="does not have its checksum"):
        found.array()


def test_streaming_gives_the_same_items(tmp_path: Path) -> None:
    shared = torch.arange(5.0)
    given = [{"number": k, "own": torch.full((2,), k), "shared": shared} for k in range(2500)]
    torch.save(given, tmp_path / "f.pt")  # later items refer to the first item's tensor
    for number, item in enumerate(stream_pickled(tmp_path / "f.pt")):
        assert item["number"] == number
        assert item["own"].array().tolist() == [number, number]
        assert item["shared"].array().tolist() == [0, 1, 2, 3, 4]
    assert number == 2499
    far = [*range(1200), back := [1, 2], *range(1200), back]
    torch.save(far, tmp_path / "g.pt")  # the last item refers to one that was forgotten
    assert list(stream_pickled(tmp_path / "g.pt")) == far
    torch.save([], tmp_path / "h.pt")
    assert list(stream_pickled(tmp_path / "h.pt")) == []


def example() -> bytes:
    buffer = io.BytesIO()
    with graph_classes() as classes:
        torch.save(
            {
                "graphs": graphs([{"pos": torch.rand(3, 3), "number": 1}], *classes),
                "plain": PLAIN,
                "state": torch.nn.Linear(2, 2).state_dict(),
            },
            buffer,
        )
    return buffer.getvalue()


EXAMPLE = example()


def explore(value: Any, depth: int = 0) -> None:
    """Touch everything that a file has given."""
    if depth > 20:
        return
    if isinstance(value, StoredTensor):
        value.tensor()
    elif isinstance(value, dict):
        for each in value.values():
            explore(each, depth + 1)
    elif isinstance(value, list | tuple | set):
        for each in value:
            explore(each, depth + 1)
    elif isinstance(value, Record) and isinstance(value.state, dict) and depth < 8:
        explore(value.state, depth + 1)


def survives(path: Path) -> None:
    before, modules = set(path.parent.iterdir()), set(sys.modules)
    for inert in ((), ("",)):
        message = ""
        try:
            explore(load_pickled(path, inert))
        except InputError as error:
            message = str(error)
        assert "\n" not in message
    assert set(path.parent.iterdir()) == before
    assert set(sys.modules) == modules


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flips=st.lists(st.tuples(st.integers(0, len(EXAMPLE) - 1), st.integers(1, 255)), min_size=1, max_size=4)
)
def test_flipped_bytes_of_a_file(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    content = bytearray(EXAMPLE)
    for place, change in flips:
        content[place] ^= change
    path = tmp_path / "f.pt"
    path.write_bytes(content)
    survives(path)


with zipfile.ZipFile(io.BytesIO(EXAMPLE)) as _file:
    _MEMBERS = {name.partition("/")[2]: _file.read(name) for name in _file.namelist()}
PICKLE = _MEMBERS["data.pkl"]
STORAGES = {name.removeprefix("data/"): each for name, each in _MEMBERS.items() if name.startswith("data/")}


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flips=st.lists(st.tuples(st.integers(0, len(PICKLE) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(0, len(PICKLE)),
)
def test_flipped_bytes_of_the_structure(tmp_path: Path, flips: list[tuple[int, int]], cut: int) -> None:
    """With a checksum that fits, so that the damage is read."""
    content = bytearray(PICKLE)
    for place, value in flips:
        content[place] = value
    survives(archive(tmp_path / "f.pt", bytes(content[:cut] if cut % 3 == 0 else content), STORAGES))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    codes=st.lists(
        st.sampled_from(list(b"\x80\x95.N\x88)KMJGX\x8cCB(]}\x8faesu\x90t\x85\x86qrh01c\x93R\x81bQ")),
        max_size=30,
    )
)
def test_random_instructions(tmp_path: Path, codes: list[int]) -> None:
    survives(archive(tmp_path / "f.pt", b"\x80\x02" + bytes(codes) + b"."))


HARMLESS = {
    "a huge stride along an axis of one": ((1,), (2**70,), (1,)),
    "a stride that bytes overflow": ((1, 4), (2**62, 1), (1, 4)),
    "a huge stride of an empty one": ((0,), (2**80,), (0,)),
}


@pytest.mark.parametrize(("shape", "stride", "found"), HARMLESS.values(), ids=HARMLESS)
def test_strides_that_are_never_taken(
    tmp_path: Path, shape: tuple[int, ...], stride: tuple[int, ...], found: tuple[int, ...]
) -> None:
    path = archive(tmp_path / "f.pt", tensor(shape=shape, stride=stride), {"0": bytes(16)})
    given = load_pickled(path)
    assert given.array().shape == tuple(given.tensor().shape) == found


def test_empty_tensors_of_impossible_shapes(tmp_path: Path) -> None:
    shape = (0, 2**40, 2**40)
    path = archive(tmp_path / "f.pt", tensor(shape=shape, stride=(1, 1, 1)), {"0": bytes(16)})
    with pytest.raises(InputError, match="impossible shape"):
        load_pickled(path)


def test_keys_made_to_collide(tmp_path: Path) -> None:
    """Multiples of 2⁶¹ - 1 have the same hash: with a million of them, a dictionary takes days."""
    keys = b"".join(integer(number * (2**61 - 1)) + b"N" for number in range(1, 40))
    with pytest.raises(InputError, match="key of more than 64 bits"):
        load_pickled(archive(tmp_path / "f.pt", b"\x80\x02}(" + keys + b"u."))


def test_tensors_that_share_a_storage_compare_its_checksum_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = torch.arange(50.0)
    torch.save([whole[place : place + 5] for place in range(40)], tmp_path / "f.pt")
    found = load_pickled(tmp_path / "f.pt")
    sizes = []
    crc32 = zlib.crc32
    monkeypatch.setattr(
        "molspectra.datasets.formats.torch_archive.zlib.crc32", lambda data: sizes.append(1) or crc32(data)
    )
    for place, each in enumerate(found):
        assert each.array().tolist() == each.tensor().tolist() == whole[place : place + 5].tolist()
    assert len(sizes) == 1


def test_overlapping_storages(tmp_path: Path) -> None:
    """A member inside another one: a small file could ask for petabytes to be read."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as file:
        file.writestr("archive/data/1", bytes(40))
    local = inner.getvalue()[: 30 + len("archive/data/1") + 40]
    path = archive(tmp_path / "f.pt", b"\x80\x02N.", {"0": local, "1": bytes(40)})
    content = bytearray(path.read_bytes())
    entry = content.rfind(b"PK\x01\x02", 0, content.rfind(b"archive/data/1"))
    struct.pack_into("<I", content, entry + 42, content.find(local))
    path.write_bytes(content)
    with pytest.raises(InputError, match="overlap"):
        load_pickled(path)


def test_a_small_zipped_file_cannot_fill_the_memory(tmp_path: Path) -> None:
    """A gigabyte of empty lists zips to one megabyte, and would take ninety gigabytes."""
    path = archive(tmp_path / "f.pt", b"\x80\x02" + b"]" * (17 << 20) + b".")
    (tmp_path / "f.ckpt.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    with pytest.raises(InputError, match=r"data.pkl has .* bytes, more than"):
        load_pickled(tmp_path / "f.ckpt.gz")
