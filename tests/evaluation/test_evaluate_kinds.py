"""Evaluation of stage-2 runs with SliDe and block masks."""

import dataclasses

import pytest

from molspectra.evaluation.evaluate import evaluate
from molspectra.objectives.denoising import DenoisingConfig
from molspectra.objectives.reconstruction import ReconstructionConfig
from molspectra.reporting.collect import panel_title
from molspectra.training.config import PretrainConfig
from molspectra.training.run import pretrain


def test_losses_of_slide_and_block_masks(tiny, tmp_path):
    store = tmp_path / "copy.arrow"
    store.write_bytes(tiny.path.read_bytes())
    config = PretrainConfig(
        model=tiny.pretrain_model,
        data=dataclasses.replace(tiny.data, store=str(store)),
        loop=tiny.stage1.loop,
        denoising=DenoisingConfig(kind="slide"),
        reconstruction=ReconstructionConfig(mask="block", block=2),
    )
    pretrain(config, tmp_path / "run", show=False)
    result = evaluate(tmp_path / "run")
    assert {"denoising", "slide", "alignment", "reconstruction_ir"} <= result["losses"].keys()
    assert result["no_skill"]["slide"] == pytest.approx(1.0, abs=0.4)  # a zero prediction
    assert result["no_skill"]["denoising"] == pytest.approx(0.9, abs=0.2)


def test_the_force_has_a_title():
    assert panel_title("slide") == "force of the internal coordinates"
