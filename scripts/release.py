"""Build wheel and source archive, check what is in them, and try the wheel in a clean environment.

    make release                                  # dist/*.whl and dist/*.tar.gz, a few minutes
    python scripts/release.py --python python3.12 # built and tried with another interpreter

The environment that the wheel is tried in is made from nothing, with the versions of constraints.txt; there
`molspectra doctor` must pass, and the shipped model must embed a molecule. Needs git and pip, nothing else.
The exit code is 1 at the first thing that is not right.
"""

import argparse
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
TORCH = next(line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("torch=="))

MB = 1_000_000
LARGEST_WHEEL, LARGEST_SOURCE = 15 * MB, 25 * MB
NEEDED = (
    "molspectra/py.typed",
    "molspectra/training/recipes/small-stage2.yaml",
    "molspectra/training/weights/small/model.safetensors",
    "molspectra/data/store/bundled/molecules.arrow",
    "molspectra/search/network.safetensors",
)
"""One file of each kind that the package needs at run time and that is not Python."""
SOURCE_FOLDERS = {"src", "tests", "docs", "benchmarks", "scripts", "examples", "datasets"}


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command and return what it printed; one that fails ends the release."""
    words = [str(part) for part in command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-15:]
        fail(f"{' '.join(words[:6])} failed\n" + "\n".join(said))
    return done.stdout


def fail(reason: str) -> None:
    """End with a reason."""
    sys.exit(f"release: {reason}")


def check_clean() -> None:
    """What is released must be what is committed."""
    changed = run("git", "status", "--porcelain").strip()
    if changed:
        fail(f"not everything is committed:\n{changed}")


def build(python: str, folder: Path) -> tuple[Path, Path]:
    """Build both archives in an environment of their own; returns wheel and source archive."""
    run(python, "-m", "venv", folder / "build")
    tool = folder / "build" / "bin" / "python"
    run(tool, "-m", "pip", "install", "-q", "build")
    run(tool, "-m", "build", "--outdir", folder / "dist", ROOT)
    (wheel,), (source,) = ((folder / "dist").glob(pattern) for pattern in ("*.whl", "*.tar.gz"))
    return wheel, source


def check_wheel(wheel: Path) -> str:
    """Look at size, folders, kinds of files, licence; returns a line about it."""
    size = wheel.stat().st_size
    if size > LARGEST_WHEEL:
        fail(f"{wheel.name}: {size / MB:.1f} MB, at most {LARGEST_WHEEL / MB:.0f} are allowed")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    inside = [name for name in names if name.startswith("molspectra/")]
    about = [name for name in names if name.split("/")[0].endswith(".dist-info")]
    if len(inside) + len(about) != len(names):
        fail(f"{wheel.name}: more than the package: {sorted({*names} - {*inside} - {*about})[:3]}")
    if not any(name.endswith("licenses/LICENSE") for name in about):
        fail(f"{wheel.name}: no licence")
    tracked = set(run("git", "ls-files", "src").splitlines())
    for name in inside:
        if f"src/{name}" not in tracked:
            fail(f"{wheel.name}: {name} is not in the repository")
    missing = [name.removeprefix("src/") for name in tracked if name.removeprefix("src/") not in inside]
    missing += [name for name in NEEDED if name not in names]
    if missing:
        fail(f"{wheel.name}: without {missing[0]}")
    return f"{wheel.name}: {size / MB:.1f} MB, {len(inside)} files"


def check_source(source: Path) -> str:
    """Look at size and folders; returns a line about it."""
    size = source.stat().st_size
    if size > LARGEST_SOURCE:
        fail(f"{source.name}: {size / MB:.1f} MB, at most {LARGEST_SOURCE / MB:.0f} are allowed")
    with tarfile.open(source) as archive:
        paths = [Path(name).parts[1:] for name in archive.getnames()]
    folders = {parts[0] for parts in paths if len(parts) > 1}
    if folders != SOURCE_FOLDERS or ("LICENSE",) not in paths:
        fail(f"{source.name}: holds {sorted(folders)}, expected {sorted(SOURCE_FOLDERS)} and LICENSE")
    return f"{source.name}: {size / MB:.1f} MB, {len(paths)} files"


def try_wheel(wheel: Path, python: str, folder: Path) -> list[str]:
    """Install the wheel where nothing else is, and use it; returns lines about it."""
    run(python, "-m", "venv", folder / "user")
    binaries = folder / "user" / "bin"
    pip = (binaries / "python", "-m", "pip", "install", "-q", "-c", CONSTRAINTS)
    run(*pip, TORCH)
    run(*pip, wheel)
    where = run(binaries / "python", "-c", "import molspectra; print(molspectra.__file__)", cwd=folder)
    if not Path(where.strip()).is_relative_to(folder):
        fail(f"another molspectra was imported: {where.strip()}")
    doctor = run(binaries / "molspectra", "doctor", cwd=folder).strip().splitlines()
    embed = ("embed", "--smiles", "CCO", "--model", "small", "--out", "vectors.npy")
    run(binaries / "molspectra", *embed, cwd=folder)
    if not (folder / "vectors.npy").is_file():
        fail("embed wrote nothing")
    version = run(binaries / "python", "--version").strip()
    return [f"{version}, {TORCH}: doctor: {doctor[-1]}", "embed: one molecule"]


def main() -> None:
    """Build, check, try, and only then put the archives into dist/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="builds and tries the wheel")
    chosen = parser.parse_args()
    check_clean()
    with TemporaryDirectory(prefix="release-") as temporary:
        folder = Path(temporary)
        wheel, source = build(chosen.python, folder)
        print(check_wheel(wheel), check_source(source), sep="\n", flush=True)
        print(*try_wheel(wheel, chosen.python, folder), sep="\n")
        (ROOT / "dist").mkdir(exist_ok=True)
        for archive in (wheel, source):
            (ROOT / "dist" / archive.name).write_bytes(archive.read_bytes())
    print("both are in dist/")


if __name__ == "__main__":
    main()
