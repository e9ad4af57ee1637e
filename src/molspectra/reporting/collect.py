"""Fill a report from run directories of any mix of stages."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from molspectra.errors import InputError
from molspectra.evaluation.pretrained import read_ranks
from molspectra.evaluation.ranking import RankFigures
from molspectra.evaluation.reconstruct import ReconstructedSpectrum
from molspectra.reporting.content import (
    Candidate,
    Curve,
    Depicted,
    LossLine,
    ReconstructedMolecule,
    ReportContent,
    RetrievalResult,
    RunFacts,
    Search,
)
from molspectra.reporting.tables import LABELS, Run, arm_keys, origin_of, result_tables, with_ancestors
from molspectra.spectra.modality import MODALITIES
from molspectra.training.config import FinetuneConfig
from molspectra.training.leaks import is_clean
from molspectra.training.record import read_metrics
from molspectra.training.settings import to_dict

POINTS = 300
"""A learning curve is averaged down to at most this many points."""

STAGES = {"stage1": "stage 1", "stage2": "stage 2"}


def collect_report(run_dirs: Sequence[str | Path], title: str = "molspectra report") -> ReportContent:
    """Gather what run directories hold: records, metrics, and the results that `evaluate` left.

    Fine-tuning runs are put into one table where they agree in property, data and settings, and differ in
    seed and start alone. The runs that they started from need not be given, but are named by their stage only
    where their directories still exist. Reconstructed spectra are those of the first stage-2 run.

    Raises:
        InputError: no directory given, one that is not a run, damaged files, or two runs of a table with the
            same start and seed.
    """
    paths = list(dict.fromkeys(Path(each) for each in run_dirs))
    if not paths:
        raise InputError("a report needs at least one run directory")
    short = Counter(path.resolve().name for path in paths)
    names = {path: path.resolve().name if short[path.resolve().name] == 1 else str(path) for path in paths}
    runs = []
    for path in paths:
        with _naming(path):
            runs.append(Run.read(path, names[path]))
    known = with_ancestors(runs)
    with _naming(paths[0].parent):
        tables = result_tables(runs, known)
    facts, losses, curves, retrievals = [], [], [], []
    reconstructions: list[ReconstructedMolecule] = []
    mask_ratio = None
    for run in runs:
        with _naming(run.directory):
            facts.append(_facts(run, known))
            curves += _curves(run, runs, known)
            losses += _losses(run)
            if run.stage == "stage2" and run.evaluation is not None:
                retrievals.append(_retrieval(run))
                if not reconstructions:
                    reconstructions = _reconstructions(run)
                    mask_ratio = run.evaluation["mask_ratio"]
    return ReportContent(
        title=title,
        runs=tuple(facts),
        tables=tables,
        losses=tuple(losses),
        curves=tuple(curves),
        reconstructions=tuple(reconstructions),
        mask_ratio=mask_ratio,
        retrievals=tuple(retrievals),
        levels=_levels(runs),
        notes=tuple(_notes(runs, known)),
    )


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn what goes wrong in a damaged file into one line that names the run.

    Raises:
        InputError: in place of the errors of values that are not there or not what they should be.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OSError, SafetensorError) as error:
        what = f"{type(error).__name__} {error}".splitlines()[0]
        raise InputError(f"{path}: damaged or incomplete results ({what}); evaluate the run again") from error


def _facts(run: Run, known: Sequence[Run]) -> RunFacts:
    record = run.record
    machine = record["machine"]
    metrics = read_metrics(run.directory / "metrics.csv")
    times = [record.get("seconds"), metrics[-1][3] if metrics else None]
    seconds = max((value for value in times if value is not None), default=None)
    origin = origin_of(run, known)
    start = "scratch" if run.config.init is None else origin.name if origin else run.config.init
    return RunFacts(
        name=run.name,
        stage=run.stage,
        start=start,
        seed=run.seed,
        steps=int(record.get("steps") or (metrics[-1][0] if metrics else 0)),
        seconds=seconds,
        finished=bool(record.get("finished")),
        molecules=dict(record["data"]["rows"]),
        store=str(record["data"]["store"]),
        data_hash=str(record["data"]["hash"]),
        commit=record.get("commit"),
        machine="{cpu}, {cores} cores, {memory_gib} GiB, {system}".format_map(machine),
        versions=dict(record["versions"]),
        settings=json.dumps(to_dict(run.config), indent=1, ensure_ascii=False),
    )


def _curves(run: Run, runs: Sequence[Run], known: Sequence[Run]) -> list[Curve]:
    """Training and validation curves of the losses that were validated, without their weighted sum."""
    series: dict[str, tuple[list[int], list[float]]] = {}
    for step, name, value, _ in read_metrics(run.directory / "metrics.csv"):
        steps, values = series.setdefault(name, ([], []))
        steps.append(step)
        values.append(value)
    if isinstance(run.config, FinetuneConfig):
        group = "finetuning"
        siblings = [each for each in runs if each.stage == "finetune"]
        key = next(key for key, members in arm_keys(siblings, known).items() if run in members)
        label = LABELS.get(key, f"from {key}")
    else:
        group, key, label = "pretraining", run.stage, STAGES[run.stage]
    found = []
    for name in [name.removeprefix("val/") for name in series if name.startswith("val/")]:
        if name == "loss":
            continue
        for part in ("train", "val"):
            if f"{part}/{name}" in series:
                points = _thinned(*series[f"{part}/{name}"])
                found.append(Curve(group, panel_title(name), key, label, part, run.seed, *points))
    return found


def panel_title(loss: str) -> str:
    """A loss for people."""
    if loss.startswith("reconstruction_"):
        modality = MODALITIES.get(loss.removeprefix("reconstruction_"))
        return f"reconstruction: {modality.title if modality else loss}"
    if loss == "slide":
        return "force of the internal coordinates"
    return loss if loss in ("denoising", "alignment") else f"loss of the {loss}"


def _thinned(steps: list[int], values: list[float]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Means over neighbouring points, so that at most `POINTS` are left."""
    width = -(-len(values) // POINTS)
    if width <= 1:
        return tuple(steps), tuple(values)
    places = range(0, len(values), width)
    means = tuple(float(np.mean(values[place : place + width])) for place in places)
    return tuple(steps[min(place + width, len(steps)) - 1] for place in places), means


def _losses(run: Run) -> list[LossLine]:
    found = run.evaluation
    if found is None or run.stage == "finetune":
        return []
    no_skill = found["no_skill"]
    return [
        LossLine(run.name, run.stage, panel_title(name), value, no_skill.get(name), found["part"])
        for name, value in found["losses"].items()
        if name != "loss"
    ]


def _rank_figures(values: Mapping[str, Any]) -> RankFigures:
    return RankFigures(
        queries=values["queries"],
        candidates=values["candidates"],
        recall={int(k): share for k, share in values["recall"].items()},
        mrr=values["mrr"],
        median_rank=values["median_rank"],
        chance_recall={int(k): share for k, share in values["chance_recall"].items()},
        chance_mrr=values["chance_mrr"],
    )


def _depicted(values: Mapping[str, Any]) -> Depicted:
    return Depicted(values["identity"], values["name"], values["smiles"], values["formula"])


def _retrieval(run: Run) -> RetrievalResult:
    assert run.evaluation is not None
    values = run.evaluation["retrieval"]
    ranks = read_ranks(run.directory / "retrieval.csv")
    if len(ranks) != values["queries"]:
        raise ValueError(f"{len(ranks)} ranks of {values['queries']} queries in retrieval.csv")
    examples = [
        Search(
            _depicted(each),
            each["rank"],
            each["score"],
            tuple(Candidate(_depicted(one), one["score"], one["true"]) for one in each["candidates"]),
        )
        for each in values["examples"]
    ]
    return RetrievalResult(
        run=run.name,
        part=run.evaluation["part"],
        gallery_size=values["gallery_size"],
        gallery_parts=tuple(values["gallery_parts"]),
        similarity=values["similarity"],
        modalities=tuple(values["modalities"]),
        figures=_rank_figures(values),
        ranks=ranks,
        isomers=_rank_figures(values["isomers"]) if values["isomers"] else None,
        subsets={name: _rank_figures(each) for name, each in values["subsets"].items()},
        isomer_subsets={
            name: _rank_figures(each["isomers"])
            for name, each in values["subsets"].items()
            if each["isomers"]
        },
        examples=tuple(examples),
        why=values["chosen"],
    )


def _reconstructions(run: Run) -> list[ReconstructedMolecule]:
    assert run.evaluation is not None
    encoder = run.config.model.spectrum_encoder
    assert encoder is not None
    arrays = load_file(run.directory / "reconstruction.safetensors")
    found = []
    for number, each in enumerate(run.evaluation["reconstructed"]):
        spectra = {
            name: ReconstructedSpectrum(
                kind, *(arrays[f"{number}.{name}.{part}"] for part in ("values", "mask", "predicted"))
            )
            for name, kind in encoder.kinds().items()
            if f"{number}.{name}.values" in arrays
        }
        molecule = _depicted(each)
        found.append(ReconstructedMolecule(molecule, run.name, each["chosen"], each["error"], spectra))
    return found


def _levels(runs: Sequence[Run]) -> dict[str, str]:
    """Levels of theory that the evaluations name; several for one quantity one after the other."""
    found: dict[str, list[str]] = {}
    for run in runs:
        if run.evaluation is None:
            continue
        levels = dict(run.evaluation["data"]["levels"])
        if run.stage == "finetune":
            levels[run.evaluation["target"]] = run.evaluation["level"]
        for name, level in levels.items():
            if level and level not in found.setdefault(name, []):
                found[name].append(level)
    return {name: "; ".join(levels) for name, levels in found.items() if levels}


def _notes(runs: Sequence[Run], known: Sequence[Run]) -> Iterator[str]:
    """Facts that a reader must know to judge the numbers."""
    for run in runs:
        if not run.record.get("finished"):
            yield f"{run.name} is not finished; its numbers are of the checkpoint that it had."
        if run.evaluation is None:
            yield f"{run.name} was not evaluated: molspectra evaluate {run.directory}"
        elif run.evaluation["data"]["hash"] != run.evaluation["data"]["trained_on"]:
            yield f"{run.name} was tested on other data than it was trained on."
        given = run.record["about"].get("spectrum_input")
        if given:
            yield (
                f"{run.name} was given the {', '.join(given)} spectra of the molecules as INPUT, also in the "
                "test: another task than predicting from structures alone, not to be compared with it."
            )
        origin = origin_of(run, known)
        seen = _seen(run)
        if seen is not None:
            if not is_clean(seen):
                yield f"{run.name}: {seen['sentence']}."
        elif origin is not None and _split(origin) != _split(run):
            yield (
                f"The splits of {run.name} and of {origin.name}, which it started from, differ: molecules "
                "that were tested may have been seen in pre-training."
            )
    clean = [run.name for run in runs if run.config.init and (seen := _seen(run)) and is_clean(seen)]
    if clean:
        yield f"No test molecule of {', '.join(clean)} was seen in pre-training."
    if len({run.record["data"]["hash"] for run in runs}) > 1:
        yield "The runs were made on different data; see the hashes."
    if len({run.record.get("commit") for run in runs}) > 1:
        yield "The runs were made with different versions of the code; see the commits."


def _seen(run: Run) -> Mapping[str, Any] | None:
    """How the run's test molecules compare with those of its pre-training, where it was evaluated."""
    seen: Mapping[str, Any] | None = ((run.evaluation or {}).get("seen") or {}).get("pretraining")
    return seen


def _split(run: Run) -> tuple[str, int, tuple[float, ...]]:
    """What decides the part of a row, as far as settings do."""
    data = run.config.data
    return data.split, data.split_seed, tuple(data.sizes if data.split == "reference" else data.fractions)
