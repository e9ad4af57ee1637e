"""Collects the content of a report from run directories of any stages."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from molspectra.errors import DamagedError, NotFoundError
from molspectra.evaluation.ensemble import Ensemble, is_ensemble, read_ensemble
from molspectra.evaluation.finetuned import errors_of
from molspectra.evaluation.pretrained import read_ranks
from molspectra.evaluation.ranking import RankFigures, SizedRecall
from molspectra.evaluation.reconstruct import ReconstructedSpectrum
from molspectra.evaluation.representation import METHODS, RESULT
from molspectra.reporting.content import (
    AlignmentLine,
    Candidate,
    Curve,
    Depicted,
    GalleryLine,
    LossLine,
    ProbeLine,
    ReconstructedMolecule,
    ReportContent,
    Representation,
    RetrievalResult,
    RunFacts,
    Search,
)
from molspectra.reporting.tables import (
    LABELS,
    STAGES,
    Run,
    arm_keys,
    origin_of,
    result_tables,
    with_ancestors,
)
from molspectra.spectra.modality import MODALITIES
from molspectra.training.config import FinetuneConfig
from molspectra.training.leaks import is_clean
from molspectra.training.record import read_json, read_metrics, unreadable_metrics
from molspectra.training.settings import to_dict

POINTS = 300
"""Largest number of points of a learning curve; longer ones are averaged."""


def collect_report(run_dirs: Sequence[str | Path], title: str = "molspectra report") -> ReportContent:
    """Collect records, metrics and the results of `evaluate` from run directories.

    Fine-tuning runs are put into one table where they agree in property, data and settings, and differ
    only in seed and start. The runs that they started from need not be given, but are named by their stage
    only where their directories still exist. Reconstructed spectra are those of the first stage-2 run. An
    ensemble stands for its members, with a note on the error of their mean. A directory with nothing but the
    tests of a model's embeddings is shown as well.

    Raises:
        InputError: no directory given, one that is not a run, damaged files, or two runs of a table with the
            same start and seed.
    """
    given = list(dict.fromkeys(Path(directory) for directory in run_dirs))
    if not given:
        raise NotFoundError("a report needs at least one run directory")
    bare = [path for path in given if (path / RESULT).is_file() and not (path / "config.json").is_file()]
    bare = [path for path in bare if not is_ensemble(path)]
    given = [path for path in given if path not in bare]
    ensembles = [read_ensemble(path) for path in given if is_ensemble(path)]
    members = {ensemble.directory: ensemble.members for ensemble in ensembles}
    paths = list(dict.fromkeys(path for one in given for path in members.get(one, (one,))))
    names = {path: "/".join(path.resolve().parts[-2 if path.parent in members else -1 :]) for path in paths}
    counts = Counter(names.values())
    runs = []
    for path, name in names.items():
        with _damage_named(path):
            runs.append(Run.read(path, name if counts[name] == 1 else str(path)))
    known = with_ancestors(runs)
    with _damage_named(paths[0].parent if paths else Path()):
        tables = result_tables(runs, known)
    facts, losses, curves, retrievals, representations = [], [], [], [], []
    reconstructions: list[ReconstructedMolecule] = []
    mask_ratio = None
    for run in runs:
        with _damage_named(run.directory):
            facts.append(_facts(run, known))
            if (run.directory / RESULT).is_file():
                representations.append(representation_of(run.directory, run.name))
            curves += _curves(run, runs, known)
            losses += _losses(run)
            if run.stage == "stage2" and run.evaluation is not None:
                if "retrieval" in run.evaluation:
                    retrievals.append(_retrieval(run))
                if not reconstructions and "reconstructed" in run.evaluation:
                    reconstructions = _reconstructions(run)
                    mask_ratio = run.evaluation["mask_ratio"]
    for path in bare:
        with _damage_named(path):
            representations.append(representation_of(path, None))
    return ReportContent(
        title=title,
        runs=tuple(facts),
        tables=tables,
        losses=tuple(losses),
        curves=tuple(curves),
        reconstructions=tuple(reconstructions),
        mask_ratio=mask_ratio,
        retrievals=tuple(retrievals),
        representations=tuple(representations),
        levels=_levels(runs),
        notes=(*_notes(runs, known), *chain.from_iterable(map(_of_ensemble, ensembles))),
    )


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Replace errors of missing or wrong values by one that names the run.

    Raises:
        DamagedError: in their place.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OSError, SafetensorError) as error:
        reason = f"{type(error).__name__} {error}".splitlines()[0]
        message = f"{path}: damaged or incomplete results ({reason}); evaluate the run again"
        raise DamagedError(message) from error


def _of_ensemble(ensemble: Ensemble) -> list[str]:
    """Return a sentence on each target: the error of the mean of the members, and those of the members."""
    name, path = ensemble.directory.resolve().name, ensemble.directory / "evaluation.json"
    if not path.is_file():
        return [f"The mean of the members of {name} was not evaluated: molspectra evaluate {path.parent}"]
    sentences = []
    with _damage_named(ensemble.directory):
        for target, one in errors_of(read_json(path)).items():
            figure, title = ("mae", "MAE") if "mae" in one else ("auroc", "AUROC")
            value = "–" if one[figure] is None else f"{one[figure]:.4g}"
            alone = one.get("mae_of_members")
            beside = f"; alone they have {min(alone):.4g} to {max(alone):.4g}" if alone else ""
            unit = f" {one['unit']}" if figure == "mae" and one["unit"] else ""
            sentences.append(
                f"{name}: the mean of its {len(ensemble.members)} members has {title} {value}{unit} of "
                f"{target}{beside}."
            )
    return sentences


def _facts(run: Run, known: Sequence[Run]) -> RunFacts:
    record = run.record
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
        machine="{cpu}, {cores} cores, {memory_gib} GiB, {system}".format_map(record["machine"]),
        versions=dict(record["versions"]),
        settings=json.dumps(to_dict(run.config), indent=1, ensure_ascii=False),
    )


def _curves(run: Run, runs: Sequence[Run], known: Sequence[Run]) -> list[Curve]:
    """Return training and validation curves of the validated losses, without their weighted sum."""
    series = metric_series(run.directory)
    if isinstance(run.config, FinetuneConfig):
        group = "finetuning"
        siblings = [other for other in runs if other.stage == "finetune"]
        key = next(key for key, members in arm_keys(siblings, known).items() if run in members)
        label = LABELS.get(key, f"from {key}")
    else:
        group, key, label = "pretraining", run.stage, STAGES[run.stage]
    losses = [name.removeprefix("val/") for name in series if name.startswith("val/") and name != "val/loss"]
    return [
        Curve(group, panel_title(loss), key, label, part, run.seed, *averaged(*series[f"{part}/{loss}"]))
        for loss in losses
        for part in ("train", "val")
        if f"{part}/{loss}" in series
    ]


def metric_series(run_dir: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Read the steps and values of every metric of a run, by name."""
    series: dict[str, tuple[list[int], list[float]]] = {}
    for step, name, value, _ in read_metrics(run_dir / "metrics.csv"):
        steps, values = series.setdefault(name, ([], []))
        steps.append(step)
        values.append(value)
    return series


def panel_title(loss: str) -> str:
    """Return the displayed name of a loss."""
    for prefix, title in (("reconstruction_", "reconstruction"), ("spectrum_", "predicted spectrum")):
        if loss.startswith(prefix):
            modality = MODALITIES.get(loss.removeprefix(prefix))
            return f"{title}: {modality.title if modality else loss}"
    if loss == "slide":
        return "force of the internal coordinates"
    return loss if loss in ("denoising", "alignment") else f"loss of the {loss}"


def averaged(steps: list[int], values: list[float]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Average neighbouring points so that at most `POINTS` are left."""
    width = -(-len(values) // POINTS)
    if width <= 1:
        return tuple(steps), tuple(values)
    starts = range(0, len(values), width)
    means = tuple(float(np.mean(values[start : start + width])) for start in starts)
    return tuple(steps[min(start + width, len(steps)) - 1] for start in starts), means


def _losses(run: Run) -> list[LossLine]:
    evaluation = run.evaluation
    if evaluation is None or run.stage == "finetune":
        return []
    no_skill = evaluation["no_skill"]
    return [
        LossLine(run.name, panel_title(name), value, no_skill.get(name))
        for name, value in evaluation["losses"].items()
        if name != "loss"
    ]


def _rank_figures(values: Mapping[str, Any]) -> RankFigures:
    own = {field.name: values[field.name] for field in fields(RankFigures)}
    for name in ("recall", "chance_recall"):
        own[name] = {int(k): share for k, share in values[name].items()}
    return RankFigures(**own)


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
            _depicted(query),
            query["rank"],
            query["score"],
            tuple(Candidate(_depicted(row), row["score"], row["true"]) for row in query["candidates"]),
        )
        for query in values["examples"]
    ]
    return RetrievalResult(
        run=run.name,
        part=run.evaluation["part"],
        gallery_size=values["gallery_size"],
        gallery_parts=tuple(values["gallery_parts"]),
        ranks=ranks,
        subsets={
            name: (_rank_figures(subset), _rank_figures(subset["isomers"]) if subset["isomers"] else None)
            for name, subset in values["subsets"].items()
        },
        examples=tuple(examples),
        why=values["chosen"],
    )


def representation_of(directory: Path, name: str | None) -> Representation:
    """Read the tests of a model's embeddings in a directory; without a name that of the model is taken."""
    values = read_json(directory / RESULT)
    probes = []
    for target, one in values.get("probes", {}).items():
        keys = ("auprc", "auroc") if one["class"] else ("mae", "r2")
        for features, probe in one["probes"].items():
            figures = {
                which: (each[keys[0]], each[keys[1]])
                for which, each in (probe | {"constant": one["constant"]}).items()
            }
            counts = one["fitted"], one["tested"]
            probes.append(ProbeLine(target, one["unit"], features, one["class"], *counts, figures))
    galleries = [
        GalleryLine(method, kind, spectra, _sized(one))
        for method in METHODS
        for spectra, by_kind in values.get("galleries", {}).get(method, {}).items()
        for kind, entries in by_kind.items()
        for one in entries
    ]
    keys_of_alignment = (
        "molecules",
        "alignment",
        "alignment_of_others",
        "uniformity_of_spectra",
        "uniformity_of_structures",
    )
    return Representation(
        run=name or str(values["model"]),
        store=values["store"],
        tested=values["tested"],
        left_out=values["left_out"],
        seen=values["seen"],
        probes=tuple(probes),
        galleries=tuple(galleries),
        alignment=tuple(
            AlignmentLine(spectra, *(one[key] for key in keys_of_alignment))
            for spectra, one in values.get("alignment", {}).items()
        ),
    )


def _sized(values: Mapping[str, Any]) -> SizedRecall:
    recall, chance = (
        {int(k): share for k, share in values[name].items()} for name in ("recall", "chance_recall")
    )
    return SizedRecall(values["size"], values["queries"], values["candidates"], recall, chance)


def _reconstructions(run: Run) -> list[ReconstructedMolecule]:
    assert run.evaluation is not None
    encoder = run.config.model.spectrum_encoder
    assert encoder is not None
    arrays = load_file(run.directory / "reconstruction.safetensors")
    molecules = []
    for number, facts in enumerate(run.evaluation["reconstructed"]):
        spectra = {
            name: ReconstructedSpectrum(
                kind, *(arrays[f"{number}.{name}.{part}"] for part in ("values", "mask", "predicted"))
            )
            for name, kind in encoder.kinds().items()
            if f"{number}.{name}.values" in arrays
        }
        molecules.append(ReconstructedMolecule(_depicted(facts), run.name, facts["chosen"], spectra))
    return molecules


def _levels(runs: Sequence[Run]) -> dict[str, str]:
    """Return the levels of theory in the evaluations, by quantity; several are joined."""
    by_quantity: dict[str, list[str]] = {}
    for run in runs:
        if run.evaluation is None:
            continue
        levels = dict(run.evaluation["data"]["levels"])
        if run.stage == "finetune":
            levels[run.evaluation["target"]] = run.evaluation["level"]
        for name, level in levels.items():
            if level and level not in by_quantity.setdefault(name, []):
                by_quantity[name].append(level)
    return {name: "; ".join(levels) for name, levels in by_quantity.items() if levels}


def _notes(runs: Sequence[Run], known: Sequence[Run]) -> Iterator[str]:
    """Yield facts that a reader must know to judge the numbers."""
    for run in runs:
        if not run.record.get("finished"):
            yield f"{run.name} is not finished; its numbers are of the checkpoint that it had."
        if remark := unreadable_metrics(run.directory / "metrics.csv"):
            yield f"{run.name}, metrics.csv: {remark}."
        if run.evaluation is None:
            yield f"{run.name} was not evaluated: molspectra evaluate {run.directory}"
        elif run.evaluation["data"]["hash"] != run.evaluation["data"]["trained_on"]:
            yield f"{run.name} was tested on other data than it was trained on."
        if run.evaluation is not None and "auroc" in run.evaluation:
            area = run.evaluation["auroc"]
            found = "no AUROC" if area is None else f"AUROC {area:.3f}"
            yield (
                f"{run.name} learnt the class {run.evaluation['target']}: {found} on the "
                f"{run.evaluation['part']} part; further figures are in its evaluation.json, not in a table."
            )
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
    """Return which test molecules were seen in pre-training; None where the run was not evaluated."""
    seen: Mapping[str, Any] | None = ((run.evaluation or {}).get("seen") or {}).get("pretraining")
    return seen


def _split(run: Run) -> tuple[Any, ...]:
    """Return the settings that determine the split."""
    data = run.config.data
    shares = data.sizes if data.split == "reference" else data.fractions
    return data.split, data.split_seed, data.split_column, data.folds, data.fold, tuple(shares)
