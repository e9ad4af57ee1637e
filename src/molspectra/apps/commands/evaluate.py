"""`molspectra evaluate`: test a finished run."""

from molspectra.apps.commands.parser import CommandParser


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = CommandParser(
        "evaluate", description="Test a run's model: property errors; for stage 2 retrieval by spectra."
    )
    parser.add_argument("run", help="run directory of pretrain or finetune")
    parser.add_argument("--part", choices=("test", "val", "train"), default="test", help="part of the split")
    parser.add_argument("--out", default=None, help="where results go; the run directory if not given")
    parser.add_argument("--store", default=None, help="another place of the run's store")
    parser.add_argument(
        "--allow-other-data", action="store_true", help="accept a store with other content than the run saw"
    )
    parser.add_argument(
        "--checkpoint",
        choices=("best", "last"),
        default="best",
        help="weights with the lowest validation loss, or the newest",
    )
    parser.add_argument("--device", default="cpu", help="where to compute")
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
    )
    for line in summary(result):
        print(line)
    return 0


def summary(result: dict[str, object], prefix: str = "") -> list[str]:
    """The single numbers and texts of an evaluation, nested names joined by dots."""
    lines = []
    for key, value in result.items():
        if isinstance(value, dict):
            lines += summary(value, f"{prefix}{key}.")
        elif isinstance(value, float):
            lines.append(f"{prefix}{key}: {value:.6g}")
        elif isinstance(value, int | str):
            lines.append(f"{prefix}{key}: {value}")
    return lines
