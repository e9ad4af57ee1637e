import errno
import os
import re
import resource
import tracemalloc
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest

from molspectra.chem.molecule import Molecule
from molspectra.data.atomic import atomic_file
from molspectra.data.store.store import Candidate, Metadata, Quantity, Row, Store, write_store
from molspectra.errors import (
    ExistsError,
    FormatError,
    InputError,
    MismatchError,
    SettingError,
    SimulationError,
    ValueRangeError,
    WriteError,
)
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum


def water(**changes):
    numbers, positions = [8, 1, 1], [[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]]
    return Row(Molecule(numbers, positions, name="water"), identity="XLYOFNOQVPJJNP", **changes)


def test_same_rows_give_the_same_bytes_and_the_hash_goes_by_content(tmp_path, make_row, metadata):
    rows = [make_row(i) for i in range(40)]
    first = write_store(tmp_path / "a.arrow", rows, metadata)
    second = write_store(tmp_path / "b.arrow", iter(rows), metadata)
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()
    small = write_store(tmp_path / "c.arrow", rows, metadata, chunk_rows=3)
    assert first.hash == second.hash == small.hash == Store(tmp_path / "c.arrow").hash
    assert first.rows == small.rows == 40
    Store(tmp_path / "c.arrow").verify()


@pytest.mark.parametrize("what", ["order", "row", "position", "property", "gap", "name", "metadata"])
def test_the_hash_sees_every_change(tmp_path, make_row, metadata, what):
    rows = [make_row(i) for i in range(12)]
    before = write_store(tmp_path / "a.arrow", rows, metadata)
    row = rows[7]
    if what == "order":
        rows[3], rows[7] = rows[7], rows[3]
    elif what == "row":
        rows.pop()
    elif what == "position":
        positions = row.molecule.positions.copy()
        positions[2, 1] += 1e-6
        rows[7] = replace(row, molecule=row.molecule.with_positions(positions))
    elif what == "property":
        rows[7] = replace(row, properties={**row.properties, "gap": 7.000001})
    elif what == "gap":
        rows[7] = replace(row, forces=None)
    elif what == "name":
        rows[7] = replace(row, molecule=replace(row.molecule, name=""))
    else:
        metadata = replace(metadata, licence="other")
    assert write_store(tmp_path / "b.arrow", rows, metadata).hash != before.hash


BAD = [
    (water(properties={"gap": float("nan")}), ValueRangeError, "'gap' is nan"),
    (water(properties={"charge": 1.0}), MismatchError, "'charge'"),
    (water(forces=np.zeros((2, 3))), MismatchError, r"forces \(2, 3\).* 3 atoms"),
    (water(forces=np.full((3, 3), np.inf)), ValueRangeError, "force.*float32"),
    (water(spectra={"raman": LineSpectrum("raman", [1000.0], [1.0])}), MismatchError, "raman"),
    (water(spectra={"ir": SampledSpectrum("ir", np.ones(3501))}), MismatchError, "ir spectra as samples"),
    (water(spectra={"ir": LineSpectrum("uv_vis", [5.0], [1.0])}), MismatchError, "uv_vis"),
    (water(spectra={"ir": LineSpectrum("ir", [1000.0], [1.0], "other")}), MismatchError, "'other'.*'one'"),
    (
        water(spectra={"ir": LineSpectrum("ir", [1000.0], [1e300])}),
        ValueRangeError,
        "intensity.*float32",
    ),
    (Row(Molecule([1], [[0, 0, 0]], name="\ud800"), identity="X"), FormatError, "ud800"),
]


@pytest.mark.parametrize(("bad", "kind", "reason"), BAD)
def test_rows_that_do_not_fit_are_named_or_counted(tmp_path, bad, kind, reason):
    metadata = Metadata(
        "made up", "CC0", lines={"ir": "one"}, properties={"gap": Quantity("eV")}, forces=Quantity("eV/Å")
    )
    rows = [water(), bad, water()]
    with pytest.raises(kind, match=rf"row 1 .*{reason}") as raised:
        write_store(tmp_path / "a.arrow", rows, metadata)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []
    written = write_store(tmp_path / "a.arrow", rows, metadata, on_error="skip")
    assert written.rows == len(Store(tmp_path / "a.arrow")) == 2
    (rejection,) = written.rejected
    assert re.search(reason, rejection.reason)
    assert "row 1" in rejection.where


def test_rows_that_cannot_be_built_are_rejected_by_the_same_policy(tmp_path):
    def coincident():
        return Row(Molecule([1, 1], [[0, 0, 0], [0, 0, 0.01]]))

    def descending():
        return water(spectra={"ir": LineSpectrum("ir", [2000.0, 1000.0], [1.0, 1.0])})

    def negative():
        return water(spectra={"ir": LineSpectrum("ir", [1000.0], [-1.0])})

    def unconverged():
        raise SimulationError("SCF did not converge")

    makers = [coincident, descending, negative, unconverged, water]
    rows = [Candidate(f"{make.__name__} one", make) for make in makers]
    with pytest.raises(InputError, match=r"row 0 \(coincident one\)"):
        write_store(tmp_path / "a.arrow", rows, Metadata("made up", "CC0", lines={"ir": ""}))
    written = write_store(tmp_path / "a.arrow", rows, Metadata("s", "CC0", lines={"ir": ""}), on_error="skip")
    assert written.rows == 1
    assert [each.where for each in written.rejected] == [
        f"row {k} ({make.__name__} one)" for k, make in enumerate(makers[:4])
    ]
    assert [
        "closer" in r.reason or "ascend" in r.reason or "negative" in r.reason for r in written.rejected
    ] == [
        True,
        True,
        True,
        False,
    ]


def test_identities_from_geometry_are_counted(tmp_path):
    water_row = water()
    rows = [water_row, Row(water_row.molecule, identity="geom-0123456789abcdef"), water_row]
    written = write_store(tmp_path / "a.arrow", rows, Metadata("made up", "CC0"))
    assert (written.rows, written.by_geometry) == (3, 1)


def test_nothing_to_write(tmp_path):
    metadata = Metadata("made up", "CC0")
    with pytest.raises(FormatError, match="0 rejected"):
        write_store(tmp_path / "a.arrow", [], metadata)
    with pytest.raises(FormatError, match="2 rejected"):
        write_store(tmp_path / "a.arrow", [BAD[0][0]] * 2, metadata, on_error="skip")
    with pytest.raises(SettingError, match=r"on_error.*'ignore'"):
        write_store(tmp_path / "a.arrow", [water()], metadata, on_error="ignore")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_kept_unless_told_otherwise(tmp_path):
    path, metadata = tmp_path / "a.arrow", Metadata("made up", "CC0")
    path.write_text("mine")
    with pytest.raises(ExistsError, match=path.name):
        write_store(path, [water()], metadata)
    assert path.read_text() == "mine"
    write_store(path, [water()], metadata, overwrite=True)
    assert len(Store(path)) == 1


def test_a_failure_half_way_leaves_everything_as_it_was(tmp_path):
    path, metadata = tmp_path / "a.arrow", Metadata("made up", "CC0")
    write_store(path, [water()], metadata)
    before = path.read_bytes()

    def rows():
        yield water()
        yield water()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_store(path, rows(), metadata, overwrite=True, chunk_rows=1)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["a.arrow"]


def test_a_full_disk_or_missing_folder_is_one_line(tmp_path):
    metadata = Metadata("made up", "CC0")
    with pytest.raises(WriteError, match=r"a\.arrow.*No such file"):
        write_store(tmp_path / "nowhere" / "a.arrow", [water()], metadata)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with patch("os.fsync", side_effect=full), pytest.raises(WriteError, match="No space left"):
        write_store(tmp_path / "a.arrow", [water()], metadata)
    assert list(tmp_path.iterdir()) == []


def test_memory_is_constant(tmp_path):
    row = water(spectra={"ir": SampledSpectrum("ir", np.ones(3501))})
    metadata, peaks = Metadata("made up", "CC0", samples={"ir": ""}), []
    with patch("molspectra.data.store.writer.CHUNK_BYTES", 1 << 19):
        for n in (100, 500):  # 1.4 and 7 MB of spectra
            tracemalloc.start()
            write_store(tmp_path / f"{n}.arrow", (row for _ in range(n)), metadata)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + (1 << 18)


@pytest.mark.parametrize(
    ("changes", "kind", "reason"),
    [
        ({"lines": {"irr": ""}}, InputError, "irr"),
        ({"lines": {"ir": ""}, "samples": {"ir": ""}}, SettingError, "ir spectra"),
        ({"properties": {"two words": Quantity("eV")}}, SettingError, "two words"),
        ({"properties": {"charge": Quantity("e")}}, SettingError, "charge"),
        ({"properties": {"ir_position": Quantity("")}, "lines": {"ir": ""}}, SettingError, "ir_position"),
        ({"position_dtype": "float16"}, SettingError, "positions.*float16"),
        ({"sample_dtype": "float64"}, SettingError, "samples.*float64"),
    ],
)
def test_metadata_that_no_file_can_hold(changes, kind, reason):
    with pytest.raises(kind, match=reason):
        Metadata("made up", "CC0", **changes)


def test_what_is_left_in_the_buffer_may_not_fit(tmp_path):
    path = tmp_path / "a.json"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))  # as a disk that is full
    try:
        with (
            pytest.raises(WriteError, match=r"a\.json.*File too large"),
            atomic_file(path) as file,
        ):
            file.write(b"x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not any(tmp_path.iterdir())
