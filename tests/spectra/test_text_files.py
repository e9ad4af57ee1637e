import numpy as np
import pytest

from molspectra.errors import FormatError, UnitError, ValueRangeError
from molspectra.spectra.files.read import read_measured, read_spectrum
from molspectra.spectra.files.text import read_text

ROWS = [(400.0, 0.5), (401.5, 0.25), (403.0, 1e-3)]


def read(tmp_path, content, **options):
    path = tmp_path / "a.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_text(path, **options)


@pytest.mark.parametrize(
    "content",
    [
        "cm-1,absorbance\n400,0.5\n401.5,0.25\n403,1e-3\n",
        "cm-1;absorbance\r\n400;0,5\r\n401,5;0,25\r\n403;1E-3\r\n",
        "cm-1\tabsorbance\n400\t0.5\t\n401.5\t0.25\n403.0\t.001\n",
        "wavenumber [cm^-1]   absorbance\n400 0,5\n401,5  0,25\n  403 0,001  \n",
        "# Absorbance over 1/cm\n\n400, 0.5\n401.5, 0.25\n# half time\n403, 0.001",
        '"Wavenumber","Absorbance"\n"400","0.5"\n"401.5","0.25"\n"403","1.0D-3"\n',
        "sample: water\noperator: 7\nX_UNITS cm⁻¹ Y: Abs\n403 0.001\n401.5 0.25\n400 0.5\n",
        "\ufeffcm-1,absorbance\n400,0.5\n401.5,0.25\n403,0.001\n",
        "cm-1,absorbance\n400,0.5\n401.5,0.25\n403,0.001\n".encode("utf-16"),
        "cm⁻¹;Absorbance\n400;0.5\n401.5;0.25\n403;0.001\n",
        "name: gr\u00fcn\ncm-1;absorbance\n400;0.5\n401.5;0.25\n403;0.001\n".encode("latin-1"),
    ],
)
def test_separators_decimal_commas_headers_and_encodings(tmp_path, content):
    spectrum = read(tmp_path, content)
    assert list(zip(spectrum.axis, spectrum.values, strict=True)) == ROWS
    assert (spectrum.unit, spectrum.quantity) == ("cm⁻¹", "absorbance")
    assert spectrum.title == "a"


@pytest.mark.parametrize(
    ("header", "unit", "quantity", "modality"),
    [
        ("Wavelength (nm),Absorbance", "nm", "absorbance", None),
        ("nm,%T", "nm", "percent transmittance", None),
        ("cm-1,Transmittance [%]", "cm⁻¹", "percent transmittance", None),
        ("Raman shift (cm-1),Counts", "cm⁻¹", "intensity", "raman"),
        ("energy (eV),Molar absorptivity", "eV", "absorptivity", None),
        ("FTIR cm-1,Reflectance", "cm⁻¹", "reflectance", "ir"),
        ("UV nm,Abs", "nm", "absorbance", "uv_vis"),
        ("µm,Transmission", "µm", "transmittance", None),
        ("Sample: 5% in KBr\nWavenumber (cm-1),Transmittance", "cm⁻¹", "transmittance", None),
        ("50 % humidity\nWavenumber (cm-1),Reflectance", "cm⁻¹", "reflectance", None),
        ("cm-1,Absorption [%]", "cm⁻¹", "percent absorption", None),
        ("Wavenumber,Transmittance\ncm-1,%", "cm⁻¹", "percent transmittance", None),
        ("Wavenumber,Absorbance\ncm\\+(-1),a.u.", "cm⁻¹", "absorbance", None),
        ("Wavenumbers/cm-1,Absorbance (a.u.)", "cm⁻¹", "absorbance", None),
        ("Wavenumber (cm–1),Optical density", "cm⁻¹", "absorbance", None),
        ("##DATA TYPE=INFRARED SPECTRUM\n##XUNITS=1/CM\n##YUNITS=%T", "cm⁻¹", "percent transmittance", "ir"),
        ("cm-1,Log(1/R)", "cm⁻¹", "absorbance", None),
        ("Transmission Raman of a tablet\ncm-1,Intensity", "cm⁻¹", "intensity", "raman"),
        ("Wellenzahl,Extinktion", "cm⁻¹", "absorbance", None),
        ("Wavenumber,Intensity (arb. u.)", "cm⁻¹", "intensity", None),
        ("nm,ε (M-1 cm-1)", "nm", "absorptivity", None),
        ("Wavelength nm; Molar absorptivity in L mol⁻¹ cm⁻¹", "nm", "absorptivity", None),
        ("Absorption wavelength (nm),log eps", "nm", "log absorptivity", None),
        ("# laser wavelength 785 nm\nRaman shift (cm-1),Counts", "cm⁻¹", "intensity", "raman"),
        ("AxisUnit=1/cm\nLaser (nm)=532\nIntens", "cm⁻¹", "intensity", None),
        ("2020 01\ncm-1,Abs", "cm⁻¹", "absorbance", None),
        ("2,4\ncm-1,Abs", "cm⁻¹", "absorbance", None),
        ("GR\nCM-1\n%T\n3551\n20\n#DATA", "cm⁻¹", "percent transmittance", None),
        ('"a.sp"\n"cm-1","A"', "cm⁻¹", "absorbance", None),
        ("A film, nm\n,%T", "nm", "percent transmittance", None),
        ("nm,Abs\n3", "nm", "absorbance", None),  # the number of points
    ],
)
def test_units_and_quantities_from_the_header(tmp_path, header, unit, quantity, modality):
    spectrum = read(tmp_path, f"{header}\n1,1\n2,2\n3,3\n")
    assert (spectrum.unit, spectrum.quantity, spectrum.modality) == (unit, quantity, modality)
    assert spectrum.axis.tolist() == [1, 2, 3]


def test_a_quantity_must_not_contradict_the_header(tmp_path):
    with pytest.raises(UnitError, match=r"a\.csv: the header says absorbance, not transmittance"):
        read(tmp_path, "cm-1,absorbance\n1,1\n2,2\n", quantity="transmittance")
    for header, given, found in (
        ("cm-1,transmittance", "percent transmittance", "percent transmittance"),
        ("cm-1,transmittance %", "transmittance", "percent transmittance"),
        ("cm-1,a.u.", "absorbance", "absorbance"),
        ("cm-1,a.u.", None, "intensity"),
        ("cm-1,absorbance %", "percent absorption", "percent absorption"),
    ):
        assert read(tmp_path, f"{header}\n1,1\n2,2\n", quantity=given).quantity == found


def test_numbered_columns_are_no_point(tmp_path):
    spectrum = read(tmp_path, ",0\n1,1\n2,2\n", unit="nm", quantity="abs")
    assert spectrum.axis.tolist() == [1, 2]


def test_text_below_the_data_is_kept_apart(tmp_path):
    content = "Sample A,,\nWavelength (nm),Abs,\n2.0,1.0,\n1.0,2.0,\n\nSample A\nTime: 01/02/2020 10:00:00\n"
    spectrum = read(tmp_path, content + "\x1a")
    assert spectrum.values.tolist() == [2, 1]
    assert spectrum.header["FOOTER"] == "Sample A Time: 01/02/2020 10:00:00"


def test_without_a_header_they_are_asked_for(tmp_path):
    with pytest.raises(
        UnitError, match=r"a.csv: which unit\? The header names none; .*spectra_unit=.* one of cm⁻¹, nm"
    ):
        read(tmp_path, "1,1\n2,2\n")
    with pytest.raises(
        UnitError, match=r"which quantity\? The header names none; .* absorbance, transmittance"
    ):
        read(tmp_path, "1,1\n2,2\n", unit="nm")
    spectrum = read(tmp_path, "1,1\n2,2\n", unit="cm-1", quantity="abs", modality="ir")
    assert (spectrum.unit, spectrum.quantity, spectrum.modality) == ("cm⁻¹", "absorbance", "ir")


@pytest.mark.parametrize(
    ("content", "options", "message", "error"),
    [
        (b"", {}, "is empty", FormatError),
        (b" \n\n", {}, "is empty", FormatError),
        (b"\x89PNG\r\n\x1a\n\x00\x00", {}, "not a text file", FormatError),
        (bytes(range(1, 32)) * 9, {}, "not a text file", FormatError),
        (b"\xff\xfe\x00\xd8\x00", {}, "not a text file", FormatError),
        ("no numbers here\n" * 3, {}, "no line of two numbers", FormatError),
        ("words\n" * 300, {}, "no line of two numbers among the first 201", FormatError),
        ("nm,abs\n1,1\n2\n", {}, "line 3: 1 columns in '2'; expected position and value", FormatError),
        (
            "nm,abs\n1,1,1\n2,2,2\n",
            {},
            "line 2: 3 columns in '1,1,1'; keep position and value only",
            FormatError,
        ),
        ("nm,abs\n1,1\n2,x\n", {}, "line 3: 'x' is not a number", FormatError),
        ("nm,abs\n1,\n2,\n3,1\n4,1\n", {}, "line 2: 1 columns in '1,'; expected position", FormatError),
        ("nm\tabs\n1\tOVER\n2\t1\n", {}, "line 2: 'OVER' is not a number", FormatError),
        ("nm\tabs\n1,001\t9.5\n999\t1.5\n998\t2.5\n", {}, "line 2: the comma of '1,001'", FormatError),
        ("nm\tabs\n998\t1\n999\t2\n1,000\t3\n", {}, "line 4: the comma of '1,000' may be", FormatError),
        (
            "nm\tabs\n1,001.5\t1\n2,001.5\t1\n3\t1\n",
            {},
            "write '1,001.5' without separators of thousands",
            FormatError,
        ),
        ("nm,abs\n1,1\nlost\n2,1\n3,1\n", {}, "line 3: 'lost' stands between lines", FormatError),
        ("nm,abs\n1,1\n2,1\n3,1\nlost\n4,1\n", {}, "line 5: 'lost' stands between lines", FormatError),
        (
            "nm,abs\n1,1\n2,1\n3,1\nnm,abs\n4,1\n5,1\n6,1\n7,1\n",
            {},
            "a file holds one table of position and value",
            FormatError,
        ),
        ("nm,abs\n,1\n2,1\n3,1\n", {}, "line 2: '' is not a number", FormatError),
        ("nm\tabs\n1 001\t1\n2\t1\n1\t1\n", {}, "write '1 001' without separators", FormatError),
        ("##XYDATA=(X++(Y..Y))\n1 1\n2 1\n", {}, "give its name the ending .jdx", FormatError),
        ("nm,abs\n1,1\n2,1,x\n", {}, "line 3: 3 columns", FormatError),
        ("nm,Kubelka-Munk\n1,1\n2,1\n", {}, r"which quantity\? The header names none", UnitError),
        ("Absorbance\nnm,Sample 1\n1,1\n2,1\n", {}, r"which quantity\? The header names none", UnitError),
        ("thin nm films\nWavelength (Å),abs\n1,1\n2,1\n", {}, "unknown unit 'Å' of the axis", UnitError),
        ("Wavenumber (m-1),abs\n1,1\n2,1\n", {}, "unknown unit 'M-1' of the axis", UnitError),
        ("Abs,Wavelength (nm)\n1,1\n2,1\n", {}, r"which unit\? The header names none", UnitError),
        ("nm,abs\n1,1\n2,nan\n", {}, "line 3: 'nan' is not a finite number", ValueRangeError),
        ("nm,abs\n1,1\n2,-inf\n", {}, "line 3: '-inf' is not a finite number", ValueRangeError),
        ("nm,abs\n1,1\n2,1_000\n", {}, "line 3: '1_000' is not a number", FormatError),
        (
            "nm,abs\n1,1\n2," + "9" * 10_000 + "\n",
            {},
            "value of point 2 is not a finite number",
            ValueRangeError,
        ),
        (
            "nm,abs\n1,1\n2," + "9" * 1_000_000 + "\n",
            {},
            "line 3: more than 20000 characters",
            FormatError,
        ),
        (
            "nm,abs\n" + "1,1\n" * 300_000,
            {},
            "300001 lines",
            FormatError,
        ),
        ("nm,abs\n1,1\n2,1e999\n", {}, "value of point 2 is not a finite number", ValueRangeError),
        ("nm,abs\n1,1\n2,1e9999\n", {}, "'1e9999' is not a number", FormatError),
        ("nm,abs\n1,1\n3,1\n2,1\n", {}, "the axis does not run one way: near 2 nm", ValueRangeError),
        ("nm,abs\n1,1\n1,2\n", {}, "the axis does not run one way", ValueRangeError),
        ("nm,abs\n1,1\n", {}, "at least 2 points", ValueRangeError),
        (
            "1,1\n2,2\n",
            {"unit": "parsec"},
            "unknown unit 'parsec' of a spectral axis; known: cm⁻¹, nm, µm, eV",
            UnitError,
        ),
        ("nm\n1,1\n2,2\n", {"unit": "eV"}, "the header says nm, not eV", UnitError),
        ("nm or eV,abs\n1,1\n2,2\n", {}, r"which unit\? The header names eV and nm", UnitError),
        (
            "nm\n1,1\n2,2\n",
            {"quantity": "colour"},
            "unknown quantity 'colour' of a spectrum; known: absorbance",
            UnitError,
        ),
    ],
)
def test_bad_files_give_one_clear_line(tmp_path, content, options, message, error):
    with pytest.raises(error, match=message) as caught:
        read(tmp_path, content, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_file_by_its_name(tmp_path):
    axis = np.linspace(490, 4010, 3521)
    path = tmp_path / "b.TXT"
    np.savetxt(path, np.stack([axis, axis / 1e4], 1), header="cm-1 absorbance")
    assert len(read_measured(path)[0]) == 3521
    spectrum = read_spectrum(path, "ir")
    assert np.abs(spectrum.values - spectrum.axis / 1e4).max() < 1e-12
    with pytest.raises(
        UnitError, match="the file does not tell which kind of spectrum it is; name the modality"
    ):
        read_spectrum(path)
    with pytest.raises(FormatError, match=r"outputs of programs hold lines"):
        read_measured(tmp_path / "b.out")
