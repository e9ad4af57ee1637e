"""One HTTP request for a file or the rest of it, and whether what goes wrong may be tried again.

Proxies are those of the environment (`HTTPS_PROXY`, `NO_PROXY`).
"""

from __future__ import annotations

import email.utils
import http.client
import io
import re
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from molspectra._version import __version__
from molspectra.errors import InputError

TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as dropped."""

_LOCAL = ("127.0.0.1", "localhost", "::1")
_AGAIN = (408, 425, 429, 500, 502, 503, 504)


class Dropped(Exception):
    """The connection failed in a way that may pass; it is worth trying again.

    Attributes:
        wait: seconds that the server asked to wait, None where it said nothing.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass
class Answer:
    """An open response.

    Attributes:
        body: to be read and closed.
        start: offset of its first byte in the file.
        total: bytes of the whole file; None where the server does not say.
        validator: an ETag or date that names this very content, "" where the server gives none.
        url: where it came from in the end.
    """

    body: http.client.HTTPResponse | io.BytesIO
    start: int
    total: int | None
    validator: str
    url: str

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`; none at the end.

        Raises:
            Dropped: the connection broke.
        """
        try:
            return self.body.read(size)
        except (OSError, http.client.HTTPException) as error:
            raise Dropped(reason_of(error)) from error


def check_url(url: str, *, local: bool = False, plain: bool = False) -> None:
    """Refuse addresses that are not encrypted.

    Args:
        url: of the file.
        local: this machine may be asked without encryption.
        plain: so may any, because the content is checked against a SHA-256 that is known beforehand.

    Raises:
        InputError: another kind of address.
    """
    parts = urllib.parse.urlsplit(url)
    is_local = local and parts.hostname in _LOCAL
    if parts.scheme == "https" or (parts.scheme == "http" and (is_local or plain)):
        return
    raise InputError(f"{url}: only https addresses are downloaded from")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to allowed addresses alone."""

    max_redirections = 5

    def __init__(self, local: bool, plain: bool) -> None:
        self.local, self.plain = local, plain

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """See `HTTPRedirectHandler`; the ranges asked for are asked for again."""
        check_url(newurl, local=self.local, plain=self.plain)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def ask(url: str, start: int = 0, validator: str = "", *, local: bool = False, plain: bool = False) -> Answer:
    """Ask for a file from `start` on; the answer may begin at 0 all the same.

    Args:
        url: of the file.
        start: bytes that are there already.
        validator: of the content that they belong to; with another content the whole file is sent.
        local: see `check_url`.
        plain: see `check_url`.

    Raises:
        Dropped: a failure that may pass.
        InputError: one that will not: not there, not allowed, an address that is not encrypted.
    """
    check_url(url, local=local, plain=plain)
    headers = {"User-Agent": f"molspectra/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    handlers: list[Any] = [_Redirects(local, plain)]
    if local:
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    try:
        body = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and start:  # nothing comes after what is there
                return Answer(io.BytesIO(), start, _total(error.headers), validator, url)
            raise _refusal(url, error) from error
    except urllib.error.URLError as error:
        raise _unreachable(url, error.reason) from error
    except (OSError, http.client.HTTPException) as error:
        raise Dropped(reason_of(error)) from error
    return _answer(body, start, url)


def _answer(body: http.client.HTTPResponse, start: int, url: str) -> Answer:
    """What a response of success holds; pages for people (portals, challenges) are no files.

    Raises:
        Dropped: another part than was asked for.
        InputError: something else than a file.
    """
    is_page = body.headers.get_content_type() == "text/html"
    if body.status not in (200, 206) or is_page:
        body.close()
        what = "a web page" if is_page else f"HTTP {body.status}"
        raise InputError(
            f"{url}: answered with {what} in place of the file; fetch it with a browser and put it into the "
            "folder"
        )
    etag, date = body.headers.get("ETag", ""), body.headers.get("Last-Modified", "")
    validator = etag if etag and not etag.startswith("W/") else date
    if body.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", body.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != start:
            body.close()
            raise Dropped("the server sent another part of the file than it was asked for")
        total = None if match[2] == "*" else int(match[2])
        return Answer(body, start, total, validator, body.url)
    length = body.headers.get("Content-Length", "")
    return Answer(body, 0, int(length) if length.isdigit() else None, validator, body.url)


def _total(headers: Any) -> int | None:
    match = re.fullmatch(r"bytes \*/(\d+)", headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _refusal(url: str, error: urllib.error.HTTPError) -> Exception:
    """What an answer of failure means."""
    if error.code in _AGAIN:
        return Dropped(f"HTTP {error.code} {error.reason}", _retry_after(error.headers.get("Retry-After")))
    if error.code in (404, 410):
        return InputError(f"{url}: not there (HTTP {error.code}); the file may have moved, see its home page")
    return InputError(f"{url}: refused (HTTP {error.code} {error.reason})")


def _retry_after(text: str | None) -> float | None:
    """Seconds of a Retry-After header, a number or a date."""
    if not text:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError):
        return None


def _unreachable(url: str, reason: Any) -> Exception:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return InputError(f"{url}: its certificate cannot be trusted ({reason.verify_message})")
    if isinstance(reason, socket.gaierror):
        return Dropped(f"no such host or no network ({reason.strerror})")
    if isinstance(reason, OSError | http.client.HTTPException):
        return Dropped(reason_of(reason))
    return InputError(f"{url}: {reason}")


def reason_of(error: BaseException) -> str:
    """A connection's failure in a few words."""
    if isinstance(error, TimeoutError):
        return f"nothing came for {TIMEOUT:.0f} s"
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    return text or type(error).__name__
