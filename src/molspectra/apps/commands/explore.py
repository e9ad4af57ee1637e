"""`molspectra explore`: a local page to identify spectra and look at molecules, libraries and runs."""

from molspectra.apps.commands.parser import CommandParser


def main(arguments: list[str]) -> int:
    """Run the command until Ctrl-C; returns 0."""
    parser = CommandParser(
        "explore",
        description="Serve a page on this machine, for this machine alone, and open it in the browser.",
    )
    parser.add_argument(
        "index", nargs="?", metavar="INDEX", help="index to search [one of the bundled library]"
    )
    parser.add_argument("--model", default="base", help="run or shipped model for predictions")
    parser.add_argument("--runs", default="runs", help="folder whose runs are shown")
    parser.add_argument("--port", type=int, help="of the page [the first free one from 7860]")
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    options = parser.parse_args(arguments)

    from molspectra.apps.explorer.server import explore

    explore(
        options.index,
        model=options.model,
        runs=options.runs,
        port=options.port,
        browser=not options.no_browser,
    )
    return 0
