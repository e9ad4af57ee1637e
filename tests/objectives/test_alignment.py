"""The contrastive loss against the formula written out."""

from dataclasses import replace

import pytest
import torch

from molspectra.objectives.alignment import Alignment, AlignmentConfig

GENERATOR = torch.Generator().manual_seed(0)
MOLECULES, SPECTRA = torch.randn(2, 3, 4, generator=GENERATOR, dtype=torch.float64)
SYMMETRIC, REFERENCE = AlignmentConfig(), AlignmentConfig(form="reference", temperature="fixed")


def log_scale(temperature):
    return -torch.log(torch.tensor(temperature, dtype=torch.float64))


def written_out(molecules, spectra, temperature, cosine, directions, left_out=()):
    """Sum over molecules of the mean over directions of -log(e^s_bb / Σ_j e^s_bj)."""
    total = 0.0
    for direction in directions:
        rows, columns = (molecules, spectra) if direction == "to spectra" else (spectra, molecules)
        for b in range(len(rows)):
            scores = []
            for j in range(len(rows)):
                score = rows[b] @ columns[j]
                if cosine:
                    score = score / (rows[b].norm() * columns[j].norm())
                scores.append(score / temperature)
            others = sum(torch.exp(scores[j]) for j in range(len(rows)) if (b, j) not in left_out)
            total -= torch.log(torch.exp(scores[b]) / others) / len(directions)
    return total


@pytest.mark.parametrize("similarity", ["cosine", "inner"])
def test_symmetric_form(similarity):
    loss = Alignment(replace(SYMMETRIC, similarity=similarity))(MOLECULES, SPECTRA, log_scale(0.5))
    both = ("to spectra", "to molecules")
    expected = written_out(MOLECULES, SPECTRA, 0.5, similarity == "cosine", both)
    torch.testing.assert_close(loss.sum, expected)
    assert loss.count == 3


def test_reference_form():
    loss = Alignment(REFERENCE)(MOLECULES, SPECTRA, log_scale(0.07), identity=torch.tensor([5, 5, 6]))
    expected = written_out(MOLECULES, SPECTRA, 0.07, True, ("to spectra",))  # twins count as negatives
    torch.testing.assert_close(loss.sum, expected)
    assert loss.count == 3


def test_by_hand_for_two_orthogonal_pairs():
    """Scores are 1/τ on the diagonal and 0 elsewhere: log(1 + e^(-1/τ)) per molecule."""
    unit = torch.eye(2, dtype=torch.float64)
    loss = Alignment(SYMMETRIC)(unit, 3 * unit, log_scale(0.5))
    assert loss.mean.item() == pytest.approx(torch.tensor(2.0).neg().exp().log1p().item())


def test_a_twin_is_no_negative():
    loss = Alignment(SYMMETRIC)(MOLECULES, SPECTRA, log_scale(0.5), identity=torch.tensor([5, 6, 5]))
    both, twins = ("to spectra", "to molecules"), ((0, 2), (2, 0))
    torch.testing.assert_close(loss.sum, written_out(MOLECULES, SPECTRA, 0.5, True, both, twins))


@pytest.mark.parametrize("form", ["symmetric", "reference"])
def test_only_a_learned_temperature_gets_a_gradient(form):
    for temperature, learned in (("learned", True), ("fixed", False)):
        scale, molecules = log_scale(0.3).requires_grad_(True), MOLECULES.clone().requires_grad_(True)
        loss = Alignment(AlignmentConfig(form=form, temperature=temperature))(molecules, SPECTRA, scale)
        loss.sum.backward()
        assert molecules.grad.abs().max() > 1e-3
        assert (scale.grad is not None) == learned
        if learned:
            step = 1e-6
            values = [
                Alignment(AlignmentConfig(form=form))(MOLECULES, SPECTRA, log_scale(0.3) + sign * step).sum
                for sign in (1, -1)
            ]
            assert scale.grad.item() == pytest.approx(float(values[0] - values[1]) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("config", [SYMMETRIC, REFERENCE])
def test_ranks_add_up_to_one_large_batch(config):
    identity = torch.tensor([1, 2, 1])
    objective, scale = Alignment(config), log_scale(0.2)
    whole = objective(MOLECULES, SPECTRA, scale, identity=identity)
    gathered = (MOLECULES, SPECTRA, identity)
    parts = []
    for rows in (slice(0, 2), slice(2, 3)):
        own = (MOLECULES[rows], SPECTRA[rows], scale)
        parts.append(objective(*own, identity=identity[rows], gathered=gathered, first=rows.start))
    torch.testing.assert_close(parts[0].sum + parts[1].sum, whole.sum)
    assert parts[0].count + parts[1].count == whole.count


@pytest.mark.parametrize("config", [SYMMETRIC, REFERENCE])
@pytest.mark.parametrize("molecules", [0, 1])
def test_nothing_to_contrast(config, molecules):
    features = torch.randn(molecules, 4, requires_grad=True)
    loss = Alignment(config)(features, torch.randn(molecules, 4), log_scale(0.1).float())
    loss.sum.backward()
    assert loss.sum.item() == pytest.approx(0.0, abs=1e-6)
    assert loss.count == molecules
    assert torch.isfinite(features.grad).all()


def test_zero_representations_are_finite():
    features = torch.zeros(3, 4, requires_grad=True)
    Alignment(SYMMETRIC)(features, torch.zeros(3, 4), log_scale(0.07).float()).sum.backward()
    assert torch.isfinite(features.grad).all()
