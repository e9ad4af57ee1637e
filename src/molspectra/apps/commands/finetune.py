"""`molspectra finetune`."""

from molspectra.apps.commands.training import run_command
from molspectra.training.config import FinetuneConfig
from molspectra.training.run import finetune


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    return run_command(
        "finetune", FinetuneConfig, finetune, "Fine-tune a 3D encoder on a property of the store.", arguments
    )
