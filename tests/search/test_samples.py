"""Several files in one call: several samples, one table."""

import json
import shutil

import pyarrow.csv
import pyarrow.parquet
import pytest

from molspectra.apps.cli import main
from molspectra.search.hits import of_samples
from molspectra.search.library import Library

ROWS = (4, 11)


@pytest.fixture
def files(tmp_path, small, columns_of):
    return [str(columns_of(f"{row}.csv", small.spectrum(row, "ir").broadened())) for row in ROWS]


def test_one_table_with_the_answers_of_each_sample(made, files, tmp_path, capsys):
    query = ["search", str(made), "--ir", *files]
    assert main([*query, "--out", str(tmp_path / "all.csv")]) == 0
    said = capsys.readouterr()
    names = [line.split()[0] for line in said.out.splitlines()]
    assert names[:7] == ["sample", *["4.csv"] * 3, *["11.csv"] * 3]
    assert said.err.count("a baseline") == 1  # of both
    table = pyarrow.csv.read_csv(tmp_path / "all.csv")
    assert table.column_names[:2] == ["sample", "rank"]
    assert table["sample"].to_pylist() == ["4.csv"] * 25 + ["11.csv"] * 25
    library = Library(made)
    hits = {str(file): library.search({"ir": file}) for file in files}
    rows = [row for each in hits.values() for row in each.table["row"].to_pylist()]
    assert table["row"].to_pylist() == rows
    assert of_samples(hits).candidates == 60

    assert main([*query, "--top", "1", "--out", str(tmp_path / "all.json")]) == 0
    content = json.loads((tmp_path / "all.json").read_text())
    assert [(hit["sample"], hit["row"]) for hit in content["hits"]] == [("4.csv", 4), ("11.csv", 11)]


def test_kinds_are_paired_in_their_order(made, files, small, columns_of, tmp_path, capsys):
    raman = [
        str(columns_of(f"{row}.txt", small.spectrum(row, "raman").broadened(), "raman shift, intensity"))
        for row in ROWS
    ]
    query = ["search", str(made), "--raman", *raman, "--ir", *files, "--top", "1"]
    assert main([*query, "--out", str(tmp_path / "hits.json")]) == 0
    hits = json.loads((tmp_path / "hits.json").read_text())["hits"]
    assert [hit["row"] for hit in hits] == list(ROWS)
    capsys.readouterr()
    assert main([*query, "--ir", files[0]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--ir has 1" in line
    assert "--raman has 2" in line


def test_a_bad_file_does_not_stop_the_others(made, files, tmp_path, capsys):
    bad = [str(tmp_path / name) for name in ("bad.csv", "none.csv")]
    (tmp_path / "bad.csv").write_text("hello\n")
    out = tmp_path / "hits.parquet"
    query = ["search", str(made), "--out", str(out), "--ir"]
    assert main([*query, *bad]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert [name in line for name, line in zip(bad, said.err.splitlines(), strict=True)] == [True, True]
    assert not out.exists()
    assert main([*query, bad[0], *files, bad[1]]) == 2
    said = capsys.readouterr()
    assert sum("error" in line for line in said.err.splitlines()) == 2
    assert "2 of 4 samples" in said.out
    assert set(pyarrow.parquet.read_table(out)["sample"].to_pylist()) == {"4.csv", "11.csv"}


def test_what_is_wrong_with_all_is_told_once(made, files, tmp_path, capsys):
    for wrong in (["--formula", "Qq2"], ["--top", "0"], ["--ir", *files, files[0]]):
        assert main(["search", str(made), "--ir", *files, *wrong]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert sum("error" in line for line in said.err.splitlines()) == 1
    assert main(["search", "--ir", files[0], str(made)]) == 2
    assert "search DIR --ir" in capsys.readouterr().err


def test_equal_names_get_as_much_of_their_paths_as_differs(made, files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder in ("a/x", "b/x", "b/y"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(files[0], tmp_path / folder / "ir.csv")
    query = ["search", str(made), "--top", "1", "--ir", "b/x/ir.csv", "a/x/ir.csv", "4.csv"]
    assert main(query) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names[1:4] == ["b/x/ir.csv", "a/x/ir.csv", "4.csv"]
    assert main(["search", str(made), "--top", "1", "--ir", "b/x/ir.csv", "b/y/ir.csv"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names[1:3] == ["x/ir.csv", "y/ir.csv"]
