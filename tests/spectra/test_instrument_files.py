"""The files are written by hand from the descriptions of the formats."""

import random
import struct

import numpy as np
import pytest

from molspectra.errors import DamagedError, FormatError, InputError, MissingExtraError, UnitError
from molspectra.spectra.files.read import read_measured

Y = np.array([0.25, 0.5, -0.125, 0.75])


def read(tmp_path, content, name="a.bin", **options):
    path = tmp_path / name
    path.write_bytes(content)
    return read_measured(path, **options)


def read_one(tmp_path, content, **options):
    (spectrum,) = read(tmp_path, content, **options)
    return spectrum


# SPC ------------------------------------------------------------------------------------------------------


def spc_header(order="<", flags=0, technique=4, exponent=-128, points=4, count=1, x=1, y=2, labels=b""):
    version = 0x4B if order == "<" else 0x4C
    head = struct.pack(
        f"{order}BBBbIddIBB", flags, version, technique, exponent, points, 4000, 3997, count, x, y
    )
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
    only = read_one(tmp_path, opus(*channel, *other), quantity="transmittance")
    assert only.values.tolist() == Y[::-1].tolist()


@pytest.mark.parametrize(
    ("content", "message", "error"),
    [
        (opus(data=1), "0 spectra", FormatError),
        (opus(derivative=1), "0 spectra", FormatError),
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


# all ------------------------------------------------------------------------------------------------------

WHOLE = {"spc": spc(), "spc multi": spc(flags=4), "opus": opus()}


def test_formats_that_are_only_recognised(tmp_path):
    with pytest.raises(FormatError, match=r"OLE container.*export the spectrum as JCAMP-DX or text"):
        read(tmp_path, b"\xd0\xcf\x11\xe0" + bytes(100))


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
