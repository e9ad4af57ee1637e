"""HTML as a tree of function calls: every text is escaped unless it is already markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape


class Markup(str):
    """Text that is HTML already; anything else is escaped where it is put into an element."""

    __slots__ = ()


Child = str | None | Iterable["Child"]


def markup(child: Child) -> Markup:
    """Markup of a child: texts escaped, None nothing, others one after the other."""
    if child is None:
        return Markup("")
    if isinstance(child, Markup):
        return child
    if isinstance(child, str):
        return Markup(escape(_printable(child)))
    return Markup("".join(markup(each) for each in child))


def _printable(text: str) -> str:
    """Replace control characters, which HTML forbids, and lone surrogates, which cannot be encoded."""
    return re.sub("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", "\ufffd", text)


def element(name: str, /, *children: Child, **attributes: str | None) -> Markup:
    """An element; attributes in Python's spelling (`class_`, `aria_label`), None leaves one out."""
    pairs = (
        f' {key.rstrip("_").replace("_", "-")}="{markup(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{''.join(pairs)}>{markup(children)}</{name}>")


def paragraph(*children: Child, class_: str | None = None) -> Markup:
    """A paragraph."""
    return element("p", *children, class_=class_)


def listing(items: Iterable[Child]) -> Markup | None:
    """An unordered list; nothing for no items."""
    entries = [element("li", item) for item in items]
    return element("ul", entries) if entries else None


def section(title: str, *children: Child, id_: str) -> Markup:
    """A part of the page with its heading."""
    return element("section", element("h2", title, id=id_), *children, aria_labelledby=id_)


def table(
    caption: str, head: Sequence[Child], rows: Iterable[Sequence[Child]], *, numbers: Sequence[int] = ()
) -> Markup:
    """A table in a box that scrolls sideways on a narrow screen.

    Args:
        caption: tells what the table shows.
        head: column headings.
        rows: cells; the first of each row is its heading.
        numbers: columns to set flush right.
    """

    def style(column: int) -> str | None:
        return "number" if column in numbers else None

    top = element("tr", [element("th", cell, scope="col", class_=style(i)) for i, cell in enumerate(head)])
    body = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            [element("td", cell, class_=style(i)) for i, cell in enumerate(row[1:], 1)],
        )
        for row in rows
    ]
    whole = element("table", element("caption", caption), element("thead", top), element("tbody", body))
    return element("div", whole, class_="scroll", role="region", aria_label=caption, tabindex="0")


def figure(picture: Markup, caption: Child, *, class_: str = "plot") -> Markup:
    """A picture with its caption; a wide one scrolls sideways on a narrow screen."""
    return element("figure", element("div", picture, class_=class_), element("figcaption", caption))


def details(summary: str, *children: Child) -> Markup:
    """Something that is folded away until it is asked for."""
    return element("details", element("summary", summary), *children)
