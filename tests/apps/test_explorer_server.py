"""The explorer's server, asked directly, as no page would."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("gradio")

from molspectra.apps.cli import main
from molspectra.apps.explorer import identify, server, site
from molspectra.apps.explorer.site import AS_FILE
from molspectra.errors import InputError, NotFoundError, SettingError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("explorer")


@pytest.fixture(scope="module")
def client(folder):
    """A client of an explorer whose library is damaged."""
    (folder / "index").mkdir()
    (folder / "index" / "library.json").write_text("{}")
    (folder / "temporary").mkdir()
    command = [sys.executable, "-m", "molspectra", "explore", str(folder / "index"), "--no-browser"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(folder / "temporary")}
    )
    line = process.stderr.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert found, line + process.stderr.read()
    transport = httpx.HTTPTransport(retries=5)
    with httpx.Client(base_url=found[0], timeout=60, trust_env=False, transport=transport) as client:
        yield client
        with client.stream("GET", "/gradio_api/heartbeat/open"):  # as a page that is open
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "CancelledError" not in told
    assert list((folder / "temporary").iterdir()) == []


def call(client, name, data, **event):
    """The last message of a request to the handler of a name."""
    handlers = client.get("/config").json()["dependencies"]
    (number,) = (each["id"] for each in handlers if each["api_name"] == name)
    asked = {"data": data, "fn_index": number, "session_hash": f"session{number}", **event}
    assert client.post("/gradio_api/queue/join", json=asked).status_code == 200
    answer = client.get("/gradio_api/queue/data", params={"session_hash": asked["session_hash"]})
    messages = [json.loads(line[5:]) for line in answer.text.splitlines() if line.startswith("data:")]
    (last,) = (each for each in messages if each["msg"] == "process_completed")
    return last


SETTINGS = ["ir", AS_FILE, AS_FILE, "auto", None, None, None, None, None, "", None]


@pytest.mark.parametrize("stream", [False, True])
def test_files_that_were_not_uploaded_are_not_read(client, folder, stream):
    secret = folder / "secret.csv"
    secret.write_text("words\n")
    named = {"path": str(secret), "meta": {"_type": "gradio.FileData"}, "is_stream": stream}
    told = call(client, "search", [named, *SETTINGS])
    assert not told["success"]
    assert "not uploaded" in told["output"]["error"]
    told = call(client, "show_typed", [{"deep": [named]}])
    assert not told["success"]
    assert not [path for path in folder.rglob("*") if path.name == "secret.csv" and path != secret]


def test_addresses_are_not_fetched(client):
    named = {"path": "https://example.org/x.csv", "meta": {"_type": "gradio.FileData"}}
    assert "not uploaded" in call(client, "search", [named, *SETTINGS])["output"]["error"]


def test_an_uploaded_file_is_read_and_named_alone(client):
    (path,) = client.post("/gradio_api/upload", files={"files": ("words.csv", b"no numbers\n")}).json()
    told = call(client, "search", [{"path": path, "meta": {"_type": "gradio.FileData"}}, *SETTINGS])
    assert told["success"]
    shown = told["output"]["data"][0]
    assert "words.csv" in shown
    assert "/" not in shown.split("<p>")[1].split("</p>")[0]


def test_an_upload_that_is_gone_is_told(tmp_path):
    with pytest.raises(NotFoundError, match="drop it again"):
        identify.identify(None, str(tmp_path / "gone.csv"), *SETTINGS)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError):
        identify.identify(None, str(tmp_path / "folder.csv"), *SETTINGS)


def test_a_file_without_units_points_to_the_setting(tmp_path):
    (tmp_path / "x.csv").write_text("".join(f"{place},{place % 7}\n" for place in range(1000, 1100)))
    with pytest.raises(InputError, match="choose its unit under") as told:
        identify.identify(None, str(tmp_path / "x.csv"), *SETTINGS)
    assert "command line" not in str(told.value)


def test_explorers_that_start_at_once_get_ports_of_their_own():
    with server._listen(None) as one, server._listen(None) as two:  # neither answers yet
        ports = [each.getsockname()[1] for each in (one, two)]
        assert ports[0] != ports[1]
        with pytest.raises(SettingError, match="--port"):
            server._listen(ports[0])


def test_a_model_that_is_none_is_refused_before_anything_starts(tmp_path, capfd):
    assert main(["explore", "--no-browser", "--model", str(tmp_path / "gone")]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("molspectra: error: ")
    assert err.count("\n") == 1
    assert str(tmp_path / "gone") in err


def test_requests_wait_for_what_is_being_imported(monkeypatch):
    order = []

    def load(name):
        order.append(name)
        time.sleep(0.2)
        order.append(name)

    monkeypatch.setattr("importlib.import_module", load)
    answer = site.guarded(1)(lambda: order.append("answered") or ("",))
    waiting = [threading.Thread(target=each) for each in (site.import_all, answer)]
    for each in waiting:
        each.start()
    for each in waiting:
        each.join()
    assert order[-1] == "answered"
    assert order[:-1:2] == order[1:-1:2]  # none begins before another ends


def test_searches_are_not_kept_in_the_browser(client):
    assert client.get("/config").json()["run_history"] is False
