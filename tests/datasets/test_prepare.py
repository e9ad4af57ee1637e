"""Preparing any dataset: parts, restart, policy, report, command line."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_waters import WATER, Waters, raising, water

from molspectra.apps.cli import main
from molspectra.chem.molecule import Molecule, geometry_id_of
from molspectra.chem.sanity import bohr_suspected
from molspectra.data.store.store import Store
from molspectra.datasets import registry
from molspectra.datasets.importer import Excluded, Row, choice
from molspectra.datasets.parts import Parts
from molspectra.datasets.prepare import prepare
from molspectra.datasets.report import MAX_REASONS, Tally, count, kind_of
from molspectra.errors import (
    DamagedError,
    ExistsError,
    FormatError,
    InputError,
    MismatchError,
    NotFoundError,
    SettingError,
    UnitError,
    WriteError,
)
from molspectra.simulation.units import BOHR
from molspectra.spectra.spectrum import LineSpectrum


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., object]:
    (tmp_path / "raw").write_text("x")
    return partial(prepare, raw=tmp_path / "raw", out=tmp_path / "a.arrow", show=False, part_records=10)


def test_rows_in_order_and_no_parts_left(run, tmp_path):
    report = run(Waters(25))
    store = Store(tmp_path / "a.arrow")
    store.verify()
    assert store.hash == report.hash
    assert [store.molecule(row).name for row in range(25)] == [f"w{i}" for i in range(25)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.arrow",
        "a.arrow.report.json",
        "a.arrow.report.txt",
        "raw",
    ]


@pytest.mark.parametrize("stop", [3, 10, 17, 24])
def test_an_interrupted_run_gives_the_same_bytes(run, tmp_path, stop):
    bad = {5: raising(InputError("bad")), 12: raising(Excluded("odd"))}
    whole = run(Waters(25, bad), out=tmp_path / "whole.arrow")
    with pytest.raises(KeyboardInterrupt):
        run(Waters(25, bad, stop))
    assert not (tmp_path / "a.arrow").exists()
    assert (tmp_path / "a.arrow.parts").exists() == (stop >= 10)
    again = Waters(25, bad)
    report = run(again)
    assert again.starts == [stop // 10 * 10]
    assert report.resumed == stop // 10
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "whole.arrow").read_bytes()
    assert report.tally.rejected == whole.tally.rejected == {"bad": 1}
    assert report.tally.excluded == whole.tally.excluded == {"odd": 1}
    assert report.tally.records == 25


@pytest.mark.parametrize("stop", [None, 3, 10, 17])
def test_shards_are_the_parts(run, tmp_path, stop):
    bad = dict.fromkeys([5, *range(10, 20)], raising(InputError("bad")))  # no row is left in the second part
    whole = run(Waters(35, bad), out=tmp_path / "whole.arrow")
    sharded = partial(run, out=tmp_path / "store", shard_rows=10)
    if stop is not None:
        with pytest.raises(KeyboardInterrupt):
            sharded(Waters(35, bad, stop))
        assert not (tmp_path / "store").exists()
    report = sharded(Waters(35, bad))
    assert report.resumed == (stop or 0) // 10
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("store")) == [
        "store",
        "store.rejected.jsonl",
        "store.report.json",
        "store.report.txt",
    ]
    names = ["00000.arrow", "00002.arrow", "00003.arrow", "manifest.json"]
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == names
    store = Store(tmp_path / "store")
    store.verify()
    assert store.hash == report.hash == whole.hash
    assert (report.same_identity, report.by_geometry) == (whole.same_identity, whole.by_geometry)
    for overwrite in (False, True):
        with pytest.raises(ExistsError, match="store exists already"):
            sharded(Waters(35, bad), overwrite=overwrite)


def test_killed_while_the_folder_gets_its_name(run, tmp_path, monkeypatch):
    sharded = partial(run, out=tmp_path / "store", shard_rows=10)
    with monkeypatch.context() as patch:
        patch.setattr(
            "molspectra.datasets.parts.Parts.publish", lambda *_, **__: raising(KeyboardInterrupt())()
        )
        with pytest.raises(KeyboardInterrupt):
            sharded(Waters(20))
    assert not (tmp_path / "store").exists()
    assert sharded(Waters(20)).resumed == 2
    assert len(Store(tmp_path / "store")) == 20
    assert not (tmp_path / "store.parts").exists()


@given(total=st.integers(1, 40), size=st.integers(3, 25), cut=st.integers(0, 40))
@settings(max_examples=6, deadline=None)
def test_any_size_of_parts_holds_the_same_content(tmp_path_factory, total, size, cut):
    folder = tmp_path_factory.mktemp("parts")
    (folder / "raw").write_text("x")
    whole = prepare(Waters(total), folder / "raw", folder / "a.arrow", show=False)
    if cut < total:
        with pytest.raises(KeyboardInterrupt):
            prepare(
                Waters(total, stop=cut), folder / "raw", folder / "b.arrow", show=False, part_records=size
            )
    parts = prepare(Waters(total), folder / "raw", folder / "b.arrow", show=False, part_records=size)
    assert parts.hash == whole.hash


def test_a_half_written_part_is_done_again(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(Waters(25, stop=15))
    parts = tmp_path / "a.arrow.parts"
    (parts / ".00001.arrow.abcd.part").write_bytes(b"half")
    (parts / "00001.arrow").write_bytes(b"a part without its tally does not count")
    assert run(Waters(25)).tally.rows == 25
    assert not parts.exists()


def test_a_damaged_part_is_refused(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(Waters(25, stop=15))
    part = tmp_path / "a.arrow.parts/00000.arrow"
    part.write_bytes(part.read_bytes()[:300])
    with pytest.raises(DamagedError, match=r"00000.arrow is damaged; remove"):
        run(Waters(25))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"options": {"colour": "blue"}}, "options"),
        ({"limit": 20}, "limit"),
        ({"on_error": "raise"}, "on_error"),
        ({"part_records": 5}, "part_records"),
    ],
)
def test_other_settings_than_those_of_the_parts_are_refused(run, tmp_path, change, what):
    with pytest.raises(KeyboardInterrupt):
        run(Waters(25, stop=15))
    with pytest.raises(MismatchError, match=rf"unfinished preparation with {what} = .*remove that folder"):
        run(Waters(25), **change)
    assert run(Waters(25)).resumed == 1


def test_other_raw_files_than_those_of_the_parts_are_refused(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(Waters(25, stop=15))
    (tmp_path / "raw").write_text("another size")
    with pytest.raises(MismatchError, match="raw files"):
        run(Waters(25))


def test_the_store_may_lie_in_the_folder_of_the_raw_files(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(Waters(25, stop=15), raw=tmp_path)
    assert run(Waters(25), raw=tmp_path).resumed == 1
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")  # no reason to stop
    assert run(Waters(25), raw=tmp_path, overwrite=True).tally.rows == 25


def test_two_processes_do_not_prepare_one_store(run, tmp_path):
    def second() -> Row:
        with pytest.raises(InputError, match=r"a\.arrow\.parts: another process is preparing this store"):
            run(Waters(25))
        return water(12)

    assert run(Waters(25, {12: second})).tally.rows == 25


def test_only_a_store_is_overwritten(run, tmp_path):
    (tmp_path / "a.arrow").write_text("notes of years")
    with pytest.raises(ExistsError, match="is not a store, so it is not overwritten"):
        run(Waters(5), overwrite=True)
    assert (tmp_path / "a.arrow").read_text() == "notes of years"


@pytest.mark.parametrize("name", ["", ".", "/", "folder"])
def test_a_folder_is_no_store(run, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ExistsError, match="exists already and is a folder"):
        run(Waters(5), out=Path(name), overwrite=True)


def test_killed_before_the_report(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("molspectra.datasets.report.Report.write", lambda *_: raising(KeyboardInterrupt())())
        with pytest.raises(KeyboardInterrupt):
            run(Waters(25))
    assert not (tmp_path / "a.arrow").exists()
    assert run(Waters(25)).resumed == 3
    assert not (tmp_path / "a.arrow.parts").exists()


def test_killed_while_removing_the_parts(run, tmp_path, monkeypatch):
    """What is left of the parts is not continued from: its rejections may be gone."""
    rows = {1: raising(InputError("atom 7 has 'Xx' at -1.5e-3"))}

    def interrupted(folder: Path) -> None:
        for listing in folder.glob("*.rejected.jsonl"):
            listing.unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("molspectra.datasets.parts.shutil.rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(Waters(25, rows))
    assert (tmp_path / "a.arrow").is_file()
    assert (tmp_path / "a.arrow.parts").is_dir()
    again = run(Waters(25, rows), overwrite=True)
    assert again.resumed == 0
    assert len(again.named) == 1


def test_what_a_killed_process_left_is_no_raw_file(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("molspectra.datasets.report.Report.write", lambda *_: raising(KeyboardInterrupt())())
        with pytest.raises(KeyboardInterrupt):
            run(Waters(25), raw=tmp_path)
    (tmp_path / ".a.arrow.report.json.0a1b2c3d.part").write_text("{")
    assert run(Waters(25), raw=tmp_path).resumed == 3


def test_report_counts_and_names(run, tmp_path):
    special = {
        1: partial(water, 0),
        2: raising(InputError("atom 7 has 'Xx' at -1.5e-3")),
        3: raising(InputError("atom 12 has 'Yy' at 2")),
        4: raising(Excluded("odd")),
        13: partial(water, 3),
        14: partial(water, 0),  # the same as record 0 in an earlier part
    }

    def without_spectrum() -> Row:
        row = water(15)
        return Row(
            row.molecule, {}, row.properties, None, row.identity, {"ir": "all 3501 zero"}, ("clipped",)
        )

    report = run(Waters(20, {**special, 15: without_spectrum}))
    tally = report.tally
    assert tally.records == 20
    assert tally.rows == 15
    assert tally.rejected == {"atom # has '…' at #": 2}
    assert tally.repeated == 2
    assert tally.excluded == {"odd": 1}
    assert tally.left_out == {"ir: all # zero": 1}
    assert tally.changes == {"clipped": 1}
    assert report.same_identity == 15 - 2 - 1  # w0 and w7 have their own
    names = [(each["record"], each["name"]) for each in report.named]
    assert names == [(1, "w1"), (2, "w2"), (3, "w3"), (14, "w14"), (15, "w15")]
    facts = json.loads((tmp_path / "a.arrow.report.json").read_text())
    assert facts["tally"]["rows"] == 15
    assert facts["units"] == {"positions": "Å", "energy": "eV"}
    assert facts["differences"] == ["15 rows written, 20 in the published dataset"]
    text = (tmp_path / "a.arrow.report.txt").read_text()
    assert "DIFFERENCE: 15 rows written" in text
    assert "record 15 (w15): ir spectrum left out: all 3501 zero" in text
    assert re.search(r"MiB of memory", text)
    listed = (tmp_path / "a.arrow.rejected.jsonl").read_text().splitlines()
    assert [json.loads(line)["record"] for line in listed] == [1, 2, 3, 14, 15]


def test_no_differences_in_a_run_with_a_limit(run, tmp_path):
    report = run(Waters(25), limit=12)
    assert report.tally.rows == len(Store(tmp_path / "a.arrow")) == 12
    assert report.differences == ()


def test_exact_counts_are_no_difference(run):
    assert run(Waters(25, {3: raising(Excluded("odd"))})).differences == (
        "24 rows written, 25 in the published dataset",
    )


def test_the_first_bad_record_can_stop_it(run, tmp_path):
    with pytest.raises(InputError, match=r"record 3 \(w3\): too hot"):
        run(Waters(25, {3: raising(InputError("too hot"))}), on_error="raise")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_parts_without_rows(run, tmp_path):
    bad = {i: raising(InputError("bad")) for i in range(10, 20)}
    assert run(Waters(25, bad)).tally.rows == len(Store(tmp_path / "a.arrow")) == 15


def test_nothing_left(run, tmp_path):
    bad = {i: raising(InputError("bad")) for i in range(15)}
    with pytest.raises(FormatError, match=r"none of 15 records is good: 15 × bad; --raw must be anything"):
        run(Waters(15, bad))
    with pytest.raises(FormatError, match="there are no records"):
        run(Waters(0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"color": "x"}}, "did you mean 'colour'"),
        ({"on_error": "ignore"}, "on_error must be"),
        ({"limit": 0}, "at least 1"),
    ],
)
def test_wrong_calls(run, change, message):
    with pytest.raises(SettingError, match=message):
        run(Waters(5), **change)


def test_an_existing_store_is_kept(run, tmp_path):
    run(Waters(5))
    before = (tmp_path / "a.arrow").read_bytes()
    with pytest.raises(ExistsError, match="exists already"):
        run(Waters(6))
    assert (tmp_path / "a.arrow").read_bytes() == before
    assert run(Waters(6), overwrite=True).tally.rows == 6
    with pytest.raises(WriteError, match="does not exist"):
        run(Waters(5), out=tmp_path / "no/a.arrow")


# --- coordinates in bohr ---------------------------------------------------------------------------------


def test_a_dataset_in_bohr_is_refused(run):
    with pytest.raises(UnitError, match="25 of the first 25 structures seem to be in bohr"):
        run(Waters(25, {i: partial(water, i, 1 / BOHR) for i in range(25)}), part_records=50)
    many = {i: partial(water, i, 1 / BOHR) for i in range(500)}
    with pytest.raises(UnitError, match="100 of the first 100 structures seem to be in bohr"):
        run(Waters(500, many), part_records=1000)


def test_a_single_structure_in_bohr_is_rejected(run):
    report = run(Waters(25, {7: partial(water, 7, 1 / BOHR)}))
    assert report.tally.rejected == {
        "the coordinates seem to be in bohr; they must be in Å (# bohr = # Å)": 1,
    }


IMPOSSIBLE = {
    "zero": LineSpectrum("ir", [1000.0], [0.0]),
    "no line lies in": LineSpectrum("ir", [9000.0], [1.0]),
    "cannot be right": LineSpectrum("ir", [1000.0], [1e30]),
}


@pytest.mark.parametrize("said", IMPOSSIBLE)
def test_spectra_that_cannot_be_right_are_left_out_of_every_format(run, tmp_path, said):
    row = replace(water(2), spectra={"ir": IMPOSSIBLE[said]})
    report = run(Waters(3, {2: lambda: row}))
    assert (report.tally.rows, sum(report.tally.left_out.values())) == (3, 1)
    assert Store(tmp_path / "a.arrow").spectrum(2, "ir") is None
    facts = json.loads((tmp_path / "a.arrow.report.json").read_text())
    (kind,) = facts["tally"]["left_out"]
    assert kind.startswith("ir: ")
    assert said in kind
    assert "spectra left out                   1" in (tmp_path / "a.arrow.report.txt").read_text()
    (tmp_path / "a.arrow").unlink()
    with pytest.raises(InputError, match=rf"record 2 \(w2\): ir spectrum: .*{said}"):
        run(Waters(3, {2: lambda: row}), on_error="raise")


SHAPES = {
    "water": ([8, 1, 1], WATER),
    "hydrogen": ([1, 1], [[0, 0, 0], [0, 0, 0.741]]),
    "nitrogen": ([7, 7], [[0, 0, 0], [0, 0, 1.098]]),
    "fluorine": ([9, 9], [[0, 0, 0], [0, 0, 1.412]]),
    "sodium chloride": ([11, 17], [[0, 0, 0], [0, 0, 2.361]]),
    "lithium": ([3, 3], [[0, 0, 0], [0, 0, 2.673]]),
    "two waters": ([8, 1, 1, 8, 1, 1], np.concatenate([WATER, WATER + 2.9])),
}


@pytest.mark.parametrize("name", SHAPES)
def test_bohr_is_told_from_ångström(name):
    numbers, positions = np.array(SHAPES[name][0]), np.array(SHAPES[name][1], float)
    assert not bohr_suspected(numbers, positions)
    if len(numbers) == 3:  # two atoms alone have one bond, which may be stretched on purpose
        assert bohr_suspected(numbers, positions / BOHR)


@pytest.mark.parametrize(
    ("numbers", "positions"),
    [
        ([1], [[0, 0, 0]]),
        ([18, 18], [[0, 0, 0], [0, 0, 3.76]]),
        ([18, 1], [[0, 0, 0], [0, 0, 3.0]]),
        ([1, 1], [[0, 0, 0], [0, 0, 8.0]]),
        *(([1, 1], [[0, 0, 0], [0, 0, stretched]]) for stretched in (1.05, 1.4, 1.75)),
        ([2, 1, 1], [[0, 0, 9.0], [0, 0, 0], [0, 0, 1.4]]),
    ],
)
def test_structures_that_say_nothing_about_bohr(numbers, positions):
    assert not bohr_suspected(np.array(numbers), np.array(positions, float))


def test_real_molecules_are_not_taken_for_bohr():
    path = Path(__file__).parents[2] / "../shared/data/qm9/qm9_labelled_18568.npz"
    if not path.is_file():
        pytest.skip("the QM9 subset is not here")
    arrays = np.load(path)
    ends, z, pos = np.cumsum(arrays["n_atoms"].astype(int)), arrays["z"].astype(int), arrays["pos"]
    for first, last in islice(pairwise(ends), 0, None, 20):
        numbers, positions = z[first:last], pos[first:last]
        assert not bohr_suspected(numbers, positions)
        assert bohr_suspected(numbers, positions / BOHR)


# --- pieces ----------------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.float64]))
@settings(max_examples=30, deadline=None)
def test_geometry_id_without_a_molecule(n, seed, dtype):
    generator = np.random.default_rng(seed)
    numbers = generator.integers(1, 119, n)
    positions = (np.arange(3 * n).reshape(n, 3) + generator.normal(0, 0.2, (n, 3))).astype(dtype)
    assert geometry_id_of(numbers.astype(np.uint8), positions) == Molecule(numbers, positions).geometry_id


def test_reasons_are_counted_by_kind_up_to_a_limit():
    assert kind_of("line 7: 'a b' is -1.5e+3, not 2") == kind_of("line 19: 'c' is 8, not 16")
    assert kind_of("frame 12: a raw file of QM9") == "frame #: a raw file of QM9"
    counts: dict[str, int] = {}
    for i in range(MAX_REASONS + 50):
        count(counts, f"reason {i:c}")
    assert len(counts) == MAX_REASONS + 1
    assert counts["other reasons"] == 50


def test_tallies_add_up():
    total = Tally(records=2, rows=1, rejected={"a": 1}, seconds=1.5)
    total.add(Tally(records=3, rows=2, rejected={"a": 1, "b": 1}, repeated=1, seconds=0.5))
    assert total == Tally(records=5, rows=3, rejected={"a": 2, "b": 1}, repeated=1, seconds=2.0)


def test_options_with_known_values():
    assert choice({"level": "b"}, "level", {"a": 1, "b": 2}, "a") == "b"
    assert choice({}, "level", {"a": 1}, "a") == "a"
    with pytest.raises(SettingError, match="did you mean 'alpha'"):
        choice({"level": "alpa"}, "level", {"alpha": 1, "b": 2}, "b")


def test_every_name_in_the_registry_leads_to_its_importer():
    for name in registry.NAMES:
        found = registry.importer(name)
        assert found.name == name
        assert found.title
        assert found.files
        assert all(found.options.values())
    with pytest.raises(NotFoundError, match="did you mean 'qm9'"):
        registry.importer("QM9")
    with pytest.raises(NotFoundError, match="unknown dataset 'zinc'; known: "):
        registry.importer("zinc")


def test_a_tally_from_another_version_is_refused(tmp_path):
    (tmp_path / "a.arrow.parts").mkdir()
    parts = Parts(tmp_path / "a.arrow", {})
    parts.finish(Tally(records=1))
    (tmp_path / "a.arrow.parts/00000.json").write_text('{"lines": 1}')
    with pytest.raises(DamagedError, match="is damaged; remove"):
        Parts(tmp_path / "a.arrow", {})


def test_the_store_is_written_with_batches_of_the_parts(run, tmp_path):
    run(Waters(25))
    with pa.OSFile(str(tmp_path / "a.arrow")) as source:
        file = pa.ipc.open_file(source)
        assert [file.get_batch(index).num_rows for index in range(file.num_record_batches)] == [10, 10, 5]


# --- command line ----------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch, tmp_path):
    (tmp_path / "raw").write_text("x")

    def call(importer, *more):
        monkeypatch.setattr(registry, "importer", lambda name: importer)
        return main(
            ["prepare", "waters", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "a.arrow"), *more]
        )

    return call


def test_command(command, tmp_path, capsys):
    assert command(Waters(30), "--limit", "20", "--option", "colour=blue", "--quiet") == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.startswith(f"20 rows in {tmp_path / 'a.arrow'}; 0 records rejected")
    store = Store(tmp_path / "a.arrow")
    assert store.metadata.notes["prepared"] == "molspectra prepare waters --option colour=blue"
    assert command(Waters(30), "--quiet") == 2
    assert "exists already" in capsys.readouterr().err


def test_command_tells_of_differences_and_progress(command, capsys):
    assert command(Waters(30)) == 0
    err = capsys.readouterr().err
    assert "Waters: 30 of 30 records" in err
    assert "warning: Waters: 0 records odd, 1 documented" in err


def test_command_interrupted(command, tmp_path, capsys):
    assert command(Waters(30, stop=20), "--quiet") == 130
    assert capsys.readouterr().err == (
        "molspectra: interrupted; the same command continues after the last finished part\n"
    )
    assert command(Waters(30), "--quiet") == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--option", "colour"], "expected KEY=VALUE"),
        (["--option", "colour=a", "colour=b"], "each key once"),
        (["--optoin", "a=b"], "did you mean --option"),
    ],
)
def test_wrong_command(command, capsys, more, message):
    assert command(Waters(3), *more) == 2
    assert message in capsys.readouterr().err


def test_help_of_a_dataset(capsys):
    assert main(["prepare", "qm9", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "dsgdb9nsd.xyz.tar.bz2" in shown
    assert "--option keep-uncharacterised=" in shown
    with pytest.raises(SystemExit):
        main(["prepare", "--help"])
    assert "qm9" in capsys.readouterr().out
