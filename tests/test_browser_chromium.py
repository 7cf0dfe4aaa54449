"""The page in a real browser: every variant classifies as it does on this machine."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.benchmarks.browser import driver as driver_module
from bloodedge.benchmarks.browser.driver import Browser, BrowserConfig
from bloodedge.benchmarks.browser.litertjs import load_litertjs
from bloodedge.benchmarks.elsewhere import DriverConfig, Material, Measured, benchmark_elsewhere
from bloodedge.benchmarks.result import BenchmarkRow
from bloodedge.data.dataset import Dataset
from bloodedge.deploy import interpreter
from bloodedge.deploy.convert import VARIANTS, convert
from bloodedge.deploy.interpreter import Classifier
from bloodedge.errors import BloodedgeError, DataError

CHROMIUM = next((p for n in ("chromium", "chromium-browser") if (p := shutil.which(n))), None)
SECONDS = 300.0


@pytest.fixture(scope="module")
def litertjs() -> None:
    """LiteRT.js in the user's own cache, as every later benchmark uses it."""
    try:
        load_litertjs()
    except BloodedgeError as error:
        pytest.skip(f"LiteRT.js cannot be had: {error}")


@pytest.fixture(scope="module")
def variants(
    tmp_path_factory: pytest.TempPathFactory, tiny_file: Path, colours: Dataset
) -> dict[str, Path]:
    """Every variant of one model, int8 with int8 ends, and a file that is no model."""
    keras = use_backend()
    model = keras.saving.load_model(tiny_file)
    folder = tmp_path_factory.mktemp("variants")
    images = colours["train"].images[:64]
    contents = {name: convert(model, name, images) for name in VARIANTS}
    contents["int8-ends"] = convert(model, "int8", images, io="int8")
    paths = {name: folder / f"{name}.tflite" for name in contents}
    for name, content in contents.items():
        paths[name].write_bytes(content)
    return paths


# Keeps all that the page says of its progress, in its own words.
OBSERVE = """
window.said = [];
new MutationObserver(() => {
  const text = document.getElementById("status")?.textContent;
  if (text && text !== window.said.at(-1)) window.said.push(text);
}).observe(document, { childList: true, subtree: true, characterData: true });
"""
# What a person sees when it is over.
LOOK = """
JSON.stringify({
  said: window.said,
  progress: [document.getElementById("progress").value, document.getElementById("progress").max],
  rows: [...document.querySelectorAll("#rows tr")].map((row) => [...row.children].map(
    (cell) => cell.textContent)),
  plots: [...document.querySelectorAll("#plots svg")].map((plot) => ({
    title: plot.getAttribute("aria-label"),
    marks: [...plot.querySelectorAll("circle")].map((mark) => [mark.cx.baseVal.value,
      mark.cy.baseVal.value]),
    box: plot.viewBox.baseVal.width * 1000 + plot.viewBox.baseVal.height,
  })),
})
"""


class Chromium:
    """A headless browser that is told what to do through two pipes."""

    def __init__(self, profile: Path) -> None:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        options += ["--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        theirs, self._to = os.pipe()
        self._from, answers = os.pipe()
        # It reads 3 and writes 4: first out of the way of these.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs, answers)]

        def place() -> None:
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        none = subprocess.DEVNULL
        self._process = subprocess.Popen(
            [str(CHROMIUM), *options], stdin=none, stdout=none, stderr=none,
            preexec_fn=place, pass_fds=(3, 4, *ends),
        )  # fmt: skip
        for end in (theirs, answers, *ends):
            os.close(end)
        self._rest = b""
        self._count = 0

    def ask(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol and return its result."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        message |= {"sessionId": session} if session else {}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                read = os.read(self._from, 1 << 16)
                assert read, "the browser ended"
                self._rest += read
            line, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def open(self, url: str) -> None:
        """Open a page in a tab of its own, observed from its start."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        self.ask("Page.enable", self.session)
        self.ask("Page.addScriptToEvaluateOnNewDocument", self.session, source=OBSERVE)
        self.ask("Page.navigate", self.session, url=url)

    def page(self) -> dict[str, Any]:
        """Return what the page shows when it says that it is done."""
        for _ in range(300):
            found = self.ask("Runtime.evaluate", self.session, expression=LOOK)
            shown: dict[str, Any] = json.loads(found["result"]["value"])
            if shown["said"][-1].startswith("done: "):
                break
            time.sleep(0.1)
        return shown

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)
        os.close(self._to)
        os.close(self._from)


@pytest.fixture
def chromium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chromium]:
    """A browser that opens the address as soon as it is shown."""
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    started = Chromium(tmp_path / "profile")
    monkeypatch.setattr(driver_module, "_show", lambda url, loopback: started.open(url))
    yield started
    started.close()


def check_page(page: dict[str, Any], rows: tuple[BenchmarkRow, ...], repeats: int) -> None:
    """The page has told its progress, and shows all figures and both plots."""
    assert page["said"][-1].startswith("done: the results are on the computer")
    told = [text for text in page["said"] if " of " in text and ".tflite on " in text]
    good = [row for row in rows if not row.error]
    # What failed once is not tried again.
    jobs = repeats * len(rows)
    assert page["progress"] == [jobs, jobs]
    assert len(told) == repeats * len(good) + len(rows) - len(good)
    assert {text.split(": ")[1].split(" on ")[0] for text in told} == {row.model for row in rows}
    assert len(page["rows"]) == len(rows)
    for row in rows:
        name = "wasm" if row.delegate in ("wasm", "threads") else row.delegate
        cells = [c for c in page["rows"] if c[0] == row.model and c[1].split(",")[0] == name]
        if row.error:
            assert all(c[3] in str(row.error) or str(row.error) in c[3] for c in cells)
            continue
        assert any(c[3] == f"{100 * (row.accuracy or 0):.2f}" for c in cells)
        assert row.median_us is not None
        # JavaScript rounds a half up, Python to the even number.
        assert any(abs(float(c[4].rstrip("†")) - row.median_us) < 0.501 for c in cells)
    assert [plot["title"] for plot in page["plots"]] == [
        "accuracy %, against size",
        "accuracy %, against median latency",
    ]
    for plot in page["plots"]:
        assert len(plot["marks"]) == len(good)
        width, height = divmod(plot["box"], 1000)
        assert all(0 < x < width and 0 < y < height for x, y in plot["marks"])


@pytest.mark.slow
@pytest.mark.usefixtures("litertjs")
@pytest.mark.skipif(sys.platform != "linux", reason="drives Debian's chromium")
def test_accuracy_equals_the_hosts_for_every_variant(
    chromium: Chromium,
    variants: dict[str, Path],
    colours: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bloodedge.deploy.interpreter.probe", interpreter.check_file)
    config = DriverConfig(
        tuple(map(str, variants.values())), "phone", images=30, repeats=2, seconds=0.05
    )
    seen: dict[str, Any] = {}
    inner = Browser(BrowserConfig(address="127.0.0.1", timeout_s=SECONDS))

    def driver(material: Material, config: DriverConfig) -> Measured:
        measured = inner(material, config)
        seen["material"], seen["rows"] = material, measured.rows
        return measured

    _, result = benchmark_elsewhere(config, colours, driver)
    assert result.complete
    assert result.environment["isolated"] is True  # threads, and a clock of 5 us
    assert result.environment["timer_us"] < 50
    images, labels = seen["material"].images, seen["material"].labels
    delegates = {(row.delegate, row.threads) for row in result.rows}
    assert ("wasm", 1) in delegates
    assert len(result.rows) == len(variants) * len(delegates)
    for row, raw in zip(result.rows, seen["rows"], strict=True):
        if row.model == "int8-ends.tflite":
            assert "INT8" in str(row.error) or "not supported" in str(row.error), row
            continue
        assert row.error is None, row
        said = Classifier(variants[row.model.removesuffix(".tflite")]).predict(images).argmax(1)
        assert row.accuracy == np.mean(said == labels)
        assert raw["predictions_sha256"] == hashlib.sha256(said.astype("<i8")).hexdigest()
        assert row.median_us is not None
        assert 0 < row.median_us < 1e5
        assert all(run["count"] * run["block"] >= 50 for run in raw["runs"])
    check_page(chromium.page(), result.rows, repeats=2)


@pytest.mark.slow
@pytest.mark.usefixtures("litertjs", "chromium")
@pytest.mark.skipif(sys.platform != "linux", reason="drives Debian's chromium")
def test_a_page_that_fails_does_not_keep_the_computer_waiting(
    variants: dict[str, Path],
    colours: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("bloodedge.deploy.interpreter.probe", interpreter.check_file)
    served, ended = driver_module.page_files, []

    def without_the_model(*words: Any) -> dict[str, bytes]:
        return {name: content for name, content in served(*words).items() if "models" not in name}

    monkeypatch.setattr(driver_module, "page_files", without_the_model)
    # Without end, if the page stayed alive.
    monkeypatch.setattr(
        driver_module, "_wait", lambda server, _: ended.append(server.finished.wait(60))
    )
    config = DriverConfig((str(variants["float32"]),), "phone", images=3, repeats=1)
    with pytest.raises(DataError, match="nothing was measured"):
        benchmark_elsewhere(config, colours, Browser(BrowserConfig(address="127.0.0.1")))
    assert ended == [True]
    assert "the page stopped: models/0.tflite: 404" in capsys.readouterr().err
