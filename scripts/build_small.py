"""Pre-train the model that comes with the package as "small", and pack it.

    python scripts/build_small.py

Both stages run on the bundled molecules with the recipes shipped-stage1 and shipped-stage2, in runs/small.
Stopped at any moment, the same command continues bit for bit. Then the weights are packed (matrices as
float16, which load as float32), what was packed is tested with `molspectra.evaluate`, and the model card is
written from that.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from shipping import pack, test, write_card

from molspectra import pretrain
from molspectra.apps.process import prepare_process
from molspectra.data.store.bundled import bundled
from molspectra.errors import InputError
from molspectra.training.checkpoint import shipped_path
from molspectra.training.config import PretrainConfig
from molspectra.training.settings import from_dict, read_recipe

VERSION = 1
"""Version of the weights; increase it when they change."""

MAX_BYTES = 3_000_000
"""Largest size of the weights in the package, bytes."""

INTRO = (
    'The small pre-trained model that comes with molspectra: `molspectra.load("small")`. Both stages of the '
    "method on the bundled molecules."
)

RUNS = Path("runs/small")
STAGES = ("stage1", "stage2")


def train(runs: Path, show: bool) -> Path:
    """Start or continue both stages; returns the directory of the second."""
    previous: str | None = None
    for stage in STAGES:
        recipe = f"shipped-{stage}"
        config = replace(from_dict(PretrainConfig, read_recipe(recipe), recipe), init=previous)
        pretrain(config, runs / stage, resume=True, show=show)
        previous = str(runs / stage)
    return runs / STAGES[-1]


LIMITS = (
    "Trained on small neutral closed-shell molecules of at most seven heavy atoms of the elements above; "
    "other elements are refused, larger molecules embedded without any promise. It serves tests and the "
    "demo; `base` is the model to work with.",
    "Spectra are simulated, with the errors of their level of theory, and broadened by the default widths. "
    "Measured spectra (absorbance, baselines, solvents) were never seen.",
    "Intensities are absolute (km/mol, Å⁴/amu): a spectrum in other units is another spectrum to this model.",
    "One spectrum alone tells less than three together: see the table.",
    "Mirror images have the same embedding, conformers of a molecule similar ones.",
    "One training run with one seed; a gallery of a few hundred structures is easy.",
)


def facts() -> dict[str, str]:
    """Return the first rows of the model card."""
    recipes = [from_dict(PretrainConfig, read_recipe(f"shipped-{stage}"), stage) for stage in STAGES]
    first, second = (f"{one.loop.steps:,} steps of {one.loop.batch_size} molecules" for one in recipes)
    return {
        "encoder": "equivariant transformer, 4 layers × 64 channels, cutoff 5 Å",
        "spectrum encoder": "SpecFormer, 2 layers × width 64, patches that do not overlap",
        "data": f"{bundled().metadata.source}; {bundled().metadata.licence}",
        "stage 1": f"{first}: denoising",
        "stage 2": f"{second}: denoising, masked patches, alignment (cosine similarity)",
        "made by": "`python scripts/build_small.py`",
    }


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=RUNS, help="where the runs are kept")
    parser.add_argument("--out", type=Path, default=shipped_path("small"), help="where the model goes")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    options = parser.parse_args()
    prepare_process()
    bundled()  # whether it is there
    try:
        run = train(options.runs, not options.quiet)
        pack(run, options.out, "small", VERSION, MAX_BYTES, bits=4)
        result = test(run, options.out, options.runs / "shipped")
        write_card(options.out, INTRO, facts(), result, LIMITS)
        first = result["retrieval"]["recall"]["1"]
        print(f"{options.out}: {first:.1%} of {result['molecules']} molecules are found first")
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
