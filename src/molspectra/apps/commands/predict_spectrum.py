"""`molspectra predict-spectrum`: IR, Raman and UV-Vis spectra of molecules by a network."""

from typing import TYPE_CHECKING

from molspectra.apps.commands.embed import add_model_options
from molspectra.apps.commands.parser import CommandParser, print_figure, print_rejected
from molspectra.chem.drawing import title_of
from molspectra.printable import say
from molspectra.spectra.modality import modality

if TYPE_CHECKING:
    from molspectra.apps.predict_spectra import PredictedSpectra

STRONGEST = 4
"""Bands printed for each spectrum."""


def main(arguments: list[str]) -> int:
    """Run the command; returns 0, or 1 where some molecules were left out."""
    parser = CommandParser(
        "predict-spectrum", description="Predict IR, Raman and UV-Vis spectra from structures, by a network."
    )
    add_model_options(parser, "base")
    parser.add_shared("--checkpoint")
    parser.add_argument(
        "--modalities", nargs="+", help="such as ir raman uv_vis; all of the model if not given"
    )
    parser.add_argument(
        "--dipole", help="ir at GFN2-xTB modes by this run of a dipole vector, not by --model"
    )
    parser.add_argument("--polarisability", help="the same for raman by this run of a polarisability")
    parser.add_argument(
        "--out", help="file to write: .arrow (a store), .parquet or .csv; without it, bands are printed"
    )
    parser.add_shared("--plot")
    options = parser.parse_args(arguments)

    from molspectra.apps.loading import load
    from molspectra.apps.predict_spectra import SUFFIXES, predict_spectra
    from molspectra.data.output import free_path

    if options.out is not None:
        free_path(options.out, SUFFIXES, overwrite=options.overwrite)
    if options.plot is not None:
        from molspectra.reporting.canvas import FIGURES

        free_path(options.plot, FIGURES, overwrite=options.overwrite)
    is_learned = options.dipole is not None or options.polarisability is not None
    model = options.model if is_learned else load(options.model, prefer=options.checkpoint)
    spectra = predict_spectra(
        options.smiles if options.molecules is None else options.molecules,
        model,
        modalities=options.modalities,
        dipole=options.dipole,
        polarisability=options.polarisability,
        checkpoint=options.checkpoint,
        batch_size=options.batch_size,
        device=options.device,
        on_error=options.on_error,
        show=not options.quiet,
    )
    print_rejected(spectra.rejected, "left out")
    names = ", ".join(spectra.modalities)
    if options.out is None:
        say(bands_table(spectra))
    else:
        spectra.save(options.out, overwrite=options.overwrite)
        say(
            f"{names} of {len(spectra)} molecules, {spectra.level}, in {options.out}; "
            f"{len(spectra.rejected)} left out"
        )
    if options.plot is not None:
        spectra.plot(options.plot, overwrite=options.overwrite)
        print_figure(options.plot, len(spectra))
    return 1 if spectra.rejected else 0


def bands_table(spectra: "PredictedSpectra") -> str:
    """The strongest bands of every molecule and modality as lines of text."""
    titles = [title_of(molecule) for molecule in spectra.molecules]
    width, wide = max(8, *map(len, titles)), max(8, *map(len, spectra.modalities))
    lines = [f"{'molecule':<{width}}  {'modality':<{wide}}  strongest bands: position (height)"]
    for index, title in enumerate(titles):
        for name in spectra.modalities:
            kind = modality(name)
            decimals = 2 if kind.unit == "eV" else 0
            bands = ", ".join(
                f"{band.position:.{decimals}f} ({band.height:.3g})"
                for band in spectra.bands(index, name, STRONGEST)
            )
            lines.append(f"{title:<{width}}  {name:<{wide}}  {bands or 'none'}")
    units = "; ".join(
        f"{name}: {modality(name).unit} ({modality(name).intensity_unit})" for name in spectra.modalities
    )
    return "\n".join([*lines, f"{units}; {spectra.level}"])
