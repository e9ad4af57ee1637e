"""The reader of huge zip archives against Python's own, and against damage."""

import io
import struct
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molspectra.datasets.formats import zip_members as module
from molspectra.datasets.formats.zip_members import count_members, zip_members
from molspectra.errors import DamagedError, FormatError, InputError, NotFoundError, ValueRangeError

CONTENT = {"a/1.xyz": b"one", "a/2.xyz": b"two" * 500, "b/ä.xyz": b"", "b/4.xyz": bytes(range(256)) * 9}


def archive(path, content=CONTENT, comment=b"", **options):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.comment = comment
        file.mkdir("a")
        for name, data in content.items():
            file.writestr(zipfile.ZipInfo(name), data, **options)
    return path


def read(path, start=0):
    return [(name, content()) for name, content in zip_members(path, start)]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("comment", [b"", b"PK\x05\x06 not the end", b"c" * 65_535])
def test_same_as_zipfile(tmp_path, method, comment):
    path = archive(
        tmp_path / "a.zip", comment=b"" if comment.startswith(b"PK") else comment, compress_type=method
    )
    assert read(path) == list(CONTENT.items())
    assert read(path, 2) == list(CONTENT.items())[2:]
    assert read(path, 9) == []
    assert count_members(path) == 4


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=8), st.booleans())
def test_any_content(tmp_path_factory, contents, streamed):
    path = tmp_path_factory.mktemp("zip") / "a.zip"
    buffer = io.BytesIO()

    class Unseekable(io.RawIOBase):  # makes zipfile write sizes behind the data, as streaming programs do
        def writable(self):
            return True

        def write(self, data):
            return buffer.write(data)

    with zipfile.ZipFile(Unseekable() if streamed else buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for number, data in enumerate(contents):
            file.writestr(f"{number}.xyz", data)
    path.write_bytes(buffer.getvalue())
    assert [data for _, data in read(path)] == contents


def test_a_directory_whose_end_needs_64_bits(tmp_path):
    path = archive(tmp_path / "a.zip")
    data = path.read_bytes()
    end = data.rfind(b"PK\x05\x06")
    count, size, begin = struct.unpack_from("<HLL", data, end + 10)
    wide = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, begin)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    narrow = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(data[:end] + wide + locator + narrow)
    with zipfile.ZipFile(path) as file:
        assert [name for name in file.namelist() if not name.endswith("/")] == list(CONTENT)
    assert read(path) == list(CONTENT.items())
    path.write_bytes(data[:end] + b"PK\x06\x00" + wide[4:] + locator + narrow)
    with pytest.raises(DamagedError, match="end of its directory"):
        read(path)


def test_sizes_and_places_of_64_bits(tmp_path):
    path = tmp_path / "a.zip"
    with (
        zipfile.ZipFile(path, "w") as file,
        file.open(zipfile.ZipInfo("1.xyz"), "w", force_zip64=True) as member,
    ):
        member.write(b"one")
    data = bytearray(path.read_bytes())
    entry = data.rfind(b"PK\x01\x02")
    name_end = entry + 46 + 5
    extra = struct.pack("<HHQQQ", 1, 24, 3, 3, 0)
    data[entry + 20 : entry + 28] = b"\xff" * 8  # sizes
    data[entry + 42 : entry + 46] = b"\xff" * 4  # place
    data[entry + 30 : entry + 32] = struct.pack("<H", len(extra))
    old = len(data)
    end = data.rfind(b"PK\x05\x06")
    data = data[:name_end] + extra + data[end:]
    assert old <= len(data)
    path.write_bytes(data)
    assert read(path) == [("1.xyz", b"one")]


@pytest.mark.parametrize("cut", [1, 30, 200, 1000])
def test_a_cut_archive_is_refused(tmp_path, cut):
    path = archive(tmp_path / "a.zip")
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DamagedError, match=r"a\.zip: "):
        read(path)


def test_what_is_no_archive(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(DamagedError, match=r"a\.zip: not a zip archive"):
        read(tmp_path / "a.zip")
    with pytest.raises(NotFoundError, match=r"none\.zip"):
        read(tmp_path / "none.zip")


def test_a_damaged_member_leaves_the_others(tmp_path):
    path = archive(tmp_path / "a.zip", compress_type=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.find(b"twotwo")] ^= 1
    path.write_bytes(data)
    members = zip_members(path)
    assert next(members)[1]() == b"one"
    with pytest.raises(DamagedError, match="content"):
        next(members)[1]()
    assert next(members)[1]() == b""


def content_or_refusal(path):
    try:
        return read(path)
    except InputError as error:
        return str(error)


def test_any_flipped_byte_is_noticed_or_harmless(tmp_path):
    path = archive(tmp_path / "a.zip")
    good = path.read_bytes()
    for offset in range(0, len(good), 7):
        data = bytearray(good)
        data[offset] ^= 0x41
        path.write_bytes(data)
        members = content_or_refusal(path)
        if isinstance(members, str):
            assert "\n" not in members
        else:
            known = {*CONTENT.values(), b""}  # a folder whose name has lost its slash is an empty file
            assert {content for _, content in members} <= known


def test_bombs_and_codes_are_refused(tmp_path, monkeypatch):
    path = archive(tmp_path / "a.zip", {"1.xyz": b"0" * 50_000})
    monkeypatch.setattr(module, "MAX_MEMBER", 10_000)
    with pytest.raises(ValueRangeError, match="larger than"):
        read(path)
    monkeypatch.setattr(module, "MAX_MEMBER", 1 << 20)
    data = bytearray(path.read_bytes())
    entry = data.rfind(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<L", 900)  # states a small size for much data
    path.write_bytes(data)
    with pytest.raises(DamagedError, match="content"):
        read(path)
    data[entry + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match="encrypted"):
        read(path)
