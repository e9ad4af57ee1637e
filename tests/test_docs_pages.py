"""Every page of the documentation is in the table of contents, with a title and an address of its own."""

import re
from collections import Counter
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
MADE_BY_SPHINX = {"search", "genindex", "modindex", "py-modindex"}
"""Pages that Sphinx writes; a page of ours with such a name would be replaced by it, or replace it."""

PAGES = {
    path.relative_to(DOCS).with_suffix("").as_posix()
    for path in DOCS.rglob("*.md")
    if not {"_build", "api"} & set(path.relative_to(DOCS).parts[:-1])  # these are made, not written
}
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OTHER_FILE = re.compile(r"^```\{include\} (\S+)$", re.MULTILINE)


def text_of(page: str) -> str:
    """A page, or the file that it consists of."""
    path = DOCS / f"{page}.md"
    text = path.read_text(encoding="utf-8")
    included = OTHER_FILE.match(text)
    return (path.parent / included[1]).read_text(encoding="utf-8") if included else text


def listed(page: str) -> list[str]:
    """Pages in the tables of contents of a page, in order."""
    lines = [line for body in TOCTREE.findall(text_of(page)) for line in body.splitlines()]
    return [line for line in lines if line and not line.startswith(":")]


def title(page: str) -> str:
    """The first heading of a page."""
    text = re.sub(r"\A---\n.*?^---\n", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    found = re.match(r"\s*# (.+)\n", text)
    assert found, f"{page}.md does not begin with its title"
    return found[1].strip()


def test_every_page_is_in_the_table_of_contents_once() -> None:
    entries = Counter(name for page in PAGES for name in listed(page) if not name.startswith("api/"))
    assert max(entries.values()) == 1, entries.most_common(1)
    assert PAGES - entries.keys() == {"index"}
    assert entries.keys() - PAGES == set()


def test_every_page_has_a_title_of_its_own() -> None:
    titles = Counter(title(page).casefold() for page in PAGES)
    assert [name for name, pages in titles.items() if pages > 1] == []
    assert not {"search", "index", "search page", "python module index"} & titles.keys()


def test_no_page_has_the_address_of_one_that_sphinx_writes() -> None:
    assert {page.casefold() for page in PAGES} & MADE_BY_SPHINX == set()


def test_no_page_in_the_table_of_contents_says_that_it_is_in_none() -> None:
    assert [page for page in PAGES if re.match(r"---\n.*?orphan:", text_of(page), re.DOTALL)] == []
