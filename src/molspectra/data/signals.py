"""The signals that ask a run to stop; a run saves, its workers do not listen."""

import signal

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C; `kill`, and SLURM before a requeue or at the end of a job's time; what SLURM sends earlier to a job
that asks for it (`sbatch --signal=USR1@120`)."""
