"""Pre-train the model that comes with the package as "small", and pack it.

    python scripts/build_small.py

Both stages run on the bundled molecules with the recipes shipped-stage1 and shipped-stage2, in runs/small.
Stopped at any moment, the same command continues bit for bit. Then the weights are packed (matrices as
float16, which load as float32), what was packed is tested with `molspectra.evaluate`, and the model card is
written from that.
"""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save

from molspectra import evaluate, pretrain
from molspectra.apps.process import prepare_process
from molspectra.data.atomic import atomic_file
from molspectra.data.store.bundled import bundled
from molspectra.errors import InputError, ValueRangeError
from molspectra.training.checkpoint import (
    CONFIG,
    FORMAT,
    WEIGHTS,
    find_checkpoint,
    read_about,
    read_weights,
    shipped_path,
)
from molspectra.training.config import PretrainConfig
from molspectra.training.record import read_json, write_json
from molspectra.training.seen import SEEN, Seen, seen_by
from molspectra.training.settings import from_dict, read_recipe

VERSION = 1
"""Version of the weights; increase it when they change."""

MAX_BYTES = 3_000_000
"""Largest size of the weights in the package, bytes."""

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


def pack(run: Path, out: Path) -> None:
    """Write weights, settings and the list of molecules seen, without a name of this machine."""
    checkpoint = find_checkpoint(run)
    about, config = read_about(checkpoint), read_json(run / CONFIG)
    halved = {
        name: tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor
        for name, tensor in read_weights(checkpoint).items()
    }
    out.mkdir(parents=True, exist_ok=True)
    content = save(halved, {"format": str(FORMAT)})
    if len(content) > MAX_BYTES:
        raise ValueRangeError(f"{len(content):,} bytes of weights are more than {MAX_BYTES:,}")
    with atomic_file(out / WEIGHTS) as file:
        file.write(content)
    about["initialised"] = about["initialised"] | {"from": STAGES[0]}
    write_json(out / CONFIG, about | {"name": "small", "version": VERSION, "alignment": config["alignment"]})
    seen = seen_by(run)
    runs = tuple(
        dict(entry) | {"run": Path(str(entry["run"])).name, "store": "bundled"} for entry in seen.runs
    )
    replace(seen, runs=runs).save(out / SEEN)


def test(run: Path, packed: Path, work: Path) -> dict[str, Any]:
    """Evaluate the packed weights on the test part of the run's split."""
    shutil.rmtree(work, ignore_errors=True)
    checkpoint = work / "checkpoints" / find_checkpoint(run).name
    checkpoint.mkdir(parents=True)
    for name in (WEIGHTS, CONFIG):
        shutil.copy(packed / name, checkpoint / name)
    for name in (CONFIG, "record.json", SEEN):
        shutil.copy(run / name, work / name)
    return evaluate(work)


def card(result: dict[str, Any], out: Path) -> str:
    """Return the model card."""
    about, weights = read_about(out), (out / WEIGHTS).stat().st_size
    recipes = [from_dict(PretrainConfig, read_recipe(f"shipped-{stage}"), stage) for stage in STAGES]
    steps = [f"{recipe.loop.steps:,} steps of {recipe.loop.batch_size} molecules" for recipe in recipes]
    data, seen = result["data"], Seen.read(out / SEEN)
    trained = seen.summary()
    levels = "\n".join(f"| {name} | {level} |" for name, level in data["levels"].items())
    recall = result["retrieval"]
    rows = {" + ".join(recall["modalities"]): recall, **recall["by_modality"]}
    retrieval = "\n".join(f"| {name} | {_figures(row)} |" for name, row in rows.items())
    losses = "\n".join(
        f"| {name} | {value:.4f} | {result['no_skill'].get(name, float('nan')):.4f} |"
        for name, value in result["losses"].items()
        if name in result["no_skill"]
    )
    isomers = recall["isomers"]
    among = (
        f"Among isomers of the same formula only ({isomers['queries']} queries that have one in the "
        f"gallery): first {isomers['recall']['1']:.1%}.\n"
        if isomers
        else ""
    )
    return CARD.format(
        version=VERSION,
        size=f"{weights / 1e6:.2f}",
        store=data["hash"][:16],
        source=data["source"],
        licence=data["licence"],
        train=f"{trained['molecules']:,}",
        held=trained["validation_only"],
        test=result["molecules"],
        gallery=recall["gallery_size"],
        elements=", ".join(about["elements"]),
        levels=levels,
        stage1=steps[0],
        stage2=steps[1],
        seed=recipes[0].loop.seed,
        split=f"seed {data['split_seed']}, shares {data['fractions']}",
        checkpoint=result["checkpoint"],
        commit=_committed(result["trained_at"]),
        torch=result["versions"]["torch"],
        retrieval=retrieval,
        among=among,
        losses=losses,
    )


def _committed(commit: str | None) -> str:
    """Return how to find the code of a run again."""
    return f"commit {commit}" if commit and "+" not in commit else "a working copy between two commits"


def _figures(recall: dict[str, Any]) -> str:
    """Return recall at 1, 5 and 10 and the median rank as cells of a table."""
    return " | ".join(
        [*(f"{recall['recall'][at]:.1%}" for at in ("1", "5", "10")), f"{recall['median_rank']:g}"]
    )


CARD = """# small, version {version}

The pre-trained model that comes with molspectra: `molspectra.load("small")`. Both stages of the method on the
bundled molecules; {size} MB (matrices stored as float16, loaded as float32).

| | |
|---|---|
| encoder | equivariant transformer, 4 layers × 64 channels, cutoff 5 Å |
| spectrum encoder | SpecFormer, 2 layers × width 64, patches that do not overlap |
| data | {source}; {licence}; content {store} |
| molecules | {train} for training, {held} more in validation, {test} for the tests below |
| split | by identity, {split} |
| elements | {elements} |
| stage 1 | {stage1}: denoising |
| stage 2 | {stage2}: denoising, masked patches, alignment (cosine similarity) |
| seed | {seed} |
| checkpoint | {checkpoint}, the one with the lowest validation loss |
| trained at | {commit}, torch {torch} |
| made by | `python scripts/build_small.py` |

Levels of theory:

| | |
|---|---|
{levels}

## Measured

By `molspectra evaluate` on these very weights, with the {test} test molecules that neither stage has seen.
Every molecule is searched by its simulated spectra among {gallery} structures:

| spectra | first | among 5 | among 10 | median rank |
|---|---|---|---|---|
{retrieval}

{among}
| loss | model | nothing learnt |
|---|---|---|
{losses}

## Limits

- Trained on small neutral closed-shell molecules of at most seven heavy atoms of the elements above; other
  elements are refused, larger molecules embedded without any promise.
- Spectra are simulated, with the errors of their level of theory, and broadened by the default widths.
  Measured spectra (absorbance, baselines, solvents) were never seen.
- Intensities are absolute (km/mol, Å⁴/amu): a spectrum in other units is another spectrum to this model.
- One spectrum alone tells less than three together: see the table.
- Mirror images have the same embedding, conformers of a molecule similar ones.
- One training run with one seed; a gallery of a few hundred structures is easy.
"""


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
        pack(run, options.out)
        result = test(run, options.out, options.runs / "shipped")
        text = card(result, options.out)
        with atomic_file(options.out / "README.md") as file:
            file.write(text.encode())
        first = result["retrieval"]["recall"]["1"]
        print(f"{options.out}: {first:.1%} of {result['molecules']} molecules are found first")
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
