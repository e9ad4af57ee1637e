"""`molspectra index`: a library of molecules that can be searched by spectra."""

import argparse

from molspectra.apps.commands.parser import CommandParser, executor_of, print_rejected
from molspectra.errors import SettingError
from molspectra.printable import say


def main(arguments: list[str]) -> int:
    """Run the command; returns 0, or 1 if bad records were skipped."""
    options = _parser().parse_args(arguments)
    if options.library is None and not options.approximate:
        raise SettingError("which library? Give a file of molecules or a store (or --approximate alone)")

    executor = executor_of(options)
    if options.library is None and executor is not None:
        raise SettingError("--executor embeds a library; name it, or leave --executor out")

    from molspectra.search import build

    rejected = 0
    if options.library is not None:
        if options.append:
            added = build.append(
                options.out,
                options.library,
                options.model,
                on_error=options.on_error,
                device=options.device,
                executor=executor,
                show=not options.quiet,
            )
        else:
            added = build.build(
                options.out,
                options.library,
                options.model or "base",
                vectors=options.vectors,
                modalities=None if options.modalities is None else tuple(options.modalities),
                calibration=None if options.calibrate == "none" else options.calibrate,
                on_error=options.on_error,
                overwrite=options.overwrite,
                device=options.device,
                executor=executor,
                show=not options.quiet,
            )
        print_rejected(added.rejected, "skipped")
        for remark in added.remarks:
            say(f"molspectra: {remark}", error=True)
        rejected = len(added.rejected)
        say(f"{added.rows} molecules {'added to' if options.append else 'in'} {options.out}")
    if options.approximate:
        say(f"approximate index of {build.add_approximate(options.out)} molecules in {options.out}")
    return int(rejected > 0)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "index", description="Make a searchable index of a library of molecules, or add to one."
    )
    parser.add_argument(
        "library",
        nargs="?",
        help="molecules: .smi, .csv, .sdf, .mol, .xyz, .extxyz; with spectra: .arrow, .parquet, bundled, "
        "bundled-library",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the index")
    parser.add_argument(
        "--model", metavar="RUN", help="run or checkpoint of stage 2, which is copied into the index [base]"
    )
    parser.add_argument("--append", action="store_true", help="add to the index that is there")
    parser.add_argument("--overwrite", action="store_true", help="replace the index that is there")
    parser.add_argument(
        "--modalities", nargs="+", default=None, help="spectra of the library to keep; all if not given"
    )
    parser.add_argument(
        "--vectors", choices=("float32", "float16"), default="float32", help="type of stored vectors"
    )
    parser.add_argument(
        "--calibrate",
        metavar="STORE",
        default="run",
        help="what confidences are calibrated on: run (validation molecules of the model's training), a "
        "store of molecules that the model was not trained on, or none",
    )
    parser.add_argument(
        "--approximate",
        action="store_true",
        help="afterwards also build the approximate index (needs faiss-cpu)",
    )
    parser.add_on_error("raise", "unreadable molecules")
    parser.add_executor()
    parser.add_shared("--device", "--quiet")
    return parser
