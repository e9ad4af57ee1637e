"""Write one small file of every format that the package keeps, for the tests of all later versions.

    python scripts/make_golden.py tests/golden/VERSION      # once, with the version that is released

The test `tests/test_golden.py` reads them with the code of its day and compares the numbers in expected.json.
A folder once made is never made again: that is what it is for.
"""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from molspectra import Library, embed, embed_spectra, predict
from molspectra.data.store.bundled import bundled
from molspectra.data.store.internal import InternalFile, internal_path, prepare_internal
from molspectra.data.store.store import Metadata, Row, Store, write_store
from molspectra.models.config import EquivariantTransformerConfig, ModelConfig, SpecFormerConfig
from molspectra.search.build import build
from molspectra.simulation.api import Property, Simulation
from molspectra.simulation.records import Journal, Record, key_of, read_journal
from molspectra.training.checkpoint import find_checkpoint, read_resume
from molspectra.training.config import DataConfig, FinetuneConfig, LoopConfig, PretrainConfig
from molspectra.training.run import finetune, pretrain
from molspectra.training.seen import Seen

ROWS = range(300, 1500, 100)
ENCODER = EquivariantTransformerConfig(channels=8, layers=1, heads=2, radial=8)
SPECFORMER = SpecFormerConfig(
    modalities=("ir",), width=4, heads=2, layers=1, feed_forward=4, patch=(250,), stride=(125,)
)
LEVEL = "made up"


def make() -> None:
    """Make everything in the current folder, with relative paths."""
    whole = bundled()
    about = whole.metadata
    properties = {"gap": about.properties["gap"]}
    rows = [whole.row(row) for row in ROWS]
    write_store(
        Path("store.arrow"),
        [Row(row.molecule, {"ir": row.spectra["ir"]}, {"gap": row.properties["gap"]}) for row in rows],
        Metadata(about.source, about.licence, about.level, {"ir": about.lines["ir"]}, properties=properties),
    )
    loop = LoopConfig(steps=4, batch_size=4, validate_every=4, save_every=0, log_every=1, kernels="plain")
    shared = {
        "data": DataConfig(store="store.arrow", split="reference", sizes=(8, 2, 2)),
        "loop": loop,
    }
    pretrain(PretrainConfig(model=ModelConfig(ENCODER), **shared), "stage1", show=False)
    both = ModelConfig(ENCODER, SPECFORMER)
    pretrain(PretrainConfig(model=both, init="stage1", **shared), "stage2", show=False)
    head = ModelConfig(ENCODER, property="scalar")
    finetune(FinetuneConfig(model=head, target="gap", init="stage1", **shared), "gap", show=False)
    build("index", Path("store.arrow"), "stage2", calibration=None)
    prepare_internal(Store("store.arrow"), show=False)
    with Journal("journal.jsonl") as journal:
        row = rows[0]
        levels = {"ir": LEVEL, "zpve": LEVEL}
        lines = {"ir": row.spectra["ir"]}
        simulation = Simulation(row.molecule, lines, {"zpve": Property(0.5, "eV", LEVEL)}, levels)
        key = key_of(row.molecule, levels)
        journal.append(
            Record(key, row.molecule.identity, row.molecule.smiles, None, 1.5, simulation=simulation)
        )
        journal.append(Record("other", "AAAAAAAAAAAAAA", None, None, 0.5, error="made up"))
    for run in ("stage1", "stage2", "gap"):
        for best in Path(run).glob("checkpoints/best-*"):  # the same weights once more
            shutil.rmtree(best)
        if run != "stage1":  # one resume state is enough
            next(Path(run).glob("checkpoints/*/resume.pt")).unlink()
        record = json.loads(Path(run, "record.json").read_text())
        text = json.dumps(record | {"machine": {}, "commit": None})
        Path(run, "record.json").write_text(text.replace(f"{Path.cwd()}/", ""))
    for path in Path().glob("*/seen.safetensors"):  # without the folder in which it was made
        seen = Seen.read(path)
        runs = json.loads(json.dumps([dict(run) for run in seen.runs]).replace(f"{Path.cwd()}/", ""))
        replace(seen, runs=tuple(runs)).save(path)


def _store() -> object:
    store = Store("store.arrow")
    store.verify()
    batch = store.batch(range(len(store)), modalities=("ir",), targets=("gap",))
    gap, spectra = batch.targets["gap"].tolist(), batch.spectra["ir"].sum(1).tolist()
    return {"gap": gap, "atoms": np.diff(batch.ptr).tolist(), "ir": spectra}


def _internal() -> object:
    store = Store("store.arrow")
    batch = store.batch(range(len(store)))
    internal = InternalFile(internal_path(store), store.hash, len(store)).batch(batch.row, batch.ptr)
    return {"torsions": internal.torsions.atoms.tolist(), "sigma": internal.bonds.sigma.tolist()}


def _stage1() -> object:
    state = read_resume(find_checkpoint("stage1", "last"))
    return {"step": state["step"], "vectors": embed("store.arrow", "stage1").vectors[:2].tolist()}


def _stage2() -> object:
    vectors = [call("store.arrow", "stage2").vectors[:2].tolist() for call in (embed, embed_spectra)]
    return {"structures": vectors[0], "spectra": vectors[1]}


def _seen() -> object:
    return Seen.read(Path("stage2/seen.safetensors")).summary()


def _gap() -> object:
    return predict("store.arrow", "gap").values.tolist()


def _index() -> object:
    hits = Library("index").search({"ir": Store("store.arrow").spectrum(5, "ir")}, by="embedding", top=3)
    return {"smiles": [hit["smiles"] for hit in hits], "scores": [hit["score"] for hit in hits]}


def _journal() -> object:
    good, bad = read_journal("journal.jsonl")
    assert good.simulation is not None
    return [good.key, good.simulation.properties["zpve"].value, bad.error]


READ = {
    "store": _store,
    "internal": _internal,
    "stage1": _stage1,
    "stage2": _stage2,
    "seen": _seen,
    "gap": _gap,
    "index": _index,
    "journal": _journal,
}
"""What reading each file of the current folder gives, as JSON values."""


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    os.chdir(folder)
    make()
    Path("expected.json").write_text(json.dumps({name: read() for name, read in READ.items()}) + "\n")
