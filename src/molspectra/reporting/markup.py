"""HTML built by nested function calls: every text is escaped unless it is already markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from molspectra.printable import printable


class Markup(str):
    """Text that is already HTML; any other text is escaped when it is put into an element."""

    __slots__ = ()


Child = str | None | Iterable["Child"]


def markup(child: Child) -> Markup:
    """Return the markup of a child: text escaped, None empty, an iterable's items concatenated."""
    if child is None:
        return Markup("")
    if isinstance(child, Markup):
        return child
    if isinstance(child, str):
        return Markup(escape(printable(child)))
    return Markup("".join(markup(item) for item in child))


def element(name: str, /, *children: Child, **attributes: str | None) -> Markup:
    """Return an element; attributes in Python's spelling (`class_`, `aria_label`), None leaves one out."""
    pairs = (
        f' {key.rstrip("_").replace("_", "-")}="{markup(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{''.join(pairs)}>{markup(children)}</{name}>")


def paragraph(*children: Child) -> Markup:
    """Return a paragraph."""
    return element("p", *children)


def listing(items: Iterable[Child]) -> Markup | None:
    """Return an unordered list; None without items."""
    entries = [element("li", item) for item in items]
    return element("ul", entries) if entries else None


def section(title: str, *children: Child, id_: str) -> Markup:
    """Return a part of the page with its heading."""
    return element("section", element("h2", title, id=id_), *children, aria_labelledby=id_)


def table(
    caption: str, head: Sequence[Child], rows: Iterable[Sequence[Child]], *, numbers: Sequence[int] = ()
) -> Markup:
    """Return a table in a box that scrolls sideways on a narrow screen.

    Args:
        caption: what the table shows.
        head: column headings.
        rows: cells; the first of each row is its heading.
        numbers: indices of the columns to align right.
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
    content = element("table", element("caption", caption), element("thead", top), element("tbody", body))
    return element("div", content, class_="scroll", role="region", aria_label=caption, tabindex="0")


def details(summary: str, *children: Child) -> Markup:
    """Return content that is collapsed until the summary is clicked."""
    return element("details", element("summary", summary), *children)


STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #57606a; --page: #ffffff; --box: #f6f8fa;
  --line: #d0d7de; --accent: #0b5cad; --good: #0a7d4f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #a3abb5; --page: #14171b;
  --box: #1d2126; --line: #3a4149; --accent: #7cb7f5; --good: #5fd3a4; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .75rem; }
h2 { font-size: 1.3rem; margin: 2.75rem 0 .75rem; padding-bottom: .25rem;
  border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
p, li { max-width: 46rem; overflow-wrap: anywhere; }
a { color: var(--accent); }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; list-style: none; padding: 0; margin: 0; }
.short { background: var(--box); border: 1px solid var(--line); border-radius: .5rem; padding: .25rem 1.1rem;
  margin: 1rem 0 1.25rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .93rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .4rem;
  max-width: min(46rem, calc(100vw - 2rem)); }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; }
tbody th { font-weight: 600; min-width: 7.5rem; }
.number { text-align: right; white-space: nowrap; }
figure { margin: 1.25rem 0; }
figcaption { color: var(--soft); font-size: .93rem; max-width: 46rem; margin-top: .35rem; }
.plot { overflow-x: auto; }
.plot > svg { display: block; width: 100%; height: auto; max-width: 62rem; }
.plot > svg.medium { max-width: 42rem; }
@media (max-width: 40rem) { .plot > svg { width: auto; min-width: 38rem; }
  .plot > svg.medium { min-width: 30rem; } }
.row { display: flex; flex-wrap: wrap; gap: .6rem; list-style: none; padding: 0; margin: .5rem 0 1.25rem; }
.card { width: 9.5rem; border: 1px solid var(--line); border-radius: .5rem; padding: .4rem .5rem; margin: 0;
  font-size: .85rem; line-height: 1.35; overflow-wrap: anywhere; }
.card svg { display: block; width: 100%; height: auto; }
.card.true { border: 2px solid var(--good); }
.card .mark { color: var(--good); font-weight: 600; }
.soft { color: var(--soft); }
.drawing { width: 7rem; }
.drawing svg { display: block; width: 100%; height: auto; }
summary { cursor: pointer; padding: .2rem 0; }
pre { overflow-x: auto; background: var(--box); border: 1px solid var(--line); border-radius: .5rem;
  padding: .75rem; font-size: .82rem; line-height: 1.4; }
code { overflow-wrap: anywhere; }
@media print { main { max-width: none; padding: 0; } nav { display: none; }
  .scroll, .plot { overflow: visible; }
  figure, tr, .card { break-inside: avoid; } h2, h3, caption { break-after: avoid; } }
"""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Content security policy: whatever a name in the data contains, no script runs and nothing is loaded."""


def page(title: str, *parts: Markup | None) -> str:
    """Return a whole HTML document with the given body."""
    head = (
        '<meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    )
    top = element("head", Markup(head), element("title", title), element("style", Markup(STYLE)))
    body = element("body", element("main", *parts))
    return f'<!DOCTYPE html>\n<html lang="en">{top}{body}</html>\n'
