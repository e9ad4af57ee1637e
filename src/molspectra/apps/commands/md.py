"""`molspectra md`: molecular dynamics with a fine-tuned model."""

import argparse
from typing import Any

from molspectra.apps.commands.parser import CommandParser
from molspectra.errors import FormatError
from molspectra.printable import say


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    options = _parser().parse_args(arguments)

    from molspectra.apps.calculator import Calculator
    from molspectra.apps.md import relax, run_md
    from molspectra.data.output import free_path
    from molspectra.simulation.dynamics import DynamicsSettings

    settings = DynamicsSettings(
        temperature=options.temperature,
        interval_fs=options.interval_fs,
        timestep_fs=options.timestep_fs,
        friction_per_ps=options.friction_per_ps,
        equilibration_fs=options.equilibration_fs,
        seed=options.seed,
    )
    free_path(options.out, overwrite=options.overwrite)  # before anything that takes time
    atoms = _start(options)
    atoms.calc = Calculator(
        options.run,
        options.dipole,
        options.polarisability,
        skin=options.skin,
        dtype=options.dtype,
        device=options.device,
        checkpoint=options.checkpoint,
        max_force_spread=options.max_force_spread,
    )
    if options.relax:
        relax(atoms)
    result = run_md(
        atoms,
        options.out,
        settings,
        options.time_ps,
        options.ensemble,
        overwrite=options.overwrite,
        show=not options.quiet,
    )
    length = f"{options.time_ps:g} ps at {result.temperature:.0f} K on average"
    say(f"{result.frames} frames in {options.out}, {length}")
    if options.ensemble == "nve":
        say(
            f"total energy: drift {result.drift:+.3g} meV/ps, fluctuation {result.fluctuation:.3g} meV "
            f"({len(atoms)} atoms)"
        )
    if result.uncertain is not None:
        say(
            f"the members' forces differ by more than {options.max_force_spread:g} eV/Å in "
            f"{result.uncertain} of {result.frames} frames"
        )
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(
        "md",
        description="Molecular dynamics with a fine-tuned model; Ctrl-C leaves the frames until then.",
    )
    parser.add_argument("run", help="run or ensemble directory of a fine-tuned energy, best with forces")
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--smiles", help="molecule to start from")
    start.add_argument("--input", help="file with one structure to start from: .sdf, .mol, .xyz, .extxyz")
    parser.add_argument("--out", required=True, help="trajectory to write (.extxyz)")
    parser.add_shared("--overwrite")
    parser.add_argument("--dipole", default=None, help="run directory of a fine-tuned dipole")
    parser.add_argument(
        "--polarisability", default=None, help="run directory of a fine-tuned polarisability (--tensors)"
    )
    parser.add_argument(
        "--ensemble", choices=("nve", "langevin"), default="nve", help="constant energy, or a heat bath"
    )
    for name, value, about in (
        ("time-ps", 1.0, "length, ps"),
        ("timestep-fs", 0.5, "time step, fs"),
        ("interval-fs", 5.0, "time between two frames, fs"),
        ("temperature", 300.0, "of velocities and heat bath, K"),
        ("friction-per-ps", 5.0, "coupling to the heat bath, 1/ps"),
        ("equilibration-fs", 500.0, "time in the heat bath before the first frame, fs"),
        ("skin", 0.5, "Å around the cutoff in which neighbours are kept"),
        ("max-force-spread", 0.5, "of an ensemble: spread of its forces that is too large, eV/Å"),
    ):
        parser.add_argument(f"--{name}", type=float, default=value, help=about)
    parser.add_argument("--seed", type=int, default=0, help="of velocities and heat bath")
    parser.add_argument(
        "--relax", action=argparse.BooleanOptionalAction, default=True, help="start from the model's minimum"
    )
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64", help="arithmetic")
    parser.add_shared("--device", "--checkpoint", "--quiet")
    return parser


def _start(options: argparse.Namespace) -> Any:
    """Return the start structure as `ase.Atoms`."""
    from molspectra.chem.readers import from_smiles, read_molecules, to_ase

    if options.smiles is not None:
        return to_ase(from_smiles(options.smiles))
    molecules = read_molecules(options.input)
    first = next(molecules, None)
    if first is None or next(molecules, None) is not None:
        how_many = "no structure" if first is None else "more than one structure"
        raise FormatError(f"{options.input}: holds {how_many}; give a file with the one to start from")
    return to_ase(first)
