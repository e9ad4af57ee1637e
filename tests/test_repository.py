"""What holds for the repository as a whole: what is tracked, the metadata, the safety of the source."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import molspectra

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
KB = 1000


def tracked():
    """Tracked files; those of the folders that a source archive holds where there is no checkout."""
    if (ROOT / ".git").exists():
        listing = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
        )
        return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).exists()]
    folders = ("src", "tests", "docs", "scripts", "examples", "datasets", "benchmarks")
    return [p for folder in folders for p in (ROOT / folder).rglob("*") if p.is_file() and p.suffix != ".pyc"]


def text_of(path):
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def test_no_path_or_registry_of_one_machine():
    forbidden = re.compile(
        r"(?<![\w.])/(?:work|root|opt|Users|home/\w+|mnt)/"  # absolute paths
        r"|file:/{2}|(?:extra-)?index-ur[l]|find-link[s]|trusted-hos[t]"  # where packages come from
        r"|/simple[/\s]|pypi\.or[g]"
    )
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked()
        if path != Path(__file__).resolve()
        for match in forbidden.finditer(text_of(path))
    ]
    assert found == []


def test_no_large_files():
    bundled = "src/molspectra/data/store/bundled/"
    weights = "src/molspectra/training/weights/"
    limits = {
        bundled: 8000 * KB,
        f"{weights}base/": 12_000 * KB,
        weights: 3000 * KB,
        "src/molspectra/search/network.safetensors": 500 * KB,
        "src/molspectra/apps/explorer/static/vendor/": 1200 * KB,
        "tests/": 700 * KB,
        "docs/": 700 * KB,
        "requirements.lock": 350 * KB,  # the hashes of every file of 190 packages
    }
    for path in tracked():
        name = path.relative_to(ROOT).as_posix()
        limit = next((size for start, size in limits.items() if name.startswith(start)), 200 * KB)
        assert path.stat().st_size <= limit, name
    assert (ROOT / "datasets" / "bundled" / "molecules.csv").stat().st_size <= 100 * KB


def test_nothing_that_is_made_is_tracked():
    made = re.compile(r"(^|/)(\.venv|__pycache__|runs|_build|\.hypothesis)/|\.py[co]$")
    assert [name for p in tracked() if made.search(name := p.relative_to(ROOT).as_posix())] == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/index.md"])
def test_pages_name_targets_that_exist(page):
    targets = set(
        re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert {"demo", "test", "lint", "docs", "bench"} <= targets
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE))
    assert named
    assert named <= targets


def test_readme_opens_with_the_two_commands():
    opening = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:8]
    assert [line.split()[1] for line in opening if line.startswith("make ")] == ["demo", "test"]


def test_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == molspectra.__version__
    assert molspectra.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert PROJECT["dynamic"] == ["version"]


def pins(file="constraints.txt"):
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    pairs = [re.split(r"==|[\s;]+", line)[:2] for line in lines if line and line[0] not in "# "]
    return {name.lower().replace("_", "-"): Version(version) for name, version in pairs}


@pytest.mark.parametrize("extra", [None, "simulate", "files", "fast", "dev"])
def test_exact_versions_satisfy_the_metadata(extra):
    exact = pins()
    requirements = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    for requirement in map(Requirement, requirements):
        assert exact[requirement.name.lower()] in requirement.specifier, requirement


def test_torch_is_pinned_without_a_build():
    assert pins()["torch"] == Version("2.13.0")


def test_the_lock_holds_hashes_of_the_exact_versions():
    assert pins("requirements.lock").items() == pins().items() - {("torch", pins()["torch"])}
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    for entry in re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]:
        assert re.search(r"^    --hash=sha256:[0-9a-f]{64}", entry, re.MULTILINE), entry
    assert not re.search(r"https?:|file:|index-url|find-links", text)


def test_extras():
    assert set(PROJECT["optional-dependencies"]) == {
        "simulate",
        "fast",
        "files",
        "hub",
        "search",
        "explorer",
        "cluster",
        "floors",
        "sklearn",
        "tune",
        "trackers",
        "dev",
    }


def test_ci_runs_what_people_run():
    steps = re.findall(
        r"^part \w+ make (\w+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {"lint", "test", "docs", "demo"} <= set(steps)
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100


def calls(tree):
    """(dotted name, call) for each call in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keyword(call, name):
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT / "src" / "molspectra").as_posix())
def test_no_code_from_data(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            banned = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
            assert banned.isdisjoint(name.partition(".")[0] for name in names), ast.unparse(node)
    for name, call in calls(tree):
        assert name not in {"eval", "exec", "compile", "os.system", "yaml.unsafe_load", "yaml.full_load"}, (
            name
        )
        if name == "torch.load":
            assert keyword(call, "weights_only") == "True", ast.unparse(call)
        if name == "yaml.load":
            assert "unsafe" not in ast.unparse(call).lower(), ast.unparse(call)
        if name in {"np.load", "numpy.load"}:
            assert keyword(call, "allow_pickle") in {None, "False"}, ast.unparse(call)
        assert keyword(call, "shell") in {None, "False"}, ast.unparse(call)


def test_package_is_typed_and_its_folders_are_packages():
    package = ROOT / "src" / "molspectra"
    assert (package / "py.typed").exists()
    for path in SOURCES:
        assert (path.parent / "__init__.py").exists(), path.parent


def test_every_import_is_declared():
    extras = PROJECT["optional-dependencies"]
    declared = {Requirement(r).name.lower().replace("-", "_") for r in PROJECT["dependencies"]}
    declared |= {Requirement(r).name.lower().replace("-", "_") for name in extras for r in extras[name]}
    declared |= {
        "yaml",
        "zmq",
        "faiss",
        "sklearn",
        "mlflow",
        "llvmlite",  # comes with numba, in the version that belongs to it
        "molspectra",
        "_typeshed",  # exists for type checkers only
        *sys.stdlib_module_names,
    }  # modules named unlike their packages
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            assert {name.partition(".")[0] for name in names} <= declared, f"{path.name}: {names}"
