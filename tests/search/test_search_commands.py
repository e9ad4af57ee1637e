"""`index` and `search` as they are typed; files that are damaged or hostile give one line and exit code 2."""

import csv
import gzip
import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest

from molspectra.apps.cli import main
from molspectra.errors import DamagedError
from molspectra.search.manifest import read_manifest

JCAMP = """##TITLE=a
##JCAMP-DX=4.24
##DATA TYPE=INFRARED SPECTRUM
##XUNITS=1/CM
##YUNITS=ABSORBANCE
##XFACTOR=1
##YFACTOR=1
##FIRSTX=500
##LASTX=4000
##NPOINTS=36
##XYDATA=(X++(Y..Y))
{table}
##END=
"""
TABLE = "\n".join(f"{500 + 1200 * part} {' '.join(['1'] * 6)} 3 {' '.join(['1'] * 5)}" for part in range(3))
GOOD = JCAMP.format(table=TABLE)


def refused(capsys, *arguments):
    """The one line that a refused command prints."""
    assert main(list(map(str, arguments))) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == ""
    assert "Traceback" not in line
    return line.removeprefix("molspectra: error: ")


def axis(start, stop, value="1", count=100):
    return "\n".join(f"{x:.4f},{value}" for x in np.linspace(start, stop, count))


QUERIES = {
    "cut.jdx": (GOOD[:-60], "truncated"),
    "few.jdx": (GOOD.replace("NPOINTS=36", "NPOINTS=40"), "NPOINTS=40, but there are 36 values"),
    "many.jdx": (GOOD.replace("NPOINTS=36", "NPOINTS=12"), "more than the 12 values"),
    "bomb.jdx": (JCAMP.format(table="500 1Z999999999999"), "more than the 36 values"),
    "endless.jdx": (GOOD.replace("NPOINTS=36", "NPOINTS=99999999999"), "NPOINTS"),
    "nan.jdx": (GOOD.replace("500 1 1", "500 NaN 1"), "line 12"),
    "unit.jdx": (GOOD.replace("1/CM", "FURLONGS"), "XUNITS='FURLONGS'"),
    "ordinate.jdx": (GOOD.replace("ABSORBANCE", "SMOOTHED VARIANCE"), "the ordinate is 'smoothed variance'"),
    "nmr.jdx": (GOOD.replace("INFRARED SPECTRUM", "NMR SPECTRUM"), "NMR SPECTRUM"),
    "raman.jdx": (GOOD.replace("INFRARED", "RAMAN"), "holds no ir spectrum, but raman"),
    "two.jdx": (GOOD + GOOD, "holds 2 ir spectra"),
    "factor.jdx": (GOOD.replace("YFACTOR=1", "YFACTOR=1e999"), "YFACTOR"),
    "shifted.jdx": (GOOD.replace("1700 ", "2700 "), "lines are missing or damaged"),
    "text.jdx": ("hello\n", "not a JCAMP-DX file"),
    "empty.jdx": ("", "is empty"),
    "binary.jdx": (bytes(range(256)) * 40, "not a text file"),
    "packed.jdx": (gzip.compress(b"0" * 10_000_000), "not a text file"),
    "zeros.jdx": (JCAMP.format(table=re.sub(" [13]", " 0", TABLE)), "all intensities are zero"),
    "flat.jdx": (JCAMP.format(table=TABLE.replace(" 3", " 1")), "it is flat"),
    "down.jdx": (GOOD.replace("YFACTOR=1", "YFACTOR=-1"), "negative intensities"),
    "absurd.jdx": (GOOD.replace("YFACTOR=1", "YFACTOR=1E30"), "an intensity of 3e+30 cannot be right"),
    "zeros.csv": ("cm-1,absorbance ir\n" + axis(400, 4000, "0"), "all intensities are zero"),
    "slope.csv": ("cm-1,absorbance\n" + "\n".join(f"{x},{x}" for x in range(500, 4000, 2)), "it is flat"),
    "directory.jdx": (None, "is a directory"),
    "empty.csv": ("", "is empty"),
    "blank.csv": ("\n \n\n", "is empty"),
    "words.csv": ("wavenumber,absorbance\nsome,words\n", "no line of two numbers"),
    "nan.csv": ("cm-1,absorbance\n500,1\n600,nan\n", "line 3: 'nan' is not a finite number"),
    "infinite.csv": ("cm-1,absorbance\n500,1\n600,1e999\n", "not a finite number"),
    "huge.csv": ("cm-1,absorbance\n" + axis(500, 4000, "1e308") + "\n4000.5,1e309", "not a finite number"),
    "columns.csv": ("cm-1,absorbance\n500,1\n600,1,3\n", "3 columns"),
    "no-unit.csv": ("x,absorbance\n" + axis(500, 4000), "which unit?"),
    "no-quantity.csv": ("cm-1,y\n" + axis(500, 4000), "which quantity?"),
    "wrong-unit.csv": ("nm,absorbance\n" + axis(200, 400), "lie on the ir axis"),
    "wrong-axis.csv": ("cm-1,absorbance\n" + axis(1, 15), "lie on the ir axis"),
    "turning.csv": ("cm-1,absorbance\n500,1\n700,1\n600,1\n", "does not run one way"),
    "reflectance.csv": ("cm-1,reflectance\n" + axis(500, 4000, "0.5"), "choose how to convert"),
    "raman.csv": ("cm-1,intensity,raman\n" + axis(500, 4000).replace(",1", ",5", 40), ""),
    "latin.csv": (b"\xff\xfe\x00", "not a text file"),
    "none.log": ("", "is empty"),
    "other.log": ("This is no output of a program.\n", "not an output of"),
}  # fmt: skip


@pytest.mark.parametrize("name", QUERIES)
def test_hostile_spectra(name, made, tmp_path, capsys):
    content, said = QUERIES[name]
    path = tmp_path / name
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if name == "raman.csv":  # the header says what it is, the user something else; text files are believed
        assert main(["search", str(made), "--ir", str(path)]) == 0
        return
    line = refused(capsys, "search", made, "--ir", path)
    assert name in line
    assert said in line


def test_the_good_file_is_good(made, tmp_path, capsys):
    (tmp_path / "good.jdx").write_text(GOOD)
    assert main(["search", str(made), "--ir", str(tmp_path / "good.jdx")]) == 0
    assert "25 of 60 candidates" in capsys.readouterr().out


def test_the_scale_of_a_measured_spectrum_is_arbitrary(made, small, columns_of, capsys):
    answers = []
    for scale in (1e-3, 1e8, 1e-250):
        path = columns_of(f"{scale:g}.csv", small.spectrum(4, "ir").broadened(), scale=scale)
        assert main(["search", str(made), "--ir", str(path), "--by", "cosine", "embedding"]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] == answers[2]


SDF = "\n  made\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n{atom}\nM  END\n$$$$\n"
LIBRARIES = {
    "cut.sdf": (SDF.format(atom="    0.0000    0.0000    0.0000 He  0")[:60], "record 1"),
    "nan.sdf": (SDF.format(atom="       nan    0.0000    0.0000 He  0"), "record 1"),
    "element.sdf": (SDF.format(atom="    0.0000    0.0000    0.0000 Xx  0"), "record 1"),
    "empty.sdf": ("", "is empty"),
    "binary.sdf": (bytes(range(256)), "not a text file|not UTF-8"),
    "packed.sdf": (gzip.compress(b"0" * 10_000_000), "not UTF-8|not a text file"),
    "bad.smi": ("CCO\nC(\n", "line 2: unreadable SMILES"),
    "none.smi": ("# nothing\n", "holds no molecules"),
    "two.smi": ("CCO.Cl\n", "2 fragments"),
    "column.csv": ("name,structure\na,CCO\n", "no column 'smiles'"),
    "quote.csv": ('smiles,name\n"CCO,a\n', "broken CSV"),
    "cut.xyz": ("3\nwater\nO 0 0 0\n", "cut.xyz"),
    "zip.arrow": (b"PK\3\4" + bytes(100), "not an Arrow file"),
    "bad.parquet": (b"PAR1" + bytes(100) + b"PAR1", "not a readable Parquet file"),
    "molecules.pdf": ("CCO\n", "unknown format 'pdf'"),
}


@pytest.mark.parametrize("name", LIBRARIES)
def test_hostile_libraries(name, index, run, tmp_path, capsys):
    content, said = LIBRARIES[name]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    lines = [
        refused(capsys, "index", path, "--model", run, "--out", tmp_path / "new"),
        refused(capsys, "index", path, "--out", index, "--append"),
    ]
    for line in lines:
        assert name in line
        assert any(each in line for each in said.split("|")), line
    assert not (tmp_path / "new").exists()
    assert [each.name for each in tmp_path.glob(".new*")] == []
    assert len(list(index.glob("segment-*"))) == 1


def test_bad_records_may_be_skipped(run, tmp_path, capsys):
    (tmp_path / "some.smi").write_text("CCO\nC(\nCCN\n")
    arguments = ["index", str(tmp_path / "some.smi"), "--model", str(run), "--out", str(tmp_path / "index")]
    assert main([*arguments, "--on-error", "skip"]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("2 molecules in ")
    assert "skipped" in said.err
    assert "line 2" in said.err
    (tmp_path / "more.smi").write_text("CCC\nCBr\nC(\nN(\n")
    append = ["index", str(tmp_path / "more.smi"), "--out", str(tmp_path / "index"), "--append"]
    assert main([*append, "--on-error", "skip"]) == 1
    path = tmp_path / "index" / "library.json"
    values = json.loads(path.read_text())
    first, second = (values["rejected"][segment["name"]] for segment in values["segments"])
    assert list(first.values()) == [1]
    assert "unreadable SMILES" in next(iter(first))
    assert sorted(second.values()) == [1, 2]
    assert any("Br" in kind for kind in second)
    assert read_manifest(path.parent).rejected == values["rejected"]
    del values["rejected"]  # as in the indices of before
    path.write_text(json.dumps(values))
    assert read_manifest(path.parent).rejected == {}
    for faulty in (3, {"segment-000000": {"reason": "many"}}):
        path.write_text(json.dumps(values | {"rejected": faulty}))
        with pytest.raises(DamagedError, match="damaged"):
            read_manifest(path.parent)
    path.write_text(json.dumps(values | {"model": values["model"] | {"similarity": "euclid"}}))
    with pytest.raises(DamagedError, match="similarity"):
        read_manifest(path.parent)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["index"], "--out"),
        (["index", "--out", "x"], "which library?"),
        (["index", "a.smi", "--out", "x", "--model", "nothing"], "nothing: neither a run nor a checkpoint"),
        (["index", "a.smi", "--out", "x", "--append"], "x: not an index"),
        (["index", "a.smi", "--out", "missing/x", "--model", "nothing"], "neither a run|does not exist"),
        (["search", "x"], "give at least one spectrum: --uv-vis, --ir, --raman"),
        (["search", "x", "--ir", "nothing.jdx"], "nothing.jdx: no such file"),
        (["search", "x", "--ir", "a", "--out", "hits.txt"], "known: .csv, .parquet, .json"),
        (["search", "x", "--ir", "a", "--out", "missing/hits.csv"], "does not exist"),
        (["search", "x", "--ir", "a", "--unit", "nmr=nm"], "--unit nmr=nm"),
        (["search", "x", "--ir", "a", "--by", "sid", "--weights", "1", "2"], "one for each of the 1 ways"),
        (["search", "x", "--irr", "a"], "did you mean --ir"),
    ],
)
def test_arguments_that_cannot_be(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, *arguments)
    assert any(each in line for each in said.split("|")), line
    assert list(tmp_path.iterdir()) == []


def test_from_a_list_of_smiles_to_a_file_of_answers(run, tmp_path, monkeypatch, capsys, small, columns_of):
    monkeypatch.chdir(tmp_path)
    molecules = [small.molecule(row) for row in range(12)]
    (tmp_path / "library.smi").write_text("".join(f"{each.smiles} {each.name}\n" for each in molecules[:8]))
    (tmp_path / "more.csv").write_text(
        "smiles,name\n" + "".join(f"{each.smiles},a\n" for each in molecules[8:])
    )
    columns_of("ir.csv", small.spectrum(3, "ir").broadened())
    columns_of("raman.txt", small.spectrum(3, "raman").broadened(), "raman shift, intensity")
    assert main(["index", "library.smi", "--model", str(run), "--out", "index", "--calibrate", "none"]) == 0
    assert main(["index", "more.csv", "--out", "index", "--append"]) == 0
    assert capsys.readouterr().out == "8 molecules in index\n4 molecules added to index\n"
    query = ["search", "index", "--ir", "ir.csv", "--raman", "raman.txt", "--top", "5"]
    for suffix in ("csv", "parquet", "json"):
        assert main([*query, "--out", f"hits.{suffix}"]) == 0
    said = capsys.readouterr().out
    assert "5 of 12 candidates, from 12 molecules in index" in said
    with open("hits.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5"]
    table = pq.read_table("hits.parquet")
    assert table["smiles"].to_pylist() == [row["smiles"] for row in rows]
    hits = json.loads((tmp_path / "hits.json").read_text())
    assert [hit["score"] for hit in hits["hits"]] == table["score"].to_pylist()
    assert hits["candidates"] == 12
    assert "exists already" in refused(capsys, *query, "--out", "hits.csv")

    one = molecules[3]
    assert main([*query, "--formula", one.formula, "--out", "some.json"]) == 0
    found = json.loads((tmp_path / "some.json").read_text())["hits"]
    assert found
    assert {hit["formula"] for hit in found} == {one.formula}
    capsys.readouterr()
    line = refused(capsys, *query, "--by", "cosine")
    assert "no ir or raman spectra to compare by cosine" in line


def test_units_and_quantities_of_bare_columns(made, small, columns_of, capsys):
    ir = columns_of("ir.txt", small.spectrum(4, "ir").broadened(), header="")
    query = ["search", str(made), "--ir", str(ir), "--by", "cosine", "--top", "1"]
    assert "which unit?" in refused(capsys, *query)
    for units in (["cm-1"], ["uv-vis=nm", "ir=cm-1"]):
        assert main([*query, "--unit", *units, "--quantity", "absorbance"]) == 0
        assert (small.molecule(4).smiles or "") in capsys.readouterr().out


def test_a_measured_part_of_the_axis_is_enough(made, small, tmp_path, capsys):
    spectrum = small.spectrum(4, "ir").broadened()
    inside = slice(200, 3300)
    share = 10.0 ** -(spectrum.values / spectrum.values.max())
    points = np.column_stack([spectrum.axis, 100 * share])[inside][::-1]
    np.savetxt(tmp_path / "t.csv", points, delimiter=",", header="cm-1,% transmittance", comments="")
    query = ["search", str(made), "--ir", str(tmp_path / "t.csv"), "--by", "cosine", "--top", "1"]
    query += ["--pipeline", "none"]
    assert main([*query, "--out", str(tmp_path / "hits.json")]) == 0
    (hit,) = json.loads((tmp_path / "hits.json").read_text())["hits"]
    assert hit["row"] == 4
    assert hit["score"] == pytest.approx(1, abs=2e-3)
    assert "ir: covers 700 to 3799 cm⁻¹" in capsys.readouterr().err


def test_the_screen_shows_no_control_characters(run, tmp_path, small, columns_of, capsys):
    (tmp_path / "bad.csv").write_text("smiles,name\nCCO,\x1b[31mred\nCCN,=1+1\n")
    assert (
        main(["index", str(tmp_path / "bad.csv"), "--model", str(run), "--out", str(tmp_path / "index")]) == 0
    )
    ir = columns_of("ir.csv", small.spectrum(3, "ir").broadened())
    assert main(["search", str(tmp_path / "index"), "--ir", str(ir)]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "?[31mred" in said
