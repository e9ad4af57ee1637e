"""What the scripts build_small.py and build_base.py share: packing a run into the package, and its card."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from molspectra import evaluate
from molspectra.data.atomic import atomic_file
from molspectra.errors import ValueRangeError
from molspectra.training.checkpoint import CONFIG, FORMAT, WEIGHTS, find_checkpoint, read_about, read_weights
from molspectra.training.record import read_json, write_json
from molspectra.training.seen import SEEN, Seen, seen_by


def rounded(values: Tensor, bits: int) -> Tensor:
    """Values with so many bits of mantissa after the leading one: the file packs better in a wheel."""
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp(torch.round(mantissa * 2 ** (bits + 1)) / 2 ** (bits + 1), exponent)


def pack(run: Path, out: Path, name: str, version: int, max_bytes: int, bits: int = 10) -> None:
    """Write weights, settings and the list of molecules seen, without a name of this machine.

    Matrices are stored as float16, which load as float32.

    Args:
        run: finished pre-training run.
        out: directory of the shipped model.
        name: that it is loaded by.
        version: of its weights.
        max_bytes: largest size of the weights.
        bits: of the mantissa of stored matrices; float16 has 10.

    Raises:
        ValueRangeError: the weights are larger.
    """
    checkpoint = find_checkpoint(run)
    about, config = read_about(checkpoint), read_json(run / CONFIG)
    halved = {
        key: rounded(tensor, bits).half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor
        for key, tensor in read_weights(checkpoint).items()
    }
    out.mkdir(parents=True, exist_ok=True)
    content = save(halved, {"format": str(FORMAT)})
    if len(content) > max_bytes:
        raise ValueRangeError(f"{len(content):,} bytes of weights are more than {max_bytes:,}")
    with atomic_file(out / WEIGHTS) as file:
        file.write(content)
    about["initialised"] = about["initialised"] | {"from": Path(about["initialised"]["from"]).name}
    write_json(out / CONFIG, about | {"name": name, "version": version, "alignment": config["alignment"]})
    seen = seen_by(run)
    runs = tuple(
        dict(entry) | {"run": Path(str(entry["run"])).name, "store": Path(str(entry["store"])).name}
        for entry in seen.runs
    )
    replace(seen, runs=runs).save(out / SEEN)


def test(run: Path, packed: Path, work: Path) -> dict[str, Any]:
    """Evaluate the packed weights on the test part of the run's split, in a copy of the run."""
    shutil.rmtree(work, ignore_errors=True)
    checkpoint = work / "checkpoints" / find_checkpoint(run).name
    checkpoint.mkdir(parents=True)
    for name in (WEIGHTS, CONFIG):
        shutil.copy(packed / name, checkpoint / name)
    for name in (CONFIG, SEEN):
        shutil.copy(run / name, work / name)
    record = read_json(run / "record.json")
    record.pop("id", None)  # these weights are others than the run's own, which its manifests describe
    write_json(work / "record.json", record)
    return evaluate(work)


def write_card(
    out: Path, intro: str, facts: Mapping[str, str], result: Mapping[str, Any], limits: Sequence[str]
) -> None:
    """Write the model card, `README.md`.

    Args:
        out: directory of the shipped model.
        intro: first paragraph.
        facts: rows of the first table.
        result: what `test` returned.
        limits: what the model is not good for.
    """
    about = read_about(out)
    data, trained = result["data"], Seen.read(out / SEEN).summary()
    size = (out / WEIGHTS).stat().st_size / 1e6
    commit = result["trained_at"]
    where = f"commit {commit}" if commit and "+" not in commit else "a working copy between two commits"
    rows = {
        **facts,
        "weights": f"{size:.2f} MB, matrices stored as float16, loaded as float32",
        "molecules": f"{trained['molecules']:,} for training, {trained['validation_only']:,} more in "
        f"validation, {result['molecules']:,} for the tests below",
        "split": f"by identity, seed {data['split_seed']}, shares {data['fractions']}",
        "elements": ", ".join(about["elements"]),
        "seed": str(result["seed"]),
        "checkpoint": f"{result['checkpoint']}, the one with the lowest validation loss",
        "trained at": f"{where}, torch {result['versions']['torch']}",
    }
    parts = [f"# {about['name']}, version {about['version']}", intro, _table(("", ""), rows.items())]
    parts += ["Levels of theory:", _table(("", ""), data["levels"].items()), "## Measured"]
    parts.append(
        f"By `molspectra evaluate` on these very weights, with the {result['molecules']:,} test molecules "
        "that no stage has seen."
    )
    for key, how in (("retrieval", "by embedding"), ("predicted_retrieval", "against predicted spectra")):
        if key in result:
            found = result[key]
            head = (
                "spectra",
                "queries",
                "first",
                "among 5",
                "among 10",
                "median rank",
                "first among isomers",
            )
            table = _table(head, (_ranks(name, one) for name, one in found["subsets"].items()))
            parts += [f"Simulated spectra searched among {found['gallery_size']:,} structures, {how}:", table]
    losses = [
        (name, f"{value:.4f}", f"{result['no_skill'].get(name, 1.0):.4f}")
        for name, value in result["losses"].items()
        if name in result["no_skill"] or name.startswith("spectrum_")
    ]
    parts += [_table(("loss", "model", "nothing learnt"), losses), "## Limits"]
    parts.append("\n".join(f"- {limit}" for limit in limits))
    with atomic_file(out / "README.md") as file:
        file.write(("\n\n".join(parts) + "\n").encode())


def _ranks(name: str, found: Mapping[str, Any]) -> list[str]:
    recall, isomers = found["recall"], found["isomers"]
    shares = [f"{recall[at]:.1%}" for at in ("1", "5", "10")]
    among = f"{isomers['recall']['1']:.1%} of {isomers['queries']}" if isomers else "–"
    return [name, f"{found['queries']:,}", *shares, f"{found['median_rank']:g}", among]


def _table(head: Sequence[str], rows: Any) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
