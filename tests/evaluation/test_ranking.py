from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molspectra.errors import ValueRangeError
from molspectra.evaluation import ranking
from molspectra.evaluation.ranking import TIE, answer_scores, best, rank_figures, ranks, recall_by_size


def test_ranks_of_a_similarity_matrix_made_by_hand():
    scores = torch.tensor(
        [
            [0.9, 0.1, 0.3],  # true 0 is best
            [0.9, 0.1, 0.3],  # true 1 is last
            [0.5, 0.5, 0.2],  # true 0 shares the first place: second
            [0.5, 0.5, 0.5],  # all the same: last
        ]
    )
    assert ranks(scores, torch.tensor([0, 1, 0, 2])).tolist() == [1, 3, 2, 3]


def test_a_tie_within_rounding_counts_against_the_query():
    scores = torch.tensor([[0.5, 0.5 - TIE / 2, 0.5 - 3 * TIE]], dtype=torch.float64)
    assert ranks(scores, torch.tensor([0])).tolist() == [2]


def test_only_the_competing_answers_count():
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.3]])
    among = torch.tensor([[True, False, True, False]])
    assert ranks(scores, torch.tensor([0])).tolist() == [4]
    assert ranks(scores, torch.tensor([0]), among).tolist() == [2]
    assert ranks(scores, torch.tensor([3]), torch.zeros(1, 4, dtype=torch.bool)).tolist() == [1]


def test_entries_of_one_molecule_are_one_answer():
    similarity = torch.tensor([[0.2, 0.9, 0.4, 0.8]])
    answer = torch.tensor([0, 1, 0, 1])
    scores = answer_scores(similarity, answer)
    assert scores.tolist() == [[pytest.approx(0.4), pytest.approx(0.9)]]
    assert ranks(scores, torch.tensor([0])).tolist() == [2]  # behind one molecule, though behind two entries


def test_a_score_that_is_not_a_number_never_ranks_first():
    with pytest.raises(ValueRangeError, match="not a number"):
        ranks(torch.tensor([[0.1, torch.nan]]), torch.tensor([0]))


def test_best_answers_come_in_order_and_equal_ones_by_number():
    answers, scores = best(torch.tensor([[0.1, 0.7, 0.7, 0.9]]), 3)
    assert answers.tolist() == [[3, 1, 2]]
    assert scores.tolist() == [[pytest.approx(0.9), pytest.approx(0.7), pytest.approx(0.7)]]
    assert best(torch.zeros(2, 3), 5)[0].shape == (2, 3)


def test_figures_of_ranks_computed_by_hand():
    figures = rank_figures(torch.tensor([1, 2, 4, 10]), torch.tensor([10, 10, 10, 10]))
    assert figures.queries == 4
    assert figures.recall == {1: 0.25, 5: 0.75, 10: 1.0, 25: 1.0}
    assert figures.mrr == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 10) / 4)
    assert figures.median_rank == 3.0
    assert figures.chance_recall == {1: pytest.approx(0.1), 5: pytest.approx(0.5), 10: 1.0, 25: 1.0}
    assert figures.chance_mrr == pytest.approx(sum(1 / n for n in range(1, 11)) / 10)


def test_chance_is_averaged_over_galleries_of_different_size():
    figures = rank_figures(torch.tensor([1, 1]), torch.tensor([2, 8]))
    assert figures.chance_recall == {
        1: pytest.approx((1 / 2 + 1 / 8) / 2),
        5: pytest.approx((1 + 5 / 8) / 2),
        10: 1.0,
        25: 1.0,
    }
    assert figures.chance_mrr == pytest.approx((1.5 / 2 + sum(1 / n for n in range(1, 9)) / 8) / 2)
    with pytest.raises(ValueRangeError, match="no queries"):
        rank_figures(torch.tensor([]), torch.tensor([]))


def test_chance_is_what_random_scores_give():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(4000, 50, generator=generator, dtype=torch.float64)
    figures = rank_figures(ranks(scores, torch.arange(4000) % 50), torch.full((4000,), 50))
    for k, expected in figures.chance_recall.items():
        assert figures.recall[k] == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 4000) ** 0.5)
    assert figures.mrr == pytest.approx(figures.chance_mrr, abs=0.012)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 7), st.integers(0, 8))
def test_ranks_equal_a_loop_over_molecules(seed, queries, answers, extra):
    generator = torch.Generator().manual_seed(seed)
    entries = answers + extra
    answer = torch.cat([torch.arange(answers), torch.randint(answers, (extra,), generator=generator)])
    # few different values, so that ties are common
    similarity = torch.randint(4, (queries, entries), generator=generator).double() / 4
    true = torch.randint(answers, (queries,), generator=generator)
    rank = ranks(answer_scores(similarity, answer), true).tolist()
    for query in range(queries):
        score = {}
        for entry in range(entries):
            molecule = int(answer[entry])
            score[molecule] = max(score.get(molecule, -1.0), float(similarity[query, entry]))
        own = score.pop(int(true[query]))
        assert rank[query] == 1 + sum(value >= own for value in score.values())


def test_recall_by_size_by_hand(monkeypatch):
    """Of 4 others one is ahead: of 2 drawn it is among them in half of the draws."""
    monkeypatch.setattr(ranking, "SIZES", (3, 5, 9))
    whole = recall_by_size(torch.tensor([2, 1, 1]), torch.tensor([5, 5, 1]))
    assert [(each.size, each.queries, each.candidates) for each in whole] == [(3, 2, 3.0), (None, 2, 5.0)]
    assert whole[0].recall == {1: pytest.approx((0.5 + 1) / 2), 10: 1.0}
    assert whole[0].chance_recall == {1: pytest.approx(1 / 3), 10: 1.0}
    assert whole[1].recall == {1: 0.5, 10: 1.0}
    assert recall_by_size(torch.tensor([1]), torch.tensor([1])) == []


def test_recall_by_size_is_the_mean_over_all_draws(monkeypatch):
    """Every draw of 11 of 13 others, 10 of which are ahead; found among the first 10 or not."""
    monkeypatch.setattr(ranking, "SIZES", (12,))
    draws = list(combinations(range(13), 11))
    among_ten = sum(sum(other < 10 for other in draw) < 10 for draw in draws) / len(draws)
    found = recall_by_size(torch.tensor([11]), torch.tensor([14]))[0]
    assert found.recall == {1: 0.0, 10: pytest.approx(among_ten)}
