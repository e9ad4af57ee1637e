import csv
import dataclasses
import json

import numpy as np
import pytest

from molspectra.data.store.store import Row, Store, write_store
from molspectra.errors import FormatError, MismatchError, NotFoundError, SettingError
from molspectra.evaluation.evaluate import evaluate
from molspectra.evaluation.pretrained import at_quantiles
from molspectra.training.data import Selection
from molspectra.training.record import read_metrics
from molspectra.training.run import pretrain


def test_a_fine_tuned_run_gets_its_errors_and_predictions(runs, tiny):
    directory = runs["gap-stage2-1"]
    result = evaluate(directory)
    assert result == json.loads((directory / "evaluation.json").read_text())
    assert (result["stage"], result["part"], result["target"], result["unit"]) == (
        "finetune",
        "test",
        "gap",
        "eV",
    )
    assert result["data"]["hash"] == tiny.store.hash == result["data"]["trained_on"]
    assert result["seed"] == 1
    with (directory / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    computed = np.array([float(row["computed gap [eV]"]) for row in rows])
    predicted = np.array([float(row["predicted gap [eV]"]) for row in rows])
    assert len(rows) == result["molecules"] == result["count"]
    assert result["mae"] == pytest.approx(np.abs(computed - predicted).mean())
    numbers = [int(row["row"]) for row in rows]
    np.testing.assert_array_equal(computed, tiny.store.column("gap")[numbers])
    assert [row["identity"] for row in rows] == [tiny.store.identities[number] for number in numbers]
    test = Selection.of(tiny.data, ("gap",))
    assert numbers == test.test.tolist()
    median = np.median(tiny.store.column("gap")[test.train])
    assert result["median_predictor_mae"] == pytest.approx(np.abs(computed - median).mean())


def test_a_second_evaluation_gives_the_same(runs):
    one, other = (evaluate(runs["gap-scratch-0"]) for _ in range(2))
    assert one | {"seconds": 0} == other | {"seconds": 0}


def test_stage_1_gets_its_denoising_loss(runs):
    result = evaluate(runs["stage1"])
    assert set(result["losses"]) == {"loss", "denoising"}
    # unit noise less its mean per molecule: 1 - (molecules / atoms), give or take the draw
    assert 0.6 < result["no_skill"]["denoising"] < 1.1
    assert "retrieval" not in result


@pytest.mark.parametrize("name", ["stage1", "stage2"])
def test_losses_on_the_validation_part_are_those_of_training(runs, name):
    result = evaluate(runs[name], part="val")
    step = int(result["checkpoint"].removeprefix("best-"))
    rows = read_metrics(runs[name] / "metrics.csv")
    expected = {
        key.removeprefix("val/"): value for at, key, value, _ in rows if at == step and key[:4] == "val/"
    }
    assert result["losses"] == {key: pytest.approx(value, rel=1e-4) for key, value in expected.items()}
    assert (runs[name] / "evaluation-val.json").is_file()


def test_stage_2_searches_the_held_out_molecules(runs, tiny):
    directory = runs["stage2"]
    result = evaluate(directory)["retrieval"]
    selection = Selection.of(tiny.data)
    held_out = {tiny.store.identities[row] for row in (*selection.test, *selection.val)}
    assert result["gallery_parts"] == ["test", "val"]  # a test part this small is searched with the other
    assert result["gallery_size"] == len(held_out)
    assert result["queries"] == len(selection.test)
    assert result["modalities"] == ["uv_vis", "ir", "raman"]
    assert list(result["subsets"]) == [
        "uv_vis", "ir", "raman", "uv_vis + ir", "uv_vis + raman", "ir + raman", "uv_vis + ir + raman",
    ]  # fmt: skip
    assert result["subsets"]["uv_vis + ir + raman"] == {
        name: result[name] for name in result["subsets"]["ir"]
    }
    for figures in result["subsets"].values():
        assert set(figures["recall"]) == {"1", "5", "10", "25"}
        assert figures["isomers"]["queries"] <= figures["queries"]
    assert result["chance_recall"]["1"] == pytest.approx(1 / len(held_out))
    with (directory / "retrieval.csv").open() as file:
        rows = list(csv.DictReader(file))
    ranks = np.array([int(row["rank"]) for row in rows])
    assert result["recall"]["5"] == pytest.approx((ranks <= 5).mean())
    assert result["mrr"] == pytest.approx((1 / ranks).mean())
    example = result["examples"][0]
    assert example["rank"] == sorted(ranks)[round(0.25 * (len(ranks) - 1))]
    assert [candidate["true"] for candidate in example["candidates"]].count(True) == (example["rank"] <= 5)


def test_no_skill_is_told_beside_every_loss(runs):
    result = evaluate(runs["stage2"])
    assert set(result["no_skill"]) == set(result["losses"]) - {"loss"}


def test_results_can_go_elsewhere(runs, tmp_path):
    evaluate(runs["gap-scratch-1"], tmp_path / "new" / "place", part="val")
    assert {path.name for path in (tmp_path / "new" / "place").iterdir()} == {
        "evaluation-val.json",
        "predictions-val.csv",
    }


def test_other_data_are_refused_unless_allowed(runs, tiny, tmp_path):
    rows = [tiny.store.row(number) for number in range(len(tiny.store))]
    rows[0] = Row(rows[0].molecule, rows[0].spectra, {"gap": 1.0})
    write_store(tmp_path / "other.arrow", rows, tiny.store.metadata)
    other = str(tmp_path / "other.arrow")
    with pytest.raises(MismatchError, match=r"gap-scratch-0 was trained on"):
        evaluate(runs["gap-scratch-0"], tmp_path / "out", store=other)
    assert not (tmp_path / "out").exists()
    result = evaluate(runs["gap-scratch-0"], tmp_path / "out", store=other, allow_other_data=True)
    assert result["data"]["hash"] == Store(other).hash != result["data"]["trained_on"]
    copy = tmp_path / "copy.arrow"
    copy.write_bytes(tiny.path.read_bytes())
    assert evaluate(runs["gap-scratch-0"], tmp_path / "same", store=str(copy))["data"]["store"] == str(copy)


def test_what_is_no_run_is_refused(runs, tmp_path):
    with pytest.raises(NotFoundError, match=r"no config\.json"):
        evaluate(tmp_path)
    with pytest.raises(SettingError, match="'cuda:99'"):
        evaluate(runs["stage1"], tmp_path / "out", device="cuda:99")
    with pytest.raises(SettingError, match="train, val, test, all, not 'tset'"):
        evaluate(runs["stage1"], part="tset")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "record.json").write_text("[]")
    with pytest.raises(FormatError, match=r"record\.json.*no stage"):
        evaluate(tmp_path)


def test_running_statistics_of_the_noise_come_from_the_run(tiny, tmp_path):
    config = dataclasses.replace(
        tiny.stage1, denoising=dataclasses.replace(tiny.stage1.denoising, normalise="running")
    )
    pretrain(config, tmp_path / "running", show=False)
    result = evaluate(tmp_path / "running")
    assert result["no_skill"]["denoising"] == pytest.approx(1.0, abs=0.3)


def test_quantiles_pick_by_value_and_equal_values_by_place():
    values = np.array([5.0, 1.0, 3.0, 3.0, 2.0])
    assert at_quantiles(values, (0.0, 0.5, 0.75, 1.0)).tolist() == [1, 2, 3, 0]
    assert at_quantiles(np.array([4.0]), (0.1, 0.9)).tolist() == [0, 0]


def test_a_reference_split_is_tested_on_its_own_rows(tiny, tmp_path):
    data = dataclasses.replace(tiny.data, split="reference", sizes=(20, 8), split_seed=1)
    run = pretrain(dataclasses.replace(tiny.stage1, data=data), tmp_path / "run", show=False).directory
    result = evaluate(run)
    parts = Selection.of(data)
    assert (result["molecules"], result["data"]["split"], result["data"]["sizes"]) == (
        12,
        "reference",
        [20, 8],
    )
    names = tiny.store.identities
    twice = {names[row] for row in parts.test} & {names[row] for row in parts.train}
    assert result["seen"]["test_in_own_training"] == len(twice)  # ethanol has two rows
    assert result["seen"]["pretraining"]["structures"] == len(twice)
    rows = [tiny.store.row(number) for number in range(len(tiny.store) - 1)]
    write_store(tmp_path / "other.arrow", rows, tiny.store.metadata)
    with pytest.raises(MismatchError, match="reference split"):
        evaluate(run, tmp_path / "out", store=str(tmp_path / "other.arrow"), allow_other_data=True)
