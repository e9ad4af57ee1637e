import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molspectra.errors import DamagedError, FormatError, NotFoundError, UnitError, ValueRangeError
from molspectra.spectra.files.asdf import Table
from molspectra.spectra.files.jcamp import read_jcamp
from molspectra.spectra.files.measured import onto_axis
from molspectra.spectra.files.read import read_measured, read_spectrum

SHARED = Path(__file__).resolve().parents[3] / "shared/data/spectra/jcamp"
needs_samples = pytest.mark.skipif(not SHARED.is_dir(), reason="the real JCAMP-DX files are not here")


def text(table, *, form="XYDATA=(X++(Y..Y))", end="##END=\n", **changes):
    """A file of one block; the header fits ten points from 599 to 608 unless changed."""
    entries = {
        "TITLE": "made up",
        "JCAMP-DX": "4.24",
        "DATA TYPE": "INFRARED SPECTRUM",
        "XUNITS": "1/CM",
        "YUNITS": "ABSORBANCE",
        "XFACTOR": "1",
        "YFACTOR": "1",
        "FIRSTX": "599",
        "LASTX": "608",
        "NPOINTS": "10",
        **{key.replace("_", " "): value for key, value in changes.items()},
    }
    head = "".join(f"##{key}={value}\n" for key, value in entries.items() if value is not None)
    return f"{head}##{form}\n{table}\n{end}"


def read(tmp_path, content):
    path = tmp_path / "a.jdx"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_jcamp(path)


VALUES = [1, 2, 3, 3, 2, 1, 0, -1, -2, -3]


@pytest.mark.parametrize(
    "table",
    [
        "599 1 2 3 3 2 1 0 -1 -2 -3",
        "599, 1, 2, 3, 3, 2, 1, 0, -1, -2, -3",
        "599 1.0 2.0 3.0 3.0\n603 2.0 1.0 0.0 -1.0 -2.0 -3.0",
        "599+1+2+3+3+2+1+0-1-2-3",
        "599ABCCBA@abc",
        "599AJJ%jjjjjj",
        "599AJT%jX",
        "599 1 2 3S 3 2 1 0-1-2-3 $$ a comment",
        "599ABCTBA@abc",
        "599AJJ%\n602Cjjjjjj",  # the last value of a line of differences comes again
        "599AJT%j\n603BjV\n607bj",
    ],
)
def test_the_five_encodings(tmp_path, table):
    (spectrum,) = read(tmp_path, text(table))
    assert spectrum.values.tolist() == VALUES
    assert spectrum.axis.tolist() == list(range(599, 609))
    assert (spectrum.unit, spectrum.quantity, spectrum.modality) == ("cm⁻¹", "absorbance", "ir")
    assert spectrum.title == "made up"


DIGITS = "@ABCDEFGHI", "@abcdefghi", "%JKLMNOPQR", "%jklmnopqr"


def packed(value, table):
    digits = str(abs(value))
    return table[value < 0][int(digits[0])] + digits[1:]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-(10**6), 10**6), min_size=2, max_size=60),
    st.integers(1, 9),
    st.sampled_from(["sqz", "dif", "affn"]),
)
def test_what_was_packed_comes_back(values, width, form):
    table, number, start = Table(len(values)), 0, 0
    while start < len(values):
        row = values[start : start + width]
        if form == "affn":
            body = "".join(f" {value}" for value in row)
        elif form == "sqz":
            body = "".join(packed(value, DIGITS[:2]) for value in row)
        else:
            # every line but the first begins with the last value again
            row = values[max(start - 1, 0) : start + width]
            steps = "".join(packed(int(step), DIGITS[2:]) for step in np.diff(row))
            body = packed(row[0], DIGITS[:2]) + steps
            if start == 0 and not steps:
                body, width = body + packed(values[1] - values[0], DIGITS[2:]), 2
        number += 1
        table.read(number, f"{start}{body}")
        start += width
    assert table.values == values


@needs_samples
def test_the_values_of_the_package_jcamp_are_the_same():
    package = pytest.importorskip("jcamp")
    (ours,) = read_jcamp(SHARED / "complat_IR.dx")
    theirs = package.readfile(str(SHARED / "complat_IR.dx"))
    assert np.abs(ours.axis - theirs["x"][::-1]).max() < 1e-6
    assert np.abs(ours.values - theirs["y"][::-1]).max() < 1e-12


@needs_samples
def test_a_measured_infrared_spectrum():
    (spectrum,) = read_jcamp(SHARED / "complat_IR.dx")
    assert (spectrum.title, spectrum.unit, spectrum.quantity) == ("PH-771", "cm⁻¹", "transmittance")
    assert (len(spectrum), spectrum.axis[0], spectrum.axis[-1]) == (2559, 373.96442, 3997.453)
    # the file's own FIRSTY, MINY and MAXY
    assert spectrum.values[-1] == pytest.approx(0.92837757, abs=1e-8)
    assert spectrum.values.min() == pytest.approx(0.27871406, abs=1e-8)
    assert spectrum.values.max() == pytest.approx(1.0055419, abs=1e-7)
    with pytest.raises(ValueRangeError, match=r"covers 373.964 to 3997.45 cm⁻¹, 99.9% of the ir axis"):
        onto_axis(spectrum)
    converted = onto_axis(spectrum, outside="zero")
    assert converted.coverage == pytest.approx(3498 / 3501)
    samples = converted.spectrum
    assert samples.values[-3:].tolist() == [0, 0, 0]  # 3998, 3999, 4000 were not measured
    # an absorbance by hand, between two points of the file
    at = np.searchsorted(spectrum.axis, 1500.0)
    low, high = spectrum.axis[at - 1], spectrum.axis[at]
    absorbance = -np.log10(spectrum.values[at - 1 : at + 1])
    expected = np.interp(1500.0, [low, high], absorbance)
    assert samples.values[1000] == pytest.approx(expected, rel=1e-12)
    assert "11 of 3501 samples below zero set to 0" in samples.source


@needs_samples
def test_a_link_of_two_blocks_keeps_both():
    # the package jcamp gives the variance of the second block as the spectrum
    blocks = read_jcamp(SHARED / "cheminfo_uv.jdx")
    assert [(each.modality, each.quantity) for each in blocks] == [
        ("uv_vis", "absorbance"),
        ("uv_vis", "variance"),
    ]
    assert (blocks[0].values[0], blocks[0].values[1]) == (0.093345165253, -0.09060716629)
    assert blocks[1].values[0] == 0.209917782629
    assert (blocks[0].unit, len(blocks[0])) == ("nm", 911)
    samples = onto_axis(blocks[0], outside="zero")
    assert samples.coverage == pytest.approx(270 / 701)  # 1.14 to 6.52 eV
    with pytest.raises(UnitError, match="the ordinate is 'variance'; known: absorbance"):
        onto_axis(blocks[1], outside="zero")
    with pytest.raises(UnitError, match="variance"):
        read_spectrum(SHARED / "cheminfo_uv.jdx", outside="zero")


def test_a_descending_axis_points_in_pairs_and_factors(tmp_path):
    table = "700, 2; 650, 3\n600 4 550 5"
    changes = {"FIRSTX": "1400", "LASTX": "1100", "XFACTOR": "2", "YFACTOR": "0.5", "NPOINTS": "4"}
    (spectrum,) = read(tmp_path, text(table, form="XYPOINTS=(XY..XY)", **changes))
    assert spectrum.axis.tolist() == [1100, 1200, 1300, 1400]
    assert spectrum.values.tolist() == [2.5, 2, 1.5, 1]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"YUNITS": "% TRANSMITTANCE"}, "percent transmittance"),
        ({"YUNITS": "Percent Transmittance"}, "percent transmittance"),
        ({"YUNITS": "%T"}, "percent transmittance"),
        ({"YUNITS": "REFLECTANCE"}, "reflectance"),
        ({"YUNITS": "Transmittance (%)"}, "percent transmittance"),
        ({"YUNITS": "Absorption [%]"}, "percent absorption"),
        ({"YUNITS": "% Absorbance"}, "% absorbance"),  # the absorbed fraction, or a hundredth of absorbance
        ({"YUNITS": "DERIVATIVE OF ABSORBANCE"}, "derivative of absorbance"),
        ({"YUNITS": "KUBELKA-MUNK"}, "kubelka-munk"),
        ({"YUNITS": "LOG(1/R)"}, "absorbance"),
        ({"YUNITS": "Logarithm epsilon"}, "log absorptivity"),
        ({"YUNITS": "(micromol/mol)-1m-1 (base 10)"}, "absorptivity"),
        ({"YUNITS": "ARBITRARY UNITS", "DATA TYPE": "RAMAN SPECTRUM"}, "intensity"),
    ],
)
def test_names_of_the_ordinate(tmp_path, changes, expected):
    (spectrum,) = read(tmp_path, text("599ABCCBA@abc", **changes))
    assert spectrum.quantity == expected


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("MICROMETERS", "µm"),
        ("nanometers", "nm"),
        ("cm-1", "cm⁻¹"),
        ("eV", "eV"),
        ("Wavelength (nm)", "nm"),
        ("Wavenumber (cm-1)", "cm⁻¹"),
        ("Raman shift / 1/cm", "cm⁻¹"),
    ],
)
def test_names_of_the_axis(tmp_path, unit, expected):
    (spectrum,) = read(tmp_path, text("599ABCCBA@abc", XUNITS=unit))
    assert spectrum.unit == expected


GOOD = "599ABCCBA@abc"


@pytest.mark.parametrize(
    "content",
    [
        text(GOOD, end="##END\n"),
        text(GOOD, end="##END=\r\n\x1a"),
        text(GOOD + "\n##NPOINTS=10"),
        text(GOOD, FIRSTX="599,00", LASTX="608,0", YFACTOR="1,0"),
        text("599,0 1,0 2,0 3,0 3,0 2,0 1,0 0 -1,0 -2,0 -3,0", LASTX="608,0"),
        text(GOOD, DELTAX="1,0", FIRSTY=""),
        text("608abc@ABCCBA", FIRSTX="608", LASTX="599", DELTAX="1").replace("608abc@", "608cba@"),
    ],
)
def test_what_writers_do_otherwise(tmp_path, content):
    (spectrum,) = read(tmp_path, content)
    assert spectrum.values.tolist() == VALUES
    assert spectrum.axis.tolist() == list(range(599, 609))
    assert spectrum.remarks == ()


def test_a_wrong_first_value_is_a_remark(tmp_path):
    (spectrum,) = read(tmp_path, text(GOOD, FIRSTY="5"))
    assert spectrum.remarks == ("FIRSTY=5, but the first value times YFACTOR is 1",)
    assert read(tmp_path, text("599 100 2 3 3 2 1 0 1 2 3", YFACTOR="0.01", FIRSTY="100"))[0].remarks == ()


@pytest.mark.parametrize(
    ("table", "form"),
    [
        ("599 1 2 ? 3 2 1 0 -1 -2 -3", "XYDATA=(X++(Y..Y))"),
        (
            "599,1 600,2 601,? 602,3 603,2 604,1 605,0 606,-1 607,-2; 608,-3",
            "XYPOINTS=(XY..XY)",
        ),
    ],
)
def test_an_undefined_ordinate_is_left_out_with_a_remark(tmp_path, table, form):
    (spectrum,) = read(tmp_path, text(table, form=form))
    assert spectrum.axis.tolist() == [599, 600, *range(602, 609)]
    assert spectrum.values.tolist() == VALUES[:2] + VALUES[3:]
    assert spectrum.remarks == ("1 of 10 points without a value ('?') left out",)


def test_points_that_come_twice(tmp_path):
    table = "300,1.0\n295,1.2\n295,1.2\n290,4.0"
    changes = {"XUNITS": "Wavelength (nm)", "YUNITS": "Logarithm epsilon", "DATA TYPE": "UV/VIS SPECTRUM"}
    changes |= {"FIRSTX": "300", "LASTX": "290", "NPOINTS": "4"}
    (spectrum,) = read(tmp_path, text(table, form="XYPOINTS=(XY..XY)", **changes))
    assert (spectrum.unit, spectrum.quantity, spectrum.modality) == ("nm", "log absorptivity", "uv_vis")
    assert spectrum.axis.tolist() == [290, 295, 300]
    assert spectrum.remarks == ("1 points equal to the one before left out",)


@pytest.mark.parametrize("kind", ["ftir", "", "SPECTRUM"])
def test_the_modality_is_that_of_the_user_if_the_file_names_none(tmp_path, kind):
    table = "\n".join(f"{500 + 100 * i} {i}" for i in range(36))
    changes = {"FIRSTX": "500", "LASTX": "4000", "NPOINTS": "36", "DATA TYPE": kind}
    (tmp_path / "a.jdx").write_text(text(table, **changes))
    assert read_spectrum(tmp_path / "a.jdx", "ir").modality == "ir"
    (tmp_path / "a.jdx").write_text(text(table, **changes | {"DATA TYPE": "INFRARED SPECTRUM"}))
    with pytest.raises(NotFoundError, match="holds no raman spectrum"):
        read_spectrum(tmp_path / "a.jdx", "raman")


@pytest.mark.parametrize(
    ("content", "message", "error"),
    [
        (b"", "is empty", FormatError),
        (b"\x00\x01\x02" * 100, "not a text file", FormatError),
        ("hello\nworld\n", "line 1: not a JCAMP-DX file", FormatError),
        ("##JCAMP-DX=4.24\n", "outside of a block", FormatError),
        (text(GOOD, end=""), "has no ##END=: the file is truncated", DamagedError),
        (text("599ABCCBA@ab"), "NPOINTS=10, but there are 9 values", DamagedError),
        (text(GOOD + "d"), "line 12: more than the 10 values", DamagedError),
        (text("599ABCCBAZ99999999999@abc"), "line 12: more than the 10 values", DamagedError),
        (
            text("599ABC\n650CBA@abc"),
            "line 13: begins at 650 where FIRSTX, LASTX and NPOINTS give 602",
            DamagedError,
        ),
        (
            text("599AJJ%\n602Djjjjjj"),
            "line 13: begins with 4, the line before ended with 3: damaged",
            DamagedError,
        ),
        (text("599ABC!BA@abc"), "line 12: '!BA@abc' belongs to no number", FormatError),
        (text("599 1 2 ! 3 2 1 0 1 2 3"), "'! 3 2 1 0 ' belongs to no number", FormatError),
        (text("599AJ?J@abcabc"), "line 12: a difference follows '\\?'", FormatError),
        (text("599 1\n? 2", form="XYPOINTS=(XY..XY)", NPOINTS="2"), "are not pairs of numbers", FormatError),
        (text(GOOD, DELTAX="1,0,0"), "##DELTAX=1,0,0 is not a number", FormatError),
        (text(GOOD + "\n##NPOINTS=11"), "a second ##NPOINTS=", FormatError),
        (text("599 NaN 2 3 3 2 1 0 1 2 3"), "begins with a difference", FormatError),
        (text("ABC"), "line 12: 'ABC' does not begin with a number", FormatError),
        (text("599"), "line 12: no values after the abscissa", FormatError),
        (text("599JJ%"), "line 12: it begins with a difference", FormatError),
        (text("599TABC"), "repeats nothing", FormatError),
        (text("599 " + "9" * 1_000_000 + GOOD[4:]), "not a finite number", ValueRangeError),
        (
            text(GOOD, NPOINTS="1000000000000"),
            "NPOINTS='1000000000000' is not a number from 2 to",
            ValueRangeError,
        ),
        (text(GOOD, NPOINTS="-10"), "NPOINTS='-10'", ValueRangeError),
        (text(GOOD, NPOINTS=None), "it has no ##NPOINTS=", FormatError),
        (text(GOOD, FIRSTX="nan"), "##FIRSTX=nan is not a finite number", ValueRangeError),
        (text(GOOD, LASTX="6o8"), "##LASTX=6o8 is not a number", FormatError),
        (text(GOOD, YFACTOR="0"), "XFACTOR and YFACTOR cannot be 0", ValueRangeError),
        (text(GOOD, YFACTOR="inf"), "##YFACTOR=inf is not a finite number", ValueRangeError),
        (text(GOOD, DELTAX="-1"), "DELTAX=-1 does not fit", DamagedError),
        (text(GOOD, XUNITS="HZ"), "XUNITS='HZ' is none of cm⁻¹, nm, µm, eV", UnitError),
        (text(GOOD, XUNITS=None), "it has no ##XUNITS=", UnitError),
        (text(GOOD, YUNITS=None), "no ##YUNITS=", UnitError),
        (text(GOOD, DATA_TYPE="NMR SPECTRUM"), "DATA TYPE is 'NMR SPECTRUM'", FormatError),
        (text(GOOD, form="XYDATA=(X++(R..R))"), r"of the form '\(X\+\+\(R..R\)\)' is not read", FormatError),
        (
            text(GOOD, form="PEAK TABLE=(XY..XY)"),
            "without an infrared, Raman or UV-Vis spectrum: a table of peaks",
            FormatError,
        ),
        (text(GOOD, form="NTUPLES=NMR SPECTRUM"), "NTUPLES block", FormatError),
        (text(GOOD + "\n##XYDATA=(X++(Y..Y))\n599A"), "a second ##XYDATA=", FormatError),
        (text("1 2 3", form="XYPOINTS=(XY..XY)"), "leaves a position without a value", FormatError),
        (text("1 2_0", form="XYPOINTS=(XY..XY)"), "are not pairs of numbers", FormatError),
        (text("599 1\n600 nan", form="XYPOINTS=(XY..XY)"), "line 13: '600 nan' are not pairs", FormatError),
        (text("599 1\n608 1", form="XYPOINTS=(XY..XY)"), "NPOINTS=10, but there are 2 points", DamagedError),
        (
            text("599 1\n599 2\n608 1", form="XYPOINTS=(XY..XY)", NPOINTS="3"),
            "the axis does not run one way",
            ValueRangeError,
        ),
        (
            text("1 1\n2 1", form="XYPOINTS=(XY..XY)", NPOINTS="2"),
            "FIRSTX=599, but the table has 1 there",
            DamagedError,
        ),
        (text(GOOD).replace("##XFACTOR=1", "##XFACTOR"), "'##XFACTOR' has no '='", FormatError),
    ],
)
def test_damaged_and_hostile_files_give_one_clear_line(tmp_path, content, message, capfd, error):
    with pytest.raises(error, match=message) as caught:
        read(tmp_path, content)
    assert str(caught.value).startswith(str(tmp_path / "a.jdx"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert capfd.readouterr() == ("", "")


def test_a_file_too_large_or_missing(tmp_path, monkeypatch):
    with pytest.raises(NotFoundError, match="no such file"):
        read_jcamp(tmp_path / "b.jdx")
    with pytest.raises(FormatError, match="is a directory"):
        read_jcamp(tmp_path)
    monkeypatch.setattr("molspectra.spectra.files.text.MAX_BYTES", 100)
    with pytest.raises(FormatError, match="larger than"):
        read(tmp_path, text(GOOD))


def test_reading_needs_no_extra_package(tmp_path):
    (tmp_path / "a.jdx").write_text(text(GOOD))
    code = (
        "import sys; from pathlib import Path; from molspectra.spectra.files.jcamp import read_jcamp;"
        "read_jcamp(Path(sys.argv[1])); assert not {'jcamp', 'cclib', 'torch', 'rdkit'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.jdx")], check=True)


@pytest.mark.parametrize(
    ("yunits", "given", "found"),
    [
        ("ABSORBANCE", {"quantity": "abs", "unit": "cm-1"}, "absorbance"),
        ("TRANSMITTANCE", {"quantity": "percent transmittance"}, "percent transmittance"),
        ("% TRANSMITTANCE", {"quantity": "transmittance"}, "percent transmittance"),
        ("ARBITRARY UNITS", {"quantity": "absorbance"}, "absorbance"),
        ("ARBITRARY UNITS", {}, "intensity"),
        ("SMOOTHED VARIANCE", {"quantity": "absorbance"}, "smoothed variance"),
        ("ABSORBANCE", {"quantity": "transmittance", "modality": "raman"}, "absorbance"),  # of another kind
    ],
)
def test_what_a_user_says_agrees_with_the_file(tmp_path, yunits, given, found):
    path = tmp_path / "a.jdx"
    path.write_text(text("599 1 2 3 3 2 1 0 -1 -2 -3", YUNITS=yunits))
    (spectrum,) = read_measured(path, **given)
    assert spectrum.quantity == found


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"unit": "nm"}, "the file says cm⁻¹, not nm"),
        ({"quantity": "transmittance"}, "the file says absorbance, not transmittance"),
        ({"quantity": "%T", "modality": "ir"}, "the file says absorbance, not percent transmittance"),
    ],
)
def test_a_contradiction_to_the_file_is_refused(tmp_path, given, said):
    path = tmp_path / "a.jdx"
    path.write_text(text("599 1 2 3 3 2 1 0 -1 -2 -3"))
    with pytest.raises(UnitError, match=rf"a\.jdx.*{said}"):
        read_measured(path, **given)
