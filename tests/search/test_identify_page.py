"""Everything that docs/identify.md shows is done here, in its order."""

import csv
import re
import shlex
from pathlib import Path

import pytest

pytest.importorskip("tblite")

from molspectra.apps.cli import main
from molspectra.data.store.bundled import bundled
from molspectra.data.store.store import Store, write_store

PAGE = Path(__file__).resolve().parents[2] / "docs/identify.md"
BLOCK = re.compile(r"```\{code-block\} (\w+)\n(?::caption: ([^\n]*)\n)?\n?(.*?)\n```", re.DOTALL)


def test_from_a_file_to_candidates(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for language, caption, body in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(body, PAGE.name, "exec"), {})
        elif caption:
            Path(caption).write_text(body + "\n", encoding="utf-8")
        for command in body.splitlines() if language == "bash" else ():
            _, *arguments = shlex.split(command)
            if arguments[0] == "index":  # by a smaller model
                arguments += ["--model", str(run)]
            assert main(arguments) == 0, capsys.readouterr().err
    with open("hits.csv", encoding="utf-8", newline="") as file:
        hits = list(csv.DictReader(file))
    assert [hit["name"] for hit in hits][:1] == ["acetone"]
    assert {hit["formula"] for hit in hits} == {"C3H6O"}
    with open("bands.csv", encoding="utf-8", newline="") as file:
        bands = [band for band in csv.DictReader(file) if band["rank"] == "1"]
    (carbonyl,) = [band for band in bands if band["measured"] and abs(float(band["measured"]) - 1738) < 5]
    assert carbonyl["status"] == "matched"
    assert "C=O stretch" in carbonyl["motion"]
    assert all(Path(name).stat().st_size > 10_000 for name in ("why.html", "why.png", "two.html"))
    assert "scaled" in Store("mine.arrow").spectrum(0, "ir").level
    assert "baseline" in capsys.readouterr().err


def test_the_library_holds_the_bundled_molecules_and_more(tmp_path):
    library, store = bundled("bundled-library"), bundled()
    assert set(store.identities) < set(library.identities)
    assert len(library) > 2_350
    assert "scaled valence force field" in library.spectrum(0, "ir").level
    row = library.identities.index(store.identities[list(store.smiles).index("CC(C)=O")])
    lines = library.spectrum(row, "ir")
    strongest = lines.position[lines.intensity.argmax()]
    assert strongest == pytest.approx(1731, abs=25)  # the carbonyl band of acetone; 1784 before
    write_store(tmp_path / "copy.arrow", [library.row(row)], library.metadata)
