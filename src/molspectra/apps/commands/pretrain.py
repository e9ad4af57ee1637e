"""`molspectra pretrain`."""

from molspectra.apps.commands.training import run_command
from molspectra.training.config import PretrainConfig
from molspectra.training.run import pretrain


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    return run_command(
        "pretrain",
        PretrainConfig,
        pretrain,
        "Pre-train a 3D encoder: denoising, and with a spectrum encoder also reconstruction and alignment.",
        arguments,
    )
