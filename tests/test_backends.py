"""Training on the other Keras backends and over several devices, in processes of their own."""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import util
from pathlib import Path

import numpy as np
import pytest

from bloodedge import backend as starting
from bloodedge.backend import use_backend
from bloodedge.data.dataset import Dataset
from bloodedge.errors import ConfigError
from bloodedge.hardware import usable_cores
from bloodedge.train import stage
from bloodedge.train.checkpoint import FILES

OnJax = Callable[..., subprocess.CompletedProcess[str]]
COMMAND = "train --model cnn_se --width 0.25 --epochs 3 --batch 16 --data colours.npz"

needs_jax = pytest.mark.skipif(util.find_spec("jax") is None, reason="jax is not installed")
needs_torch = pytest.mark.skipif(util.find_spec("torch") is None, reason="torch is not installed")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch, colours: Dataset) -> None:
    """Work in a folder that holds the colours as an .npz."""
    monkeypatch.chdir(tmp_path)
    arrays = {f"{name}_images": split.images for name, split in colours.splits.items()}
    arrays |= {f"{name}_labels": split.labels[:, None] for name, split in colours.splits.items()}
    np.savez(tmp_path / "colours.npz", **arrays)


def train(name: str, *options: str, devices: int = 1) -> list[dict[str, float]]:
    """Train by the command line and return the rows of its history."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    done = subprocess.run(
        [sys.executable, "-m", "bloodedge", *COMMAND.split(), "--name", name, *options],
        env={**os.environ, "XLA_FLAGS": flags, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with (Path(os.environ["BLOODEDGE_RUNS"]) / name / "history.csv").open() as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def losses(rows: list[dict[str, float]]) -> list[float]:
    return [row["train_loss"] for row in rows]


@needs_jax
@pytest.mark.slow
def test_four_devices_learn_what_one_does():
    one = train("one", "--backend", "jax")
    four = train("four", "--backend", "jax", "--devices", "all", devices=4)
    np.testing.assert_allclose(losses(four), losses(one), rtol=2e-3)
    assert four[-1]["val_accuracy"] == pytest.approx(one[-1]["val_accuracy"], abs=0.02)


def test_cores_share_a_batch_and_the_manifest_says_so():
    if usable_cores() < 2:
        pytest.skip("one core")
    rows = train("shared", "--backend", "tensorflow", "--devices", "2")
    assert losses(rows)[-1] < 0.7 * losses(rows)[0]
    manifest = json.loads((Path(os.environ["BLOODEDGE_RUNS"]) / "shared/manifest.json").read_text())
    assert manifest["config"]["devices"] == 2
    assert manifest["command"].startswith("python -m bloodedge train --model cnn_se")


def start_hosts(count: int, *options: str) -> list[subprocess.Popen[str]]:
    """Start one process a host; the addresses come by the variables that Keras names."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "bloodedge", *COMMAND.split(), "--backend", "jax", *options],
            env={
                **os.environ,
                "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
                "KERAS_DISTRIBUTION_JOB_ADDRESSES": f"127.0.0.1:{port}",
                "KERAS_DISTRIBUTION_NUM_PROCESSES": str(count),
                "KERAS_DISTRIBUTION_PROCESS_ID": str(number),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]


@needs_jax
@pytest.mark.slow
def test_two_hosts_learn_what_one_does_and_only_the_first_speaks_and_writes():
    options = ("--name", "two", "--devices", "all", "--epochs", "6")
    one = train("one", "--backend", "jax", "--epochs", "6")
    runs = Path(os.environ["BLOODEDGE_RUNS"])
    saved = runs / ".two.partial" / FILES[0]
    killed = start_hosts(2, *options)
    while not saved.exists() and all(host.poll() is None for host in killed):
        time.sleep(0.01)
    for host in killed:
        host.send_signal(signal.SIGKILL)
        host.communicate()
    hosts = start_hosts(2, *options, "--resume")
    said = [host.communicate() for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], said
    assert "val accuracy" in said[0][0]
    assert said[1][0] == ""
    assert "epoch" not in said[1][1]
    assert json.loads((runs / "two" / "manifest.json").read_text())["resumed"] == 1
    assert sorted(path.name for path in runs.iterdir()) == ["one", "two"]
    with (runs / "two" / "history.csv").open() as file:
        two = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    np.testing.assert_allclose(losses(two), losses(one), rtol=2e-3)


@needs_jax
@pytest.mark.slow
def test_hosts_that_train_together_end_at_once_by_what_ends_one_alone():
    saved = Path(os.environ["BLOODEDGE_RUNS"]) / ".two.partial" / FILES[0]
    hosts = start_hosts(2, "--name", "two", "--devices", "all", "--epochs", "10000")
    try:
        while not saved.exists() and all(host.poll() is None for host in hosts):
            time.sleep(0.01)
        for host in hosts:
            host.terminate()
        assert [host.wait(20) for host in hosts] == [-signal.SIGTERM] * 2
    finally:
        for host in hosts:
            host.kill()
            host.communicate()


@needs_jax
@pytest.mark.slow
def test_what_stops_the_first_host_stops_the_others():
    run = Path(os.environ["BLOODEDGE_RUNS"]) / "taken"
    run.mkdir(parents=True)
    hosts = start_hosts(2, "--name", "taken", "--devices", "all")
    said = [host.communicate()[1] for host in hosts]
    assert [host.returncode for host in hosts] == [1, 1]
    assert "--force" in said[0]
    assert "the first host stopped" in said[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend", [pytest.param("jax", marks=needs_jax), pytest.param("torch", marks=needs_torch)]
)
def test_every_backend_learns_the_same_task(backend: str):
    rows = train(backend, "--backend", backend, "--ema", "0.5")
    assert losses(rows)[-1] < 0.7 * losses(rows)[0]


@needs_jax
def test_half_precision_learns_too_and_is_saved_in_single():
    rows = train("half", "--backend", "jax", "--precision", "bfloat16")
    assert losses(rows)[-1] < 0.7 * losses(rows)[0]
    from bloodedge.backend import use_backend

    use_backend()
    from bloodedge.references import find_model
    from bloodedge.train.restore import restore

    assert {layer.compute_dtype for layer in restore(find_model("half")).layers} == {"float32"}


def refusal(*options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bloodedge", *COMMAND.split(), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    return done.stderr


def test_devices_that_are_not_there_are_refused():
    if util.find_spec("torch"):
        assert "--backend jax" in refusal("--devices", "all", "--backend", "torch")
    assert "expected all, or 1 to" in refusal("--devices", "999", "--backend", "tensorflow")
    assert "--precision 'float8'" in refusal("--precision", "float8")
    assert "ADDRESS:PORT" in refusal("--hosts", "2", "--host", "1")
    assert "expected 0 to 1" in refusal("--hosts", "2", "--host", "2")
    meet = ("--hosts", "2", "--coordinator", "127.0.0.1:1")
    assert "--backend jax" in refusal(*meet, "--backend", "tensorflow")
    if util.find_spec("jax"):
        assert "--devices all" in refusal(*meet, "--backend", "jax")
        assert "expected all, or 1 to 1" in refusal("--devices", "2", "--backend", "jax")


def test_a_backend_that_cannot_be_loaded_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(ConfigError, match=r"^tensorflow cannot be loaded: .*install tensorflow"):
        use_backend("tensorflow")


# ---- which devices ----


@needs_jax
def test_a_gpu_that_jax_cannot_use_is_one_line_and_only_once(on_jax: OnJax):
    code = (
        "from jax._src import hardware_utils\n"
        "hardware_utils.has_visible_nvidia_gpu = lambda: True\n"
        "from bloodedge.backend import use_backend\n"
        "use_backend('jax'); use_backend('jax')\n"
    )
    (said,) = on_jax(code).stderr.splitlines()
    assert said.startswith("JAX: ")
    assert 'to mend it: pip install "jax[cuda12]"' in said
    assert on_jax(code, JAX_PLATFORMS="cpu").stderr == ""


def test_a_plugin_that_cannot_start_is_said_with_its_cause():
    with starting._device_warnings() as said:
        log = logging.getLogger("jax._src.xla_bridge")
        log.info("started")
        try:
            raise RuntimeError("the driver is\ntoo old.")
        except RuntimeError:
            log.exception("cannot call %s", "cuda.initialize()")
    assert said == ["cannot call cuda.initialize(): the driver is\ntoo old."]
    line = starting._in_one_line(said[0])
    assert line.startswith("JAX: cannot call cuda.initialize(): the driver is too old; to mend it:")
    assert '"jax[tpu]"' in starting._in_one_line("A Google TPU may be present")


@needs_jax
@pytest.mark.slow
def test_a_run_says_and_records_what_it_is_computed_on(on_jax: OnJax):
    words = [*COMMAND.split(), "--backend", "jax", "--devices", "all", "--epochs", "1"]
    code = f"import sys; sys.argv[1:] = {[*words, '--name', 'four']}\n"
    said = on_jax(f"{code}from bloodedge.cli import main; main()", devices=4).stderr
    assert "on jax, 4 x cpu, in float32" in said
    manifest = json.loads((Path(os.environ["BLOODEDGE_RUNS"]) / "four/manifest.json").read_text())
    assert {"device": "cpu", "devices": 4}.items() <= manifest["hardware"].items()
    # What is compared when a run is continued, or used as it is, does not name them.
    assert not {"device", "devices"} & manifest["config"].keys()


@needs_jax
def test_a_platform_that_is_not_there_is_one_line(on_jax: OnJax):
    code = (
        "from bloodedge.backend import use_backend\n"
        "from bloodedge.errors import ConfigError\n"
        "try: use_backend('jax')\n"
        "except ConfigError as error: print(error)\n"
    )
    said = on_jax(code, JAX_PLATFORMS="cuda").stdout
    assert said.startswith("jax could not start its devices (JAX_PLATFORMS=cuda): ")
    assert said.count("\n") == 1


def test_devices_are_named_as_people_know_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stage, "describe_devices", lambda: {"device": "cpu", "devices": 1})
    assert stage._devices() == "cpu"
    monkeypatch.setattr(stage, "describe_devices", lambda: {"device": "NVIDIA H200", "devices": 4})
    assert stage._devices() == "4 x NVIDIA H200"
