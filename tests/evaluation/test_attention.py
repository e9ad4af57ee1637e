"""Attention maps against a direct computation, layer by layer and molecule by molecule."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from molspectra.errors import MismatchError, NotFoundError
from molspectra.evaluation.attention import (
    attention_map,
    attention_of,
    layer_attention,
    most_complete,
    over_axis,
    patch_centres,
    token_slices,
)
from molspectra.models.specformer import SpecFormer, SpecFormerConfig, patchify, transform
from molspectra.reporting.attention_figure import write_attention
from molspectra.spectra.modality import IR, Modality
from molspectra.training.checkpoint import load_model
from molspectra.training.data import Selection


def direct(encoder, spectra):
    """Scores of every layer as the paper writes them: this layer's plus those of the layer before."""
    tokens = torch.cat(
        [
            encoder.projection[name](patchify(transform(spectra[name]), kind)) + encoder.position[name]
            for name, kind in encoder.kinds.items()
            if name in spectra
        ],
        dim=1,
    )
    before, weights_by_layer = 0.0, []
    for layer in encoder.layers:
        part = layer.attention
        b, t, d = tokens.shape
        query, key, value = (
            linear(tokens).reshape(b, t, part.heads, d // part.heads).permute(0, 2, 1, 3)
            for linear in (part.query, part.key, part.value)
        )
        before = before + torch.einsum("bhic,bhjc->bhij", query, key) / (d // part.heads) ** 0.5
        shares = before.softmax(-1)
        weights_by_layer.append(shares)
        attended = torch.einsum("bhij,bhjc->bihc", shares, value).reshape(b, t, d)
        tokens = layer.attention_norm(tokens + part.output(attended))
        tokens = layer.feed_forward_norm(tokens + layer.feed_forward(tokens))
    return weights_by_layer


@pytest.fixture
def encoder():
    torch.manual_seed(1)
    config = SpecFormerConfig(("ir", "raman"), (250, 500), (125, 250), 16, 4, 3, 16)
    return SpecFormer(config, 8).double().eval()


@torch.no_grad()
def test_layers_are_those_of_the_paper(encoder):
    spectra = {name: 50 * torch.rand(3, 3501, dtype=torch.float64) for name in ("ir", "raman")}
    expected = direct(encoder, spectra)
    computed = layer_attention(encoder, spectra)
    for weights, reference in zip(computed, expected, strict=True):
        torch.testing.assert_close(weights, reference, rtol=1e-10, atol=1e-12)
    assert (expected[0] - expected[2]).abs().max() > 1e-3


@torch.no_grad()
def test_the_map_of_a_run(runs, tiny):
    rows = Selection.of(tiny.data).test
    with_all = [row for row in rows if all(tiny.store.has(name)[row] for name in ("uv_vis", "ir", "raman"))]
    attention = attention_map(runs["stage2"])
    assert attention.rows.tolist() == with_all
    assert list(attention.kinds) == ["uv_vis", "ir", "raman"]
    model, _ = load_model(runs["stage2"])
    batch = tiny.store.batch(with_all, modalities=tuple(attention.kinds))
    (expected,) = direct(model.spectrum_encoder, batch.spectra)
    np.testing.assert_allclose(
        attention.matrix[0], expected.double().mean((0, 1)).numpy(), rtol=2e-4, atol=1e-7
    )
    np.testing.assert_allclose(attention.matrix.sum(2), 1, atol=1e-5)
    received = np.concatenate(list(attention.received().values()), axis=1)
    np.testing.assert_allclose(
        received[0], expected.double().mean((0, 1, 2)).numpy() * received.shape[1], rtol=1e-3
    )
    assert received.mean() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(attention.spectra["ir"], transform(batch.spectra["ir"]).mean(0), rtol=1e-4)

    tokens_of = token_slices(attention.kinds)
    blocks = attention.blocks()
    np.testing.assert_allclose(blocks.sum(2), 1, atol=1e-5)
    ir_to_raman = attention.matrix[0][tokens_of["ir"], tokens_of["raman"]].sum(1).mean()
    assert blocks[0, 1, 2] == pytest.approx(ir_to_raman)
    assert sum(attention.uniform()) == pytest.approx(1)


def test_a_limited_number_of_molecules_of_a_stage_2_run_is_averaged(runs, monkeypatch):
    whole = attention_map(runs["stage2"])
    monkeypatch.setattr("molspectra.evaluation.attention.LIMIT", 2)
    few = attention_map(runs["stage2"])
    assert few.rows.tolist() == whole.rows[:2].tolist()
    assert (few.heads, list(few.layers)) == (2, [1])
    with pytest.raises(MismatchError, match=r"stage1.*spectrum encoder"):
        attention_map(runs["stage1"])


def test_molecules_with_the_most_spectra_are_taken(tiny):
    water, other = tiny.row("water"), tiny.row("benzene")
    names, rows = most_complete(tiny.store, np.array([water, other]), ("uv_vis", "ir", "raman"))
    assert (names, rows.tolist()) == (("uv_vis", "ir", "raman"), [other])
    names, rows = most_complete(tiny.store, np.array([water]), ("uv_vis", "ir", "raman"))
    assert (names, rows.tolist()) == (("uv_vis", "ir"), [water])
    with pytest.raises(NotFoundError, match="none of the 1 molecules"):
        most_complete(tiny.store, np.array([water]), ("raman",))


def test_files_of_a_map(runs, tmp_path):
    attention = attention_map(runs["stage2"])
    write_attention(attention, tmp_path / "out")
    values = json.loads((tmp_path / "out" / "attention.json").read_text())
    assert values["molecules"] == len(attention.rows)
    assert len(values["modalities"]["ir"]["received"][0]) == len(values["modalities"]["ir"]["centres"])
    assert np.shape(values["blocks"]["layers"]) == (1, 3, 3)
    stored = load_file(tmp_path / "out" / "attention.safetensors")["matrix"]
    np.testing.assert_allclose(stored, attention.matrix, rtol=1e-6)
    assert "<svg " in (tmp_path / "out" / "attention.svg").read_text()
    assert (tmp_path / "out" / "attention.png").read_bytes().startswith(b"\x89PNG")


def test_patches_have_their_centres():
    centres = patch_centres(IR)
    assert len(centres) == 139
    assert centres[:2].tolist() == [524.5, 549.5]


def test_a_point_has_the_mean_of_the_patches_that_cover_it():
    kind = Modality("made", "eV", "1/eV", start=0, stop=9, step=1, patch=4, stride=2, fwhm=1)
    assert kind.patches == 4
    over = over_axis(np.array([1.0, 2, 3, 4]), kind)
    np.testing.assert_allclose(over, [1, 1, 1.5, 1.5, 2.5, 2.5, 3.5, 3.5, 4, 4])


def test_the_attention_of_one_sample_is_that_of_the_last_layer(encoder):
    generator = np.random.default_rng(0)
    spectra = {name: generator.random(kind.points) for name, kind in encoder.kinds.items()}
    found = attention_of(encoder, spectra)
    rows = {name: torch.tensor(values[None]) for name, values in spectra.items()}
    last = layer_attention(encoder, rows)[-1][0].mean(0)  # [T, T]
    share = (last.mean(0) * len(last)).double().numpy()
    assert share.mean() == pytest.approx(1)
    for name, tokens in token_slices(encoder.kinds).items():
        np.testing.assert_allclose(found[name], over_axis(share[tokens], encoder.kinds[name]), rtol=1e-5)
    alone = attention_of(encoder, {"ir": spectra["ir"]})
    assert set(alone) == {"ir"}
    assert alone["ir"][alone["ir"] > 0].mean() == pytest.approx(1, rel=0.05)
