"""Pre-train the shipped model "base" on QM9 structures, their densities of states and their spectra; pack it.

    python scripts/build_base.py --stores DIR --runs DIR [--only PHASE ...] [--set NAME=VALUE ...]

`--stores` holds levels.arrow, made by scripts/compute_levels.py and then scripts/prepare_subsets.py
--levels. Each of four phases starts from the one before. `stage1` denoises all structures. `levels` aligns
all of them with their densities of states, and predicts these; `levels2` goes on with batches twice as large,
among which a molecule is harder to tell. `spectra` is stage 2 on the molecules with IR, Raman or UV-Vis
spectra, with modality dropout; it predicts the spectra too. The split is by identity, so the
test part of every phase holds the same molecules. Stopped at any moment, the same command continues bit for
bit. Then the weights are packed, what was packed is tested, and the model card is written from that.
"""

import argparse
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from shipping import pack, test, write_card

from molspectra import pretrain
from molspectra.apps.process import prepare_process
from molspectra.data.store.bundled import bundled
from molspectra.data.store.store import Store
from molspectra.data.store.writer import Row, write_store
from molspectra.errors import InputError, SettingError
from molspectra.training.checkpoint import shipped_path
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
PREDICTION = {"denoising": 0.0, "reconstruction": 0.0, "spectrum": 1.0}
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
        "weights": PREDICTION,
        "loop": {"steps": 8_000},
    },
    "levels2": {
        "store": "levels",
        "spectrum_encoder": LEVELS,
        "weights": PREDICTION,
        "optimizer": OPTIMIZER | {"learning_rate": 7.0e-4},
        "loop": {"steps": 8_000, "batch_size": 128},
    },
    "spectra": {
        "store": "spectra",
        "spectrum_encoder": SPECTRA,
        # The loss of a masked patch is a fiftieth of the others: its unit is a squared log10(s + 1).
        "weights": {"denoising": 0.0, "spectrum": 1.0, "reconstruction": 20.0},
        "spectra": {
            "dropout": 0.5,
            "share": 0.5,  # half of the spectra as if they were measured
            "shift": 0.83,
            "scale": [0.96, 1.0],
            "width": [1.0, 2.5],
            "gain": [0.5, 2.0],
            "drift": 0.02,
            "noise": 0.005,
        },
        "alignment": {"masked": True},  # one pass of SpecFormer for alignment and masked patches
        "optimizer": OPTIMIZER | {"encoder_factor": 0.5},
        "loop": {"steps": 6_000},
    },
}
"""Settings of each phase; `store` is the name of its file."""


VERSION = 2
"""Version of the weights; increase it when they change."""

MAX_BYTES = 12_000_000
"""Largest size of the weights in the package, bytes."""

INTRO = (
    "The pre-trained model that comes with molspectra: `molspectra.load()`. It has learnt QM9's structures, "
    "the orbital energies of all of them and the vibrational and electronic spectra of a part."
)

LIMITS = (
    "Trained on neutral closed-shell molecules of at most nine heavy atoms, mostly C, N, O and F at B3LYP "
    "geometries; those with S and Cl are a few hundred of at most seven. Other elements are refused, larger "
    "molecules embedded without any promise.",
    "Spectra are simulated (GFN2-xTB vibrations, CC2 excitations of QM8, of which there are two), with the "
    "errors of their level of theory, and broadened by the default widths.",
    "Intensities are absolute (km/mol, Å⁴/amu): a spectrum in other units is another spectrum to this model.",
    "Mirror images have the same embedding, conformers of a molecule similar ones.",
    "One training run with one seed.",
)


def phase_config(name: str, stores: Path, previous: Path | None, changes: dict[str, Any]) -> PretrainConfig:
    """Return the settings of a phase, with changes of loop settings from the command line."""
    phase = PHASES[name]
    values: dict[str, Any] = {
        "model": {"encoder": ENCODER, "spectrum_encoder": phase.get("spectrum_encoder")},
        "data": {"store": str(stores / f"{phase['store']}.arrow")},
        "optimizer": phase.get("optimizer", OPTIMIZER),
        "loop": LOOP | phase["loop"] | changes,
        "weights": phase.get("weights", {}),
        "alignment": phase.get("alignment", {}),
        "spectra": phase.get("spectra", {}),
        "init": None if previous is None else str(previous),
    }
    return from_dict(PretrainConfig, values, name)


def with_spectra(levels: Path, out: Path) -> None:
    """Write the store of the molecules that have IR, Raman or UV-Vis spectra, and of the bundled ones.

    The bundled molecules bring sulphur and chlorine. Their vibrations are of the same level, GFN2-xTB; their
    UV-Vis spectra are of another one, which a model would have to tell from QM8's, so they are left out.
    """
    if out.exists():
        return
    store, extra = Store(levels), bundled()
    declared = store.metadata.lines

    def vibrations(row: Row) -> Row:
        spectra = {name: replace(row.spectra[name], level=declared[name]) for name in ("ir", "raman")}
        return replace(row, spectra=spectra, properties={})

    rows = np.flatnonzero(store.has("uv_vis") | store.has("ir"))
    bundled_rows = map(vibrations, map(extra.row, range(len(extra))))
    metadata = replace(store.metadata, source=f"{store.metadata.source}; {extra.metadata.source}")
    write_store(out, chain(map(store.row, rows.tolist()), bundled_rows), metadata)


def ship(runs: Path, out: Path) -> None:
    """Pack the last phase, test what was packed, and write the model card."""
    pack(runs / "spectra", out, "base", VERSION, MAX_BYTES)
    result = test(runs / "spectra", out, runs / "shipped")
    loops = {name: LOOP | phase["loop"] for name, phase in PHASES.items()}
    steps = {name: f"{loop['steps']:,} steps of {loop['batch_size']}" for name, loop in loops.items()}
    facts = {
        "encoder": "equivariant transformer, 6 layers × 128 channels, cutoff 5 Å",
        "spectrum encoder": "SpecFormer, 3 layers × width 96, patches that do not overlap",
        "data": "QM9 geometries (CC0) with GFN2-xTB levels and lines, QM8 excitations, the bundled molecules",
        "phase 1": f"{steps['stage1']}: denoising",
        "phase 2": f"{steps['levels']}: alignment with densities of states, which are predicted too",
        "phase 3": f"{steps['levels2']}: the same",
        "phase 4": f"{steps['spectra']}: alignment with IR, Raman and UV-Vis, masked patches, prediction",
        "made by": "`python scripts/build_base.py --stores DIR --runs DIR`, whose settings are complete",
    }
    write_card(out, INTRO, facts, result, LIMITS)


def main() -> None:
    """Start or continue the phases."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stores", type=Path, required=True, help="folder of levels.arrow")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs, one per phase")
    parser.add_argument("--only", nargs="+", choices=tuple(PHASES), default=tuple(PHASES))
    parser.add_argument("--set", nargs="+", default=(), metavar="NAME=VALUE", help="settings of the loop")
    parser.add_argument("--out", type=Path, default=shipped_path("base"), help="where the model goes")
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
            previous = run
        if "spectra" in options.only:
            ship(options.runs, options.out)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    except Interrupted as error:
        print(error, file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
