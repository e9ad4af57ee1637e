"""Whatever a file holds, a reader returns or raises an InputError of one line; libraries' errors do not pass.

`HYPOTHESIS_PROFILE=long` takes 2,000 contents per reader instead of 40 (see CONTRIBUTING.md).
"""

import json
import shutil
import warnings

import hostile_files
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molspectra.apps.loading import load
from molspectra.apps.molecules import candidates_of
from molspectra.apps.reference import read_checkpoint
from molspectra.apps.remote_models import unpack
from molspectra.chem.readers import FORMATS, from_smiles
from molspectra.data.store.store import Store
from molspectra.datasets.registry import importer
from molspectra.errors import InputError
from molspectra.search.manifest import read_manifest
from molspectra.simulation.records import read_journal
from molspectra.spectra.files.read import read_spectra
from molspectra.training.config import PretrainConfig
from molspectra.training.record import read_metrics
from molspectra.training.settings import from_dict, read_recipe


def entries(path):
    """Read all of a file of molecules; each record may be refused."""
    for entry in FORMATS[path.suffix[1:]](path):
        for read in (entry.molecule, entry.fields):
            refused_in_one_line(read)


def candidates(path):
    """Read all molecules that `embed` would see."""
    for _, read in candidates_of(path).items:
        refused_in_one_line(read)


def prepared(name, **options):
    """Return a reader of the first records of a dataset."""

    def read(path):
        path.with_name("uncharacterized.txt").write_text("1 a b c\n" * 3054)
        opened = importer(name).open(path, options)
        for number, candidate in enumerate(opened.candidates(0)):
            refused_in_one_line(candidate.row_in_angstrom)
            if number == 20:
                break

    return read


def model(path):
    """Load a model whose file this is."""
    folder = path.parent / "model"
    if not folder.exists():
        shutil.copytree(hostile_files.shipped(), folder)
    shutil.copy(path, folder)
    load(folder)


def manifest(path):
    """Read the manifest of an index."""
    read_manifest(path.parent)


def run_settings(path):
    """Read settings of a run."""
    from_dict(PretrainConfig, read_recipe(str(path)), "file")


def refused_in_one_line(read, *arguments):
    """Read; only an InputError of one line may be raised."""
    try:
        read(*arguments)
    except InputError as error:
        if len(str(error).splitlines()) != 1:
            pytest.fail(f"a message of several lines: {error!r}")


READERS = {
    "a.smi": (entries, "CCO ethanol\n# no\nC[N+](C)(C)C tma\nc1ccccc1\n"),
    "a.csv": (entries, 'smiles,name,gap [eV]\nCCO,"a, b",1.5\nC,,2\n'),
    "a.sdf": (entries, hostile_files.ONE + hostile_files.ONE.replace("$$$$", "> <gap>\n1\n\n$$$$")),
    "a.xyz": (entries, hostile_files.WATER + '1\nProperties=species:S:1:pos:R:3 charge=0 a="b"\nHe 0 0 0\n'),
    "a.parquet": (candidates, hostile_files.good_parquet),
    "a.arrow": (lambda path: [Store(path).molecule(0)], None),
    "a.jdx": (lambda path: read_spectra(path, outside="zero"), hostile_files.jcamp()),
    "b.jdx": (
        lambda path: read_spectra(path, outside="zero"),
        hostile_files.jcamp("##XYDATA=(X++(Y..Y))", "500A0S3%J"),
    ),
    "a.txt": (
        lambda path: read_spectra(path, "ir", outside="zero"),
        f"cm-1;absorbance\n{hostile_files.RAMP}\n".replace(" ", ";"),
    ),
    "a.log": (
        read_spectra,
        f"{hostile_files.GAUSSIAN} ---\n #p b3lyp/6-31g* freq\n ---\n NAtoms= 1\n"
        + " Standard orientation:\n ---\n Center Atomic\n ---\n 1 8 0 0.0 0.0 0.1\n ---\n"
        + " Frequencies -- 1500.0\n IR Inten -- 3.0\n Normal termination of Gaussian 16\n",
    ),
    "b.log": (
        read_spectra,
        f"{hostile_files.ORCA}|  1> ! B3LYP def2-SVP Freq\nCARTESIAN COORDINATES (ANGSTROEM)\n---\n"
        "  O 0.0 0.0 0.1\n  H 0.0 0.7 0.5\n\nIR SPECTRUM\n---\n 6: 1500.0 0.1 3.0 0.1 ( 0 0 0)\n\n"
        "****ORCA TERMINATED NORMALLY****\n",
    ),
    "a.yaml": (
        run_settings,
        "loop: {steps: 3, batch_size: 4}\nmodel:\n  encoder: {kind: et, channels: 16}\n",
    ),
    "a.npz": (
        prepared("md17"),
        lambda: hostile_files.with_numbers(hostile_files.npy("'<f8'", "(1, 1, 3)", bytes(24))),
    ),
    "a.tar.gz": (
        prepared("qm9", **{"keep-uncharacterised": "true"}),
        lambda: hostile_files.tarred(
            (
                hostile_files.FIRST,
                b"0",
                b"1\ngdb 1" + b"\t1.0" * 16 + b"\nHe 0 0 0 0\n1.0\n[He]\t[He]\nInChI=1S/He\tInChI=1S/He\n",
            )
        ),
    ),
    "pcqm4m-v2_xyz.zip": (
        prepared("pcqm4mv2"),
        lambda: hostile_files.zipped(**{"1__xyz": hostile_files.WATER.encode()}),
    ),
    "data_with_uv_ir_raman.pt": (
        prepared("qm9s-processed"),
        lambda: hostile_files.torch_file(hostile_files.tensor_code(1, (1,), (1,)), **{"0": bytes(4)}),
    ),
    "a.ckpt": (
        read_checkpoint,
        lambda: hostile_files.torch_file(hostile_files.tensor_code(1, (1,), (1,)), **{"0": bytes(4)}),
    ),
    "config.json": (model, lambda: (hostile_files.shipped() / "config.json").read_bytes()),
    "model.safetensors": (model, lambda: (hostile_files.shipped() / "model.safetensors").read_bytes()),
    "model.zip": (
        lambda path: unpack(path, path.parent / "unpacked"),
        lambda: hostile_files.zipped(config__json=b"{}", model__safetensors=b"x" * 100),
    ),
    "library.json": (
        manifest,
        json.dumps(
            {
                "format": 1,
                "model": {"hash": "0", "similarity": "cosine", "width": 4, "modalities": ["ir"]},
                "vectors": "float32",
                "modalities": ["ir"],
                "typical": {"ir": [0.0] * 875},
                "calibration": None,
                "segments": [{"name": "segment-000000", "rows": 1, "source": "a", "files": {"a": "0"}}],
                "approximate": None,
                "version": "1",
            }
        ),
    ),
    "a.jsonl": (
        lambda path: list(read_journal(path)),
        json.dumps(
            {
                "key": "a",
                "identity": "b",
                "smiles": "[He]",
                "name": None,
                "seconds": 1.0,
                "numbers": [2],
                "positions": [[0, 0, 0]],
                "charge": 0,
                "levels": {"ir": "x"},
                "properties": {"gap": [1.0, "eV", "x"]},
                "lines": {"ir": {"position": [1.0], "intensity": [1.0]}},
            }
        )
        + "\n{}\n",
    ),
    "metrics.csv": (read_metrics, "step,name,value,seconds\n1,loss,0.5,0.1\n2,loss,nan,0.2\n"),
}
"""Of each file name: its reader, and content that is good, or nearly so, to start from."""

EXAMPLES = settings().max_examples if settings().max_examples > 100 else 40

PIECES = [
    b"\0",
    b"\n",
    b" ",
    b"9" * 400,
    b"-1",
    b"1e400",
    b"nan",
    b"[",
    b"{",
    b'"',
    b",",
    b"\xff",
    b"\xff" * 8,
    b"null",
    b"\xe2\x80\xa8",
    b"[]",
    b"{}",
    b"1.5",
    b"0",
    b"\x7f\xff\xff\xff",
    b"true",
    b"\x1b[31m",
    b":",
]
CHANGES = st.lists(
    st.tuples(
        st.integers(0, 1 << 30),  # where, as a fraction
        st.integers(0, 12),  # bytes that are replaced there
        st.one_of(st.sampled_from(PIECES), st.binary(max_size=4)),
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    """Content to start from, by file name."""
    hostile_files.RUNS = tmp_path_factory.mktemp("starts")
    contents = {}
    for name, (_, content) in READERS.items():
        if content is None:
            content = hostile_files.store_bytes
        content = content() if callable(content) else content
        contents[name] = content.encode() if isinstance(content, str) else content
    return contents


def test_the_starts_reach_the_readers(starts, tmp_path):
    """These are good; those of outputs and archives lack what makes them whole."""
    for name in (
        "a.smi",
        "a.csv",
        "a.sdf",
        "a.xyz",
        "a.parquet",
        "a.arrow",
        "a.yaml",
        "a.npz",
        "config.json",
    ):
        (tmp_path / name).write_bytes(starts[name])
        READERS[name][0](tmp_path / name)


@pytest.mark.parametrize("name", READERS)
def test_changed_content_is_read_or_refused(name, starts, tmp_path):
    path, read, start = tmp_path / name, READERS[name][0], starts[name]
    head = min(len(start), 4000)  # of weights, the part that is not weights

    @settings(max_examples=EXAMPLES)
    @given(CHANGES, st.one_of(st.none(), st.integers(0, 1 << 30)))
    def check(changes, cut):
        content = start
        for where, length, new in changes:
            at = where * head >> 30
            content = content[:at] + new + content[at + length :]
        path.write_bytes(content if cut is None else content[: cut * len(content) >> 30])
        shutil.rmtree(path.parent / "unpacked", ignore_errors=True)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            refused_in_one_line(read, path)

    check()


@settings(max_examples=EXAMPLES)
@given(st.one_of(st.text(), st.text("CNOSPFcnos[]()=#+-.@/\\%0123456789H", max_size=60)))
def test_any_text_is_a_smiles_or_refused(text):
    refused_in_one_line(from_smiles, text)
