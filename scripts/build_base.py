"""Pre-train the model "base" on QM9 structures, their densities of states and their spectra.

    python scripts/build_base.py --stores DIR --runs DIR [--only PHASE ...] [--set NAME=VALUE ...]

`--stores` holds levels.arrow, made by scripts/compute_levels.py and then scripts/prepare_subsets.py
--levels. Each of three phases starts from the one before. `stage1` denoises all structures. `levels`
also aligns them with their spectra and predicts these: the density of states of all, the others where
they are known. `spectra` is stage 2 on the molecules with IR, Raman or UV-Vis spectra, with modality
dropout. The split is by identity, so the test part of every phase holds the same molecules. Stopped at
any moment, the same command continues bit for bit.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from molspectra import evaluate, pretrain
from molspectra.apps.process import prepare_process
from molspectra.data.store.store import Store
from molspectra.data.store.writer import write_store
from molspectra.errors import InputError, SettingError
from molspectra.training.config import PretrainConfig
from molspectra.training.interrupt import Interrupted
from molspectra.training.settings import from_dict, load_yaml

ENCODER = {"channels": 128, "layers": 6, "heads": 8, "radial": 32, "cutoff": 5.0}
SPECFORMER = {"width": 96, "heads": 4, "layers": 3, "feed_forward": 192}
LEVELS = SPECFORMER | {
    "modalities": ["dos_occupied", "dos_virtual"],
    "patch": [20, 20],
    "stride": [20, 20],  # patches that do not overlap: half the tokens, and nothing to copy
}
SPECTRA = SPECFORMER | {
    "modalities": ["uv_vis", "ir", "raman"],
    "patch": [20, 50, 50],
    "stride": [20, 50, 50],
}
OPTIMIZER = {
    "learning_rate": 1.0e-3,
    "clip": 5.0,
    "ema": 0.999,
    "schedule": {"kind": "cosine", "warmup": 500},
}
LOOP = {"batch_size": 64, "validate_every": 3000, "save_every": 500, "log_every": 50}

PHASES: dict[str, dict[str, Any]] = {
    "stage1": {
        "store": "levels",
        "optimizer": OPTIMIZER | {"schedule": {"kind": "cosine", "warmup": 500, "length": 30_000}},
        "loop": {"steps": 4_500},
    },
    "levels": {
        "store": "levels",
        "spectrum_encoder": LEVELS,
        "weights": {"denoising": 0.0, "reconstruction": 0.0, "spectrum": 1.0},
        "loop": {"steps": 8_000},
    },
    "spectra": {
        "store": "spectra",
        "spectrum_encoder": SPECTRA,
        "weights": {"denoising": 0.0, "spectrum": 1.0},
        "spectra": {"dropout": 0.5},
        "loop": {"steps": 4_000},
    },
}
"""Settings of each phase; `store` is the name of its file."""


def phase_config(name: str, stores: Path, previous: Path | None, changes: dict[str, Any]) -> PretrainConfig:
    """Return the settings of a phase, with changes of loop settings from the command line."""
    phase = PHASES[name]
    values: dict[str, Any] = {
        "model": {"encoder": ENCODER, "spectrum_encoder": phase.get("spectrum_encoder")},
        "data": {"store": str(stores / f"{phase['store']}.arrow")},
        "optimizer": phase.get("optimizer", OPTIMIZER),
        "loop": LOOP | phase["loop"] | changes,
        "weights": phase.get("weights", {}),
        "spectra": phase.get("spectra", {}),
        "init": None if previous is None else str(previous),
    }
    return from_dict(PretrainConfig, values, name)


def with_spectra(levels: Path, out: Path) -> None:
    """Write the store of the molecules that have more than a density of states."""
    if out.exists():
        return
    store = Store(levels)
    rows = np.flatnonzero(store.has("uv_vis") | store.has("ir"))
    write_store(out, (store.row(row) for row in rows.tolist()), store.metadata)


def main() -> None:
    """Start or continue the phases."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stores", type=Path, required=True, help="folder of levels.arrow")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs, one per phase")
    parser.add_argument("--only", nargs="+", choices=tuple(PHASES), default=tuple(PHASES))
    parser.add_argument("--set", nargs="+", default=(), metavar="NAME=VALUE", help="settings of the loop")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    options = parser.parse_args()
    prepare_process()
    try:
        changes = {}
        for setting in options.set:
            name, is_pair, value = setting.partition("=")
            if not is_pair:
                raise SettingError(f"--set {setting}: write NAME=VALUE")
            changes[name] = load_yaml(value)
        with_spectra(options.stores / "levels.arrow", options.stores / "spectra.arrow")
        previous: Path | None = None
        for name in PHASES:
            run = options.runs / name
            if name in options.only:
                config = phase_config(name, options.stores, previous, changes)
                pretrain(config, run, resume=True, show=not options.quiet)
                if not (run / "evaluation.json").exists():
                    evaluate(run)
            previous = run
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    except Interrupted as error:
        print(error, file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
