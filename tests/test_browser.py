"""The page's server: what it serves, to whom, and what it makes of hostile messages."""

from __future__ import annotations

import http.client
import json
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bloodedge.benchmarks.browser import driver as driver_module
from bloodedge.benchmarks.browser.driver import Browser, BrowserConfig
from bloodedge.benchmarks.browser.messages import MAX_DURATIONS, describe_browser
from bloodedge.benchmarks.browser.server import MAX_UPLOAD, PageServer, page_files
from bloodedge.benchmarks.browser.session import Session
from bloodedge.benchmarks.elsewhere import DriverConfig, Material, benchmark_elsewhere
from bloodedge.benchmarks.result import load_result
from bloodedge.benchmarks.runner import summarize
from bloodedge.cli.app import app
from bloodedge.data.dataset import Dataset
from bloodedge.errors import BloodedgeError, ConfigError, DataError
from bloodedge.files import sha256_of
from bloodedge.runs import RunFolder, runs_root

LABELS = np.array([0, 1, 2, 0])
RUNTIME = {"core.js": b"// core", "wasm/litert_wasm_internal.wasm": b"\0asm"}
START = {
    "user_agent": "Mozilla/5.0 (Linux; Android 10; K) Chrome/120.0.0.0 Mobile Safari/537.36",
    "cores": 8,
    "isolated": True,
    "timer_us": 5.0,
    "backends": ["wasm", "threads"],
    "missing": {"webgpu": "no adapter"},
}
JOB = {
    "load_ms": 3.0,
    "first_ms": 1.0,
    "block": 1,
    "durations_us": [100.0, 120.0, 110.0],
    "predictions": [0, 1, 2, 1],
}


class Phone:
    """A device as the server sees it."""

    def __init__(self, url: str) -> None:
        self.host, _, self.path = url.removeprefix("http://").partition("/")
        self.key = ""

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Any:
        """Send one request, the path as it is; return status, headers and content."""
        connection = http.client.HTTPConnection(self.host, timeout=10)
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, answer.headers, content

    def get(self, name: str) -> Any:
        return self.ask("GET", f"/{self.path}{name}")

    def post(self, name: str, message: object, **headers: str) -> tuple[int, dict[str, Any]]:
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        usual = {"Content_Type": "application/json", "X_Bloodedge_Key": self.key}
        status, _, content = self.ask("POST", f"/{self.path}{name}", body, **(usual | headers))
        return status, json.loads(content)

    def start(self, **more: Any) -> list[dict[str, int]]:
        status, reply = self.post("start", {**START, **more})
        assert status == 200, reply
        self.key = reply["key"]
        jobs: list[dict[str, int]] = reply["jobs"]
        return jobs


@pytest.fixture
def material(tmp_path: Path) -> Material:
    paths = {name: tmp_path / name for name in ("a.tflite", "b.tflite")}
    for name, path in paths.items():
        path.write_bytes(name.encode() * 9)
    images = np.arange(4 * 16 * 16 * 3).reshape(4, 16, 16, 3).astype(np.uint8)
    return Material(paths, images, LABELS, ("red", "green", "blue"), "colours", True, dict)


@pytest.fixture
def server(material: Material) -> Iterator[PageServer]:
    config = DriverConfig(("a",), "phone", repeats=2)
    session = Session(material, config)
    files = page_files(material, session.plan(), RUNTIME)
    with PageServer(("127.0.0.1", 0), files, session) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def phone(server: PageServer) -> Phone:
    return Phone(server.url)


# ---- what is served ----


def test_the_page_the_runtime_the_models_and_the_images_are_served(
    phone: Phone, material: Material
) -> None:
    status, headers, page = phone.get("")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"<h1>bloodedge benchmark</h1>" in page
    assert phone.get("models/1.tflite")[2] == b"b.tflite" * 9
    assert phone.get("images.bin")[2] == material.images.tobytes()
    assert phone.get("litertjs/wasm/litert_wasm_internal.wasm")[1]["Content-Type"] == (
        "application/wasm"
    )
    plan = json.loads(phone.get("plan.json")[2])
    assert (plan["shape"], plan["synthetic"]) == ([4, 16, 16, 3], True)
    assert [model["name"] for model in plan["models"]] == ["a.tflite", "b.tflite"]
    # The labels stay here: accuracy is counted here too.
    assert "labels" not in plan


def test_every_answer_is_isolated_and_loads_nothing_from_elsewhere(phone: Phone) -> None:
    for path in ("", "job.html", "absent"):
        headers = phone.get(path)[1]
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        directives = dict(
            part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";")
        )
        assert directives["default-src"] == "'none'"
        assert directives["connect-src"] == "'self'"
        sources = " ".join(directives.values()).split()
        assert all(s.startswith("'") or s == "data:" for s in sources), sources
        assert "'unsafe-inline'" not in sources
        assert "'unsafe-eval'" not in sources


def test_the_pages_name_no_other_host() -> None:
    folder = Path(driver_module.__file__).with_name("page")
    for path in folder.iterdir():
        words = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "://" not in words, path


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/index.html",
        "/{wrong}/",
        "/{wrong}/images.bin",
        "/{token}",
        "/{token}/../../../etc/passwd",
        "/{token}/..%2f..%2fetc/passwd",
        "/{token}//etc/passwd",
        "/{token}/./index.html",
        "/{token}/models/2.tflite",
        "/{token}/models/../server.py",
        "/{token}/server.py",
        "/{token}/index.html?x",
        "/{token}\\index.html",
        "{token}/index.html",
    ],
)
def test_nothing_else_is_there_whatever_the_path(path: str, server: PageServer) -> None:
    wrong = server.token[:-1] + ("A" if server.token[-1] != "A" else "B")
    asked = path.replace("{token}", server.token).replace("{wrong}", wrong)
    status, _, content = Phone(server.url).ask("GET", asked)
    assert (status, json.loads(content)) == (404, {"error": "there is nothing here"})


def test_two_servers_have_different_tokens_of_128_bits(material: Material) -> None:
    session = Session(material, DriverConfig(("a",), "phone"))
    tokens = set()
    for _ in range(2):
        with PageServer(("127.0.0.1", 0), {}, session) as made:
            tokens.add(made.token)
    assert len(tokens) == 2
    assert all(len(token) >= 22 for token in tokens)


def test_a_port_in_use_is_one_clear_error(server: PageServer) -> None:
    address = ("127.0.0.1", int(server.server_address[1]))
    with pytest.raises(BloodedgeError, match=r"cannot listen on 127\.0\.0\.1.*--port"):
        PageServer(address, {}, server.session)


def test_a_phone_that_goes_before_the_last_answer_ends_the_wait(
    server: PageServer, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    for job in phone.start():
        phone.post("job", {**job, **JOB})

    def gone(*_: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr("bloodedge.benchmarks.browser.server._Handler._send", gone)
    with pytest.raises(http.client.RemoteDisconnected):
        phone.post("finish", {})
    assert server.finished.wait(5)


# ---- who may speak ----


def test_the_address_serves_one_device(server: PageServer, phone: Phone) -> None:
    jobs = phone.start()
    assert len(jobs) == 2 * 2 * 2
    second = Phone(server.url)
    assert second.post("start", START)[0] == 409
    assert second.post("job", {**jobs[0], **JOB})[0] == 403
    assert second.post("finish", {})[0] == 403
    assert not server.finished.is_set()
    assert phone.post("job", {**jobs[0], **JOB})[0] == 200


def test_without_the_token_no_message_is_read(server: PageServer) -> None:
    stranger = Phone(server.url)
    stranger.path = "guess/"
    assert stranger.post("start", START)[0] == 404
    assert not server.session.started


def test_a_message_of_another_type_is_refused(phone: Phone) -> None:
    # What a form on another site could send without asking first.
    assert phone.post("start", START, Content_Type="text/plain")[0] == 415


@pytest.mark.parametrize("length", ["", "-1", "1e3", "many", "²"])
def test_a_message_without_a_length_is_refused(length: str, phone: Phone) -> None:
    header = length.encode("utf-8").decode("latin-1")
    assert phone.post("start", b"", Content_Length=header)[0] == 411


@pytest.mark.parametrize("length", [str(MAX_UPLOAD + 1), "9" * 5000])
def test_an_oversize_upload_is_refused_unread(length: str, phone: Phone) -> None:
    begin = time.monotonic()
    assert phone.post("start", b"{", Content_Length=length)[0] == 413
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"[" * 100_000,
        b'{"cores": NaN}',
        b'{"c": 1e999}',
        b"\xff",
        b'{"c": ' + b"9" * 9999,
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes, phone: Phone) -> None:
    status, reply = phone.post("start", body)
    assert status == 400
    assert reply["error"]


def test_a_connection_that_goes_away_ends_nothing(server: PageServer, phone: Phone) -> None:
    with socket.create_connection(server.server_address[:2]) as half:
        half.sendall(f"POST /{server.token}/start HTTP/1.1\r\nContent-Length: 9\r\n".encode())
    assert phone.get("plan.json")[0] == 200


# ---- what may be said ----

BAD_START: list[tuple[str, Any]] = [
    ("cores", 0),
    ("cores", True),
    ("cores", 1),  # and yet threads
    ("user_agent", ""),
    ("user_agent", "x\x1b[2J"),
    ("user_agent", "x" * 2000),
    ("isolated", 1),
    ("timer_us", -1),
    ("timer_us", 1e300),
    ("backends", []),
    ("backends", ["cuda"]),
    ("backends", [["wasm"]]),
    ("backends", "wasm"),
    ("backends", ["wasm"] * 9),
    ("missing", []),
    ("missing", {"other": "x"}),
]


@pytest.mark.parametrize(("key", "value"), BAD_START)
def test_a_wrong_start_is_refused_and_the_address_stays_free(
    key: str, value: object, phone: Phone
) -> None:
    assert phone.post("start", {**START, key: value})[0] == 400
    phone.start()


BAD_JOB: list[tuple[str, Any]] = [
    ("model", 2),
    ("model", -1),
    ("model", "0"),
    ("backend", 2),
    ("repeat", 2),
    ("load_ms", None),
    ("first_ms", -1),
    ("block", 0),
    ("durations_us", []),
    ("durations_us", [0.0]),
    ("durations_us", [-1.0]),
    ("durations_us", [1e-5]),
    ("durations_us", ["1"]),
    ("durations_us", [10**400]),
    ("durations_us", [1e12]),
    ("durations_us", [1.0] * (MAX_DURATIONS + 1)),
    ("predictions", None),
    ("predictions", [0, 1, 2]),
    ("predictions", [0, 1, 2, 3]),
    ("predictions", [0, 1, 2, -1]),
    ("predictions", [0, 1, 2, 0.5]),
    ("predictions", [0, 1, 2, 10**400]),
]


@pytest.mark.parametrize(("key", "value"), BAD_JOB)
def test_a_wrong_job_is_refused_and_leaves_nothing(
    key: str, value: object, phone: Phone, server: PageServer
) -> None:
    first = next(job for job in phone.start() if job["repeat"] == 0)
    status, reply = phone.post("job", {**first, **JOB, key: value})
    assert status in (400, 409), reply
    assert server.session.rows() == []
    assert phone.post("job", {**first, **JOB})[0] == 200


def test_a_job_counts_once(phone: Phone) -> None:
    job = {**phone.start()[0], **JOB}
    assert phone.post("job", job)[0] == 200
    assert phone.post("job", job)[0] == 409


def test_a_rows_figures_are_computed_here(
    phone: Phone, server: PageServer, material: Material
) -> None:
    times = {0: [100.0, 120.0, 110.0], 1: [200.0, 220.0, 210.0, 230.0]}
    for job in phone.start(backends=["wasm"]):
        sent = {**job, **JOB, "durations_us": times[job["repeat"]], "accuracy": 1.0}
        status, reply = phone.post("job", sent)
        assert status == 200
        assert reply["accuracy"] == 0.75  # the phone's own claim does not count
    a, b = server.session.rows()
    pooled = summarize(np.array([1000 * us for us in times[0] + times[1]]))
    assert (a["p90_us"], a["p99_us"], a["min_us"], a["count"]) == (
        pooled["p90_us"],
        pooled["p99_us"],
        pooled["min_us"],
        7,
    )
    assert a["median_us"] == (110 + 215) / 2
    assert a["drift"] is True
    assert (a["accuracy"], a["images"], a["delegate"]) == (0.75, 4, "wasm")
    assert a["sha256"] == sha256_of(material.models["a.tflite"])
    assert b["model"] == "b.tflite"
    assert "peak_rss_kib" not in a
    assert "note" not in a


def test_durations_that_inferences_share_have_no_percentiles(
    phone: Phone, server: PageServer
) -> None:
    for job in phone.start(backends=["wasm"]):
        status, reply = phone.post("job", {**job, **JOB, "block": 1 + job["repeat"]})
        assert status == 200
    assert reply["p90_us"] is None
    for row in server.session.rows():
        assert row["median_us"] == 110
        assert (row["p90_us"], row["p99_us"], row["min_us"]) == (None, None, None)
        assert "up to 2 inferences share a duration" in row["note"]


def test_what_failed_is_a_row_with_its_reason_and_is_not_tried_again(
    phone: Phone, server: PageServer
) -> None:
    jobs = phone.start(backends=["wasm"])
    failed = [job for job in jobs if job["model"] == 0]
    status, reply = phone.post("job", {**failed[0], "error": "Type INT8\x1b[31m " + "x" * 5000})
    assert (status, reply["error"][:10]) == (200, "Type INT8?")
    assert phone.post("job", {**failed[1], **JOB})[0] == 409
    for job in jobs:
        if job["model"] == 1:
            phone.post("job", {**job, **JOB})
    assert server.session.complete
    row = server.session.rows()[0]
    assert (row["error"][:10], len(row["error"])) == ("Type INT8?", 300)
    assert "median_us" not in row


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        (START["user_agent"], ("Linux; Android 10; K", "Chrome 120.0.0.0")),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 "
            "(KHTML, like Gecko) Version/17.4 Mobile/15E148 Safari/604.1",
            ("iPhone; CPU iPhone OS 17_4 like Mac OS X", "Safari 17.4"),
        ),
        (
            "Mozilla/5.0 (Linux; Android 14) Chrome/120.0.0.0 Mobile Safari/537.36 EdgA/120.1",
            ("Linux; Android 14", "Edg 120.1"),
        ),
        ("curl", ("unknown device", "unknown browser")),
    ],
)
def test_a_user_agent_names_platform_and_browser(agent: str, expected: tuple[str, str]) -> None:
    assert describe_browser(agent) == expected


# ---- the whole driver ----


def on_page(monkeypatch: pytest.MonkeyPatch, act: Callable[[Phone], None]) -> None:
    """Let `act` be what happens when the address is shown, in place of a phone."""
    monkeypatch.setattr(driver_module, "load_litertjs", lambda folder: RUNTIME)

    def show(url: str, loopback: bool) -> None:
        threading.Thread(target=act, args=(Phone(url),)).start()

    monkeypatch.setattr(driver_module, "_show", show)


def measure(
    brightest: bytes, colours: Dataset, folder: Path, timeout_s: float = 30.0
) -> tuple[Any, Any]:
    path = folder / "brightest.tflite"
    path.write_bytes(brightest)
    config = DriverConfig((str(path),), "phone", images=4, repeats=2, seconds=0.1)
    browser = Browser(BrowserConfig(address="127.0.0.1", timeout_s=timeout_s, device="my phone"))
    return benchmark_elsewhere(config, colours, browser)


def to_the_end(phone: Phone) -> None:
    for job in phone.start(backends=["wasm", "webgpu"], missing={}):
        phone.post("job", {**job, **JOB})
    phone.post("finish", {})


def test_a_finished_measurement_is_a_run_that_the_report_reads(
    brightest_tflite: bytes, colours: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_page(monkeypatch, to_the_end)
    run, result = measure(brightest_tflite, colours, tmp_path)
    assert run.manifest["kind"] == "benchmark"
    assert run.manifest["parents"] == {"brightest.tflite": sha256_of(tmp_path / "brightest.tflite")}
    assert load_result(run.path / "benchmark.json") == result
    assert (result.complete, result.protocol) == (True, "browser")
    assert result.runtime == "litert.js 2.5.3"
    assert result.hardware == "my phone (Chrome 120.0.0.0)"
    assert [row.delegate for row in result.rows] == ["wasm", "webgpu"]
    assert [row.median_us for row in result.rows] == [110.0, 110.0]


def test_what_cannot_become_a_run_is_kept_where_there_is_room(
    brightest_tflite: bytes,
    colours: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise BloodedgeError("could not write runs/phone: No space left on device")

    on_page(monkeypatch, to_the_end)
    monkeypatch.setattr(RunFolder, "commit", full)
    room = tmp_path / "room"
    room.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    with pytest.raises(BloodedgeError, match="No space left"):
        measure(brightest_tflite, colours, tmp_path)
    (kept,) = room.glob("phone-*/benchmark.json")
    assert f"bloodedge report {kept}" in capfd.readouterr().err
    assert [row.delegate for row in load_result(kept).rows] == ["wasm", "webgpu"]


def test_a_browser_that_is_closed_leaves_what_was_done(
    brightest_tflite: bytes, colours: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(phone: Phone) -> None:
        job = phone.start()[0]
        phone.post("job", {**job, **JOB})

    on_page(monkeypatch, act)
    _, result = measure(brightest_tflite, colours, tmp_path, timeout_s=0.5)
    assert result.complete is False
    assert [row.median_us for row in result.rows] == [110.0]


def test_a_page_that_nobody_opens_ends_with_a_reason(
    brightest_tflite: bytes,
    colours: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    on_page(monkeypatch, lambda phone: None)
    with pytest.raises(DataError, match="nothing was measured"):
        measure(brightest_tflite, colours, tmp_path, timeout_s=0.3)
    assert "nobody opened the page on the device within 0.3 s" in capfd.readouterr().err
    assert not (runs_root() / "phone").exists()


def test_signs_of_life_keep_a_slow_device(
    brightest_tflite: bytes, colours: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(phone: Phone) -> None:
        jobs = phone.start(backends=["wasm"])
        for _ in range(8):
            time.sleep(0.2)
            phone.post("alive", {})
        for job in jobs:
            phone.post("job", {**job, **JOB})
        phone.post("finish", {})

    on_page(monkeypatch, act)
    assert measure(brightest_tflite, colours, tmp_path, timeout_s=1.0)[1].complete is True


def test_ctrl_c_keeps_what_was_done(
    brightest_tflite: bytes, colours: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken = threading.Event()

    def act(phone: Phone) -> None:
        phone.post("job", {**phone.start()[0], **JOB})
        spoken.set()

    def wait(server: PageServer, timeout_s: float) -> None:
        assert spoken.wait(30)
        raise KeyboardInterrupt

    on_page(monkeypatch, act)
    monkeypatch.setattr(driver_module, "_wait", wait)
    _, result = measure(brightest_tflite, colours, tmp_path)
    assert (result.complete, len(result.rows)) == (False, 1)


def test_the_address_is_shown_as_text_and_for_a_camera(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "http://192.0.2.7:8000/token/"
    driver_module._show(url, loopback=False)
    plain = capsys.readouterr().err
    assert url in plain
    assert "localhost only" in plain
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    driver_module._show(url, loopback=True)
    shown = capsys.readouterr().err
    assert "▀" in shown
    assert "localhost only" not in shown


@pytest.mark.parametrize(
    "bad",
    [
        {"port": -1},
        {"port": 65536},
        {"timeout_s": 0},
        {"timeout_s": float("nan")},
        {"device": "x" * 101},
        {"device": "x\n"},
        {"address": "not an address"},
    ],
)
def test_bad_settings_of_the_page_are_refused_when_built(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        BrowserConfig(**bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"models": ()},
        {"images": -1},
        {"repeats": 0},
        {"seconds": 0},
        {"seconds": float("nan")},
        {"seed": -1},
    ],
)
def test_bad_settings_of_a_driver_are_refused_when_built(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        DriverConfig(**{"models": ("a",), "name": "b", **bad})


def test_the_command_measures_and_fails_when_it_is_cut_short(
    brightest_tflite: bytes, colours: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(phone: Phone) -> None:
        phone.post("job", {**phone.start()[0], **JOB})

    on_page(monkeypatch, act)
    monkeypatch.setattr("bloodedge.data.sources.load_data", lambda name, size: colours)
    path = tmp_path / "brightest.tflite"
    path.write_bytes(brightest_tflite)
    words = ["benchmark", str(path), "--browser", "--images", "4", "--address", "127.0.0.1"]
    done = CliRunner().invoke(app, [*words, "--timeout", "0.5", "--quick"])
    assert done.exit_code == 1
    assert "litert.js 2.5.3 on Linux; Android 10; K (Chrome 120.0.0.0)" in done.output
    assert load_result(runs_root() / "benchmark-browser" / "benchmark.json").complete is False
