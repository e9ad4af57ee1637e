"""The list of runs, their curves, results and report."""

import csv
import json
import os
import shutil
import sys

import pytest
from frame_data import data_of

from molspectra.apps.explorer import runs as shown
from molspectra.apps.explorer.site import Site
from molspectra.data.atomic import LOCK, folder_lock, lock_holder
from molspectra.errors import NotFoundError, SettingError

HOSTILE = "<img src=x onerror=alert(1)>{{a}}"


@pytest.fixture
def folder(runs, tmp_path):
    """Copies of two runs, one of them deeper, beside other things."""
    root = tmp_path / "runs"
    shutil.copytree(runs["stage2"], root / "stage2")
    shutil.copytree(runs["gap-scratch-0"], root / "several" / "gap")
    (root / "notes").mkdir()
    (root / "notes" / "text.txt").write_text("nothing")
    (root / "file").write_text("nothing")
    return root


@pytest.fixture
def site(folder, tmp_path):
    (tmp_path / "temporary").mkdir()
    return Site(None, "base", folder, tmp_path / "temporary")


def by_name(folder):
    return {entry.name: entry for entry in shown.runs_in(folder)}


def change(path, **values):
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | values))


def test_finished_runs_and_foreign_folders_are_listed(folder):
    entries = by_name(folder)
    assert list(entries) == ["notes", "several/gap", "stage2"]
    assert entries["notes"].state == "not a run"
    run = entries["stage2"]
    assert (run.state, run.stage, run.steps, run.planned) == ("finished", "stage 2", 6, 6)
    assert "16 channels" in run.model
    assert "reads spectra" in run.model
    with (folder / "stage2" / "metrics.csv").open() as file:
        losses = [float(row["value"]) for row in csv.DictReader(file) if row["name"] == "val/loss"]
    assert run.best == min(losses)
    assert entries["several/gap"].stage == "fine-tuning"
    assert [entry.name for entry in shown.runs_in(folder / "stage2")] == ["."]


def test_the_lock_tells_a_running_run(folder):
    change(folder / "stage2" / "record.json", finished=False)
    assert by_name(folder)["stage2"].state == "failed or killed"
    with folder_lock(folder / "stage2", "training this run"):
        run = by_name(folder)["stage2"]
        assert run.state == "running"
        assert str(os.getpid()) in run.remark
        with folder_lock(folder / "new", "training this run"):
            assert "works in it" in by_name(folder)["new"].remark
    assert by_name(folder)["stage2"].state == "failed or killed"
    (folder / "stage2" / LOCK).write_text("process 1 of one that was killed")
    assert lock_holder(folder / "stage2") is None
    with folder_lock(folder / "stage2", "training this run"):  # which the look did not keep from it
        pass
    change(folder / "stage2" / "record.json", stopped=4)
    assert by_name(folder)["stage2"].state == "interrupted"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("record.json", b"{"),
        ("record.json", b"[]"),
        ("record.json", b'{"about": 3}'),
        ("record.json", b'{"about": {"stage": ["stage1"]}}'),
        ("record.json", None),
        ("config.json", b'{"loop": {"steps": "many"}}'),
        ("config.json", b"\xff"),
        ("metrics.csv", b"\xff\xfe\x00"),
    ],
)
def test_a_damaged_run_is_one_line(folder, name, content):
    path = folder / "stage2" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    entries = by_name(folder)
    assert entries["stage2"].state == "damaged"
    assert name in entries["stage2"].remark
    assert entries["several/gap"].state == "finished"
    assert "⚠ damaged" in shown.listed(list(entries.values()))


def test_odd_metrics_do_no_harm(folder):
    with (folder / "stage2" / "metrics.csv").open("a") as file:
        file.write("7,val/loss,nan,1\n8,val/loss,inf,1\nx,y\n9,val/loss,-1e300,1\n")
    run = by_name(folder)["stage2"]
    assert run.best == -1e300
    assert "1 line" in run.remark
    assert None in data_of(shown.curves([run]))["runs"][0]["validation"]["values"]


def test_links_are_not_followed(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(folder / "stage2", tmp_path / "elsewhere" / "secret")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    entries = by_name(folder)
    assert entries["link"].state == entries["loop"].state == "not a run"
    assert not any("secret" in name for name in entries)


@pytest.mark.parametrize("name", ["notes", "../runs/stage2", "link/secret", "/etc", "stage2/", "", "\x00"])
def test_only_runs_of_the_list_can_be_chosen(site, name):
    with pytest.raises(NotFoundError, match="refresh"):
        shown.chosen_of(site, [name])


@pytest.mark.parametrize("names", [None, [], ["stage2"] * 9])
def test_none_or_too_many_runs_are_refused(site, names):
    with pytest.raises(SettingError, match="choose"):
        shown.chosen_of(site, names)


def test_curves_are_those_of_the_metrics(site):
    entries = shown.chosen_of(site, ["stage2", "several/gap"])
    runs = data_of(shown.curves(entries))["runs"]
    assert [run["name"] for run in runs] == ["stage2", "several/gap"]
    metrics = {"training": "train/loss", "validation": "val/loss", "rate": "train/learning_rate"}
    for entry, run in zip(entries, runs, strict=True):
        with (entry.path / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        for key, metric in metrics.items():
            own = [(int(row["step"]), float(row["value"])) for row in rows if row["name"] == metric]
            assert own
            assert run[key]["steps"] == [step for step, _ in own]
            assert run[key]["values"] == pytest.approx([value for _, value in own], rel=1e-5)


def test_new_metrics_are_read(site):
    (entry,) = shown.chosen_of(site, ["stage2"])
    with (entry.path / "metrics.csv").open("a") as file:
        file.write("50,train/loss,0.125,9\n")
    (run,) = data_of(shown.curves(shown.chosen_of(site, ["stage2"])))["runs"]
    assert run["training"]["steps"][-1] == 50
    assert run["training"]["values"][-1] == 0.125


def test_the_report_is_a_file_of_its_own(site):
    first, second = shown.report(site, ["stage2"]), shown.report(site, ["stage2", "several/gap"])
    assert first != second
    assert site.temporary in shown.Path(first).parents
    assert "gap" in shown.Path(second).read_text()


def test_runs_that_were_not_evaluated_say_so(site):
    markup = shown.results(shown.chosen_of(site, ["stage2"]))
    assert "molspectra evaluate" in markup


def test_runs_that_cannot_be_put_together_are_one_line(site, folder):
    change(folder / "stage2" / "record.json", data={})
    assert 'role="alert"' in shown.results(shown.chosen_of(site, ["stage2"]))


def test_a_missing_folder_says_what_to_do(tmp_path):
    with pytest.raises(NotFoundError, match=r"pretrain .*--runs"):
        shown.runs_in(tmp_path / "none")
    assert "molspectra pretrain" in shown.told(tmp_path, shown.runs_in(tmp_path))


@pytest.mark.skipif(sys.platform == "win32", reason="such names are not possible")
def test_hostile_names_stay_texts(site, folder):
    (folder / "stage2").rename(folder / HOSTILE)
    os.mkdir(os.fsencode(folder) + b"/\xff\x1b[2J")
    entries = shown.runs_in(folder)
    parts = (
        shown.listed(entries),
        shown.curves(shown.chosen_of(site, [HOSTILE])),
        shown.results(shown.chosen_of(site, [HOSTILE])),
        shown.told(folder, entries),
    )
    for part in parts:
        assert "<img" not in part
        assert "{" not in part
        part.encode()
    assert data_of(parts[1])["runs"][0]["name"] == HOSTILE
    for entry in entries:
        entry.name.encode()
