"""`molspectra prepare-internal`: the internal coordinates of a store, for Frad and SliDe."""

from molspectra.apps.commands.parser import CommandParser
from molspectra.errors import InputError, ValueRangeError
from molspectra.printable import say


def main(arguments: list[str]) -> int:
    """Run the command; returns 0."""
    parser = CommandParser(
        "prepare-internal",
        description="Find the rotatable bonds, bonds, angles and torsions of every molecule of a store, and "
        "write them beside it. Runs with denoising.kind frad or slide do so themselves where it is missing. "
        "Interrupted, the same command continues.",
    )
    parser.add_argument("store", help='a store (.arrow), or "bundled"')
    parser.add_argument("--processes", type=int, default=1, help="processes that share the work")
    parser.add_shared("--quiet")
    options = parser.parse_args(arguments)
    if options.processes < 1:
        raise ValueRangeError(f"--processes must be at least 1, not {options.processes}")

    from molspectra.data.store.internal import internal_path, open_internal, prepare_internal
    from molspectra.training.data import open_store

    store = open_store(options.store)
    try:
        open_internal(store)
    except InputError:
        done = prepare_internal(store, processes=options.processes, show=not options.quiet)
        say(f"{len(store)} molecules, {done.unperceived()} of them without bonds: {done.path}")
    else:
        say(f"{internal_path(store)} is there already and belongs to this store")
    return 0
