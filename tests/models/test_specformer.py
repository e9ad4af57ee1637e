"""SpecFormer: subsets of modalities, masks, batch statistics and residual attention."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from molspectra.errors import InputError, MismatchError, NotFoundError, SettingError, ValueRangeError
from molspectra.models.specformer import (
    SpecFormer,
    SpecFormerConfig,
    patchify,
    transform,
)
from molspectra.models.transformer_layer import PresentBatchNorm, ResidualAttention
from molspectra.spectra.modality import IR, RAMAN, UV_VIS

# 6 + 4 + 3 tokens instead of 347
CONFIG = SpecFormerConfig(
    patch=(100, 800, 1000), stride=(110, 850, 1200), width=8, heads=2, layers=3, feed_forward=12
)

PUBLISHED = {kind.name: kind for kind in (UV_VIS, IR, RAMAN)}
SUBSETS = [subset for subset in product([True, False], repeat=3) if any(subset)]


def encoder(config=CONFIG, training=False):
    torch.manual_seed(5)
    model = SpecFormer(config, 5).double()
    with torch.no_grad():
        for value in model.parameters():
            value += 0.1 * torch.randn_like(value)
        for module in model.modules():
            if isinstance(module, PresentBatchNorm):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2.0)
    return model.train(training)


def some_spectra(molecules, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 5 * torch.rand(molecules, kind.points, generator=generator, dtype=torch.float64) ** 3
        for name, kind in PUBLISHED.items()
    }


def present_of(subsets):
    columns = torch.tensor(subsets, dtype=torch.bool).T
    return dict(zip(PUBLISHED, columns, strict=True))


def masks_of(model, molecules, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(molecules, kind.patches, generator=generator) < 0.4
        for name, kind in model.kinds.items()
    }


def statistics(model):
    return [
        value.clone()
        for module in model.modules()
        if isinstance(module, PresentBatchNorm)
        for value in (module.running_mean, module.running_var)
    ]


def close(ours, expected, tolerance=1e-10):
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)


def test_published_numbers_of_patches():
    kinds = SpecFormerConfig().kinds()
    assert [kind.patches for kind in kinds.values()] == [69, 139, 139]
    model = SpecFormer(SpecFormerConfig(width=16, heads=4, layers=1, feed_forward=8), 4)
    output = model({name: torch.rand(2, kind.points) for name, kind in kinds.items()})
    assert output.tokens.shape == (2, 347, 16)
    assert output.representation.shape == (2, 4)
    shapes = {name: tuple(patches.shape) for name, patches in model.reconstruct(output.tokens).items()}
    assert shapes == {"uv_vis": (2, 69, 20), "ir": (2, 139, 50), "raman": (2, 139, 50)}


def test_patches_and_transform_by_hand():
    kind = replace(UV_VIS, stop=1.18, patch=4, stride=2)  # 10 points
    patches = patchify(torch.arange(10.0).unsqueeze(0), kind)
    assert patches.tolist() == [[[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 8, 9]]]
    assert transform(torch.tensor([0.0, 9.0, 99.0])).tolist() == pytest.approx([0.0, 1.0, 2.0])


def naive(model, spectra, masks=None):
    """The published encoder written out: explicit scores that add up, one big linear map; evaluation mode."""
    tokens = []
    for name, kind in model.kinds.items():
        patches = torch.stack(
            [
                torch.log10(spectra[name][:, start : start + kind.patch] + 1)
                for start in range(0, kind.points - kind.patch + 1, kind.stride)
            ],
            dim=1,
        )
        if masks is not None:
            patches = torch.where(masks[name].unsqueeze(-1), 0.0, patches)
        tokens.append(patches @ model.projection[name].weight.T + model.projection[name].bias)
        tokens[-1] = tokens[-1] + model.position[name]
    x = torch.cat(tokens, dim=1)

    def norm(layer, x):
        scaled = (x - layer.running_mean) / torch.sqrt(layer.running_var + layer.eps)
        return scaled * layer.weight + layer.bias

    heads, scores = model.config.heads, 0
    for layer in model.layers:
        attention = layer.attention
        query, key, value = (
            torch.stack(part(x).chunk(heads, dim=-1), dim=1)
            for part in (attention.query, attention.key, attention.value)
        )
        scores = scores + query @ key.mT / (model.config.width // heads) ** 0.5
        attended = scores.softmax(-1) @ value
        x = norm(layer.attention_norm, x + attention.output(torch.cat(list(attended.unbind(1)), dim=-1)))
        hidden = F.gelu(layer.feed_forward[0](x))
        x = norm(layer.feed_forward_norm, x + layer.feed_forward[2](hidden))
    whole = torch.cat([model.slices[name].weight for name in model.kinds], dim=1)
    return x, model.norm(x.flatten(1) @ whole.T + model.slice_bias)


@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_published_encoder_written_out(masked):
    model, spectra = encoder(), some_spectra(3)
    masks = masks_of(model, 3) if masked else None
    tokens, representation = naive(model, spectra, masks)
    output = model(spectra, None, masks)
    close(output.tokens, tokens)
    close(output.representation, representation)


def test_residual_attention_is_the_sum_of_scores():
    torch.manual_seed(0)
    layers = [ResidualAttention(8, 2).double() for _ in range(3)]
    tokens = torch.randn(2, 5, 8, dtype=torch.float64)
    visible = torch.tensor([[True] * 5, [True, True, False, True, False]])
    queries, keys, scores = [], [], 0
    for layer in layers:
        ours = layer(tokens, queries, keys, visible)
        query, key, value = (
            part(tokens).view(2, 5, 2, 4).transpose(1, 2) for part in (layer.query, layer.key, layer.value)
        )
        scores = scores + query @ key.mT / 2
        weights = scores.masked_fill(~visible[:, None, None], -torch.inf).softmax(-1)
        expected = layer.output((weights @ value).transpose(1, 2).flatten(2))
        close(ours, expected)
        tokens = ours


@pytest.mark.parametrize("training", [False, True])
def test_present_all_equals_present_none(training):
    spectra = some_spectra(3)
    outputs = [
        encoder(training=training)(spectra, present) for present in (None, present_of([[True] * 3] * 3))
    ]
    for ours, expected in zip(*outputs, strict=True):
        assert torch.equal(ours, expected)


def test_every_subset_equals_that_molecule_alone_with_only_its_spectra():
    model, spectra = encoder(), some_spectra(len(SUBSETS))
    together = model(spectra, present_of(SUBSETS))
    for index, subset in enumerate(SUBSETS):
        names = [name for name, here in zip(PUBLISHED, subset, strict=True) if here]
        alone = model({name: spectra[name][[index]] for name in names})
        close(together.representation[[index]], alone.representation)
        close(torch.cat([model.split(together.tokens)[name][[index]] for name in names], dim=1), alone.tokens)
        for name in set(PUBLISHED) - set(names):
            assert not model.split(together.tokens)[name][index].any()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("content", [0.0, 1e6, float("nan")])
def test_what_an_absent_spectrum_holds_does_not_matter(training, content):
    subsets = [(True, True, False), (False, True, True), (False, False, False), (True, True, True)]
    present, results = present_of(subsets), []
    for filled in (7.0, content):
        model, spectra = encoder(training=training), some_spectra(4)
        for name in PUBLISHED:
            spectra[name][~present[name]] = filled
        output = model(spectra, present)
        (output.representation.sin().sum() + output.tokens.sin().sum()).backward()
        results.append([*output, *(value.grad for value in model.parameters() if value.grad is not None)])
    assert len(results[0]) == len(results[1]) > 30
    for ours, expected in zip(*results, strict=True):
        assert torch.isfinite(ours).all()
        assert torch.equal(ours, expected)


def test_a_modality_that_is_not_given_is_absent():
    spectra, present = some_spectra(3), present_of([(True, False, True)] * 3)
    without = {name: spectra[name] for name in ("uv_vis", "raman")}
    for training in (False, True):
        ours, expected = encoder(training=training)(without), encoder(training=training)(spectra, present)
        close(ours.representation, expected.representation)
        close(ours.tokens, torch.cat([expected.tokens[:, :6], expected.tokens[:, 10:]], dim=1))


def test_a_molecule_without_spectra_disturbs_nobody():
    subsets = [(True, True, True), (False, False, False), (False, True, False)]
    for training in (False, True):
        model, spectra = encoder(training=training), some_spectra(3)
        output = model(spectra, present_of(subsets))
        output.representation[[0, 2]].square().sum().backward()
        others = encoder(training=training)
        kept = {name: values[[0, 2]] for name, values in spectra.items()}
        expected = others(kept, present_of([subsets[0], subsets[2]]))
        expected.representation.square().sum().backward()
        close(output.representation[[0, 2]], expected.representation)
        assert torch.isfinite(output.representation).all()
        assert not output.tokens[1].any()
        for (name, ours), theirs in zip(model.named_parameters(), others.parameters(), strict=True):
            if not name.startswith("reconstruction"):
                close(ours.grad, theirs.grad)


@pytest.mark.parametrize("training", [False, True])
def test_a_batch_without_any_spectrum_is_finite(training):
    model = encoder(training=training)
    before = statistics(model)
    output = model(some_spectra(2), present_of([(False, False, False)] * 2))
    output.representation.sum().backward()
    assert torch.isfinite(output.representation).all()
    assert all(torch.isfinite(value.grad).all() for value in model.parameters() if value.grad is not None)
    assert all(torch.equal(old, new) for old, new in zip(before, statistics(model), strict=True))


def test_other_molecules_do_not_matter_in_evaluation():
    model, spectra = encoder(), some_spectra(3)
    changed = {name: torch.cat([values[:1], 3 * values[1:]]) for name, values in spectra.items()}
    present = present_of([(True, False, True), (True, True, True), (False, True, True)])
    close(model(changed, present).representation[0], model(spectra, present).representation[0])
    assert not torch.allclose(
        model(changed, present).representation[1], model(spectra, present).representation[1]
    )


def test_the_content_of_a_masked_patch_does_not_matter():
    model = encoder()
    spectra, masks = some_spectra(2), masks_of(model, 2)
    changed = {name: values.clone() for name, values in spectra.items()}
    for name, kind in model.kinds.items():
        for molecule, patch in masks[name].nonzero().tolist():
            changed[name][molecule, patch * kind.stride : patch * kind.stride + kind.patch] += 2.0
    assert all(mask.any() for mask in masks.values())
    ours, expected = model(changed, None, masks), model(spectra, None, masks)
    assert torch.equal(ours.tokens, expected.tokens)
    assert not torch.allclose(model(changed).tokens, model(spectra).tokens)


def test_batch_statistics_are_those_of_the_present_tokens():
    norm = PresentBatchNorm(3).double().train()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 0.5]))
        norm.bias.copy_(torch.tensor([0.0, -1.0, 3.0]))
    tokens = torch.randn(2, 4, 3, dtype=torch.float64)
    present = torch.tensor([[True, True, False, True], [False, False, True, True]])
    tokens[~present] = 1e3
    rows = torch.stack([tokens[b, t] for b, t in present.nonzero().tolist()])
    mean, variance = rows.mean(0), rows.var(0, unbiased=False)
    normed = (rows - mean) / torch.sqrt(variance + 1e-5) * norm.weight + norm.bias
    output = norm(tokens, present.flatten().nonzero().squeeze(1))
    close(output[present], normed)
    assert not output[~present].any()
    close(norm.running_mean, 0.1 * mean)
    close(norm.running_var, 0.9 + 0.1 * rows.var(0, unbiased=True))


def test_running_statistics_follow_unmasked_passes_only():
    model, spectra = encoder(training=True), some_spectra(3)
    masks, present = masks_of(model, 3), present_of(SUBSETS[:3])
    for subset in (None, present):
        before = statistics(model)
        model(spectra, subset, masks)
        assert all(torch.equal(old, new) for old, new in zip(before, statistics(model), strict=True))
        model(spectra, subset)
        assert not any(torch.equal(old, new) for old, new in zip(before, statistics(model), strict=True))
    before = statistics(model)
    model.reference_forward(spectra, masks)
    assert not any(torch.equal(old, new) for old, new in zip(before, statistics(model), strict=True))
    frozen = statistics(model.eval())
    model(spectra)
    assert all(torch.equal(old, new) for old, new in zip(frozen, statistics(model), strict=True))


def test_masked_and_reference_passes_give_the_same_in_training():
    spectra, masks = some_spectra(3), masks_of(encoder(), 3)
    ours = encoder(training=True)(spectra, None, masks)
    expected = encoder(training=True).reference_forward(spectra, masks)
    close(ours.tokens, expected.tokens)


def test_gradients_reach_every_parameter():
    # not in training, where batch norms take away what the biases before them add
    model, spectra = encoder(), some_spectra(4)
    output = model(spectra)
    loss = output.representation.sin().sum()
    loss = loss + sum(patches.sin().sum() for patches in model.reconstruct(output.tokens).values())
    loss.backward()
    for name, value in model.named_parameters():
        assert value.grad is not None, name
        # a key's bias adds the same to all scores of a query, which no softmax sees
        assert name.endswith("key.bias") or value.grad.abs().max() > 1e-12, name


def test_selected_patches_equal_those_of_all():
    model = encoder()
    tokens = model(some_spectra(3)).tokens
    index = {
        name: torch.tensor([[0, 2], [1, 2], [kind.patches - 1, 0]]) for name, kind in model.kinds.items()
    }
    whole = model.reconstruct(tokens)
    for name, patches in model.reconstruct(tokens, index=index).items():
        close(patches, torch.stack([row[at] for row, at in zip(whole[name], index[name], strict=True)]))


def test_a_pass_asks_the_device_nothing():
    model = encoder(training=True).to("meta")  # where every question raises
    present = present_of([(True, True, True)] * 3)
    spectra = {name: values.to("meta") for name, values in some_spectra(3).items()}
    masks = {name: mask.to("meta") for name, mask in masks_of(model, 3).items()}
    output = model.reference_forward(spectra, masks, present)
    index = {name: torch.zeros(3, 2, dtype=torch.int64, device="meta") for name in model.kinds}
    patches = model.reconstruct(output.tokens, index=index)
    (output.representation.sum() + sum(patch.sum() for patch in patches.values())).backward()
    assert model.slice_bias.grad.device.type == "meta"


def test_shared_axes_do_not_share_weights():
    model = encoder(replace(CONFIG, modalities=("ir", "raman"), patch=None, stride=None))
    assert isinstance(model.projection["ir"], nn.Linear)
    assert not torch.equal(model.projection["ir"].weight, model.projection["raman"].weight)
    assert (IR.patches, RAMAN.patches) == (139, 139)


@pytest.mark.parametrize(
    ("changes", "kind", "facts"),
    [
        ({"modalities": ("ir", "ramen")}, InputError, "'ramen'.*'raman'"),
        ({"modalities": ("ir", "ir"), "patch": None, "stride": None}, SettingError, "modality.*once"),
        ({"modalities": ()}, SettingError, "at least one modality"),
        ({"heads": 3}, SettingError, "3 heads.*width 8"),
        ({"heads": 0}, SettingError, "heads.*positive"),
        ({"patch": (10, 20)}, SettingError, "patch.*uv_vis, ir, raman"),
        ({"stride": (10, 0, 20)}, SettingError, "stride.*positive"),
        ({"patch": (702, 50, 50)}, InputError, "uv_vis.*701"),
    ],
)
def test_settings_that_make_no_encoder_are_refused(changes, kind, facts):
    with pytest.raises(kind, match=facts):
        SpecFormer(replace(CONFIG, **changes), 5)


@pytest.mark.parametrize(
    ("spectra", "kind", "facts"),
    [
        ({}, NotFoundError, "uv_vis, ir, raman"),
        ({"nmr": torch.rand(1, 10)}, MismatchError, "'nmr'.*uv_vis, ir, raman"),
        ({"ir": torch.rand(1, 3500)}, ValueRangeError, "3500.*ir.*3501"),
    ],
)
def test_spectra_that_do_not_fit_are_refused(spectra, kind, facts):
    with pytest.raises(kind, match=facts):
        encoder()(spectra)
