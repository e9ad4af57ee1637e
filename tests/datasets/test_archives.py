"""Streaming files out of archives and folders."""

import io
import lzma
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molspectra.datasets.formats.archives import MAX_SMALL, first_name, holds, is_tar, open_text, small_files
from molspectra.errors import DamagedError, FormatError, InputError, NotFoundError, ValueRangeError

CONTENT = {"a.xyz": b"first\n", "b.xyz": b"", "c.txt": b"not wanted", f"{'d' * 150}.xyz": b"x" * 1000}


def tar(
    path: Path, files: dict[str, bytes] = CONTENT, mode: str = "w", kind: int = tarfile.GNU_FORMAT
) -> Path:
    with tarfile.open(path, mode, format=kind) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"folder/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("link.xyz")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("z.xyz"))
    return path


def wanted(name: str) -> bool:
    return name.endswith(".xyz")


def read(path: Path) -> list[tuple[str, bytes]]:
    return [(name, content()) for name, content in small_files(path, wanted)]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_files_in_order_whatever_the_packing(tmp_path, mode):
    path = tar(tmp_path / "a.tar", mode=mode)
    expected = [(name, content) for name, content in CONTENT.items() if wanted(name)] + [("z.xyz", b"")]
    assert read(path) == expected
    assert first_name(path) == "a.xyz"


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_formats_of_tar(tmp_path, kind):
    files = {"a.xyz": b"1", "b.xyz": b"2" * 513}
    assert read(tar(tmp_path / "a.tar", files, kind=kind)) == [*files.items(), ("z.xyz", b"")]


def test_content_may_be_read_later(tmp_path):
    readers = list(small_files(tar(tmp_path / "a.tar"), wanted))
    assert readers[0][1]() == b"first\n"


def test_a_folder_is_read_by_name(tmp_path):
    for name in ("b.xyz", "a.xyz", "c.txt"):
        (tmp_path / name).write_text(name)
    assert read(tmp_path) == [("a.xyz", b"a.xyz"), ("b.xyz", b"b.xyz")]


def test_a_file_too_large_for_one_molecule_is_refused_alone(tmp_path):
    path = tar(tmp_path / "a.tar", {"a.xyz": bytes(MAX_SMALL + 1), "b.xyz": b"good"})
    (_, large), (_, good), _ = small_files(path, wanted)
    assert good() == b"good"
    with pytest.raises(ValueRangeError, match="1 MiB"):
        large()
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.xyz").write_bytes(bytes(MAX_SMALL + 1))
    with pytest.raises(ValueRangeError, match="1 MiB"):
        read(tmp_path / "raw")


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_a_tar_cut_anywhere_is_noticed(tmp_path_factory, seed):
    path = tar(tmp_path_factory.mktemp("cut") / "a.tar")
    whole = path.read_bytes()
    end = whole.rstrip(b"\0").__len__() // 512 * 512 + 1024  # behind the first block of zeros, all is padding
    path.write_bytes(whole[: seed % end])
    with pytest.raises(DamagedError, match=r"a\.(tar|zip)"):
        read(path)


@given(st.integers(0, 2**32 - 1), st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_a_changed_byte_of_a_header_is_noticed(tmp_path_factory, place, change):
    path = tar(tmp_path_factory.mktemp("changed") / "a.tar", {"a.xyz": b"content"})
    content = bytearray(path.read_bytes())
    place %= 345  # behind it, ustar has nothing but padding
    content[place] ^= change
    path.write_bytes(content)
    with suppress(InputError):  # else the number was only written in another way, such as with blanks
        assert read(path) == [("a.xyz", b"content"), ("z.xyz", b"")]


def test_texts_of_folders_and_archives(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    text = "one\ntwo ü\n" * 100_000
    (raw / "big.csv").write_text(text, encoding="utf-8")
    packed = tar(tmp_path / "a.tar.gz", {"x.txt": b"1", "big.csv": text.encode()}, "w:gz")
    zipped = tmp_path / "a.zip"
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("deep/big.csv", text)
    for holder in (raw, packed, zipped):
        assert holds(holder, "big.csv")
        assert not holds(holder, "small.csv")
        with open_text(holder, "big.csv") as lines:
            assert "".join(lines) == text
        with pytest.raises(NotFoundError, match=r"small\.csv"), open_text(holder, "small.csv"):
            pass


def test_packed_texts_that_are_damaged(tmp_path):
    packed = tar(tmp_path / "a.tar.xz", {"big.csv": bytes(range(256)) * 10_000}, "w:xz")
    packed.write_bytes(packed.read_bytes()[:-200])
    with pytest.raises(DamagedError, match=r"a\.(tar|zip)"), open_text(packed, "big.csv") as lines:
        list(lines)
    zipped = tmp_path / "a.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("big.csv", b"some content of a table\n" * 100)
    content = zipped.read_bytes()
    zipped.write_bytes(content.replace(b"some", b"same", 1))
    with pytest.raises(DamagedError, match=r"a\.(tar|zip)"), open_text(zipped, "big.csv") as lines:
        list(lines)
    neither = tmp_path / "a.rar"
    neither.write_bytes(lzma.compress(b"x"))
    with pytest.raises(FormatError, match=r"a\.rar"), open_text(neither, "big.csv"):
        pass


def test_names_of_tar_archives():
    names = ("a.tar", "a.tar.gz", "A.TGZ", "b.xyz.tar.bz2")
    assert all(is_tar(Path(name)) for name in names)
    assert not is_tar(Path("a.zip"))


def test_a_name_longer_than_any(tmp_path):
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1 << 20
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20) + bytes(1024))
    with pytest.raises(DamagedError, match="the name of a file"):
        read(tmp_path / "a.tar")


def test_the_long_name_of_a_folder_is_not_that_of_the_next_file(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        folder = tarfile.TarInfo("d" * 150 + "/e.xyz")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        archive.addfile(tarfile.TarInfo("a.xyz"))
    assert read(tmp_path / "a.tar") == [("a.xyz", b"")]
