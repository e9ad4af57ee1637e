"""What the tabs of the page share: the library, the model, the folder of runs, and how they are opened."""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molspectra._version import __version__
from molspectra.apps.explorer.frames import message
from molspectra.data.atomic import naming
from molspectra.data.output import cache_folder
from molspectra.errors import MolspectraError
from molspectra.printable import say

if TYPE_CHECKING:
    from molspectra.apps.loading import LoadedModel
    from molspectra.search.library import Library

LOG = logging.getLogger(__name__)

LIBRARY = "bundled-library"
"""The library that is searched where none is given."""

AS_FILE = "as the file says"
"""Choice of a unit or quantity that is not stated but read."""

COMPUTE: dict[str, Any] = {"concurrency_id": "compute", "concurrency_limit": 1, "api_visibility": "private"}
"""For handlers that compute: one at a time, as the machine has few cores."""

LIGHT: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
"""For handlers that only change what is shown."""


@dataclass(eq=False)
class Site:
    """Settings and shared things of one explorer.

    Attributes:
        index: folder of the library that is searched; None for one of the bundled library, which is made at
            the first start, and kept in the user's cache.
        model: run directory or shipped model that predicts spectra and properties.
        runs: folder of runs to show.
        temporary: folder for files that people download; gone when the explorer ends.
    """

    index: Path | None
    model: str
    runs: Path
    temporary: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @functools.cached_property
    def _library(self) -> Library:
        from molspectra.search.library import Library

        return Library(_bundled_index() if self.index is None else self.index)

    @functools.cached_property
    def _model(self) -> LoadedModel:
        from molspectra.apps.loading import load

        return load(self.model)

    @property
    def is_ready(self) -> bool:
        """Whether the library is open, which takes half a minute the first time."""
        return "_library" in self.__dict__

    def folder(self) -> Path:
        """A new folder for files that one visitor downloads, with a name that nobody guesses."""
        path = self.temporary / uuid.uuid4().hex
        path.mkdir()
        return path

    @property
    def library(self) -> Library:
        """The library, opened on first use."""
        with self._lock:
            return self._library

    @property
    def loaded(self) -> LoadedModel:
        """The model, loaded on first use."""
        with self._lock:
            return self._model


def _bundled_index() -> Path:
    """The index of the bundled library, made if it is not there."""
    from molspectra.data.store.bundled import bundled
    from molspectra.search.build import build

    folder = cache_folder() / f"library-{__version__}-{bundled(LIBRARY).hash[:16]}"
    if not folder.exists():
        say("molspectra: making the index of the bundled library, once", error=True)
        with naming(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
        build(folder, LIBRARY)
    return folder


_IMPORTING = threading.Lock()


def import_all() -> None:
    """Import what handlers need, in one thread, as another would find a torch that is half imported."""
    with _IMPORTING:
        importlib.import_module("molspectra.apps.explorer.identify")
        importlib.import_module("molspectra.apps.explorer.molecule")


Told = tuple[Any, ...]


def guarded(outputs: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a handler that never takes the page down: the first of its outputs says what is wrong.

    A handler returns a tuple of its outputs, or yields several. What the user can mend is told in one line;
    of anything else the page says that it is a fault, and the terminal has the details.

    Args:
        outputs: number of outputs of the handler; the others keep what they show.
    """
    import gradio as gr

    def failed(error: Exception) -> Told:
        if isinstance(error, MolspectraError):
            told = " ".join(str(error).split())
        else:
            LOG.exception("the explorer could not answer")
            told = (
                "This did not work; it is a fault of the program. The terminal that runs it has the details."
            )
        kept: tuple[Any, ...] = tuple(gr.skip() for _ in range(outputs - 1))
        return (message(told, error=True), *kept)

    def decorate(handler: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isgeneratorfunction(handler):

            @functools.wraps(handler)
            def stream(*arguments: Any) -> Iterator[Told]:
                try:
                    import_all()
                    yield from handler(*arguments)
                except Exception as error:  # one request never ends the page
                    yield failed(error)

            return stream

        @functools.wraps(handler)
        def answer(*arguments: Any) -> Told:
            try:
                import_all()
                told: Told = handler(*arguments)
            except Exception as error:  # one request never ends the page
                return failed(error)
            return told

        return answer

    return decorate


def chosen(event: Any, name: str) -> Any:
    """A value that an element of the page sent with its event; None without one."""
    data = getattr(event, "_data", None)
    return data.get(name) if isinstance(data, dict) else None


SELECT = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-choice]');
  if (!button || !element.contains(button)) return;
  element.querySelectorAll('[data-choice]').forEach((each) =>
    each.setAttribute('aria-pressed', String(each === button)));
  trigger('select', { choice: button.dataset.choice });
});
"""
"""Script of an element whose buttons carry a choice."""

LISTEN = """
const listen = (event) => {
  if (!element.isConnected) { window.removeEventListener('message', listen); return; }
  const frame = element.querySelector('iframe');
  if (!frame || event.source !== frame.contentWindow || typeof event.data !== 'object') return;
  const choice = String(event.data?.choice ?? '').slice(0, 10000);
  if (choice) trigger('select', { choice });
};
window.addEventListener('message', listen);
"""
"""Script of an element with a frame whose messages carry a choice; those of others are not listened to."""
