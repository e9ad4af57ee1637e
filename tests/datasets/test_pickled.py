"""The reader of pickled files: what it reads, what it refuses, and that nothing is ever run."""

import collections
import functools
import gzip
import io
import os
import pickle
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qm9s_files import graph_classes, graphs

from molspectra.datasets.formats.pickled import Record, as_array, is_dense, load_pickled
from molspectra.errors import DamagedError, FormatError, InputError, NotFoundError, ValueRangeError


def archive(
    path: Path,
    pickled: bytes,
    storages: dict[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """A file as torch writes it, around any pickle."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/byteorder", "little")
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
    sizes, steps = (b"(" + b"".join(map(integer, numbers)) + b"t" for numbers in (shape, stride))
    where = b"(" + text("storage") + b"ctorch\n" + storage.encode() + b"\n" + text(key) + text("cpu")
    where += integer(count) + b"tQ"
    made = b"ctorch._utils\n_rebuild_tensor_v2\n(" + where + integer(offset) + sizes + steps
    return b"\x80\x02" + made + b"\x89ccollections\nOrderedDict\n)RtR."


def outcome(path: Path, inert: tuple[str, ...] = ()) -> tuple[Any, str]:
    """What is loaded, or None and the one line about why not."""
    try:
        return load_pickled(path, inert), ""
    except InputError as error:
        message = str(error)
    assert message.startswith(str(path))
    assert "\n" not in message
    return None, message


DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_type(tmp_path: Path, dtype: torch.dtype) -> None:
    whole = (torch.arange(60).reshape(3, 4, 5) % 7).to(dtype)
    saved = [
        whole,
        whole[1:, ::2, 3:],
        whole.permute(2, 0, 1),
        whole[0, 0, 0],
        whole[:0],
        torch.tensor([], dtype=dtype),
    ]
    torch.save(saved, tmp_path / "f.pt")
    for loaded, expected in zip(load_pickled(tmp_path / "f.pt"), saved, strict=True):
        assert is_dense(loaded)
        assert loaded.dtype == dtype
        assert torch.equal(loaded, expected)
        if dtype == torch.bfloat16:
            with pytest.raises(TypeError):
                as_array(loaded)
        else:
            np.testing.assert_array_equal(as_array(loaded), expected.numpy())


PLAIN = {
    "text": "Å\U0001f600",
    "numbers": [0, 255, 256, 65536, -1, 2**40, -(2**70), 1.5, float("inf"), True, False, None],
    "nested": {"tuple": (1, (2, (3, 4, 5, 6))), "ordered": collections.OrderedDict(a=1, b=2)},
    "set": {1, 2, 3},
    "frozen": frozenset("ab"),
    "default": collections.defaultdict(dict, a={"b": 1}),
    "bytes": b"\x00\xff",
    "size": torch.Size([2, 3]),
    3: {4.5: "x"},
}


def test_plain_values(tmp_path: Path) -> None:
    torch.save(PLAIN, tmp_path / "f.pt")
    assert load_pickled(tmp_path / "f.pt", ("builtins.dict",)) == PLAIN


def test_newer_protocols_are_refused_in_one_line(tmp_path: Path) -> None:
    torch.save(PLAIN, tmp_path / "f.pt", pickle_protocol=4)
    with pytest.raises(FormatError, match=r"f\.pt: its structure cannot be read") as caught:
        load_pickled(tmp_path / "f.pt")
    assert "\n" not in str(caught.value)


def test_weights_of_a_module(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    torch.save({"state": module.state_dict(), "parameter": module[0].weight}, tmp_path / "f.pt")
    (tmp_path / "f.pt.gz").write_bytes(gzip.compress((tmp_path / "f.pt").read_bytes()))
    for name in ("f.pt", "f.pt.gz"):
        loaded = load_pickled(tmp_path / name)
        assert list(loaded["state"]) == list(module.state_dict())
        for key, value in module.state_dict().items():
            assert torch.equal(loaded["state"][key], value)
        assert is_dense(loaded["parameter"])
        assert torch.equal(loaded["parameter"], module[0].weight)


def test_objects_become_records_only_where_allowed(tmp_path: Path) -> None:
    with graph_classes() as classes:
        graph = graphs([{"number": 7, "z": torch.ones(3)}], *classes)[0]
        torch.save({"graph": graph, "class": type(graph)}, tmp_path / "f.pt")
    with pytest.raises(FormatError, match=r"refers to 'torch_geometric\.data"):
        load_pickled(tmp_path / "f.pt")
    with pytest.raises(FormatError, match=r"refers to 'torch_geometric\.data\.data\.Data'"):
        load_pickled(tmp_path / "f.pt", ("torch_geometric.data.storage",))
    before = set(sys.modules)
    loaded = load_pickled(tmp_path / "f.pt", ("torch_geometric.",))
    assert set(sys.modules) == before
    assert issubclass(loaded["class"], Record)
    assert loaded["class"].name == "torch_geometric.data.data.Data"
    assert isinstance(loaded["graph"], Record)
    store = loaded["graph"].state["_store"].state
    assert store["_parent"] is loaded["graph"]
    assert store["_mapping"]["number"] == 7
    assert repr(loaded["graph"]) == "<inert record of torch_geometric.data.data.Data>"
    with pytest.raises(FormatError):  # what one call allows, the next one does not
        load_pickled(tmp_path / "f.pt")


class Attack:
    """An object whose pickle calls something."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __call__(self) -> None:
        """What is called must look like a function to be written."""

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


ATTACKS = {
    "os.system": Attack(os.system, "touch {0}"),
    "eval": Attack(eval, "open({0!r}, 'w')"),
    "exec": Attack(exec, "open({0!r}, 'w')"),
    "getattr chain": Attack(Attack(getattr, Attack(__import__, "os"), "system"), "touch {0}"),
    "import": Attack(__import__, "os"),
    "open": Attack(open, "{0}", "w"),
    "mkdir": Attack(os.mkdir, "{0}"),
    "nested pickle": Attack(pickle.loads, b"cos\nsystem\n(S'touch {0}'\ntR."),
    "torch.load": Attack(torch.load, "{0}"),
    "torch.save": Attack(torch.save, 1, "{0}"),
    "partial": Attack(Attack(functools.partial, os.system), "touch {0}"),
    "rebuilt by a call": Attack(
        torch._tensor._rebuild_from_type_v2, os.mkdir, torch.Tensor, ("{0}",), {"a": 1}
    ),
    "in a Path": Attack(Path, Attack(os.system, "touch {0}")),
}


def filled(attack: Any, target: str) -> Any:
    """The attack with the path that it would make."""
    if isinstance(attack, Attack):
        return Attack(filled(attack.function, target), *(filled(part, target) for part in attack.arguments))
    if isinstance(attack, tuple):
        return tuple(filled(part, target) for part in attack)
    return attack.format(target) if isinstance(attack, str) else attack


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("inert", [(), ("",), ("torch_geometric.",)], ids=["none", "all", "some"])
def test_attacks_do_nothing(tmp_path: Path, attack: Attack, inert: tuple[str, ...]) -> None:
    target = tmp_path / "made"
    torch.save([1, {"a": filled(attack, str(target))}], tmp_path / "f.pt")
    loaded, error = outcome(tmp_path / "f.pt", inert)
    if attack.function in (torch.load, torch.save) and inert == ("",):  # names that may become records
        assert isinstance(loaded[1]["a"], Record)
    else:
        assert "nothing of it was run" in error
    assert not target.exists()


def nested_tuples(depth: int) -> bytes:
    return b"\x80\x02}" + b")" + depth * b"\x85" + b"K\x01s."


def doubled_tuples(times: int) -> bytes:
    """A tuple of twice the one before, made with the memo; its hash takes 2^times steps."""
    return b"\x80\x02})" + times * b"q\x00h\x00\x86" + b"K\x01s."


@pytest.mark.parametrize(
    ("pickled", "said"),
    [
        (nested_tuples(200_000), "nested"),
        (nested_tuples(101), "nested"),
        (b"\x80\x02}" + 200_000 * b"(" + 200_000 * b"t" + b"K\x01s.", "nested"),
        (doubled_tuples(60), "parts"),
        (b"\x80\x02ctorch\nTensor\nM\x00\x04\x85R.", "calls 'torch.Tensor'"),
        (b"\x80\x02ctorch\nFloatTensor\nM\x00\x04\x85R.", "calls 'torch.FloatTensor'"),
        (b"\x80\x02ctorch.storage\nUntypedStorage\nM\x00\x04\x85R.", "UntypedStorage"),
        (b"\x80\x02ctorch.storage\nUntypedStorage\nM\x00\x04\x85\x81.", "UntypedStorage"),
        (b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x7f\x85R.", "bytearray"),
        (
            b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(ctorch\nTensor\nq\x01h\x01M\x00\x04\x85}tR.",
            "calls 'torch.Tensor'",
        ),
    ],
)
def test_instructions_that_would_end_the_process(tmp_path: Path, pickled: bytes, said: str) -> None:
    """They are refused before anything is made, in any place of the memo."""
    archive(tmp_path / "f.pt", pickled)
    with pytest.raises(FormatError, match=said):
        load_pickled(tmp_path / "f.pt", ("",))


def test_a_state_cannot_give_a_record_methods(tmp_path: Path) -> None:
    """A stand-in keeps what a file would set, also where it has names of special attributes."""
    with graph_classes() as classes:
        graph = graphs([{"number": 7}], *classes)[0]
        vars(graph)["__setstate__"] = vars(graph)["__class__"] = graph
        torch.save(graph, tmp_path / "f.pt")
    loaded = load_pickled(tmp_path / "f.pt", ("torch_geometric.",))
    assert type(loaded).__bases__ == (Record,)
    assert loaded.state["__class__"] is loaded
    assert vars(loaded).keys() == {"state"}


def test_calls_become_records(tmp_path: Path) -> None:
    saved = [Attack(np.float64, 2.0), np.arange(3), Path("a/b"), int, np.float32(1.0)]
    torch.save(saved, tmp_path / "f.pt")
    with pytest.raises(FormatError, match="refers to"):
        load_pickled(tmp_path / "f.pt")
    loaded = load_pickled(tmp_path / "f.pt", ("",))
    assert all(isinstance(value, Record) for place, value in enumerate(loaded) if place != 3)
    assert issubclass(loaded[3], Record)
    assert loaded[0].arguments == (2.0,)


BAD_TENSORS = {
    "offset": tensor(offset=1),
    "negative offset": tensor(offset=-1),
    "size": tensor(shape=(5,)),
    "huge": tensor(shape=(2**62,)),
    "huge storage": tensor(count=2**60, shape=(2**60,)),
    "huge product": tensor(shape=(2**40, 2**40), stride=(0, 0)),
    "repeated": tensor(shape=(1000, 1000), stride=(0, 0)),
    "stride": tensor(shape=(2, 2), stride=(3, 1)),
    "negative stride": tensor(shape=(4,), stride=(-1,)),
    "negative size": tensor(shape=(-4,)),
    "two negative sizes": tensor(shape=(-2, -2), stride=(1, 1)),
    "lengths": tensor(shape=(2, 2), stride=(1,)),
    "negative count": tensor(count=-4),
    "no such storage": tensor(key="1"),
    "path as a key": tensor(key="../../etc/passwd"),
    "no key": tensor(key=""),
}


@pytest.mark.parametrize("pickled", BAD_TENSORS.values(), ids=BAD_TENSORS)
def test_tensors_outside_of_their_storage(tmp_path: Path, pickled: bytes) -> None:
    path = archive(tmp_path / "f.pt", pickled, {"0": bytes(16)})
    (tmp_path / "f.pt.gz").write_bytes(gzip.compress(path.read_bytes()))
    for name in ("f.pt", "f.pt.gz"):
        loaded, error = outcome(tmp_path / name)
        if not error:
            assert not is_dense(loaded)
            with pytest.raises(TypeError):
                as_array(loaded)


def test_the_tensor_of_these_tests_is_a_good_one(tmp_path: Path) -> None:
    content = np.arange(4, dtype=np.float32).tobytes()
    loaded = load_pickled(archive(tmp_path / "f.pt", tensor(shape=(2, 2), stride=(1, 2)), {"0": content}))
    assert loaded.tolist() == [[0.0, 2.0], [1.0, 3.0]]


ORDERED = b"ccollections\nOrderedDict\n"
BROKEN = {
    "nothing": b"",
    "no end": b"\x80\x02K\x01",
    "no result": b"\x80\x02.",
    "no mark": b"\x80\x02K\x01t.",
    "old class": b"(ios\nsystem\n.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent number": b"\x80\x02K\x01Q.",
    "persistent tuple": b"\x80\x02(" + text("module") + b"K\x01K\x02K\x03K\x04tQ.",
    "persistent type": b"\x80\x02(" + text("storage") + b"K\x01" + text("0") + text("cpu") + b"K\x04tQ.",
    "unknown memo": b"\x80\x02h\x07.",
    "huge text": b"\x80\x02X\xff\xff\xff\xff.",
    "not text": b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
    "list as key": b"\x80\x02}]K\x01s.",
    "odd entries": b"\x80\x02}(K\x01u.",
    "state of a list": b"\x80\x02]}b.",
    "call of a number": b"\x80\x02K\x01)R.",
    "ordered of a number": b"\x80\x02" + ORDERED + b"K\x01\x85R.",
    "storage as a function": b"\x80\x02ctorch\nFloatStorage\n)R.",
    "huge array of bytes": b"\x80\x02c__builtin__\nbytearray\n" + integer(2**40) + b"\x85R.",
    "name cut short": b"\x80\x02ctorch",
    "deep": b"\x80\x02" + b"(" * 200_000 + b".",
}


@pytest.mark.parametrize("pickled", BROKEN.values(), ids=BROKEN)
def test_broken_structures(tmp_path: Path, pickled: bytes) -> None:
    path = archive(tmp_path / "f.pt", pickled, {"0": bytes(16)})
    for inert in ((), ("",)):
        with pytest.raises(FormatError, match=r"f\.pt") as caught:
            load_pickled(path, inert)
        assert "\n" not in str(caught.value)


def test_a_second_structure_in_capitals_is_refused(tmp_path: Path) -> None:
    """The zip reader of torch ignores case, and would read the second instead of the one that was checked."""
    path = archive(tmp_path / "f.pt", b"\x80\x02K\x01.")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/DATA.PKL", b"\x80\x02K\x02.")
    with pytest.raises(FormatError, match=r"f\.pt.*data\.pkl"):
        load_pickled(path)


def test_nothing_grows_with_what_a_file_claims(tmp_path: Path) -> None:
    """References to references cost what they are, not what they stand for."""
    doubling = (
        b"\x80\x02]" + b"".join(b"q" + bytes([k]) + b"h" + bytes([k]) + b"\x86" for k in range(200)) + b"."
    )
    with pytest.raises(FormatError, match="parts"):
        load_pickled(archive(tmp_path / "f.pt", doubling))
    far = b"\x80\x02K\x01r\xff\xff\xff\xff\x85j\xff\xff\xff\xff\x86."  # a memo number of 2^32 - 1
    assert load_pickled(archive(tmp_path / "g.pt", far)) == ((1,), 1)
    nested = b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b"."
    assert type(load_pickled(archive(tmp_path / "h.pt", nested))) is list


def test_archives_that_are_none_of_torch(tmp_path: Path) -> None:
    whole = archive(tmp_path / "f.pt", tensor(), {"0": bytes(16)}).read_bytes()
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.pt").write_text("hello, world of plain text")
    torch.save([1], tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    archive(tmp_path / "packed.pt", bytes(1 << 22), compression=zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as file:
        file.writestr("a/b", "c")
    with zipfile.ZipFile(tmp_path / "two.pt", "w") as file:
        file.writestr("a/data.pkl", "c")
        file.writestr("b/data.pkl", "c")
    (tmp_path / "cut.pt").write_bytes(whole[:-40])
    (tmp_path / "bad.gz").write_bytes(b"\x1f\x8b" + bytes(40))
    cases: list[tuple[str, type[InputError], str]] = [
        ("absent.pt", NotFoundError, "no such file"),
        ("empty.pt", FormatError, "an empty file"),
        ("text.pt", FormatError, "no zip archive"),
        ("legacy.pt", FormatError, r"version 1\.6"),
        ("packed.pt", FormatError, "compressed or encrypted"),
        ("other.pt", FormatError, r"no single data\.pkl"),
        ("two.pt", FormatError, r"no single data\.pkl"),
        ("cut.pt", DamagedError, "incomplete"),
        ("bad.gz", DamagedError, "cannot be unzipped"),
    ]
    for name, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            load_pickled(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))


@pytest.mark.parametrize("part", ["a number", "the structure"])
def test_damage_shows_by_the_checksum(tmp_path: Path, part: str) -> None:
    path = tmp_path / "f.pt"
    torch.save({"key": torch.arange(1000.0)}, path)
    content = bytearray(path.read_bytes())
    wanted = np.arange(1000, dtype=np.float32).tobytes() if part == "a number" else b"key"
    content[content.find(wanted) + 1] ^= 1
    path.write_bytes(content)
    member = "f/data/0" if part == "a number" else "f/data.pkl"
    with pytest.raises(DamagedError, match=f"member '{member}' does not have its checksum"):
        load_pickled(path)


def test_tensors_that_share_a_storage(tmp_path: Path) -> None:
    whole = torch.arange(50.0)
    torch.save([whole[start : start + 5] for start in range(40)], tmp_path / "f.pt")
    for start, part in enumerate(load_pickled(tmp_path / "f.pt")):
        assert part.tolist() == as_array(part).tolist() == whole[start : start + 5].tolist()


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
    if is_dense(value):
        try:
            as_array(value).sum()
        except TypeError:  # numbers that numpy lacks
            value.detach().clone()
    elif isinstance(value, dict):
        for entry in value.values():
            explore(entry, depth + 1)
    elif isinstance(value, list | tuple | set):
        for entry in value:
            explore(entry, depth + 1)
    elif isinstance(value, Record) and isinstance(value.state, dict) and depth < 8:
        explore(value.state, depth + 1)


def survives(path: Path) -> None:
    before, modules = set(path.parent.iterdir()), set(sys.modules)
    for inert in ((), ("",)):
        explore(outcome(path, inert)[0])
    assert set(path.parent.iterdir()) == before
    assert set(sys.modules) == modules


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flips=st.lists(st.tuples(st.integers(0, len(EXAMPLE) - 1), st.integers(1, 255)), min_size=1, max_size=4)
)
def test_flipped_bytes_of_a_file(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    content = bytearray(EXAMPLE)
    for offset, change in flips:
        content[offset] ^= change
    path = tmp_path / "f.pt"
    path.write_bytes(content)
    survives(path)


with zipfile.ZipFile(io.BytesIO(EXAMPLE)) as _file:
    _MEMBERS = {name.partition("/")[2]: _file.read(name) for name in _file.namelist()}
PICKLE = _MEMBERS["data.pkl"]
STORAGES = {name.removeprefix("data/"): part for name, part in _MEMBERS.items() if name.startswith("data/")}


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flips=st.lists(st.tuples(st.integers(0, len(PICKLE) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(0, len(PICKLE)),
)
def test_flipped_bytes_of_the_structure(tmp_path: Path, flips: list[tuple[int, int]], cut: int) -> None:
    """With a checksum that fits, so that the damage is read."""
    content = bytearray(PICKLE)
    for offset, value in flips:
        content[offset] = value
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


def test_overlapping_storages(tmp_path: Path) -> None:
    """A member inside another one: a small file could ask for petabytes to be read."""
    path = archive(tmp_path / "f.pt", b"\x80\x02N.", {"0": bytes(40_000), "1": bytes(40)})
    content = bytearray(path.read_bytes())
    entry = content.rfind(b"PK\x01\x02", 0, content.rfind(b"archive/data/1"))
    struct.pack_into("<II", content, entry + 20, 40_000, 40_000)
    struct.pack_into("<I", content, entry + 42, content.find(b"archive/data/0") - 30)
    path.write_bytes(content)
    with pytest.raises(DamagedError, match="overlap"):
        load_pickled(path)


def test_a_small_zipped_file_cannot_fill_the_memory(tmp_path: Path) -> None:
    """A gigabyte of empty lists zips to one megabyte, and would take ninety gigabytes."""
    path = archive(tmp_path / "f.pt", b"\x80\x02" + b"]" * (17 << 20) + b".")
    (tmp_path / "f.ckpt.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    with pytest.raises(ValueRangeError, match=r"data.pkl has .* bytes, more than"):
        load_pickled(tmp_path / "f.ckpt.gz")
