import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molspectra.data.splits import SPLITS, reference_split, split_rows
from molspectra.errors import SettingError, ValueRangeError

GOLDEN = Path(os.environ.get("MOLSPECTRA_GOLDEN", Path(__file__).parents[1] / "golden")) / "splits.npz"


def split_of(identity, seed=0, fractions=(0.8, 0.1, 0.1)):
    (part,) = (name for name, rows in split_rows([identity], seed, fractions).items() if len(rows))
    return part


def test_published_answers_never_change():
    keys = ["XLYOFNOQVPJJNP", "CSCPPACGZOOCGX", "UHOVQNZJYSORNB", "VNWKTOKETHGBQD", "geom-0123456789abcdef"]
    assert [split_of(key, seed=1) for key in keys] == ["train", "val", "train", "test", "train"]
    assert [split_of(key, seed=1, fractions=(0.2, 0.4, 0.4)) for key in keys] == [
        "val",
        "test",
        "val",
        "test",
        "val",
    ]


@given(st.lists(st.text(max_size=20), max_size=50), st.integers(0, 2**40), st.randoms(use_true_random=False))
def test_stable_under_order_and_growth(identities, seed, random):
    parts = split_rows(identities, seed)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(identities)))
    known = {identities[row]: name for name, rows in parts.items() for row in rows}
    assert known == {identity: split_of(identity, seed) for identity in identities}
    grown = [*identities, "new", "newer"]
    random.shuffle(grown)
    again = split_rows(grown, seed)
    for name, rows in again.items():
        assert (np.diff(rows) > 0).all()
        for row in rows:
            assert known.get(grown[row], name) == name


def test_shares_are_met():
    parts = split_rows((f"molecule {k}" for k in range(50_000)), seed=3, fractions=(0.7, 0.1, 0.2))
    for name, share in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
        assert abs(len(parts[name]) / 50_000 - share) < 4 * (share * (1 - share) / 50_000) ** 0.5


def test_more_training_data_keeps_what_was_training():
    keys = [f"molecule {k}" for k in range(2000)]
    small = split_rows(keys, fractions=(0.5, 0.3, 0.2))["train"]
    large = split_rows(keys, fractions=(0.8, 0.1, 0.1))["train"]
    assert set(small) <= set(large)


def test_whole_shares_leave_nothing_for_the_others():
    keys = [f"molecule {k}" for k in range(500)]
    for index, name in enumerate(SPLITS):
        shares = [0.0, 0.0, 0.0]
        shares[index] = 1.0
        assert len(split_rows(keys, fractions=shares)[name]) == 500
    assert {split_of(key, fractions=(0.1 + 0.2, 0.7, 0.0)) for key in keys} == {"train", "val"}


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.4), (0.9, 0.2, -0.1), (0.5, 0.4, 0.2), (float("nan"), 0.5, 0.5)]
)
def test_wrong_fractions(fractions):
    with pytest.raises(SettingError, match="fractions"):
        split_rows(["CSCPPACGZOOCGX"], fractions=fractions)


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
def test_every_fold_is_the_test_part_once(folds):
    keys = [f"molecule {k}" for k in range(5000)]
    tested = []
    for fold in range(folds):
        parts = split_rows(keys, 3, (0.8, 0.1, 0.1), folds, fold)
        assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(5000))
        assert abs(len(parts["val"]) / 5000 - 0.1) < 0.02
        assert abs(len(parts["test"]) / 5000 - 1 / folds) < 0.03
        tested += parts["test"].tolist()
    assert sorted(tested) == list(range(5000))


def test_fold_0_of_10_is_the_default_split():
    keys = [f"molecule {k}" for k in range(5000)]
    plain, fold = split_rows(keys), split_rows(keys, folds=10, fold=0)
    assert all(np.array_equal(plain[name], fold[name]) for name in SPLITS)


def test_reference_split_is_the_published_one():
    if not GOLDEN.is_file():
        pytest.skip("no golden splits")
    golden = np.load(GOLDEN)
    parts = reference_split(
        int(golden["dataset_len"]), int(golden["train_size"]), int(golden["val_size"]), seed=1
    )
    for name in SPLITS:
        assert np.array_equal(parts[name], golden[f"idx_{name}"])


def test_reference_split_parts():
    parts = reference_split(10, 5, 2, 1, seed=0)
    assert [len(parts[name]) for name in SPLITS] == [5, 2, 1]
    assert len(np.unique(np.concatenate(list(parts.values())))) == 8
    with pytest.raises(ValueRangeError, match=r"8 \+ 3 .*10 rows"):
        reference_split(10, 8, 3)
