"""Scripts of others in the explorer: unchanged, and with their licence."""

import hashlib
import re
from pathlib import Path

import molspectra

FOLDER = Path(molspectra.__file__).parent / "apps" / "explorer" / "static" / "vendor"


def test_every_script_is_the_one_of_the_table():
    table = re.findall(
        r"^\| `([^`]+)` \| (.+?) \| .+?`([^`]+)` \| `([0-9a-f]{64})` \|$",
        (FOLDER / "README.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert {path.name for path in FOLDER.glob("*.js")} == {name for name, *_ in table}
    for name, package, licence, digest in table:
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest, name
        assert re.match(r"\S+ \d+\.\d+\.\d+, ", package)
        assert "Redistribution" in (FOLDER / licence).read_text(encoding="utf-8")


def test_no_script_of_the_frames_reaches_elsewhere():
    own = [path for path in FOLDER.parent.rglob("*") if path.suffix in (".js", ".css", ".html")]
    assert own
    for path in own:
        if path.parent != FOLDER:
            assert not re.search(
                r"https?:|//[a-z]+\.|fetch\(|XMLHttpRequest|innerHTML", path.read_text("utf-8")
            ), path
