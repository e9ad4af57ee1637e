"""The files are written by hand from the descriptions of the formats."""

import random
import struct

import numpy as np
import pytest

from molspectra.datasets.own.spectra import folder
from molspectra.errors import DamagedError, FormatError, InputError, MissingExtraError, UnitError
from molspectra.search.pipeline import Pipeline
from molspectra.search.query import read_query
from molspectra.spectra.files.read import read_measured, read_spectra

Y = np.array([0.25, 0.5, -0.125, 0.75])


def read(tmp_path, content, name="a.bin", **options):
    path = tmp_path / name
    path.write_bytes(content)
    return read_measured(path, **options)


def read_one(tmp_path, content, **options):
    (spectrum,) = read(tmp_path, content, **options)
    return spectrum


# SPC ------------------------------------------------------------------------------------------------------


def spc_header(
    order="<", flags=0, technique=4, exponent=-128, points=4, count=1, x=1, y=2, labels=b"", ends=(4000, 3997)
):
    version = 0x4B if order == "<" else 0x4C
    head = struct.pack(f"{order}BBBbIddIBB", flags, version, technique, exponent, points, *ends, count, x, y)
    return head.ljust(88, b"\0") + b"a film\0".ljust(130, b"\0") + labels.ljust(294, b"\0")


def sub(order="<", exponent=0, points=0):
    return struct.pack(f"{order}BbHfffI", 0, exponent, 0, 0, 0, 0, points).ljust(32, b"\0")


def spc(order="<", form="f4", **header):
    size, exponent = int(form[1]), header.get("exponent", -128)
    values = Y if form == "f4" else Y * 2.0 ** (8 * size - exponent)
    own = exponent if header.get("flags", 0) & 4 else 0
    return spc_header(order, **header) + sub(order, own) + values.astype(order + form).tobytes()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("form", "flags", "exponent"), [("f4", 0, -128), ("i4", 0, 1), ("i4", 0, 3), ("i2", 1, 1)]
)
def test_numbers_of_spc(tmp_path, order, form, flags, exponent):
    spectrum = read_one(tmp_path, spc(order, form, flags=flags, exponent=exponent))
    assert spectrum.axis.tolist() == [3997, 3998, 3999, 4000]
    assert spectrum.values.tolist() == Y[::-1].tolist()
    assert (spectrum.unit, spectrum.quantity, spectrum.modality) == ("cm⁻¹", "absorbance", "ir")
    assert (spectrum.title, spectrum.source) == ("a film", str(tmp_path / "a.bin"))


def test_spc_of_the_old_format(tmp_path):
    head = struct.pack("<BBhfffBB", 0, 0x4D, 2, 4, 400, 403, 3, 128).ljust(64, b"\0") + b"old"
    values = (Y * 2.0**30).astype("<i4").view("<u2").reshape(-1, 2)[:, ::-1].tobytes()
    spectrum = read_one(tmp_path, head.ljust(256, b"\0") + values)
    assert spectrum.values.tolist() == Y.tolist()
    assert (spectrum.unit, spectrum.quantity, spectrum.title) == ("nm", "transmittance", "old")
    with pytest.raises(FormatError, match="old format with several spectra"):
        read(tmp_path, b"\4" + head[1:].ljust(255, b"\0") + values)


@pytest.mark.parametrize(
    ("header", "unit", "quantity", "modality"),
    [
        ({"x": 13, "y": 4, "technique": 0}, "cm⁻¹", "intensity", "raman"),
        ({"x": 3, "technique": 7}, "nm", "absorbance", "uv_vis"),
        ({"y": 12}, "cm⁻¹", "intensity", None),  # FT-Raman perhaps
        ({"y": 129}, "cm⁻¹", "reflectance", "ir"),
        ({"x": 2, "y": 10}, "µm", "absorbance", "ir"),
        (
            {"flags": 32, "x": 0, "y": 0, "labels": b"Raman Shift (cm-1)\0Counts\0"},
            "cm⁻¹",
            "intensity",
            "raman",
        ),
        ({"flags": 32, "x": 9, "labels": b"Wavelength (nm)\0%T\0"}, "nm", "percent transmittance", None),
    ],
)
def test_what_spc_tells(tmp_path, header, unit, quantity, modality):
    spectrum = read_one(tmp_path, spc(**header))
    assert (spectrum.unit, spectrum.quantity, spectrum.modality) == (unit, quantity, modality)


def test_several_spectra_of_spc(tmp_path):
    x = np.array([1.0, 2.0, 4.0], "<f4").tobytes()
    y = np.array([3, 4, 5], "<i4").tobytes()
    shared = spc_header(flags=4 | 128, exponent=0, points=3, count=2) + x + (sub(exponent=32) + y) * 2
    own = spc_header(flags=4 | 64 | 128, exponent=0, points=0, count=2)
    own += (sub(exponent=32, points=3) + x + y) + sub(exponent=33, points=2) + x[:8] + y[:8]
    for content, last in ((shared, [3, 4, 5]), (own, [6, 8])):
        one, two = read(tmp_path, content)
        assert (one.axis.tolist(), one.values.tolist()) == ([1, 2, 4], [3, 4, 5])
        assert two.values.tolist() == last
        assert two.source.endswith("a.bin, spectrum 2")


def test_what_spc_leaves_open(tmp_path):
    with pytest.raises(UnitError, match=r"a\.bin: the file does not tell the unit"):
        read(tmp_path, spc(x=0))
    assert read_one(tmp_path, spc(x=0), unit="nm").unit == "nm"
    with pytest.raises(UnitError, match="says cm⁻¹, not nm"):
        read(tmp_path, spc(), unit="nm")
    assert read_one(tmp_path, spc(y=0)).quantity == "arbitrary"
    assert read_one(tmp_path, spc(y=0), quantity="transmittance").quantity == "transmittance"
    for given in ("transmittance", "percent transmittance"):
        assert read_one(tmp_path, spc(y=11), quantity=given).quantity == "percent transmittance"
    with pytest.raises(UnitError, match="says absorbance, not transmittance"):
        read(tmp_path, spc(), quantity="transmittance")


@pytest.mark.parametrize(
    ("content", "message", "error"),
    [
        (spc(technique=9), "a mass spectrum", FormatError),
        (spc(technique=12), "a fluorescence spectrum", FormatError),
        (spc(x=4), "none of cm⁻¹", UnitError),
        (spc()[:-1], "cut short", DamagedError),
        (spc()[:100], "cut short", DamagedError),
        (spc(points=2**32 - 1), "4.29497e\\+09 points", DamagedError),
        (spc(flags=4, count=2**31), "2147483648 spectra", FormatError),
        (spc(points=1), "1 points", InputError),
        (spc_header(exponent=5) + sub(exponent=-128) + bytes(16), "differ on the exponent", FormatError),
    ],
)
def test_spc_that_is_refused(tmp_path, content, message, error):
    with pytest.raises(error, match=rf"a\.bin: .*{message}"):
        read(tmp_path, content)


# OPUS -----------------------------------------------------------------------------------------------------


def opus_parameters(**values):
    text = b""
    for name, value in values.items():
        form, kind = {int: ("<i", 0), float: ("<d", 1)}.get(type(value), (None, 2))
        packed = struct.pack(form, value) if form else (value.encode() + b"\0").ljust(12, b"\0")
        text += name.encode() + b"\0" + struct.pack("<hh", kind, len(packed) // 2) + packed
    return text + b"END\0" + bytes(4)


def opus_type(part, channel, block, data=0, derivative=0, form=0):
    return part | channel << 2 | block << 4 | data << 10 | derivative << 17 | form << 19


def opus_status(**changes):
    facts = {
        "DPF": 1,
        "NPT": 4,
        "FXV": 4000.0,
        "LXV": 3997.0,
        "CSF": 2.0,
        "MXY": 1.5,
        "MNY": -0.25,
        "DXU": "WN",
    }
    return opus_parameters(**(facts | changes))


def opus(*extra, data=4, channel=3, derivative=0, values=None, **changes):
    """A file of a directory, the sample's name, a spectrum with one number too many, and its parameters."""
    values = np.append(Y, 9).astype("<f4").tobytes() if values is None else values
    blocks = [
        (opus_type(0, 0, 10), opus_parameters(SNM="a film")),
        (opus_type(3, channel, 0, data, derivative), values),
        (opus_type(3, channel, 1, data, derivative), opus_status(**changes)),
        *extra,
    ]
    start, table, content = 504, b"", b""
    for kind, block in blocks:
        table += struct.pack("<3i", kind, len(block) // 4, start + len(content))
        content += block
    head = b"\n\n\xfe\xfe" + struct.pack("<d3i", 920622.0, 24, 40, len(blocks))
    return (head + table).ljust(start, b"\0") + content


@pytest.mark.parametrize(
    ("options", "unit", "quantity", "modality"),
    [
        ({}, "cm⁻¹", "absorbance", None),
        ({"data": 5}, "cm⁻¹", "transmittance", None),
        ({"data": 12, "DXU": "MI"}, "µm", "reflectance", None),
        ({"data": 10, "channel": 1}, "cm⁻¹", "intensity", "raman"),
    ],
)
def test_spectra_of_opus(tmp_path, options, unit, quantity, modality):
    pytest.importorskip("brukeropus")
    spectrum = read_one(tmp_path, opus(**options))
    assert spectrum.axis.tolist() == [3997, 3998, 3999, 4000]
    assert spectrum.values.tolist() == (2 * Y[::-1]).tolist()
    assert (spectrum.unit, spectrum.quantity, spectrum.modality) == (unit, quantity, modality)
    assert (spectrum.title, spectrum.remarks) == ("a film", ())


def test_several_spectra_of_opus(tmp_path):
    pytest.importorskip("brukeropus")
    values = Y.astype("<f4").tobytes()
    channel = [(opus_type(3, 1, 0, 1), values), (opus_type(3, 1, 1, 1), opus_status())]
    other = [(opus_type(3, 3, 0, 5), values), (opus_type(3, 3, 1, 5), opus_status(CSF=1.0))]
    (spectrum,) = read(tmp_path, opus(*channel))
    assert (spectrum.quantity, spectrum.remarks) == ("absorbance", ("left out: Sample Spectrum",))
    assert {each.quantity for each in read(tmp_path, opus(*other))} == {"absorbance", "transmittance"}
    series = [(opus_type(3, 3, 0, 4, form=2), values), (opus_type(3, 3, 0, 5), values)]
    (spectrum,) = read(tmp_path, opus(*series))
    assert spectrum.remarks == (
        "left out: Absorbance (Series) without parameters, Transmittance without parameters",
    )
    only = read_one(tmp_path, opus(*channel, *other), quantity="transmittance")
    assert only.values.tolist() == Y[::-1].tolist()


@pytest.mark.parametrize(
    ("content", "message", "error"),
    [
        (opus(data=1), "but: Spectrum", FormatError),
        (opus(data=16), "but: ATR", FormatError),
        (opus(derivative=1), "but: Absorbance First Derivative", FormatError),
        (opus(DPF=2), "of the form 2", FormatError),
        (opus(DXU="MIN"), "is 'MIN'", UnitError),
        (opus(NPT=-4), "-4 points", DamagedError),
        (opus(CSF=0.0), "scaled by 0", DamagedError),
        (opus()[:-4], "cut short", DamagedError),
        (opus()[:20], "cut short", DamagedError),
        (
            opus().replace(b"DXU\0\2\0\6\0", b"DXU\0\2\0\xfc\xff"),
            "cut short",
            DamagedError,
        ),  # an endless loop
    ],
)
def test_opus_that_is_refused(tmp_path, content, message, error):
    pytest.importorskip("brukeropus")
    with pytest.raises(error, match=rf"a\.bin: .*{message}"):
        read(tmp_path, content)


def test_without_brukeropus_the_extra_is_named(tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr("molspectra.spectra.files.opus.import_module", missing)
    with pytest.raises(MissingExtraError, match=r"brukeropus; pip install 'molspectra\[files\]'"):
        read(tmp_path, opus())


# PerkinElmer SP -------------------------------------------------------------------------------------------


def blocks(*parts):
    return b"".join(struct.pack("<hi", number, len(part)) + part for number, part in parts)


def sp(x=b"cm-1", y=b"%T", points=4, block=120, name=b"a film"):
    parts = [
        (-29838, struct.pack("<h2d", 29981, 4000, 3997)),
        (-29835, struct.pack("<hi", 29995, points)),
        (-29833, struct.pack("<hH", 29987, len(x)) + x),
        (-29832, struct.pack("<hH", 29987, len(y)) + y),
        (-29823, struct.pack("<hH", 29987, len(name)) + name),
        (-29828, struct.pack("<hI", 29974, 32) + Y.astype("<f8").tobytes()),
    ]
    return b"PEPE2D constant interval DataSet file".ljust(44, b"\0") + blocks(
        (block, blocks(*parts)), (7, b"")
    )


def test_spectra_of_perkin_elmer(tmp_path):
    spectrum = read_one(tmp_path, sp())
    assert spectrum.axis.tolist() == [3997, 3998, 3999, 4000]
    assert spectrum.values.tolist() == Y[::-1].tolist()
    assert (spectrum.unit, spectrum.quantity, spectrum.title) == ("cm⁻¹", "percent transmittance", "a film")
    spectrum = read_one(tmp_path, sp(b"nm", b"A"))
    assert (spectrum.unit, spectrum.quantity) == ("nm", "absorbance")
    with pytest.raises(UnitError, match=r"a\.bin: its axis is 's'"):
        read(tmp_path, sp(b"s"))
    with pytest.raises(DamagedError, match=r"a\.bin: damaged: 5 points, but 32 bytes"):
        read(tmp_path, sp(points=5))
    with pytest.raises(DamagedError, match="cut short"):
        read(tmp_path, sp()[:-20])
    with pytest.raises(FormatError, match="with 0 spectra"):
        read(tmp_path, sp(block=5100))


# Renishaw WDF ---------------------------------------------------------------------------------------------


def wdf(axis=1, values=6, count=1, points=4):
    head = bytearray(512)
    struct.pack_into("<4sIQ", head, 0, b"WDF1", 1, 512)
    struct.pack_into("<IQQIIII", head, 60, points, count, count, 1, 1, points, 0)
    struct.pack_into("<I", head, 152, values)
    head[240:246] = b"a film"
    x = struct.pack("<II4f", 1, axis, 400, 300, 200, 100)
    y = np.concatenate([Y * (index + 1) for index in range(min(count, 3))]).astype("<f4").tobytes()
    lists = ((b"DATA", y), (b"YLST", struct.pack("<IIf", 4, 16, 0)), (b"XLST", x), (b"TEXT", b"a comment"))
    return bytes(head) + b"".join(
        struct.pack("<4sIQ", name, 1, 16 + len(part)) + part for name, part in lists
    )


def test_spectra_of_renishaw(tmp_path):
    one, two = read(tmp_path, wdf(count=2))
    assert one.axis.tolist() == [100, 200, 300, 400]
    assert one.values.tolist() == Y[::-1].tolist()
    assert two.values.tolist() == (2 * Y[::-1]).tolist()
    assert (one.unit, one.quantity, one.modality, one.title) == ("cm⁻¹", "intensity", "raman", "a film")
    other = read_one(tmp_path, wdf(axis=3, values=0))
    assert (other.unit, other.quantity, other.modality) == ("nm", "arbitrary", None)
    for content, message in (
        (wdf(axis=2), "of the type 2"),
        (wdf(count=5000), "5000 spectra"),
        (wdf(points=5), "cut short"),
        (wdf()[:560], "cut short"),
        (wdf()[:512], "block XLST is missing"),
        (wdf().replace(b"YLST\1\0\0\0\x1c", b"YLST\1\0\0\0\x00"), "block of 0 bytes"),
    ):
        with pytest.raises(InputError, match=rf"a\.bin: .*{message}"):
            read(tmp_path, content)


# Thermo SPA -----------------------------------------------------------------------------------------------


def spa(axis=1, values=17, points=4, sections=(2, 3)):
    header = struct.pack("<4xIB3xB3x2f", points, axis, values, 4000, 3997).ljust(120, b"\0")
    parts, table, content = {2: header, 3: Y.astype("<f4").tobytes(), 27: b"history"}, b"", b""
    for kind in (*sections, 27):
        table += struct.pack("<BBII6x", kind, 0, 512 + len(content), len(parts[kind]))
        content += parts[kind]
    head = b"Spectral Data File\r\n".ljust(30, b"\0") + b"a film".ljust(264, b"\0")
    return ((head + struct.pack("<H", len(sections) + 1)).ljust(304, b"\0") + table).ljust(
        512, b"\0"
    ) + content


@pytest.mark.parametrize(
    ("axis", "values", "unit", "quantity", "modality"),
    [
        (1, 17, "cm⁻¹", "absorbance", None),
        (1, 16, "cm⁻¹", "percent transmittance", None),
        (3, 11, "nm", "percent reflectance", None),
        (32, 31, "cm⁻¹", "intensity", "raman"),
        (4, 15, "µm", "of OMNIC type 15", None),  # a single beam; refused on conversion
    ],
)
def test_spectra_of_omnic(tmp_path, axis, values, unit, quantity, modality):
    spectrum = read_one(tmp_path, spa(axis, values))
    assert spectrum.axis.tolist() == [3997, 3998, 3999, 4000]
    assert spectrum.values.tolist() == Y[::-1].tolist()
    assert (spectrum.unit, spectrum.quantity, spectrum.modality) == (unit, quantity, modality)
    assert spectrum.title == "a film"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (spa(axis=2), "of the type 2"),
        (spa(points=5), "5 points, but 16 bytes"),
        (spa(sections=(2, 3, 2, 3)), "2 spectra and 2 headers"),
        (spa(sections=(2,)), "0 spectra"),
        (spa()[:600], "cut short"),
        (spa()[:200], "cut short"),
    ],
)
def test_omnic_that_is_refused(tmp_path, content, message):
    with pytest.raises(InputError, match=rf"a\.bin: .*{message}"):
        read(tmp_path, content)


# all ------------------------------------------------------------------------------------------------------

WHOLE = {"spc": spc(), "spc multi": spc(flags=4), "opus": opus(), "sp": sp(), "wdf": wdf(), "spa": spa()}


def test_formats_that_are_only_recognised(tmp_path):
    with pytest.raises(FormatError, match=r"OLE container.*export the spectrum as JCAMP-DX or text"):
        read(tmp_path, b"\xd0\xcf\x11\xe0" + bytes(100))


def query(tmp_path, y):
    """A file of OPUS or SPC, under an ending that says nothing, over the whole infrared range."""
    values = np.linspace(0.1, 0.2, 500)
    if y == "opus":
        facts = {"NPT": 500, "FXV": 4100.0, "LXV": 300.0}
        content = opus(values=values.astype("<f4").tobytes(), **facts)
    else:
        content = spc_header(points=500, x=1, y=y, ends=(300, 4100)) + sub() + values.astype("<f4").tobytes()
    path = tmp_path / "sample.0"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("y", [2, 128, "opus"])
def test_a_query_of_an_instrument(tmp_path, y):
    if y == "opus":
        pytest.importorskip("brukeropus")
    # of values on a straight line, which a baseline would take away
    prepared = read_query(query(tmp_path, y), "ir", pipeline=Pipeline("none"))
    assert prepared.known.all()
    (sampled,) = read_spectra(tmp_path / "sample.0", "ir")
    rises = sampled.values[-1] > sampled.values[0]
    assert rises == (y == 2)  # OPUS runs from 4100 down; a transmittance is turned over


def test_a_folder_of_files_of_instruments(tmp_path):
    (tmp_path / "spectra").mkdir()
    query(tmp_path, 2).rename(tmp_path / "spectra" / "water.0")
    found = folder({"spectra": str(tmp_path / "spectra")})
    assert {name: list(files) for name, files in found.files.items()} == {"water": ["ir"]}
    assert found.spectra("water")["ir"]().spectrum.modality == "ir"


@pytest.mark.parametrize("name", WHOLE)
def test_damaged_files_give_one_line(tmp_path, name):
    """Cut ends, changed bytes, extreme numbers: a spectrum or one line that names the file."""
    if name == "opus":
        pytest.importorskip("brukeropus")
    whole, chance = WHOLE[name], random.Random(name)
    assert all(np.isfinite(spectrum.values).all() for spectrum in read(tmp_path, whole))
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 8))):
            where = chance.randrange(2, len(content))
            word = chance.choice((b"\0", b"\xff", b"\x80", b"\xff\xff\xff\x7f", b"\xf8\xff", bytes(4)))
            content[where : where + len(word)] = word
        content = content[: chance.choice((len(content), chance.randrange(64, len(content))))]
        try:
            found = read(tmp_path, bytes(content))
        except InputError as error:
            message = str(error)
        else:
            message = "a.bin" * all(np.isfinite(spectrum.values).all() for spectrum in found)
        assert "a.bin" in message
        assert "\n" not in message
