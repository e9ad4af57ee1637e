"""`molspectra predict`: properties and forces of molecules by a fine-tuned model."""

from molspectra.apps.commands.embed import add_model_options
from molspectra.apps.commands.parser import CommandParser, print_rejected
from molspectra.printable import say


def main(arguments: list[str]) -> int:
    """Run the command; returns 0, or 1 where some molecules were left out."""
    parser = CommandParser(
        "predict", description="Predict the property, and forces, that a run was fine-tuned on."
    )
    add_model_options(parser, None)
    parser.add_shared("--checkpoint")
    parser.add_argument("--out", required=True, help="file to write: .csv, .parquet or .extxyz")
    parser.add_argument(
        "--forces", choices=("auto", "yes", "no"), default="auto", help="auto: where the run learnt them"
    )
    parser.add_argument(
        "--coverage",
        type=float,
        default=0.9,
        help="of an ensemble: probability with which the intervals written hold the value",
    )
    options = parser.parse_args(arguments)

    from molspectra.apps.loading import load
    from molspectra.apps.predict import SUFFIXES, predict, predicts, refuse_forces
    from molspectra.data.output import free_path

    out = free_path(options.out, SUFFIXES, overwrite=options.overwrite)
    model = load(options.model, prefer=options.checkpoint)
    _, forces = predicts(model, {"auto": None, "yes": True, "no": False}[options.forces])
    refuse_forces(out.suffix, forces)
    predictions = predict(
        options.smiles if options.molecules is None else options.molecules,
        model,
        forces=forces,
        batch_size=options.batch_size,
        device=options.device,
        on_error=options.on_error,
        coverage=options.coverage,
        show=not options.quiet,
    )
    predictions.save(out, overwrite=options.overwrite)
    print_rejected(predictions.rejected, "left out")
    names = ", ".join(
        f"{target} ({quantity.unit or 'no unit'}; {quantity.level or 'level of theory not known'})"
        for target, quantity in zip(predictions.targets, predictions.quantities, strict=True)
    )
    say(f"{names} of {len(predictions)} molecules in {out}; {len(predictions.rejected)} left out")
    return 1 if predictions.rejected else 0
