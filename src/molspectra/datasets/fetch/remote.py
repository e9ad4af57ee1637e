"""One HTTP request for a file or the rest of it; failures are transient (try again) or permanent.

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
from molspectra.errors import FormatError, InputError, NotFoundError, SettingError

TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as dropped."""

_LOCAL = ("127.0.0.1", "localhost", "::1")
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


class TransientError(Exception):
    """A failure after which the same request may succeed.

    Attributes:
        retry_after: seconds that the server asked to wait, None where it said nothing.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


@dataclass
class Response:
    """An open response.

    Attributes:
        body: to be read and closed.
        start: offset of its first byte in the file.
        total: bytes of the whole file; None where the server does not say.
        validator: an ETag or date that names this version of the content, "" where the server gives none.
    """

    body: http.client.HTTPResponse | io.BytesIO
    start: int
    total: int | None
    validator: str

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size`; none at the end.

        Raises:
            TransientError: the connection broke.
        """
        try:
            return self.body.read(size)
        except (OSError, http.client.HTTPException) as error:
            raise TransientError(short_reason(error)) from error


def check_url(url: str, *, local: bool = False, plain: bool = False) -> None:
    """Refuse an address without encryption.

    Args:
        url: of the file.
        local: allow plain http from this machine.
        plain: allow plain http, because the content is checked against a SHA-256 that is known beforehand.
    """
    parts = urllib.parse.urlsplit(url)
    is_local = local and parts.hostname in _LOCAL
    if parts.scheme == "https" or (parts.scheme == "http" and (is_local or plain)):
        return
    raise SettingError(f"{url}: only https addresses are downloaded from")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects only to addresses that `check_url` allows."""

    max_redirections = 5

    def __init__(self, local: bool, plain: bool) -> None:
        self.local, self.plain = local, plain

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """See `HTTPRedirectHandler`; the headers of the first request, with its range, are sent again."""
        check_url(newurl, local=self.local, plain=self.plain)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def request(
    url: str, start: int = 0, validator: str = "", *, local: bool = False, plain: bool = False
) -> Response:
    """Request a file from `start` on; the response may begin at 0 all the same.

    Args:
        url: of the file.
        start: offset of the first byte that is wanted.
        validator: of the content before `start`; if it has changed since, the whole file is sent.
        local: see `check_url`.
        plain: see `check_url`.

    Raises:
        TransientError: a failure that may pass.
        InputError: a permanent one: not there, not allowed, an address that is not encrypted.
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
                match = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
                return Response(io.BytesIO(), start, int(match[1]) if match else None, validator)
            raise _http_failure(url, error) from error
    except urllib.error.URLError as error:
        raise _connection_failure(url, error.reason) from error
    except (OSError, http.client.HTTPException) as error:
        raise TransientError(short_reason(error)) from error
    return _response(body, start, url)


def _response(body: http.client.HTTPResponse, start: int, url: str) -> Response:
    """Return a successful response; web pages (portals, challenges) are refused."""
    is_page = body.headers.get_content_type() == "text/html"
    if body.status not in (200, 206) or is_page:
        body.close()
        what = "a web page" if is_page else f"HTTP {body.status}"
        raise FormatError(
            f"{url}: answered with {what} in place of the file; fetch it with a browser and put it into the "
            "folder"
        )
    etag, date = body.headers.get("ETag", ""), body.headers.get("Last-Modified", "")
    validator = etag if etag and not etag.startswith("W/") else date
    if body.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", body.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != start:
            body.close()
            raise TransientError("the server sent another part of the file than it was asked for")
        total = None if match[2] == "*" else int(match[2])
        return Response(body, start, total, validator)
    length = body.headers.get("Content-Length", "")
    return Response(body, 0, int(length) if length.isdigit() else None, validator)


def _http_failure(url: str, error: urllib.error.HTTPError) -> Exception:
    """Return the error for a response of failure."""
    if error.code in _TRANSIENT:
        return TransientError(
            f"HTTP {error.code} {error.reason}", _retry_after(error.headers.get("Retry-After"))
        )
    if error.code in (404, 410):
        return NotFoundError(
            f"{url}: not there (HTTP {error.code}); the file may have moved, see its home page"
        )
    return InputError(f"{url}: refused (HTTP {error.code} {error.reason})")


def _retry_after(text: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which is a number or a date."""
    if not text:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError):
        return None


def _connection_failure(url: str, reason: Any) -> Exception:
    """Return the error for a connection that was not made."""
    if isinstance(reason, ssl.SSLCertVerificationError):
        return InputError(f"{url}: its certificate cannot be trusted ({reason.verify_message})")
    if isinstance(reason, socket.gaierror):
        return TransientError(f"no such host or no network ({reason.strerror})")
    if isinstance(reason, OSError | http.client.HTTPException):
        return TransientError(short_reason(reason))
    return InputError(f"{url}: {reason}")


def short_reason(error: BaseException) -> str:
    """Return the reason of a connection's failure in a few words."""
    if isinstance(error, TimeoutError):
        return f"nothing came for {TIMEOUT:.0f} s"
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    return text or type(error).__name__
