"""`molspectra evaluate`: test a finished run, or the embeddings of any model."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molspectra.apps.commands.parser import CommandParser
from molspectra.data.output import free_path
from molspectra.errors import SettingError
from molspectra.printable import say

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = CommandParser(
        "evaluate",
        description="Test a run's model: property errors; for stage 2 retrieval by spectra. With --probes, "
        "--galleries or --alignment these are tested of its embeddings instead, also of a checkpoint or a "
        "shipped model (base), with --store and --out.",
    )
    parser.add_argument(
        "run",
        help="run directory of pretrain or finetune, or that of an ensemble; see above for other models",
    )
    parser.add_argument(
        "--part",
        choices=("test", "val", "train", "all"),
        default="test",
        help="part of the split; all: every labelled row of --store",
    )
    parser.add_argument("--out", default=None, help="where results go; the run directory if not given")
    parser.add_argument(
        "--store",
        default=None,
        help="another place of the run's store, or with --part all a store of labelled molecules",
    )
    parser.add_argument(
        "--allow-other-data", action="store_true", help="accept a store with other content than the run saw"
    )
    parser.add_argument(
        "--allow-leak",
        choices=("none", "structures", "all"),
        default="none",
        help="with --part all: accept molecules seen in training, without spectra or labels or (all) with",
    )
    parser.add_argument(
        "--disturbances",
        action="store_true",
        help="of a stage-2 run, also search with disturbed spectra; of other models, and beside the next "
        "three, with those of new molecules, one kind of spectrum at a time",
    )
    parser.add_argument(
        "--floors",
        action="store_true",
        help="of a fine-tuned run, also test what learns the same from descriptors alone (extra floors)",
    )
    parser.add_argument(
        "--probes",
        action="store_true",
        help="ridge regression and nearest neighbours on frozen embeddings, for every property of the store",
    )
    parser.add_argument(
        "--galleries",
        action="store_true",
        help="recall by spectra against the size of the gallery: of all molecules, of those of the same mass "
        "and of the same formula",
    )
    parser.add_argument(
        "--alignment",
        action="store_true",
        help="alignment and uniformity of the embeddings of structures and spectra",
    )
    parser.add_argument("--plot", help="figure of the tables to write: .png, .svg or .pdf")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace --plot; other results are always replaced"
    )
    parser.add_shared("--checkpoint", "--device")
    options = parser.parse_args(arguments)
    if options.plot is not None:
        from molspectra.reporting.canvas import FIGURES

        free_path(options.plot, FIGURES, overwrite=options.overwrite)
    kinds = [name for name in ("probes", "galleries", "alignment") if getattr(options, name)]
    of_run = any((Path(options.run) / name).is_file() for name in ("record.json", "ensemble.json"))
    if options.disturbances and (kinds or not of_run):
        kinds.append("disturbances")
    if kinds:
        others = ("allow_other_data", "floors")
        wrong = [name for name in others if getattr(options, name)]
        if wrong or options.part != "test" or options.allow_leak != "none":
            raise SettingError(
                f"--{kinds[0]}: the embeddings are tested on new molecules of the test part, without other "
                "tests; leave out --part, --allow-leak, --allow-other-data and --floors"
            )
        return _representation(options, kinds)
    if options.floors and (options.part != "test" or options.allow_other_data):
        raise SettingError("--floors: they are tested on the test part of the run's own store")

    from molspectra.evaluation.evaluate import evaluate
    from molspectra.evaluation.subject import result_file

    result = evaluate(
        options.run,
        options.out,
        options.part,
        store=options.store,
        allow_other_data=options.allow_other_data,
        device=options.device,
        checkpoint=options.checkpoint,
        disturbances=options.disturbances,
        allow_leak=options.allow_leak,
    )
    if options.part == "all":
        seen = result["seen"]["training"]
        names = f": {', '.join(seen['examples'])}" if seen["examples"] else ""
        store, without = result["data"]["store"], result["data"]["rows_without_target"]
        say(f"{store}: {seen['sentence']}{names}", error=True)
        if without:
            say(f"{store}: {without} rows have none of the run's targets and are left out", error=True)
    lines = [*error_table(result), *uncertainty_table(result), *loss_table(result), *summary(result)]
    if "retrieval" in result:
        lines += ["", *retrieval_table(result["retrieval"]["subsets"])]
    if "predicted_retrieval" in result:
        lines += [
            "",
            "against predicted spectra:",
            *retrieval_table(result["predicted_retrieval"]["subsets"]),
        ]
    if "disturbances" in result:
        lines += ["", *disturbance_table(result["disturbances"]["table"])]
    out = options.out or options.run
    floors = None
    if options.floors:
        from molspectra.evaluation.floors import assess_floors

        floors = assess_floors(options.run, out, options.store)
        for name, targets in floors.items():
            first = next(iter(targets))
            lines += ["", f"{name}:", *error_table({"target": first, "targets": targets})]
    lines += ["", f"all figures: {result_file(out, options.part, 'evaluation', '.json')}"]
    say("\n".join(lines))
    if options.plot is not None:
        from molspectra.reporting.evaluation_figure import evaluation_figure

        _write_figure(options, evaluation_figure(result, out, options.part, floors))
    return 0


def _representation(options: Any, kinds: Sequence[str]) -> int:
    """Test the embeddings of a model, and print the tables."""
    from molspectra.evaluation.representation import RESULT, assess_representation

    result = assess_representation(
        options.run,
        options.out,
        kinds,
        store=options.store,
        device=options.device,
        checkpoint=options.checkpoint,
    )
    lines = [f"{result['tested']} new test molecules of {result['store']}; before, {result['seen']}"]
    if result["left_out"]:
        lines.append(f"{result['left_out']} test rows that are not new are left out")
    lines += [*probe_table(result), *gallery_table(result), *alignment_table(result)]
    for name, table in result.get("disturbances", {}).items():
        lines += ["", name, *disturbance_table(table)]
    out = Path(options.out or options.run)
    say("\n".join([*lines, "", f"all figures: {out / RESULT}"]))
    if options.plot is not None:
        from molspectra.reporting.evaluation_figure import representation_figure

        _write_figure(options, representation_figure(out))
    return 0


def _write_figure(options: Any, drawn: "Figure") -> None:
    """Write the figure of the tables, and say where it is."""
    from molspectra.reporting.canvas import write_figure

    say(f"figure of the tables: {write_figure(options.plot, drawn, overwrite=options.overwrite)}")


def probe_table(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a table: figures of both probes of every property, by features."""
    from molspectra.evaluation.finetuned import in_brackets

    probes = result.get("probes", {})
    for is_class, head in ((False, ("MAE", "R²")), (True, ("AUROC", "AUPRC"))):
        chosen = {name: one for name, one in probes.items() if one["class"] == is_class}
        if not chosen:
            continue
        keys = ("auroc", "auprc") if is_class else ("mae", "r2")
        names = {name: f"{name}{in_brackets(one['unit'])}" for name, one in chosen.items()}
        width = max(map(len, ("class" if is_class else "property", *names.values())))
        linear = "logistic" if is_class else "ridge"
        columns = [f"{which} {figure}" for which in (linear, "k-NN", "constant") for figure in head]
        yield ""
        yield f"{'class' if is_class else 'property':<{width}}  features  fitted  tested  " + "  ".join(
            f"{column:>14}" for column in columns
        )
        for name, one in chosen.items():
            for features, probe in one["probes"].items():
                each = (probe["linear"], probe["neighbours"], one["constant"])
                cells = "  ".join(f"{_figure(figures[key]):>14}" for figures in each for key in keys)
                counts = f"{one['fitted']:>6}  {one['tested']:>6}"
                yield f"{names[name]:<{width}}  {features:<8}  {counts}  {cells}"
    for name, reason in result.get("not_probed", {}).items():
        yield f"{name}: {reason}"


def gallery_table(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of tables: recall by the size of the gallery, for every subset of spectra."""
    from molspectra.evaluation.representation import GALLERIES, METHODS

    galleries = result.get("galleries", {})
    for method, title in METHODS.items():
        for kind, kind_title in GALLERIES.items():
            rows = [
                (spectra, one) for spectra, found in galleries.get(method, {}).items() for one in found[kind]
            ]
            if not rows:
                continue
            width = max(len(spectra) for spectra, _ in rows)
            yield ""
            yield f"{title}, {kind_title}"
            yield f"{'spectra':<{width}}  gallery  queries    R@1  (chance)   R@10  (chance)"
            for spectra, one in rows:
                size = f"{one['size']}" if one["size"] else f"~{one['candidates']:.0f}"
                shares = "  ".join(
                    f"{one['recall'][k]:5.3f}  {'(' + format(one['chance_recall'][k], '.3f') + ')':>8}"
                    for k in one["recall"]
                )
                yield f"{spectra:<{width}}  {size:>7}  {one['queries']:>7}  {shares}"


def alignment_table(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a table: alignment and uniformity by subset of spectra."""
    found = result.get("alignment", {})
    if not found:
        return
    width = max(map(len, ("spectra", *found)))
    columns = {
        "alignment": "alignment",
        "alignment_of_others": "of other pairs",
        "uniformity_of_spectra": "uniformity, spectra",
        "uniformity_of_structures": "structures",
    }
    yield ""
    yield f"{'spectra':<{width}}  molecules  " + "  ".join(columns.values())
    for spectra, one in found.items():
        cells = "  ".join(f"{one[key]:{len(head)}.3f}" for key, head in columns.items())
        yield f"{spectra:<{width}}  {one['molecules']:>9}  {cells}"


def error_table(result: Mapping[str, Any]) -> list[str]:
    """Return the lines of tables: errors of every target and of forces, figures of classes.

    There are none for a pre-trained run.
    """
    from molspectra.evaluation.finetuned import errors_of, in_brackets

    if "target" not in result:
        return []
    figures = errors_of(result)
    errors = {name: one for name, one in figures.items() if "mae" in one}
    lines = []
    if errors:
        names = [f"{name}{in_brackets(one['unit'])}" for name, one in errors.items()]
        width = max(map(len, ("target", *names)))
        heads = f"{'MAE':>9}  {'RMSE':>9}  {'R²':>6}  {'values':>7}  MAE of a constant"
        lines.append(f"{'target':<{width}}  {heads}")
        for name, one in zip(names, errors.values(), strict=True):
            r2 = "–" if one["r2"] is None else f"{one['r2']:.3f}"
            cells = f"{one['mae']:9.4g}  {one['rmse']:9.4g}  {r2:>6}  {one['count']:>7}"
            constant = one["median_predictor_mae"]
            lines.append(f"{name:<{width}}  {cells}  {'–' if constant is None else f'{constant:.4g}'}")
        lines.append("")
    return lines + class_table({name: one for name, one in figures.items() if "auroc" in one})


def class_table(classes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines of a table: figures of every class, beside what the base rate gives."""
    if not classes:
        return []
    columns = {"auroc": "AUROC", "auprc": "AUPRC", "balanced_accuracy": "balanced acc.", "f1": "F1"}
    width = max(map(len, ("class", *classes)))
    lines = [
        f"{'class':<{width}}" + "".join(f"  {name:>13}" for name in columns.values()) + "  values     ones"
    ]
    for name, one in classes.items():
        cells = "".join(
            f"  {'–':>13}" if one[key] is None else f"  {f'{one[key]:.3f} {_constant(one, key)}':>13}"
            for key in columns
        )
        lines.append(f"{name:<{width}}{cells}  {one['count']:>6}  {one['positive']:>7}")
    lines += [f"{name}: {one['undefined']}" for name, one in classes.items() if "undefined" in one]
    threshold = next(iter(classes.values()))["threshold"]
    return [
        *lines,
        "(in brackets: what the base rate of the training part gives; balanced accuracy and F1 count a "
        f"probability from {threshold:g} on as class 1)",
        "",
    ]


def _constant(one: Mapping[str, Any], key: str) -> str:
    """A figure of what the base rate gives, in brackets, where it is known."""
    constant = one["constant"]
    return "(–)" if constant is None or constant[key] is None else f"({constant[key]:.3f})"


def uncertainty_table(result: Mapping[str, Any]) -> list[str]:
    """Return the lines of a table: stated and observed coverage of the intervals of an ensemble."""
    from molspectra.evaluation.finetuned import errors_of, in_brackets

    lines = []
    for name, one in errors_of(result).items() if "target" in result else ():
        if "uncertainty" not in one:
            continue
        alone, report = one["mae_of_members"], one["uncertainty"]
        area = report["error_confidence_area"]
        lines += [
            f"{name}: {len(alone)} members alone have MAE {min(alone):.4g} to {max(alone):.4g}; order of the "
            f"errors by spread {area:.2f} (0 perfect, 1 by chance)",
            f"  stated coverage  observed  half width{in_brackets(one['unit'])}",
        ]
        for stated, found in report["coverage"].items():
            width = "–" if found["half_width"] is None else f"{found['half_width']:.4g}"
            lines.append(f"  {float(stated):15.2f}  {found['observed']:8.3f}  {width}")
        lines.append("")
    return lines


def disturbance_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of a table: recall at 1 and 5 under every disturbance for each search."""
    labels = [f"{row['disturbance']} {row['strength']}".strip() for row in rows]
    width = max(map(len, labels))
    methods = [name for name in rows[0] if name not in ("disturbance", "strength")]
    lines = [f"{'disturbance':<{width}}" + "".join(f"  {method:>10} R@1    R@5" for method in methods)]
    for label, row in zip(labels, rows, strict=True):
        shares = "".join(
            f"  {row[method]['recall']['1']:14.3f}  {row[method]['recall']['5']:5.3f}" for method in methods
        )
        lines.append(f"{label:<{width}}{shares}")
    return lines


def retrieval_table(subsets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines of a table: recall and mean reciprocal rank by subset of the modalities.

    First among all molecules, then among isomers.
    """
    width = max(map(len, subsets))
    at = list(next(iter(subsets.values()))["recall"])
    names = [*(f"R@{k}" for k in at), "MRR"]
    lines = []
    for title, part in (("all molecules", None), ("isomers only", "isomers")):
        lines.append(f"{title:<{width}}  queries  " + "  ".join(f"{name:>5}" for name in names))
        for spectra, subset in subsets.items():
            figures = subset if part is None else subset[part]
            if figures is not None:
                shares = [*(figures["recall"][k] for k in at), figures["mrr"]]
                values = "  ".join(f"{share:5.3f}" for share in shares)
                lines.append(f"{spectra:<{width}}  {figures['queries']:>7}  {values}")
    return lines


def loss_table(result: Mapping[str, Any]) -> list[str]:
    """Return the lines of a table: losses of a pre-trained run beside those of a model without skill."""
    if "losses" not in result:
        return []
    width = max(map(len, ("mean of", *result["losses"])))
    lines = [f"{'mean of':<{width}}  {'of the run':>10}  without skill"]
    for name, value in result["losses"].items():
        constant = result["no_skill"].get(name)
        lines.append(f"{name:<{width}}  {_figure(value):>10}  {_figure(constant)}")
    return [*lines, ""]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def summary(result: Mapping[str, Any]) -> list[str]:
    """Return lines on what was tested, and on which molecules of it the run has seen before."""
    data, finished = result["data"], "" if result["finished"] else " of a run that is not finished"
    split = f", {data['split']} split with seed {data['split_seed']}" if data["split"] != "none" else ""
    lines = [
        f"{result['part']} part: {result['molecules']} molecules of {data['store']}{split}; "
        f"{result['checkpoint']}{finished}"
    ]
    if "spectrum_input" in result:
        lines.append(str(result["spectrum_input"]["task"]))
    seen = result.get("seen", {})
    if "pretraining" in seen:
        lines.append(str(seen["pretraining"]["sentence"]))
    if seen.get("test_in_own_training"):
        lines.append(f"{seen['test_in_own_training']} of them are in the run's own training part too")
    return lines
