"""What a run says of the runs before it."""

import json

import pytest
from benchmarks import history


def run(efficiency, *, date="2026-11-29", load="0.2", cpu="a CPU", quick=False):
    step = {
        "config": "qm9-stage1",
        "batch": 128,
        "mode": "reference",
        "precision": "32-true",
        "allocator": "tuned",
    }
    about = {
        "date": date, "commit": "abcdefghij", "load": load, "threads": 2, "quick": quick,
        "machine": {"cpu": cpu, "cores": 2},
    }  # fmt: skip
    steps = [
        step | {"label": "steps", "efficiency": efficiency},
        step | {"label": "compare", "efficiency": 0.1},
    ]
    return history.entry({"about": about, "steps": steps})


def test_a_loss_of_more_than_a_tenth_is_named():
    (found,) = history.regressions([run(0.8), run(1.0, date="2026-11-01"), run(0.9)], run(0.89))
    assert found == (
        "qm9-stage1 128 reference 32-true tuned: efficiency 0.89, 11% less than 1.00 (2026-11-01, abcdefg)"
    )
    assert history.regressions([run(1.0)], run(0.9001)) == []
    assert history.regressions([], run(0.1)) == []


@pytest.mark.parametrize("other", [{"load": "3.0"}, {"cpu": "another"}, {"quick": True}, {"load": "unknown"}])
def test_runs_that_are_not_comparable_do_not_count(other):
    assert history.regressions([run(2.0, **other)], run(0.9)) == []


def test_only_recent_runs_count():
    earlier = [run(2.0), *[run(0.9)] * history.RECENT]
    assert history.regressions(earlier, run(0.89)) == []
    assert history.regressions(earlier[:-1], run(0.89))


def test_a_history_grows_by_lines_and_names_a_damaged_one(tmp_path):
    path = tmp_path / history.FILE
    assert history.read(path) == []
    for efficiency in (0.9, 0.8):
        history.append(path, run(efficiency))
    assert [each["efficiency"] for each in history.read(path)] == [
        {"qm9-stage1 128 reference 32-true tuned": value} for value in (0.9, 0.8)
    ]
    assert json.loads(path.read_text().splitlines()[0])["is_idle"]
    path.write_text(path.read_text() + '{"date": 1}\n')
    with pytest.raises(ValueError, match="line 3"):
        history.read(path)
