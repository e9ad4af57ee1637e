"""Everything that docs/find_molecules.md shows is done here, in its order."""

import re
import shlex
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from molspectra.apps.cli import main
from molspectra.data.store.bundled import bundled
from molspectra.search.library import Library

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/find_molecules.md"
BLOCK = re.compile(r"```\{code-block\} (\w+)\n(?::caption: ([^\n]*)\n)?\n?(.*?)\n```", re.DOTALL)


def test_the_commands_and_programs_of_the_page(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    done = []
    for language, caption, body in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(body, PAGE.name, "exec"), {})
        elif language == "bash":
            for command in body.splitlines():
                program, *arguments = shlex.split(command)
                assert program == "molspectra"
                done.append(arguments[0])
                if arguments[0] == "pretrain":  # minutes; a run of seconds takes its place
                    shutil.copytree(run, arguments[arguments.index("--out") + 1])
                elif "--approximate" not in arguments or find_spec("faiss"):
                    assert main(arguments) == 0, capsys.readouterr().err
        elif caption:
            Path(caption).write_text(body + "\n", encoding="utf-8")
    assert {"pretrain", "index", "search"} <= set(done)
    assert Path("hits.csv").is_file()

    library, store = Library("index"), bundled()
    assert len(library) == len(store)
    calibration = library.manifest.calibration
    assert calibration.queries >= 8
    assert calibration.accuracy["shape:ir+raman"] > calibration.accuracy["cosine:ir+raman"]
    spectra = {name: store.spectrum(100, name) for name in ("ir", "raman")}
    hits = library.search(spectra, by="cosine", formula=store.molecule(100).formula)
    assert next(iter(hits))["row"] == 100


def test_the_page_names_every_option_and_way(capsys):
    from molspectra.search.score import WAYS

    text = PAGE.read_text(encoding="utf-8")
    for command in ("index", "search"):
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        for option in re.findall(r"(--[a-z][a-z-]+)", capsys.readouterr().out):
            assert option in (*text.split(), "--help") or f"`{option}" in text, option
    for way in WAYS:
        assert f"| `{way}` |" in text
