"""The formula of operations against torch's own count, on the plain path."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks.cases import CASES, Options, Workload
from benchmarks.operations import PASSES, Sizes, encoder, head, specformer
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from molspectra import compiled
from molspectra.models.equivariant_transformer import EquivariantTransformerConfig, VectorWhitening
from molspectra.models.specformer import SpecFormerConfig
from molspectra.objectives.reconstruction import kept_patches


def counted(workload: Workload, micros: Any) -> int:
    """Operations that torch counts in one step, without those of the 3×3 matrices of the whitening."""
    for module in list(workload.model.modules()):
        for name, child in module.named_children():
            if isinstance(child, VectorWhitening):
                setattr(module, name, nn.Identity())
    counter = FlopCounterMode(display=False)
    # the kernel for CPUs is not in torch's table; the plain one is made of products that are
    with compiled.use("plain"), sdpa_kernel(SDPBackend.MATH), counter:
        workload.run(micros)
    return counter.get_total_flops()


def expected(workload: Workload, micros: Any) -> float:
    """The formula with what the package saves: filters once per pair, none of self-edges in the embedding,
    and the reconstruction of patches that were kept.
    """
    batch, stage, work = micros[0].batch, workload.trainer.stage, workload.case.work
    if "training" in work:  # edges are those of the moved atoms
        batch = stage.denoising.perturb(batch, micros[0].key).batch
    config = workload.model.config.encoder
    edges = batch.with_edges(config.cutoff).edges
    sizes = replace(workload.sizes(batch), edges=1 + len(edges.pair_first))
    total = workload.operations(sizes) - PASSES[work]["filter"] * 2.0 * config.radial * config.channels
    if work == "force training":  # what reaches the last map from the energy is a constant
        total -= 2.0 * sizes.atoms * config.channels // 2 * 2
    reconstruction = getattr(stage, "reconstruction", None)
    if reconstruction is not None:
        for kind in reconstruction.kinds.values():
            kept = kept_patches(kind.patches, reconstruction.config.mask_ratio)
            width = workload.model.spectrum_encoder.config.width
            total -= PASSES[work]["full"] * 2.0 * len(batch) * kept * kind.patch * width
    return total


@pytest.mark.parametrize("name", CASES)
def test_the_formula_is_torchs_count(name: str, tmp_path: Path) -> None:
    changes = {}
    if name == "qm9-stage2":  # later layers repeat products of earlier ones, to store no scores
        changes = {"model": {"spectrum_encoder": {"layers": 1}}}
    workload = Workload(name, Options(batch=4, tiny=True), tmp_path, changes)
    micros = workload.prepare(0)
    wanted = expected(workload, micros)
    assert counted(workload, micros) == wanted


def test_a_layer_of_specformer_adds_its_own_scores_and_values() -> None:
    sizes = Sizes(molecules=3, atoms=0, edges=0)
    one, two = (specformer(SpecFormerConfig(layers=layers), 256, sizes).full for layers in (1, 2))
    assert two - one == 3 * (2 * 347 * (4 * 128**2 + 2 * 128 * 256) + 4 * 347**2 * 128)


def test_the_published_sizes_come_close_to_known_sums() -> None:
    """Known, for QM9 molecules of 19.8 atoms: 227 GFLOP, 83 of them filters, 103, 91; for aspirin 6.8."""
    config, channels = EquivariantTransformerConfig(), 256
    large, small = (Sizes(count, round(count * 19.8), round(count * 19.8 * 15.2)) for count in (128, 32))
    stage1 = encoder(config, large) + head(channels, large, vectors=True)
    stage2 = encoder(config, small) + head(channels, small, vectors=True)
    stage2 += specformer(SpecFormerConfig(), channels, small)
    aspirin = Sizes(8, 168, 2612)
    md17 = encoder(replace(config, channels=128, layers=6, radial=32), aspirin) + head(128, aspirin, False)
    inference = encoder(config, large) + head(channels, large, vectors=False)
    assert stage1.total("training") == pytest.approx(227e9, rel=0.01)
    assert replace(stage1, full=0.0, first=0.0).total("training") == pytest.approx(83e9, rel=0.01)
    assert stage2.total("training") == pytest.approx(103e9, rel=0.01)
    assert md17.total("force training") == pytest.approx(6.8e9, rel=0.01)
    assert inference.total("inference") == pytest.approx(91e9, rel=0.01)
