"""Serving the page: on the loopback interface alone, with limits, and nothing left behind."""

from __future__ import annotations

import logging
import os
import socket
import threading
import webbrowser
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from molspectra.errors import InputError, MissingExtraError, SettingError, ValueRangeError
from molspectra.printable import say

HOST = "127.0.0.1"

FIRST_PORT, PORTS = 7860, 100
"""The page is served at the first of so many ports that is free."""

LARGEST_UPLOAD = 200_000_000
"""Bytes of a file that is taken; the tabs take less, and say so."""

WAITING = 32
"""Requests that wait for their turn; more are refused."""

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' blob: data:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'self'"
)
"""Content security policy: nothing is loaded from, or sent to, another machine."""

_NAMES = (HOST, "localhost")


def explore(
    index: Path | str | None = None,
    *,
    model: str = "base",
    runs: Path | str = "runs",
    port: int | None = None,
    browser: bool = True,
) -> None:
    """Serve the explorer on this machine until Ctrl-C.

    Args:
        index: library to search, see `molspectra index`; None takes one of the bundled library, which is made
            at the first start, in half a minute, and kept in the user's cache.
        model: run directory or name of a shipped model, for predicted spectra and properties.
        runs: folder whose runs are shown.
        port: of the page; None takes the first free one from 7860.
        browser: open the page in the default browser.

    Raises:
        InputError: a missing extra, index or model, or a port that is taken.
    """
    if port is not None and not 1 <= port <= 65_535:
        raise ValueRangeError(f"a port is a number from 1 to 65535, not {port}")
    for name in ("fastapi", "gradio", "plotly", "uvicorn"):
        if find_spec(name) is None:
            raise MissingExtraError(
                f"the explorer needs {name}; install it with: pip install 'molspectra[explorer]'"
            )
    if index is not None and not (Path(index) / "library.json").is_file():
        from molspectra.search.manifest import read_manifest  # only now, as it loads torch

        read_manifest(Path(index))  # says what is wrong
    if str(model) != "base":
        from molspectra.training.checkpoint import find_checkpoint  # loads torch as well

        find_checkpoint(model)
    listening = _listen(port)
    with (
        TemporaryDirectory(prefix="molspectra-explorer-", ignore_cleanup_errors=True) as temporary,
        listening,
    ):
        os.environ |= {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_RUN_HISTORY": "False",  # what was searched is not kept in the browser
            "GRADIO_TEMP_DIR": temporary,
        }
        import uvicorn  # after that, as gradio looks at them when it is imported

        address = f"http://{HOST}:{listening.getsockname()[1]}/"
        application, site = _application(index, model, Path(runs), Path(temporary))
        server = uvicorn.Server(
            uvicorn.Config(
                application,
                log_level="error",
                limit_concurrency=200,
                timeout_graceful_shutdown=1,
                server_header=False,
            )
        )
        # pages that are still open are cut off at the end, which is no fault
        logging.getLogger("uvicorn.error").addFilter(lambda _: not server.should_exit)
        say(f"molspectra: the explorer is at {address} (Ctrl-C ends it)", error=True)
        threading.Thread(target=_warm, args=(site,), daemon=True).start()
        if browser:
            threading.Timer(0.5, webbrowser.open, (address,)).start()
        with suppress(KeyboardInterrupt):  # the way to end it
            server.run(sockets=[listening])


def _listen(port: int | None) -> socket.socket:
    """A socket at a port of the loopback interface."""
    for number in range(FIRST_PORT, FIRST_PORT + PORTS) if port is None else (port,):
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((HOST, number))
            made.listen()  # now: two that start at once could both bind
        except OSError:
            made.close()
            continue
        return made
    where = f"port {port} is" if port is not None else f"ports {FIRST_PORT} to {FIRST_PORT + PORTS - 1} are"
    raise SettingError(f"{where} taken; choose another with --port")


def _application(index: Path | str | None, model: str, runs: Path, temporary: Path) -> tuple[Any, Any]:
    """The web application and what its tabs share."""
    import gradio as gr
    import plotly
    from fastapi import FastAPI, Request, Response
    from fastapi.middleware.trustedhost import TrustedHostMiddleware
    from fastapi.responses import FileResponse, PlainTextResponse
    from fastapi.staticfiles import StaticFiles

    from molspectra.apps.explorer.frames import STATIC
    from molspectra.apps.explorer.page import STYLE, build, theme
    from molspectra.apps.explorer.site import Site

    site = Site(None if index is None else Path(index), model, runs, temporary)
    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        """Refuse requests that other pages of the browser make, and forbid the page to reach elsewhere."""
        is_script = request.method == "GET" and request.url.path.startswith("/frames/")
        if not is_script and request.headers.get("sec-fetch-site", "same-origin") not in (
            "same-origin",
            "none",
        ):
            return PlainTextResponse("only the explorer's own page may ask for this", 403)
        response = await answer(request)
        if is_script:  # a sandboxed frame has no origin, and a module is loaded only where any may have it
            response.headers["Access-Control-Allow-Origin"] = "*"
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    application.middleware("http")(guard)
    application.add_middleware(TrustedHostMiddleware, allowed_hosts=list(_NAMES))
    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    application.get("/frames/plotly.min.js", include_in_schema=False)(lambda: FileResponse(script))
    application.mount("/frames", StaticFiles(directory=STATIC))
    blocks = build(site).queue(max_size=WAITING, default_concurrency_limit=4)
    mounted = gr.mount_gradio_app(
        application,
        blocks,
        path="/",
        server_name=HOST,
        footer_links=[],
        show_error=True,
        max_file_size=LARGEST_UPLOAD,
        allowed_paths=[],
        ssr_mode=False,
        pwa=False,
        theme=theme(),
        css=STYLE,
    )
    return mounted, site


def _warm(site: Any) -> None:
    """Open what the first search needs while the page is looked at."""
    from molspectra.apps.explorer.site import import_all

    import_all()
    try:
        _ = site.library.answers
    except InputError as error:
        say(f"molspectra: {error}", error=True)
