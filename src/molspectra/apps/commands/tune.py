"""`molspectra tune`."""

from functools import partial

from molspectra.apps.commands.training import run_command

main = partial(run_command, "tune")
