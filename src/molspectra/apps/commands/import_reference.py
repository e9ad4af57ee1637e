"""`molspectra import-reference`: weights of the reference implementation as a run of this package."""

from molspectra.apps.commands.parser import CommandParser
from molspectra.printable import say


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = CommandParser(
        "import-reference",
        description="Make a run directory of a checkpoint of the paper's reference implementation, or of "
        "coordinate denoising in the same layout. Nothing in the file is run.",
    )
    parser.add_argument("checkpoint", help="the file (.ckpt, also gzipped)")
    parser.add_argument("out", help="directory to make; finetune --init, evaluate and load_model read it")
    parser.add_argument("--target", default=None, help="column that a fine-tuned model predicts")
    options = parser.parse_args(arguments)

    from molspectra.apps.import_reference import import_reference

    done = import_reference(options.checkpoint, options.out, target=options.target)
    say(f"{done.out}: {done.stage}, all {done.tensors} tensors of the file accounted for")
    if done.left_behind:
        say(f"left behind: {', '.join(done.left_behind)}; training can start from it, not resume")
    return 0
