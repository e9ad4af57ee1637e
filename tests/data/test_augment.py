from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molspectra.data.augment import SpectraConfig, augmented, withheld
from molspectra.data.batch import Batch
from molspectra.errors import InputError

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
    with pytest.raises(InputError, match=r"spectra\.dropout"):
        SpectraConfig(dropout=chance)
