"""`molspectra simulate`: from SMILES or a structure file to a store of line spectra."""

from itertools import chain
from typing import TYPE_CHECKING

from molspectra.apps.commands.parser import CommandParser, executor_of, print_figure, print_rejected
from molspectra.chem.drawing import title_of
from molspectra.data.output import free_path
from molspectra.errors import SettingError, SimulationError
from molspectra.printable import say
from molspectra.spectra.modality import DOS, modality, modality_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from molspectra.data.store.writer import Row
    from molspectra.simulation.api import Simulation

SHOWN = 10
"""Largest number of molecules whose results are printed."""
STRONGEST = 3
"""Lines printed per spectrum."""


def main(arguments: list[str]) -> int:
    """Run the command; returns 0, or 1 if some molecules failed and the others are in the store."""
    options = _parser().parse_args(arguments)
    modalities = modality_names(options.modalities)
    out = free_path(options.out, overwrite=options.overwrite)
    if options.plot is not None:
        from molspectra.reporting.canvas import FIGURES

        plot = free_path(options.plot, FIGURES, overwrite=options.overwrite)
        if plot.absolute() == out.absolute():
            raise SettingError("--out and --plot name the same file; choose two names")

    from molspectra.chem.readers import Rejection, from_smiles, read_molecules
    from molspectra.data.store.store import write_store
    from molspectra.datasets.simulated import simulated_metadata, simulated_row
    from molspectra.simulation.runner import simulate_many

    executor = executor_of(options, options.processes or 1)
    rejected: list[Rejection] = []
    if options.input is None:
        molecules = [from_smiles(smiles) for smiles in options.smiles]
    else:
        molecules = list(read_molecules(options.input, on_error=options.on_error, rejected=rejected))
    print_rejected(rejected, "skipped")
    journal = out.with_name(out.name + ".journal.jsonl")
    result = simulate_many(
        molecules,
        journal,
        modalities,
        geometry=options.geometry,
        level=options.level,
        processes=options.processes,
        executor=executor,
        progress=not options.quiet,
    )
    if options.quiet:  # otherwise the progress display has printed them
        for failure in result.failures:
            say(f"molspectra: failed: {failure.label}: {failure.error}", error=True)
    simulations = result.simulations()
    first = next(simulations, None)
    if first is None:
        journal.unlink()
        raise SimulationError(
            f"none of the {len(molecules)} molecules could be simulated; nothing was written"
        )
    metadata = simulated_metadata(first, source="computed by molspectra simulate", licence="")

    def rows() -> "Iterator[Row]":
        for simulation in chain([first], simulations):
            row = simulated_row(simulation)
            for name, reason in row.left_out.items():
                title = row.molecule.name or row.molecule.smiles or row.molecule.identity
                say(f"molspectra: {title}: {name} spectrum left out: {reason}", error=True)
            yield row

    written = write_store(out, rows(), metadata, overwrite=options.overwrite)
    for number, simulation in enumerate(result.simulations()):
        if number == SHOWN:
            say(f"... and {written.rows - SHOWN} more")
            break
        say(describe(simulation))
    if options.plot is not None:
        from molspectra.reporting.canvas import write_figure
        from molspectra.spectra.plots import spectra_figure

        drawn_rows = ((title_of(each.molecule), each.spectra) for each in result.simulations())
        drawn = spectra_figure(drawn_rows, written.rows, first.level)
        write_figure(options.plot, drawn, overwrite=options.overwrite)
        print_figure(options.plot, written.rows)
    journal.unlink()
    say(f"{written.rows} molecules in {out}")
    return 1 if result.failures or rejected else 0


def _parser() -> CommandParser:
    parser = CommandParser(
        "simulate", description="Compute spectra; interrupted, the same command continues."
    )
    parser.add_molecules("--input", "structures: .sdf, .mol, .xyz, .extxyz, or SMILES: .smi, .csv")
    parser.add_argument(
        "--modalities",
        nargs="+",
        default=["uv_vis", "ir", "raman"],
        help="any of uv_vis, ir, raman and dos (density of states) [uv_vis ir raman]",
    )
    parser.add_argument(
        "--geometry",
        choices=("optimised", "given"),
        default="optimised",
        help="given: uv_vis and dos of the structures as they are [optimised]",
    )
    parser.add_argument(
        "--level",
        choices=("gfn2", "scaled", "dft"),
        default="gfn2",
        help="of ir and raman: GFN2-xTB; the same near to observed frequencies; B3LYP, ir alone [gfn2]",
    )
    parser.add_argument("--out", required=True, help="store to write (.arrow)")
    parser.add_shared("--plot", "--overwrite")
    parser.add_argument(
        "--processes",
        type=int,
        default=None,
        help="processes, on an executor those of each worker [one per core; on an executor 1]",
    )
    parser.add_executor()
    parser.add_on_error("raise", "unreadable molecules")
    parser.add_shared("--quiet")
    return parser


def describe(simulation: "Simulation") -> str:
    """Return a few lines about a simulation: strongest bands and properties with their units."""
    molecule = simulation.molecule
    title = molecule.name or molecule.smiles or molecule.identity
    lines = [f"{title} ({molecule.formula})"]
    for name, spectrum in simulation.lines.items():
        kind = modality(name)
        if name in DOS:
            frontier = spectrum.position[::-1] if name == "dos_occupied" else spectrum.position
            levels = ", ".join(f"{energy:.2f} {kind.unit}" for energy in frontier[:STRONGEST])
            bands = f"next to the gap {levels}"
        else:
            order = spectrum.intensity.argsort()[::-1][:STRONGEST]
            bands = "strongest " + ", ".join(
                f"{spectrum.position[i]:.{2 if kind.unit == 'eV' else 0}f} {kind.unit}"
                f" ({spectrum.intensity[i]:.3g}{' ' + kind.line_unit if kind.line_unit else ''})"
                for i in order
            )
        lines.append(f"  {name}: {len(spectrum.position)} lines, {bands}   [{spectrum.level}]")
    if simulation.properties:
        values = (f"{name} {value.value:.4g} {value.unit}" for name, value in simulation.properties.items())
        lines.append(f"  {', '.join(values)}")
    return "\n".join(lines)
