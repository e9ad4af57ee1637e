import numpy as np
import pytest
import torch

from molspectra.chem.molecule import Molecule
from molspectra.data.batch import batch_of
from molspectra.errors import SettingError
from molspectra.objectives.denoising import (
    CoordDenoising,
    DenoisingConfig,
    Noised,
    RunningNormaliser,
)
from molspectra.objectives.loss import NoiseKey

RANDOM = np.random.default_rng(0)
MOLECULES = [Molecule(RANDOM.integers(1, 10, n), 2.0 * RANDOM.normal(size=(n, 3))) for n in (3, 1, 8, 30)]


def key(batch, seed=0, epoch=0):
    return NoiseKey(seed, torch.full((len(batch),), epoch))


def noise_of(molecules, seed=0, epoch=0, **config):
    batch = batch_of(molecules, dtype=torch.float64)
    noised = CoordDenoising(DenoisingConfig(**config)).perturb(batch, key(batch, seed, epoch))
    torch.testing.assert_close(noised.batch.positions, batch.positions + noised.target)
    return noised.target.split(batch.ptr.diff().tolist())


def test_noise_does_not_depend_on_the_batch():
    together = noise_of(MOLECULES)
    backwards = noise_of(MOLECULES[::-1])[::-1]
    for index, molecule in enumerate(MOLECULES):
        (alone,) = noise_of([molecule])
        assert torch.equal(together[index], alone)
        assert torch.equal(together[index], backwards[index])


def test_noise_depends_on_seed_epoch_and_molecule():
    drawn = [noise_of(MOLECULES[2:3], seed, epoch)[0] for seed in (0, 1) for epoch in (0, 1)]
    moved = MOLECULES[2].with_positions(MOLECULES[2].positions * 1.01)
    drawn += noise_of([moved])
    for index, one in enumerate(drawn):
        assert not any(torch.equal(one, two) for two in drawn[:index])


def test_every_molecule_has_its_own_epoch():
    batch = batch_of(MOLECULES, dtype=torch.float64)
    epochs = torch.tensor([0, 5, 2, 7])
    target = CoordDenoising(DenoisingConfig()).perturb(batch, NoiseKey(0, epochs)).target
    for index, part in enumerate(target.split(batch.ptr.diff().tolist())):
        assert torch.equal(part, noise_of([MOLECULES[index]], epoch=int(epochs[index]))[0])


def test_centred_noise_sums_to_zero():
    for part in noise_of(MOLECULES, centred=True):
        assert part.sum(0).abs().max() < 1e-14
    single = noise_of(MOLECULES, centred=True)[1]
    assert not single.any()  # one atom cannot be moved against itself
    for free, part in zip(noise_of(MOLECULES, centred=False), noise_of(MOLECULES), strict=True):
        torch.testing.assert_close(free - free.mean(0), part)


@pytest.mark.parametrize("sigma", [0.04, 0.3])
def test_sigma(sigma):
    large = MOLECULES[3:]
    many = torch.cat([noise_of(large, epoch=epoch, sigma=sigma, centred=False)[0] for epoch in range(200)])
    assert many.shape == (6000, 3)
    assert (many.mean(0).abs() < 4 * sigma / 6000**0.5).all()
    assert many.std().item() == pytest.approx(sigma, rel=0.02)
    assert many.abs().max() < 6.7 * sigma


def test_noised_batch_has_no_edges_and_keeps_the_rest():
    batch = batch_of(MOLECULES).with_edges(5.0)
    noised = CoordDenoising(DenoisingConfig()).perturb(batch, key(batch)).batch
    assert noised.edges is None
    assert noised.positions.dtype == torch.float32
    assert torch.equal(noised.numbers, batch.numbers)
    assert torch.equal(noised.geometry_id, batch.geometry_id)


def test_loss_by_hand():
    objective = CoordDenoising(DenoisingConfig(sigma=0.5))
    prediction = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    batch = batch_of([Molecule([1, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.7]])])
    noised = Noised(batch, torch.tensor([[0.5, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    loss = objective({"denoising": prediction}, noised)["denoising"]
    assert loss.sum.item() == pytest.approx(8.0)  # targets (1, 0, 0) and (0, 2, 0)
    assert loss.count == objective.counts(batch)["denoising"] == 6


def test_micro_batches_add_up():
    objective, batch = CoordDenoising(DenoisingConfig()), batch_of(MOLECULES, dtype=torch.float64)
    noised = objective.perturb(batch, key(batch))
    prediction = torch.randn_like(noised.target)
    whole = objective({"denoising": prediction}, noised)["denoising"]
    parts = []
    for molecules, rows in ((MOLECULES[:2], slice(4)), (MOLECULES[2:], slice(4, 42))):
        part = batch_of(molecules, dtype=torch.float64)
        moved = objective.perturb(part, key(part))
        parts.append(objective({"denoising": prediction[rows]}, moved)["denoising"])
    torch.testing.assert_close(parts[0].sum + parts[1].sum, whole.sum)
    assert parts[0].count + parts[1].count == whole.count == 126


def test_running_normaliser_against_numpy():
    normaliser = RunningNormaliser().double()
    seen = []
    for size, shift in ((4, 0.0), (9, 1.0), (2, -3.0)):
        rows = torch.randn(size, 3, dtype=torch.float64) * torch.tensor([0.1, 1.0, 2.0]) + shift
        seen.append(rows.numpy())
        normaliser.observe(rows.split(3))
        ours = normaliser(rows)
        together = np.concatenate(seen)
        expected = (rows.numpy() - together.mean(0)) / together.std(0)
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(normaliser.mean.numpy(), together.mean(0), atol=1e-12)
    np.testing.assert_allclose(normaliser.std.numpy(), together.std(0), rtol=1e-12)
    assert (normaliser.acc_count.item(), normaliser.num_accumulations.item()) == (15.0, 3.0)
    before = {name: value.clone() for name, value in normaliser.state_dict().items()}
    normaliser(torch.full((5, 3), 9.0).double())
    assert all(torch.equal(value, before[name]) for name, value in normaliser.state_dict().items())


def test_running_objective_uses_the_statistics():
    objective = CoordDenoising(DenoisingConfig(normalise="running")).double()
    target = torch.randn(6, 3, dtype=torch.float64)
    standardised = (target - target.mean(0)) / target.std(0, unbiased=False)
    noised = Noised(batch_of(MOLECULES[:1]), target)
    assert objective.normaliser is not None
    objective.normaliser.observe([target])
    loss = objective({"denoising": standardised}, noised)["denoising"]
    assert loss.sum.item() == pytest.approx(0.0, abs=1e-20)


@pytest.mark.parametrize("name", ["sigma", "rotation", "force_unit"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_noise_needs_a_size(name, value):
    with pytest.raises(SettingError, match=f"{name} must be positive"):
        DenoisingConfig(**{name: value})
