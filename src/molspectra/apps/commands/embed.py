"""`molspectra embed`: embedding vectors of molecules or spectra."""

from typing import Any

from molspectra.apps.commands.parser import CommandParser, executor_of, print_rejected
from molspectra.errors import SettingError
from molspectra.printable import say


def main(arguments: list[str]) -> int:
    """Run the command; returns 0, or 1 where some molecules or spectra were left out."""
    options = _parser().parse_args(arguments)
    spectra_options = ("modality", "together", "unit", "quantity", "outside", "reflectance")
    given = [name for name in spectra_options if getattr(options, name)]
    if options.spectra is None and given:
        raise SettingError(f"--{given[0]} is about spectra; give --spectra, or leave it out")
    if options.spectra is not None and options.pooled:
        raise SettingError("--pooled is about molecules; leave it out, or give no --spectra")
    executor = executor_of(options)
    if options.spectra is not None and executor is not None:
        raise SettingError("--executor is about molecules; leave it out, or give no --spectra")

    from molspectra.apps.embed import embed, free_paths
    from molspectra.apps.embed_spectra import embed_spectra

    out, _ = free_paths(options.out, overwrite=options.overwrite)
    common: dict[str, Any] = {
        name: getattr(options, name) for name in ("length", "batch_size", "device", "on_error")
    }
    common["show"] = not options.quiet
    if options.spectra is None:
        molecules = options.smiles if options.molecules is None else options.molecules
        embeddings = embed(
            molecules, options.model, pooled=options.pooled, executor=executor, folder=out.parent, **common
        )
    else:
        one = len(options.spectra) == 1 and not options.together
        embeddings = embed_spectra(
            options.spectra[0] if one else options.spectra,
            options.model,
            modalities=options.modality,
            together=options.together,
            unit=options.unit,
            quantity=options.quantity,
            outside=options.outside or "refuse",
            reflectance=options.reflectance or "refuse",
            **common,
        )
    embeddings.save(options.out, overwrite=options.overwrite)
    print_rejected(embeddings.rejected, "left out")
    width, kind, norm = embeddings.vectors.shape[1], embeddings.about["kind"], embeddings.about["length"]
    say(
        f"{len(embeddings)} {kind} embeddings of length {width} ({norm}) in "
        f"{options.out}; {len(embeddings.rejected)} left out"
    )
    return 1 if embeddings.rejected else 0


def _parser() -> CommandParser:
    parser = CommandParser(
        "embed", description="Turn molecules or spectra into vectors: structures near their own spectra."
    )
    source = add_model_options(parser, "base")
    source.add_argument("--spectra", nargs="+", help="files with spectra, each a sample, or a store (.arrow)")
    parser.add_argument("--out", required=True, help="file to write: .parquet, .csv or .npy")
    parser.add_argument(
        "--length",
        choices=("auto", "unit", "raw"),
        default="auto",
        help="divide by the norm (unit) or not; auto: as the alignment of the model compares",
    )
    parser.add_argument(
        "--pooled",
        action="store_true",
        help="mean and deviation over the atoms, for a property model of your own, instead of sums",
    )
    parser.add_executor()
    spectra = parser.add_argument_group("spectra")
    spectra.add_argument("--modality", nargs="+", help="use these alone; also the kind of a text file")
    spectra.add_argument("--together", action="store_true", help="all files are of one sample")
    spectra.add_argument("--unit", help="of the axis of a text file that does not tell it")
    spectra.add_argument("--quantity", help="of the values of a text file that does not tell it")
    spectra.add_argument("--outside", choices=("refuse", "zero"), help="points that a file does not cover")
    spectra.add_argument(
        "--reflectance", choices=("refuse", "log", "kubelka-munk"), help="how to convert a reflectance"
    )
    return parser


def add_model_options(parser: CommandParser, model: str | None) -> Any:
    """Add the options that `embed` and `predict` share, and return the group of their sources.

    The default of `--model` is `model`; with None it is required.
    """
    source = parser.add_molecules(
        "--molecules", "file: .smi, .csv, .sdf, .mol, .xyz, .extxyz, .parquet, or a store (.arrow)"
    )
    parser.add_argument(
        "--model",
        default=model,
        required=model is None,
        help="name, run, directory, https://...#sha256=... or hf:owner/name",
    )
    parser.add_argument("--batch-size", type=int, default=64, help="molecules or samples per pass")
    parser.add_shared("--device")
    parser.add_on_error("raise", "bad input")
    parser.add_shared("--overwrite", "--quiet")
    return source
