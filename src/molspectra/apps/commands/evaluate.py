"""`molspectra evaluate`: test a finished run."""

from collections.abc import Mapping, Sequence
from typing import Any

from molspectra.apps.commands.parser import CommandParser
from molspectra.printable import say


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = CommandParser(
        "evaluate", description="Test a run's model: property errors; for stage 2 retrieval by spectra."
    )
    parser.add_argument("run", help="run directory of pretrain or finetune, or that of an ensemble")
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
        "--disturbances", action="store_true", help="of a stage-2 run, also search with disturbed spectra"
    )
    parser.add_shared("--checkpoint", "--device")
    options = parser.parse_args(arguments)

    from molspectra.evaluation.evaluate import evaluate

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
    lines = [*error_table(result), *uncertainty_table(result), *summary(result)]
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
    say("\n".join(lines))
    return 0


def error_table(result: Mapping[str, Any]) -> list[str]:
    """Return the lines of a table: the errors of every target and of forces; none for a pre-trained run."""
    from molspectra.evaluation.finetuned import errors_of, in_brackets

    if "mae" not in result:
        return []
    errors = errors_of(result)
    names = [f"{name}{in_brackets(one['unit'])}" for name, one in errors.items()]
    width = max(map(len, ("target", *names)))
    heads = ("MAE", "RMSE", "R²", "values", "MAE of a constant")
    lines = [f"{'target':<{width}}  {heads[0]:>9}  {heads[1]:>9}  {heads[2]:>6}  {heads[3]:>7}  {heads[4]}"]
    for name, one in zip(names, errors.values(), strict=True):
        r2 = "–" if one["r2"] is None else f"{one['r2']:.3f}"
        figures = f"{one['mae']:9.4g}  {one['rmse']:9.4g}  {r2:>6}  {one['count']:>7}"
        constant = one["median_predictor_mae"]
        lines.append(f"{name:<{width}}  {figures}  {'–' if constant is None else f'{constant:.4g}'}")
    return [*lines, ""]


def uncertainty_table(result: Mapping[str, Any]) -> list[str]:
    """Return the lines of a table: stated and observed coverage of the intervals of an ensemble."""
    from molspectra.evaluation.finetuned import errors_of, in_brackets

    lines = []
    for name, one in errors_of(result).items() if "mae" in result else ():
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
    """Return the lines of a table: recall at 1 and 5 under every disturbance for three search methods."""
    labels = [f"{row['disturbance']} {row['strength']}".strip() for row in rows]
    width = max(map(len, labels))
    methods = ("model", "prepared", "similarity")
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


def summary(result: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return one line per number or text of an evaluation but for its tables; nested names joined by dots."""
    lines = []
    for key, value in result.items():
        if key in ("subsets", "disturbances"):
            continue
        if isinstance(value, dict):
            lines += summary(value, f"{prefix}{key}.")
        elif isinstance(value, float):
            lines.append(f"{prefix}{key}: {value:.6g}")
        elif isinstance(value, int | str):
            lines.append(f"{prefix}{key}: {value}")
    return lines
