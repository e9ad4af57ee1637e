from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molspectra.data.batch import Batch
from molspectra.data.store.store import Broadening
from molspectra.errors import SettingError
from molspectra.spectra.broadening import broaden
from molspectra.spectra.modality import IR
from molspectra.training.augment import augmented, withheld
from molspectra.training.config import SpectraConfig

NAMES = ("uv_vis", "ir", "raman")


def batch_of_spectra(count, present=None):
    """`count` one-atom molecules with three spectra of four points."""
    return Batch(
        numbers=torch.ones(count, dtype=torch.int64),
        positions=torch.zeros(count, 3),
        ptr=torch.arange(count + 1),
        molecule=torch.arange(count),
        row=torch.arange(count),
        geometry_id=torch.arange(count) * 7919 + 1,
        spectra={name: torch.ones(count, 4) for name in NAMES},
        present=present or {name: torch.ones(count, dtype=torch.bool) for name in NAMES},
    )


def zeros(count):
    return torch.zeros(count, dtype=torch.int64)


@given(
    st.integers(0, 2**63 - 1),
    st.floats(0, 1, exclude_max=True),
    st.lists(st.tuples(*[st.booleans()] * 3), min_size=1, max_size=20),
)
def test_a_molecule_keeps_at_least_one_of_the_spectra_it_has(seed, chance, has):
    before = torch.tensor(has)
    batch = batch_of_spectra(len(has), dict(zip(NAMES, before.T, strict=True)))
    after = torch.stack(list(withheld(batch, chance, seed, zeros(len(has))).present.values()), 1)
    assert not bool((after & ~before).any())
    assert torch.equal(after.any(1), before.any(1))


@pytest.mark.parametrize("chance", [0.2, 0.5, 0.9])
def test_spectra_are_withheld_as_often_as_asked(chance):
    """With the chance p - p³/3, and independently: all three stay with (1 - p)³."""
    count = 20000
    found = withheld(batch_of_spectra(count), chance, 0, zeros(count))
    kept = torch.stack(list(found.present.values()), 1)
    share = kept.double().mean(0)
    torch.testing.assert_close(
        share, torch.full((3,), 1 - chance + chance**3 / 3, dtype=torch.float64), atol=0.012, rtol=0
    )
    assert float(kept.all(1).double().mean()) == pytest.approx((1 - chance) ** 3, abs=0.012)


def test_what_is_withheld_hangs_on_seed_epoch_molecule_and_modality_alone():
    batch = batch_of_spectra(64)
    first = withheld(batch, 0.5, 3, zeros(64)).present
    turned = torch.arange(63, -1, -1)
    other = replace(
        batch,
        geometry_id=batch.geometry_id[turned],
        spectra={name: batch.spectra[name] for name in reversed(NAMES)},
        present={name: batch.present[name] for name in reversed(NAMES)},
    )
    other = withheld(other, 0.5, 3, zeros(64)).present
    assert all(torch.equal(first[name], other[name][turned]) for name in NAMES)
    for seed, epoch in ((4, 0), (3, 1)):
        changed = withheld(batch, 0.5, seed, zeros(64) + epoch).present
        assert any(not torch.equal(first[name], changed[name]) for name in NAMES)
    assert not torch.equal(first["ir"], first["raman"])


def test_a_withheld_spectrum_cannot_be_read():
    found = withheld(batch_of_spectra(50), 0.5, 0, zeros(50))
    for name in NAMES:
        assert torch.equal(found.spectra[name].any(1), found.present[name])


def test_without_settings_nothing_changes():
    batch = batch_of_spectra(3)
    assert augmented(batch, SpectraConfig(), 0, zeros(3)) is batch


@pytest.mark.parametrize("chance", [-0.1, 1.0, float("nan")])
def test_a_chance_that_is_none_is_refused(chance):
    with pytest.raises(SettingError, match=r"spectra\.dropout"):
        SpectraConfig(dropout=chance)


ALL = SpectraConfig(
    dropout=0.3,
    shift=0.8,
    scale=(0.95, 1.0),
    width=(0.5, 3.0),
    gain=(0.5, 2.0),
    drift=0.1,
    noise=0.02,
    crop=0.1,
)


def ir_batch(count):
    """Three bands of width 12 cm⁻¹ in every IR spectrum."""
    batch = batch_of_spectra(count)
    spectrum = broaden(
        torch.tensor([900.0, 1700.0, 2950.0]), torch.tensor([10.0, 30.0, 20.0]), torch.tensor([0, 3]), IR
    )
    present = torch.ones(count, dtype=torch.bool)
    present[-1] = False
    return replace(batch, spectra={"ir": spectrum.repeat(count, 1)}, present={"ir": present})


def test_a_distorted_batch_keeps_its_promises():
    before = ir_batch(12)
    after = augmented(before, ALL, 1, zeros(12))
    spectra = after.spectra["ir"]
    assert spectra.shape == before.spectra["ir"].shape
    assert spectra.dtype == torch.float32
    assert bool(spectra.isfinite().all())
    assert bool((spectra >= 0).all())
    assert torch.equal(spectra.any(1), after.present["ir"])
    assert len({tuple(row.tolist()) for row in spectra[:-1]}) == 11


def test_distortions_hang_on_seed_epoch_and_molecule_alone():
    batch = ir_batch(8)
    whole = augmented(batch, ALL, 1, zeros(8)).spectra["ir"]
    assert torch.equal(whole, augmented(batch, ALL, 1, zeros(8)).spectra["ir"])
    part = replace(
        ir_batch(8),
        geometry_id=batch.geometry_id[2:5],
        spectra={"ir": batch.spectra["ir"][2:5]},
        present={"ir": batch.present["ir"][2:5]},
    )
    torch.testing.assert_close(augmented(part, ALL, 1, zeros(3)).spectra["ir"], whole[2:5])
    for seed, epoch in ((2, 0), (1, 1)):
        assert not torch.equal(augmented(batch, ALL, seed, zeros(8) + epoch).spectra["ir"], whole)


def peak(spectra, low, high):
    """Position of the highest point between two wavenumbers, [B]."""
    return low + spectra[:, low - 500 : high - 499].argmax(1)


def test_shift_and_scale_stay_in_their_range():
    found = augmented(ir_batch(200), SpectraConfig(shift=10 / 12), 0, zeros(200)).spectra["ir"][:-1]
    moves = peak(found, 1600, 1800) - 1700
    assert int(moves.min()) in (-10, -9)
    assert int(moves.max()) in (9, 10)
    found = augmented(ir_batch(200), SpectraConfig(scale=(0.95, 1.0)), 0, zeros(200)).spectra["ir"][:-1]
    factors = peak(found, 1600, 1800) / 1700
    assert 0.949 < float(factors.min()) < 0.955
    assert 0.995 < float(factors.max()) < 1.001


def test_widths_gains_and_noise_stay_in_their_range():
    whole = ir_batch(200).spectra["ir"][:-1]
    wide = augmented(ir_batch(200), SpectraConfig(width=(1.0, 3.0)), 0, zeros(200)).spectra["ir"][:-1]
    height = wide.amax(1) / whole.amax(1)  # of a Lorentzian: 1/width
    assert 0.33 < float(height.min()) < 0.36
    assert 0.95 < float(height.max()) < 1.01
    loud = augmented(ir_batch(200), SpectraConfig(gain=(0.5, 2.0)), 0, zeros(200)).spectra["ir"][:-1]
    factor = (loud / whole)[:, 0]
    assert 0.5 <= float(factor.min()) < 0.52
    assert 1.9 < float(factor.max()) < 2.0
    assert float(factor.log().mean()) == pytest.approx(0.0, abs=0.1)
    noisy = augmented(ir_batch(200), SpectraConfig(noise=0.1), 0, zeros(200)).spectra["ir"][:-1]
    size = (noisy - whole)[:, 1195:1206].std(1) / whole.amax(1)  # where clipping does not reach
    assert 0.07 < float(size.max()) < 0.16


def test_crops_are_at_either_end_and_never_in_the_middle():
    found = augmented(ir_batch(200), SpectraConfig(crop=0.2), 0, zeros(200)).spectra["ir"][:-1] > 0
    assert bool(found[:, 701:2800].all())
    assert 0.18 < float((~found[:, :1750]).double().sum(1).max()) / 3501 <= 0.2
    assert 0.18 < float((~found[:, 1750:]).double().sum(1).max()) / 3501 <= 0.2


def test_lines_start_at_the_smallest_width_and_samples_cannot():
    config = SpectraConfig(width=(0.5, 2.0))
    assert config.broadening(["ir"], ["ir"]) == {"ir": Broadening(fwhm=6.0)}
    assert SpectraConfig(width=(1.0, 2.0)).broadening([], NAMES) == {}
    with pytest.raises(SettingError, match=r"raman spectra are samples"):
        config.broadening(["ir"], ["ir", "raman"])


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"crop": 0.5}, r"spectra\.crop"),
        ({"noise": -0.1}, r"spectra\.noise"),
        ({"shift": float("inf")}, r"spectra\.shift"),
        ({"scale": (1.0, 0.9)}, r"spectra\.scale"),
        ({"gain": (0.0, 1.0)}, r"spectra\.gain"),
    ],
)
def test_distortions_out_of_range_are_refused(wrong, word):
    with pytest.raises(SettingError, match=word):
        SpectraConfig(**wrong)


def test_a_share_of_the_spectra_is_spared():
    """The others are distorted as they were without the setting."""
    batch = ir_batch(400)
    config = SpectraConfig(shift=0.8, gain=(0.5, 2.0), drift=0.1)
    every = augmented(batch, config, 2, zeros(400)).spectra["ir"][:-1]
    some = augmented(batch, replace(config, share=0.25), 2, zeros(400)).spectra["ir"][:-1]
    before = batch.spectra["ir"][:-1]
    is_spared = (some == before).all(1)
    assert torch.equal(some[~is_spared], every[~is_spared])
    assert float(is_spared.double().mean()) == pytest.approx(0.75, abs=0.07)


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.5}, {"share": 0.5, "width": (0.5, 2.0)}])
def test_a_share_that_is_none_is_refused(wrong):
    with pytest.raises(SettingError, match=r"spectra\.(share|width)"):
        SpectraConfig(**wrong)
