"""Downloads against a server on this machine that behaves badly in every way that has been met."""

import contextlib
import email.utils
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from molspectra.apps.cli import main
from molspectra.apps.commands import download as command
from molspectra.datasets import sources
from molspectra.datasets.fetch import download, remote
from molspectra.datasets.fetch.download import RECORD, PartialFile, RemoteFile, RetryPolicy, fetch
from molspectra.datasets.sources import SOURCES, Source, chosen_files
from molspectra.errors import (
    DamagedError,
    FormatError,
    InputError,
    MismatchError,
    NotFoundError,
    SettingError,
    ValueRangeError,
    WriteError,
)

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
OTHER = CONTENT[:1000] + b"changed" + CONTENT[1007:]
SHA = hashlib.sha256(CONTENT).hexdigest()
QUICK = RetryPolicy(attempts=4, first=0.001, longest=0.5)
NAME = "data.bin"


@dataclass
class Site:
    """What the server does, and what it was asked."""

    url: str = ""
    content: bytes = CONTENT
    etag: str = '"one"'
    breaks: list[int] = field(default_factory=list)  # bytes after which a connection is dropped, one each
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # failures that come first
    length: int | None = None  # a lie about the length
    ranges: bool = True
    listing: Any = None
    asked: list[dict[str, str]] = field(default_factory=list)
    on_request: Callable[["Site"], None] | None = None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        site = self.site
        site.asked.append(dict(self.headers) | {"path": self.path})
        if site.on_request:
            site.on_request(site)
        self.close_connection = True
        if self.path == "/listing":
            return self.reply(200, json.dumps(site.listing).encode(), {})
        if site.answers:
            status, headers = site.answers.pop(0)
            return self.reply(status, b"", headers)
        content, start, status = site.content, 0, 200
        headers = {"ETag": site.etag} if site.etag else {}
        wanted = self.headers.get("Range")
        same = self.headers.get("If-Range") in (None, site.etag)
        if wanted and site.ranges and same:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self.reply(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.reply(status, content[start:], headers, site.breaks.pop(0) if site.breaks else None)
        return None

    def reply(self, status: int, body: bytes, headers: dict[str, str], stop: int | None = None) -> None:
        self.send_response(status)
        length = len(body) if self.site.length is None or status != 200 else self.site.length
        for name, value in ({"Content-Length": str(length)} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body[:stop])
            self.wfile.flush()


@pytest.fixture
def site() -> Iterator[Site]:
    found = Site()
    handler = type("SiteHandler", (Handler,), {"site": found})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def pinned(site: Site, **changes: Any) -> RemoteFile:
    file = RemoteFile(NAME, f"{site.url}/data", len(CONTENT), sha256=SHA, source="test", local=True)
    return replace(file, **changes)


def unpinned(site: Site) -> RemoteFile:
    return pinned(site, size=None, sha256="", source="nobody says")


def get(file: RemoteFile, folder: Path, **options: Any) -> Any:
    return fetch(file, folder, retries=QUICK, **options)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_comes_whole_and_is_not_fetched_twice(site: Site, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    done = get(pinned(site), tmp_path / "deep" / "folder", advance=lambda *at: seen.append(at))
    assert done.path.read_bytes() == CONTENT
    assert (done.sha256, done.was_there, done.checked) == (SHA, False, "pinned hash")
    assert files(done.path.parent) == {NAME, RECORD}
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    again = get(pinned(site), done.path.parent)
    assert again.was_there
    assert len(site.asked) == 1
    md5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    assert get(pinned(site, sha256="", md5=md5), done.path.parent).was_there
    done.path.write_bytes(OTHER)
    with pytest.raises(DamagedError, match=r"has another hash .*--overwrite"):
        get(pinned(site), done.path.parent)
    assert get(pinned(site), done.path.parent, overwrite=True).path.read_bytes() == CONTENT


def test_dropped_connections_are_taken_up_again(site: Site, tmp_path: Path) -> None:
    site.breaks = [100_000, 50_000, 0, 0, 1]
    assert get(pinned(site), tmp_path).path.read_bytes() == CONTENT
    ranges = [headers.get("Range") for headers in site.asked]
    assert ranges == [None, "bytes=100000-", *["bytes=150000-"] * 3, "bytes=150001-"]
    assert all(headers["If-Range"] == '"one"' for headers in site.asked[1:])


def test_a_later_call_goes_on(site: Site, tmp_path: Path) -> None:
    site.breaks = [120_000, 0, 0, 0]
    with pytest.raises(InputError, match=r"ended after 120,000 bytes \(4 failures.*120,000 bytes are kept"):
        get(pinned(site), tmp_path)
    assert (tmp_path / f".{NAME}.part").stat().st_size == 120_000
    assert get(pinned(site), tmp_path).path.read_bytes() == CONTENT
    assert site.asked[-1]["Range"] == "bytes=120000-"
    assert files(tmp_path) == {NAME, RECORD}


def test_a_part_that_is_whole_is_only_checked(site: Site, tmp_path: Path) -> None:
    site.breaks = [299_999, 0, 0, 0]
    with pytest.raises(InputError, match="are kept"):
        get(pinned(site), tmp_path)
    with (tmp_path / f".{NAME}.part").open("ab") as file:
        file.write(CONTENT[-1:])
    assert get(pinned(site), tmp_path).path.read_bytes() == CONTENT
    assert site.asked[-1]["Range"] == "bytes=300000-"


def test_ctrl_c_keeps_what_came(site: Site, tmp_path: Path) -> None:
    def stop(there: int, total: int | None) -> None:
        raise KeyboardInterrupt

    site.breaks = [80_000]
    with pytest.raises(KeyboardInterrupt):
        get(pinned(site), tmp_path, advance=stop)
    assert (tmp_path / f".{NAME}.part").stat().st_size == 80_000
    assert get(pinned(site), tmp_path).path.read_bytes() == CONTENT


def test_a_server_without_ranges_starts_again(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    site.breaks = [100_000, 200_000]
    assert get(pinned(site), tmp_path).path.read_bytes() == CONTENT
    assert len(site.asked) == 3


@pytest.mark.parametrize("honest", [True, False])
def test_a_file_that_changes_in_between(site: Site, tmp_path: Path, honest: bool) -> None:
    """With another ETag the whole new file comes; without, halves of two files show by their hash."""

    def change(site: Site) -> None:
        if len(site.asked) == 2:
            site.content = CONTENT[:250_000] + b"x" * 50_000
            site.etag = '"two"' if honest else site.etag

    site.on_request = change
    site.breaks = [100_000]
    with pytest.raises(DamagedError, match=r"than published \(sha256 .* removed"):
        get(pinned(site), tmp_path)
    assert files(tmp_path) == set()
    done = get(unpinned(site), tmp_path, accept_unverified=True)
    assert done.path.read_bytes() == site.content


def test_an_unpinned_file_is_never_mixed(site: Site, tmp_path: Path) -> None:
    """Without an ETag or date nobody can tell whether the rest belongs to what is there."""
    site.etag = ""
    site.breaks = [100_000]
    assert get(unpinned(site), tmp_path, accept_unverified=True).path.read_bytes() == CONTENT
    assert [headers.get("Range") for headers in site.asked] == [None, None]


def test_files_without_a_hash_are_remembered(site: Site, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"data\.bin: no hash .*nobody says.*--accept-unverified"):
        get(unpinned(site), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    done = get(unpinned(site), tmp_path, accept_unverified=True)
    assert done.checked == "nothing"
    entry = json.loads((tmp_path / RECORD).read_text())[NAME]
    assert (entry["sha256"], entry["size"], entry["checked"]) == (SHA, len(CONTENT), "nothing")
    assert get(unpinned(site), tmp_path, accept_unverified=True).was_there
    done.path.unlink()
    site.content = OTHER
    with pytest.raises(DamagedError, match="than before"):
        get(unpinned(site), tmp_path, accept_unverified=True)
    assert get(unpinned(site), tmp_path, accept_unverified=True, overwrite=True).path.read_bytes() == OTHER
    done.path.write_bytes(b"edited")
    with pytest.raises(DamagedError, match="has changed since"):
        get(unpinned(site), tmp_path, accept_unverified=True)
    (tmp_path / RECORD).write_text("nonsense")  # what is known is gone, so the file is as good as a new one
    adopted = get(unpinned(site), tmp_path, accept_unverified=True)
    assert (adopted.was_there, adopted.size, adopted.checked) == (True, 6, "nothing")
    assert json.loads((tmp_path / RECORD).read_text())[NAME]["sha256"] == adopted.sha256


@pytest.mark.parametrize(
    ("length", "said"), [(400_000, "has 400,000 bytes, published were"), (5, "has 5 bytes")]
)
def test_another_size_than_published_is_refused_at_once(
    site: Site, tmp_path: Path, length: int, said: str
) -> None:
    site.length = length
    with pytest.raises(MismatchError, match=said):
        get(pinned(site), tmp_path)
    assert len(site.asked) == 1
    assert files(tmp_path) == set()


def test_lies_about_the_length(site: Site, tmp_path: Path) -> None:
    site.length, site.ranges = 400_000, False
    with pytest.raises(InputError, match=r"ended after 300,000 bytes .*are kept"):
        get(unpinned(site), tmp_path, accept_unverified=True)
    site.length = 200_000  # the rest stays behind; only a known hash or size can tell
    assert get(unpinned(site), tmp_path, accept_unverified=True).size == 200_000


def test_a_part_that_is_longer_than_the_file(site: Site, tmp_path: Path) -> None:
    site.breaks = [150_000, 0, 0, 0]
    with pytest.raises(InputError, match="are kept"):
        get(pinned(site), tmp_path)
    with (tmp_path / f".{NAME}.part").open("ab") as file:
        file.write(bytes(200_000))
    assert get(pinned(site), tmp_path).path.read_bytes() == CONTENT


def test_more_than_the_limit_is_refused(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "LARGEST", 200_000)
    with pytest.raises(ValueRangeError, match="has 300,000 bytes, more than the 200,000"):
        get(unpinned(site), tmp_path, accept_unverified=True)
    site.length = -1  # which is no length
    with pytest.raises(ValueRangeError, match="more than 200,000 bytes"):
        get(unpinned(site), tmp_path, accept_unverified=True)
    assert files(tmp_path) == set()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_failures_that_pass_are_waited_for(site: Site, tmp_path: Path, status: int) -> None:
    site.answers = [(status, {"Retry-After": "0"}), (status, {})]
    assert get(pinned(site), tmp_path).path.read_bytes() == CONTENT
    assert len(site.asked) == 3


def test_the_server_says_how_long_to_wait(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    soon = email.utils.format_datetime(email.utils.localtime())
    site.answers = [(429, {"Retry-After": "0.2"}), (503, {"Retry-After": soon}), (503, {"Retry-After": "0"})]
    get(pinned(site), tmp_path)
    assert waits[1:] == [0.0, 0.0]  # the first is no number of seconds, so our own patience counts
    assert waits[0] == QUICK.first
    site.answers = [(429, {"Retry-After": "7200"})]
    with pytest.raises(InputError, match="the server asks to come back in 7200 s"):
        get(pinned(site), tmp_path / "other")


@pytest.mark.parametrize(
    ("status", "kind"), [(404, NotFoundError), (410, NotFoundError), (403, InputError), (401, InputError)]
)
def test_permanent_failures_are_told_at_once(
    site: Site, tmp_path: Path, status: int, kind: type[InputError]
) -> None:
    site.answers = [(status, {})] * 2
    with pytest.raises(kind, match=rf"/data: .*HTTP {status}"):
        get(pinned(site), tmp_path)
    assert len(site.asked) == 1
    assert files(tmp_path) == set()


def test_pages_for_people_are_no_files(site: Site, tmp_path: Path) -> None:
    site.answers = [
        (202, {"x-amzn-waf-action": "challenge"}),
        (200, {"Content-Type": "text/html; charset=x"}),
    ]
    with pytest.raises(
        FormatError, match=r"answered with HTTP 202 in place of the file; fetch it with a browser"
    ):
        get(unpinned(site), tmp_path, accept_unverified=True)
    with pytest.raises(FormatError, match="a web page"):
        get(unpinned(site), tmp_path, accept_unverified=True)
    assert files(tmp_path) == set()
    (tmp_path / NAME).write_bytes(CONTENT)  # fetched with a browser
    assert get(pinned(site), tmp_path).was_there


def test_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RemoteFile(NAME, "http://127.0.0.1:1/x", sha256=SHA, local=True)
    with pytest.raises(InputError, match=r"refused.*\(4 failures in a row\)"):
        get(file, tmp_path)
    monkeypatch.setattr(remote, "TIMEOUT", 0.05)
    slow = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # accepts, never serves
    file = replace(file, url=f"http://127.0.0.1:{slow.server_port}/x")
    with pytest.raises(InputError, match="nothing came for"):
        fetch(file, tmp_path, retries=replace(QUICK, attempts=2))
    slow.server_close()


def test_redirects_stay_encrypted(site: Site, tmp_path: Path) -> None:
    site.answers = [(302, {"Location": f"{site.url}/elsewhere"})]
    site.breaks = [100_000]
    assert get(pinned(site), tmp_path).path.read_bytes() == CONTENT
    assert [headers["path"] for headers in site.asked[:2]] == ["/data", "/elsewhere"]
    site.answers = [(302, {"Location": "http://example.org/data"})]
    with pytest.raises(SettingError, match=r"http://example\.org/data: only https"):
        get(pinned(site, sha256="", md5="0" * 32), tmp_path / "plain")
    site.answers = [(302, {"Location": Path("/etc/passwd").as_uri()})]
    with pytest.raises(InputError, match=r"refused|only https addresses"):
        get(pinned(site), tmp_path / "file")
    site.answers = [(302, {"Location": f"{site.url}/data"})] * 20
    with pytest.raises(InputError, match="HTTP 302"):
        get(pinned(site), tmp_path / "circle")


@pytest.mark.parametrize(
    "url", ["http://example.org/x", "ftp://example.org/x", Path("/etc/passwd").as_uri(), "x"]
)
def test_only_https(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="only https"):
        get(RemoteFile(NAME, url, md5="0" * 32), tmp_path)
    with pytest.raises(SettingError, match="only https"):
        remote.check_url("http://localhost/x")
    remote.check_url("http://example.org/x", plain=True)  # where the SHA-256 is known beforehand


def test_a_full_disk_is_told_before(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(WriteError, match=r"needs .* more bytes, 1,000 are free"):
        get(pinned(site), tmp_path)


def test_a_disk_that_fills_up(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, piece: bytes) -> int:
            raise OSError(28, "No space left on device")

    add: Any = PartialFile.add
    monkeypatch.setattr(PartialFile, "add", lambda self, piece, target: add(self, piece, Full()))
    with pytest.raises(WriteError, match=r"after 0 bytes, which are kept"):
        get(pinned(site), tmp_path)


def test_two_processes_do_not_write_one_file(site: Site, tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / f".{NAME}.part").open("ab") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is fetching this file"):
            get(pinned(site), tmp_path)


def test_downloads_at_once_remember_each_other(site: Site, tmp_path: Path) -> None:
    def one(name: str) -> None:
        get(replace(unpinned(site), name=name), tmp_path, accept_unverified=True)

    names = [f"file{number}" for number in range(8)]
    threads = [threading.Thread(target=one, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(json.loads((tmp_path / RECORD).read_text())) == names


def test_figshare_is_asked_for_the_address(site: Site, tmp_path: Path) -> None:
    md5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    entry = {"name": NAME, "download_url": f"{site.url}/data", "size": len(CONTENT), "computed_md5": md5}
    site.listing = {"files": [{"name": "readme.txt"}, entry]}
    file = RemoteFile(NAME, listing=f"{site.url}/listing", local=True)
    done = get(file, tmp_path, accept_unverified=True)
    assert (done.path.read_bytes(), done.checked) == (CONTENT, "hash published with the file")
    site.content = OTHER
    with pytest.raises(DamagedError, match="than published"):
        get(file, tmp_path / "other", accept_unverified=True)
    for listing, kind in (({"files": []}, NotFoundError), ([1], FormatError)):
        site.listing = listing
        with pytest.raises(kind, match="/listing: "):
            get(file, tmp_path / "other", accept_unverified=True)


def test_every_source_is_complete() -> None:
    assert {"qm9", "qm9s", "pcqm4mv2", "md17", "rmd17", "qm8"} <= set(SOURCES)
    for each in SOURCES.values():
        assert each.files
        assert len({file.name for file in each.files}) == len(each.files)
        for file in each.files:
            assert file.source
            assert Path(file.name).name == file.name
            remote.check_url(file.url or file.listing, plain=bool(file.sha256))
            assert len(file.md5) in (0, 32)
            assert len(file.sha256) in (0, 64)
            assert set(file.md5 + file.sha256) <= set("0123456789abcdef")
    assert [file.name for file in chosen_files(SOURCES["qm9"])] == [
        "dsgdb9nsd.xyz.tar.bz2", "uncharacterized.txt", "atomref.txt",
    ]  # fmt: skip
    assert len(chosen_files(SOURCES["rmd17"], ["rmd17_*.npz"])) == 10


@pytest.fixture
def catalogue(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """One dataset, on this machine."""
    found = Source(
        "toy", "Toy", "https://example.org", "CC0", (pinned(site), replace(unpinned(site), name="b"))
    )
    monkeypatch.setattr(sources, "SOURCES", {"toy": found})
    monkeypatch.setattr(download, "RetryPolicy", lambda: QUICK)
    return site


def test_the_command(catalogue: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", "--list"]) == 0
    printed = capsys.readouterr().out
    assert f"{len(CONTENT):,} bytes; SHA-256 pinned" in printed
    assert "NOT PINNED (nobody says)" in printed
    assert catalogue.asked == []
    assert main(["download", "toy", "--out", str(tmp_path), "--file", NAME]) == 0
    assert f"fetched, 300,000 bytes, SHA-256 {SHA}, checked against pinned hash" in capsys.readouterr().out
    out = ["--out", str(tmp_path)]
    for arguments, said in (
        (["toi", *out], "unknown dataset 'toi'; did you mean 'toy'?"),
        (["toy"], "name a dataset and --out"),
        (["toy", *out, "--file", "c*"], "no file 'c*'; it has: data.bin, b"),
        (["toy", *out], "b: no hash of it is known"),
    ):
        assert main(["download", *arguments]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert main(["download", "toy", *out, "--accept-unverified", "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "was there" in lines[0]
    assert "checked against nothing" in lines[1]
    catalogue.answers = [(404, {})]
    assert main(["download", "toy", "--out", str(tmp_path / "new"), "--quiet"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_needs_no_network(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert "--accept-unverified" in capsys.readouterr().out


def test_a_proxy_of_the_environment_is_used(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(os.environ, "http_proxy", site.url)
    file = RemoteFile(NAME, "http://data.example.org/data", len(CONTENT), sha256=SHA)
    assert get(file, tmp_path).path.read_bytes() == CONTENT
    assert site.asked[0]["path"] == "http://data.example.org/data"
    assert site.asked[0]["Host"] == "data.example.org"
