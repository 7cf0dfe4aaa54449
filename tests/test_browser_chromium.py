"""The page in a real browser: every variant classifies as it does on this machine."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.benchmarks.browser import driver as driver_module
from bloodedge.benchmarks.browser.driver import Browser, BrowserConfig
from bloodedge.benchmarks.browser.litertjs import load_litertjs
from bloodedge.benchmarks.elsewhere import DriverConfig, benchmark_elsewhere
from bloodedge.data.dataset import Dataset
from bloodedge.deploy import interpreter
from bloodedge.deploy.convert import VARIANTS, convert
from bloodedge.deploy.interpreter import Classifier
from bloodedge.errors import BloodedgeError

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


@pytest.fixture
def chromium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A browser that opens the address as soon as it is shown."""
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    started: list[subprocess.Popen[bytes]] = []
    profile = tmp_path / "profile"
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]

    def show(url: str, loopback: bool) -> None:
        command = [str(CHROMIUM), *options, f"--user-data-dir={profile}", url]
        log = subprocess.DEVNULL
        started.append(subprocess.Popen(command, stdin=log, stdout=log, stderr=log))

    monkeypatch.setattr(driver_module, "_show", show)
    yield
    for process in started:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
@pytest.mark.usefixtures("chromium", "litertjs")
@pytest.mark.skipif(sys.platform != "linux", reason="drives Debian's chromium")
def test_accuracy_equals_the_hosts_for_every_variant(
    variants: dict[str, Path], colours: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bloodedge.deploy.interpreter.probe", interpreter.check_file)
    config = DriverConfig(
        tuple(map(str, variants.values())), "phone", images=30, repeats=2, seconds=0.05
    )
    seen: dict[str, Any] = {}
    inner = Browser(BrowserConfig(address="127.0.0.1", timeout_s=SECONDS))

    def driver(material: Any, config: DriverConfig) -> dict[str, Any]:
        seen["material"], seen["parts"] = material, inner(material, config)
        return dict(seen["parts"])

    _, result = benchmark_elsewhere(config, colours, driver)
    assert result.complete
    assert result.environment["isolated"] is True  # threads, and a clock of 5 us
    assert result.environment["timer_us"] < 50
    images, labels = seen["material"].images, seen["material"].labels
    delegates = {(row.delegate, row.threads) for row in result.rows}
    assert ("wasm", 1) in delegates
    assert len(result.rows) == len(variants) * len(delegates)
    for row, raw in zip(result.rows, seen["parts"]["rows"], strict=True):
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
