"""Train while the process is killed again and again; the weights must be those of an undisturbed run.

    python benchmarks/soak.py                                      # about half an hour on one core
    python benchmarks/soak.py --minutes 1 --every 8 14             # a short one

A stage 2 on the bundled molecules gets a SIGKILL after a random number of seconds and is resumed until it is
finished; then every weight file is compared with those of the same run without kills. Averaged weights, noise
statistics, clipping and two micro-batches per step are on, so that everything that has a state takes part.
The exit code is 1 where anything differs.
"""

import argparse
import csv
import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

SETTINGS = (
    "--config small-stage2 --model.encoder.channels 16 --model.encoder.layers 1 --model.encoder.heads 2 "
    "--model.encoder.radial 8 --model.spectrum_encoder.width 16 --model.spectrum_encoder.layers 1 "
    "--model.spectrum_encoder.feed_forward 16 --optimizer.ema 0.99 --denoising.normalise running "
    "--loop.accumulation 2 --loop.batch_size 8 --loop.log_every 1"
)
PROBE_STEPS = 40
SECONDS_PER_SAVE = 3


def settings(steps: int, save_every: int) -> list[str]:
    """Options of a run of that length, which saves and validates every `save_every` steps."""
    often = ["--loop.save_every", str(save_every), "--loop.validate_every", str(4 * save_every)]
    return [*SETTINGS.split(), "--loop.steps", str(steps), *often]


def start(options: list[str], run: Path) -> subprocess.Popen[bytes]:
    """Start or resume a run in a process with one thread; what it says goes to a file beside the run."""
    command = [sys.executable, "-m", "molspectra", "pretrain", *options, "--out", str(run), "--resume"]
    with run.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=log, stderr=log)


def finish(process: subprocess.Popen[bytes], run: Path) -> None:
    """Wait for a run that nobody kills; one that fails ends the soak."""
    if process.wait() != 0:
        failed(process, run)


def failed(process: subprocess.Popen[bytes], run: Path) -> None:
    """End with what the run said last."""
    said = run.with_suffix(".log").read_text(errors="replace").strip().splitlines()
    sys.exit(f"soak: {run}: ended with {process.returncode}: {said[-1] if said else 'nothing said'}")


def logged(run: Path) -> list[list[str]]:
    """The lines of metrics.csv without the times: step, name, value."""
    with (run / "metrics.csv").open(newline="") as file:
        return [line[:3] for line in csv.reader(file)]


def step_rate(folder: Path) -> float:
    """Steps per second of a short run, without its start."""
    run = folder / "probe"
    finish(start(settings(PROBE_STEPS, PROBE_STEPS), run), run)
    with (run / "metrics.csv").open(newline="") as file:
        times = {int(line["step"]): float(line["seconds"]) for line in csv.DictReader(file)}
    return (PROBE_STEPS - 5) / (times[PROBE_STEPS - 1] - times[4])


def killed_run(options: list[str], run: Path, every: tuple[float, float], seed: int) -> int:
    """Kill and resume a run until it is finished; returns the number of kills."""
    draw, kills = random.Random(seed), 0
    while True:
        process = start(options, run)
        try:
            process.wait(draw.uniform(*every))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            steps = sorted(path.name for path in run.glob("checkpoints/step-*"))
            print(f"kill {kills}: {steps[-1] if steps else 'nothing'} is saved", flush=True)
            continue
        if process.returncode != 0:
            failed(process, run)
        return kills


def weights(run: Path) -> dict[str, str]:
    """SHA-256 of every weight file of a run, by its path in the run."""
    found = sorted((run / "checkpoints").rglob("*.safetensors"))
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def main() -> int:
    """Print kills, seconds of both runs, and whether their weights are equal; 0 where they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=12, help="length of the run without kills")
    parser.add_argument(
        "--every", type=float, nargs=2, default=(20, 60), metavar=("LOW", "HIGH"),
        help="seconds between the start of a process and its end",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the times of the kills")
    parser.add_argument("--out", type=Path, help="folder to keep the runs in; a temporary one if not given")
    chosen = parser.parse_args()
    with TemporaryDirectory(prefix="soak-") as temporary:
        folder = chosen.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            sys.exit(f"soak: {folder}: holds files already; choose another folder")
        rate = step_rate(folder)
        steps, save_every = int(60 * chosen.minutes * rate), max(1, int(SECONDS_PER_SAVE * rate))
        print(f"{steps} steps, {rate:.1f} per second, saved every {save_every}", flush=True)
        options, seconds = settings(steps, save_every), {}
        clean, killed = folder / "clean", folder / "killed"
        began = time.monotonic()
        finish(start(options, clean), clean)
        seconds["clean"] = time.monotonic() - began
        print(f"clean run: {seconds['clean']:.0f} s", flush=True)
        began = time.monotonic()
        kills = killed_run(options, killed, tuple(chosen.every), chosen.seed)
        seconds["killed"] = time.monotonic() - began
        ours, theirs = weights(killed), weights(clean)
        different = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        same_log = logged(killed) == logged(clean)
        is_equal = same_log and not different and len(theirs) > 0
        print(f"{kills} kills; {seconds['killed']:.0f} s with them, {seconds['clean']:.0f} s without")
        print(f"{len(theirs)} weight files: {'different: ' + ', '.join(different) if different else 'equal'}")
        print(f"logged losses: {'equal' if same_log else 'different'}")
    return 0 if is_equal else 1


if __name__ == "__main__":
    sys.exit(main())
