"""`molspectra export-model`: a trained model as a file that PyTorch alone runs."""

from molspectra.apps.commands.parser import CommandParser
from molspectra.printable import say


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = CommandParser(
        "export-model", description="Write a model as a program that torch.export.load reads."
    )
    parser.add_argument("model", help="name, run, directory, https://...#sha256=... or hf:owner/name")
    parser.add_argument("--out", required=True, help="file to write (.pt2)")
    parser.add_argument(
        "--dtype", choices=("float32", "float64"), default="float32", help="of positions and results"
    )
    parser.add_shared("--overwrite")
    options = parser.parse_args(arguments)

    from molspectra.apps.export_model import export_model
    from molspectra.apps.loading import load
    from molspectra.training.targets import quantities_of

    model = load(options.model)
    export_model(model, options.out, dtype=options.dtype, overwrite=options.overwrite)
    names = ["embedding", *(quantities_of(model.about) if model.model.property_head is not None else [])]
    say(f"{', '.join(names)} in {options.out}")
    return 0
