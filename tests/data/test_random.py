import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molspectra.data.neighbours import offsets_of
from molspectra.data.random import Purpose, normal, philox, uniform

ALL = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([ALL] * 4, [ALL, ALL], [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_known_answers_of_the_published_generator(counter, key, words):
    result = philox(torch.tensor([counter, counter]), key[0] | key[1] << 32)
    assert result.tolist() == [words, words]


def reference_words(seed, epoch, identifier, purpose, block):
    """Philox4x32-10 in Python integers, with the documented layout of key and counter."""
    k0, k1 = seed & ALL, seed >> 32 & ALL
    c = [block, purpose << 24 | epoch, identifier & ALL, identifier >> 32 & ALL]
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [p1 >> 32 ^ c[1] ^ k0, p1 & ALL, p0 >> 32 ^ c[3] ^ k1, p0 & ALL]
        k0, k1 = (k0 + 0x9E3779B9) & ALL, (k1 + 0xBB67AE85) & ALL
    return c


@given(
    seed=st.integers(-(2**70), 2**70),
    epoch=st.integers(0, 2**24 - 1),
    identifier=st.integers(-(2**63), 2**63 - 1),
    purpose=st.sampled_from(Purpose),
)
@settings(max_examples=50)
def test_layout_of_key_and_counter(seed, epoch, identifier, purpose):
    ids = torch.tensor([7, identifier])
    found = uniform(seed, epoch, ids, purpose, 6)[1] * 2**32
    expected = reference_words(seed, epoch, identifier, purpose, 0)
    expected += reference_words(seed, epoch, identifier, purpose, 1)[:2]
    assert found.tolist() == expected


def test_normal_follows_box_muller_on_blocks_of_one_vector():
    found = normal(5, 3, torch.tensor([9, -4]), Purpose.NOISE, torch.tensor([1, 2]), 3)
    for row, (identifier, vector) in enumerate([(9, 0), (-4, 0), (-4, 1)]):
        u = [word / 2**32 for word in reference_words(5, 3, identifier, Purpose.NOISE, vector)]
        radius, second = math.sqrt(-2 * math.log(u[0] + 2**-32)), math.sqrt(-2 * math.log(u[2] + 2**-32))
        expected = [
            radius * math.cos(math.tau * u[1]),
            radius * math.sin(math.tau * u[1]),
            second * math.cos(math.tau * u[3]),
        ]
        assert found[row].tolist() == pytest.approx(expected, abs=1e-14)


def test_numbers_do_not_depend_on_the_batch():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(-(2**63), 2**63 - 1, (40,), generator=generator)
    counts = torch.randint(1, 30, (40,), generator=generator)
    epochs = torch.randint(0, 5, (40,), generator=generator)
    noise = normal(0, epochs, ids, Purpose.NOISE, counts, 3)
    masks = uniform(0, epochs, ids, Purpose.MASK, 139)
    start = offsets_of(counts)
    for size in (1, 2, 7, 40):
        some = torch.randperm(40, generator=generator)[:size]
        atoms = torch.cat([torch.arange(start[each], start[each + 1]) for each in some])
        total = int(counts[some].sum())
        again = normal(0, epochs[some], ids[some], Purpose.NOISE, counts[some], 3, total=total)
        assert torch.equal(again, noise[atoms])
        assert torch.equal(uniform(0, epochs[some], ids[some], Purpose.MASK, 139), masks[some])


def test_a_molecule_may_occur_twice_with_different_epochs():
    ids = torch.tensor([3, 3])
    first, second = uniform(0, torch.tensor([4, 5]), ids, Purpose.NOISE, 8)
    assert torch.equal(second, uniform(0, 5, ids[:1], Purpose.NOISE, 8)[0])
    assert not torch.equal(first, second)


def test_no_two_uses_share_a_number():
    ids = torch.tensor([0, 1, -1, 2**32, 2**62])
    seen = [
        uniform(seed, epoch, ids, purpose, 9).flatten()
        for seed in (0, 1, 2**32)
        for epoch in (0, 1, 2**24 - 1)
        for purpose in Purpose
    ]
    values = torch.cat(seen)
    # Of 3645 words of 32 bits, two are equal by chance in 1 of 650 seeds; these seeds have no such pair.
    assert values.unique().numel() == values.numel()


def test_uniform_statistics():
    values = uniform(0, 0, torch.arange(1000), Purpose.MASK, 1000).numpy()
    assert values.min() >= 0
    assert values.max() < 1
    assert abs(values.mean() - 0.5) < 4 * math.sqrt(1 / 12 / values.size)
    counts = np.histogram(values, bins=256, range=(0, 1))[0]
    chi2 = ((counts - values.size / 256) ** 2 / (values.size / 256)).sum()
    assert abs(chi2 - 255) < 4 * math.sqrt(2 * 255)
    for correlation in (np.corrcoef(values[:, 0], values[:, 1]), np.corrcoef(values[0], values[1])):
        assert abs(correlation[0, 1]) < 4 / math.sqrt(1000)


def test_normal_statistics():
    from statistics import NormalDist

    values = normal(0, 0, torch.arange(1000), Purpose.NOISE, torch.full((1000,), 100), 3)
    assert values.dtype == torch.float64
    flat = values.flatten().numpy()
    n = flat.size
    assert abs(flat.mean()) < 4 / math.sqrt(n)
    assert abs(flat.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((flat**4).mean() - 3) < 4 * math.sqrt(96 / n)
    edges = [NormalDist().inv_cdf(k / 64) for k in range(1, 64)]
    counts = np.bincount(np.searchsorted(edges, flat), minlength=64)
    assert abs(((counts - n / 64) ** 2 / (n / 64)).sum() - 63) < 4 * math.sqrt(2 * 63)
    covariance = torch.cov(values.T)
    assert torch.allclose(covariance, torch.eye(3, dtype=torch.float64), atol=4 * math.sqrt(2 / (n / 3)))


def test_width_beyond_one_block_and_empty_molecules():
    ids, counts = torch.tensor([5, 6, 7]), torch.tensor([2, 0, 1])
    values = normal(0, 0, ids, Purpose.TORSION, counts, 6)
    assert values.shape == (3, 6)
    assert values.unique().numel() == 18
    assert normal(0, 0, ids, Purpose.TORSION, torch.zeros(3, dtype=torch.int64), 1).shape == (0, 1)
    assert uniform(0, 0, ids, Purpose.MASK, 0).shape == (3, 0)


@pytest.mark.parametrize("epoch", [-1, 2**24])
def test_epoch_out_of_range(epoch):
    with pytest.raises(ValueError, match="epoch"):
        uniform(0, epoch, torch.tensor([1]), Purpose.NOISE, 1)
