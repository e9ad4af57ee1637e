"""The explorer in a real browser; where there is none, these tests are skipped, but not in CI.

Most is done by keyboard: it must work so, and just after the page has scrolled, a slow browser gives a click
to the frame that was at its place before.
"""

import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gradio")
pytest.importorskip("tblite")
playwright = pytest.importorskip("playwright.sync_api")

from molspectra.data.store.bundled import bundled
from molspectra.data.store.store import write_store
from molspectra.search.build import build

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
SETTLED = 1_500
"""Milliseconds before a click that must not go to a frame that has moved."""

NAMES = {"acetone", "2-butanone", "ethanol", "methanol", "acetonitrile", "1-nitropropane", "propane", "water"}

if CHROMIUM is None and "MOLSPECTRA_NEEDS_BROWSER" not in os.environ:
    pytest.skip("needs Chromium", allow_module_level=True)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """An index of some molecules of the bundled library."""
    library, folder = bundled("bundled-library"), tmp_path_factory.mktemp("explorer")
    rows = [library.row(row) for row in range(0, len(library), 60)]
    rows += [row for row in map(library.row, range(len(library))) if row.molecule.name in NAMES]
    unique = {row.identity: row for row in rows}
    write_store(folder / "some.arrow", unique.values(), library.metadata)
    build(folder / "index", folder / "some.arrow", calibration=None)
    return folder / "index"


@pytest.fixture(scope="module")
def explorer(index, runs, tmp_path_factory):
    """The address of a running explorer, which ends well and leaves nothing behind."""
    temporary, cache = tmp_path_factory.mktemp("temporary"), tmp_path_factory.mktemp("cache")
    folder = tmp_path_factory.mktemp("runs")
    for name in ("stage2", "gap-scratch-0"):
        shutil.copytree(runs[name], folder / name)
    command = [
        sys.executable,
        "-m",
        "molspectra",
        "explore",
        str(index),
        "--no-browser",
        "--runs",
        str(folder),
    ]
    places = {"TMPDIR": str(temporary), "MOLSPECTRA_CACHE": str(cache)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | places)
    line = process.stderr.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+/", line)
    assert found, line + process.stderr.read()
    yield found[0]
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 0, told
    assert "Traceback" not in told
    assert list(temporary.iterdir()) == []


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as driver:
        options = ["--no-sandbox", "--enable-unsafe-swiftshader", "--use-angle=swiftshader"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


class Visit:
    """A visitor of the page: its requests, and what went wrong in its scripts."""

    def __init__(self, chromium, address):
        self.context = chromium.new_context(viewport={"width": 1366, "height": 768})
        self.page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.requests, self.wrong = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.wrong.append("a dialog"), dialog.dismiss()))
        self.page.goto(address)
        self.page.locator("#run-identify").wait_for()

    def choose(self, list_, text):
        self.page.wait_for_timeout(SETTLED)
        self.page.locator(f"{list_} input").click()
        self.page.get_by_role("option", name=text).click()

    def example(self, number):
        self.choose("#example", f"unknown {'AB'[number]}")

    def upload(self, path):
        self.page.locator("input[type=file]").first.set_input_files(path)

    def told(self, text):
        self.page.locator("#identify-told", has_text=text).wait_for()
        return self.page.locator("#identify-told").inner_text()

    @property
    def first(self):
        return self.page.locator("#candidates button").first

    @property
    def answer(self):
        return self.page.frame_locator("#answer iframe")


@pytest.fixture
def visit(chromium, explorer):
    visits = []

    def come():
        visits.append(Visit(chromium, explorer))
        return visits[-1]

    yield come
    for each in visits:
        each.context.close()
        assert each.wrong == []
        outside = [url for url in each.requests if not url.startswith((explorer, "blob:", "data:", "about:"))]
        assert outside == []


def test_from_an_example_to_the_motion_of_a_band(visit, tmp_path):
    one = visit()
    one.example(0)
    one.told("unknown-A.csv")
    one.first.wait_for()
    assert "1. acetone" in one.first.inner_text()
    assert "C3H6O" in one.first.inner_text()
    one.answer.locator("body[data-ready=yes]").wait_for()
    band = one.answer.locator(".bands button").first
    assert "1738" in band.inner_text()
    assert "C=O stretch" in band.inner_text()
    assert one.answer.locator("#viewer canvas").count() == 1
    band.press("Enter")  # by keyboard
    one.answer.locator("#viewer[data-moving=yes]").wait_for()
    assert "C=O stretch" in one.answer.locator("#motion").inner_text()
    assert band.get_attribute("aria-pressed") == "true"
    one.page.locator("#candidates button").nth(1).press("Enter")
    one.page.locator("#answer h3", has_text="2. ").wait_for()
    one.page.locator("#export").press("Enter")
    with one.page.expect_download() as download:
        one.page.locator("#exported a[download='candidates.csv']").click()
    assert "acetone" in Path(download.value.path()).read_text(encoding="utf-8")


def test_settings_change_the_answer(visit):
    one = visit()
    one.page.locator("#formula input, #formula textarea").first.fill("C2H6O")
    one.example(1)
    assert "ethanol" in one.first.inner_text()
    one.page.locator("#formula input, #formula textarea").first.fill("C2H6O7")
    one.page.locator("#run-identify").press("Enter")
    one.told("no molecule of the library passes the filters")
    one.page.locator("#formula input, #formula textarea").first.fill("acetone")
    one.page.locator("#run-identify").press("Enter")
    one.told("acetone")
    assert one.page.locator("#identify-told [role=alert]").count() == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.csv", b""),
        ("noise.jdx", bytes(range(256)) * 20),
        ("words.csv", b"this, is\nno, spectrum\n"),
        ("nounit.csv", b"1000,0.1\n1001,0.2\n1002,0.3\n" * 10),
        ("page.html", b"<script>alert(1)</script>"),
    ],
)
def test_a_bad_file_is_one_line_and_the_page_goes_on(visit, tmp_path, name, content):
    one = visit()
    (tmp_path / name).write_bytes(content)
    one.upload(tmp_path / name)
    alert = one.page.locator("#identify-told [role=alert]")
    alert.wait_for()
    assert 10 < len(alert.inner_text()) < 1_000
    assert "fault of the program" not in alert.inner_text()
    one.example(0)
    one.told("unknown-A.csv")


def test_names_of_files_are_text(visit, tmp_path):
    axis = np.arange(500.0, 4000.0, 2.0)
    values = np.exp(-(((axis - 1700) / 20) ** 2))
    path = tmp_path / "{{7*7}} ${7*7} <img src=x onerror=alert(1)>.csv"
    np.savetxt(path, np.column_stack([axis, values]), delimiter=",", header="cm-1,absorbance", comments="")
    one = visit()
    one.upload(path)
    told = one.told("candidates")
    assert "49" not in told.split(":")[0]
    assert one.page.locator("#identify-told img").count() == 0
    one.first.wait_for()


def test_a_file_that_is_too_large_is_refused(visit, tmp_path):
    one = visit()
    (tmp_path / "large.csv").write_bytes(b"1,2\n" * 6_000_000)
    one.upload(tmp_path / "large.csv")
    one.told("at most 20 MB")
    one.example(0)
    one.told("unknown-A.csv")


def test_two_visitors_have_answers_of_their_own(visit, tmp_path):
    one, two = visit(), visit()
    one.example(0)
    two.example(1)
    one.told("unknown-A.csv")
    two.told("unknown-B.csv")
    assert "acetone" in one.first.inner_text()
    assert "ethanol" in two.first.inner_text()
    (tmp_path / "bad.csv").write_bytes(b"nothing")
    two.upload(tmp_path / "bad.csv")
    two.page.locator("#identify-told [role=alert]").wait_for()
    one.page.locator("#candidates button").nth(1).press("Enter")
    one.page.locator("#answer h3", has_text="2. ").wait_for()
    assert "unknown-A.csv" in one.page.locator("#identify-told").inner_text()


def test_a_molecule_typed_and_simulated(visit):
    one = visit()
    page = one.page
    page.get_by_role("tab", name="Molecule").press("Enter")
    page.get_by_label("SMILES").fill("CC(C)=O")
    page.get_by_label("SMILES").press("Enter")
    drawing = page.frame_locator("#molecule-drawing iframe")
    drawing.locator("body[data-ready=yes]").wait_for()
    assert drawing.locator("[data-panel]").count() == 3  # predicted
    assert "10 atoms" in page.locator("#molecule-told").inner_text()
    page.locator("#nearest button").first.wait_for()
    assert "acetone" in page.locator("#nearest button").first.inner_text()
    page.locator("#run-simulate").press("Enter")
    page.locator("#simulate-told", has_text="Simulated in").wait_for()
    vibration = drawing.locator("button[data-vibration]", has_text="C=O stretch").first
    vibration.press("Enter")
    drawing.locator("#viewer[data-moving=yes]").wait_for()
    assert "scaled" in page.locator("#molecule-caption").inner_text()
    page.get_by_label("SMILES").fill("C1CC(")
    page.locator("#run-molecule").press("Enter")
    page.locator("#molecule-told [role=alert]").wait_for()


def test_a_molecule_is_drawn(visit):
    page = visit().page
    page.get_by_role("tab", name="Molecule").press("Enter")
    page.locator("#sketch-open").get_by_role("button").first.press("Enter")
    editor = page.frame_locator("#sketch iframe").locator("body[data-ready=yes] #editor")
    editor.wait_for()
    page.wait_for_timeout(SETTLED)
    editor.click(position={"x": 250, "y": 200})
    page.locator("#molecule-told", has_text="Drawn").wait_for()
    assert page.get_by_label("SMILES").input_value() == "CC"


def test_a_simulation_is_cancelled(visit):
    one = visit()
    one.page.get_by_role("tab", name="Molecule").press("Enter")
    one.page.get_by_label("SMILES").fill("CCCCCC(=O)OCC")
    one.page.locator("#run-molecule").press("Enter")
    one.page.locator("#molecule-told", has_text="atoms").wait_for()
    one.page.get_by_label("B3LYP").check()
    one.page.get_by_label("Raman activity").uncheck()
    one.page.locator("#run-simulate").press("Enter")
    one.page.locator("#simulate-told", has_text="of at most").wait_for()
    one.page.locator("#cancel-simulate").press("Enter")
    one.page.locator("#simulate-told", has_text="Cancelled").wait_for()
    one.page.get_by_label("SMILES").fill("C")
    one.page.get_by_label("GFN2-xTB (seconds)").check()
    one.page.locator("#run-molecule").press("Enter")
    one.page.locator("#molecule-told", has_text="5 atoms").wait_for()
    one.page.locator("#run-simulate").press("Enter")  # the next one's turn comes
    one.page.locator("#simulate-told", has_text="Simulated in").wait_for()


def test_the_map_opens_a_molecule_by_keyboard_and_by_mouse(visit):
    one = visit()
    page = one.page
    page.get_by_role("tab", name="Map").press("Enter")
    drawing = page.frame_locator("#map-frame iframe")
    drawing.locator("body[data-ready=yes]").wait_for()
    page.get_by_label("Find a name").fill("acetone")
    page.get_by_label("Find a name").press("Enter")
    page.locator("#map-matches button", has_text="acetone").first.press("Enter")
    page.locator("#map-molecule h3", has_text="acetone").wait_for()
    page.frame_locator("#map-molecule iframe").locator("#viewer canvas").wait_for()
    drawing.locator("body[data-ready=yes]").wait_for()
    place = drawing.locator(".scatterlayer .point").nth(5)
    page.wait_for_timeout(SETTLED)
    place.click(force=True)
    page.locator("#map-molecule h3:not(:has-text('acetone'))").wait_for()
    one.choose("#map-colour", "nitrile")
    drawing.locator("body[data-ready=yes]").wait_for()
    drawing.locator(".legendtext", has_text="nitrile").first.wait_for()


def test_runs_show_curves_and_a_report(visit):
    one = visit()
    page = one.page
    page.get_by_role("tab", name="Runs").press("Enter")
    page.locator("#runs-told", has_text="2 runs").wait_for()
    assert "finished" in page.locator("#runs-list").inner_text()
    page.locator("#runs-show").press("Enter")
    page.locator("#runs-told [role=alert]").wait_for()  # none is chosen yet
    one.choose("#runs-choice", "stage2")
    page.locator("#runs-show").press("Enter")
    page.frame_locator("#runs-curves iframe").locator("body[data-ready=yes]").wait_for()
    page.locator("#runs-report").press("Enter")
    with page.expect_download() as download:
        page.locator("#runs-file a[download='report.html']").click()
    assert "stage 2" in Path(download.value.path()).read_text(encoding="utf-8")


def ask(explorer, path="/", **headers):
    connection = http.client.HTTPConnection(explorer.split("//")[1].strip("/"), timeout=30)
    try:
        connection.request(
            "GET", path, headers={key.replace("_", "-"): text for key, text in headers.items()}
        )
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers
    finally:
        connection.close()


def test_other_pages_and_names_get_nothing(explorer):
    status, headers = ask(explorer)
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert ask(explorer, Host="example.org")[0] == 400  # a name that was made to point here
    assert ask(explorer, Sec_Fetch_Site="cross-site")[0] == 403
    assert (
        ask(explorer, "/frames/vendor/3Dmol-min.js", Sec_Fetch_Site="cross-site")[0] == 200
    )  # for the frames
    assert ask(explorer, "/frames/../site.py")[0] in (400, 404)
    for path in ("/etc/passwd", Path(__file__).resolve(), Path("pyproject.toml").resolve()):
        assert ask(explorer, f"/gradio_api/file={path}")[0] in (403, 404)
