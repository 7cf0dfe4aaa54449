"""Training on PyTorch, in processes of its own; skipped where it is not installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib import util
from pathlib import Path

import numpy as np
import pytest

from bloodedge.data.dataset import Dataset
from bloodedge.train.checkpoint import FILES

pytestmark = pytest.mark.skipif(util.find_spec("torch") is None, reason="torch is not installed")
TRAIN = "train --batch 16 --data colours.npz --backend torch"
DROPS_OUT = f"{TRAIN} --model cnn_se --width 0.25"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, colours: Dataset) -> None:
    """Work in a folder that holds the colours as an .npz, on one thread: others may be busy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arrays = {f"{name}_images": split.images for name, split in colours.splits.items()}
    arrays |= {f"{name}_labels": split.labels[:, None] for name, split in colours.splits.items()}
    np.savez(tmp_path / "colours.npz", **arrays)


def start(command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bloodedge", *command.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(command: str) -> str:
    """Run a command and return what it said on stderr."""
    process = start(command)
    said = process.communicate()[1]
    assert process.returncode == 0, said[-2000:]
    return said


def python(code: str, backend: str = "torch") -> None:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def weights(run: str) -> list[np.ndarray]:
    """Return the weights of a run's model, read by a process of its own on PyTorch."""
    out = f"{run}.npz"
    python(
        "import keras, numpy as np\n"
        f"net = keras.models.load_model({str(runs() / run / 'model.keras')!r}, compile=False)\n"
        f"np.savez({out!r}, *net.get_weights())\n"
    )
    with np.load(out) as arrays:
        return [arrays[f"arr_{place}"] for place in range(len(arrays))]


def runs() -> Path:
    return Path(os.environ["BLOODEDGE_RUNS"])


@pytest.mark.slow
def test_dropout_goes_on_after_a_kill_as_if_there_had_been_none():
    command = f"{DROPS_OUT} --epochs 6 --ema 0.9"
    run(f"{command} --name whole")
    killed = start(f"{command} --name killed")
    while not (runs() / ".killed.partial" / FILES[0]).exists() and killed.poll() is None:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    said = run(f"{command} --name killed --resume")
    # It did go on: the first epoch was not made again.
    assert "epoch 1:" not in said
    for one, other in zip(weights("whole"), weights("killed"), strict=True):
        np.testing.assert_array_equal(other, one)


@pytest.mark.slow
def test_what_is_trained_for_other_cameras_is_fine_tuned_for_int8():
    run(f"{TRAIN} --model cnn_se --width 0.25 --recipe robust --epochs 1 --name robust")
    run(
        "quantize robust --mode qat --epochs 1 --batch 16 --data colours.npz --backend torch "
        "--name qat"
    )
    assert (runs() / "qat" / "model.keras").exists()


def test_calibration_images_vary_as_by_tensorflow():
    if util.find_spec("tensorflow") is None:
        pytest.skip("tensorflow is not installed")
    code = (
        "import sys, numpy as np\n"
        "from bloodedge.backend import use_backend\n"
        "name = use_backend().backend.backend()\n"
        "from bloodedge.train.calibrating import as_trained\n"
        "from bloodedge.train.recipes import robust\n"
        "images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)\n"
        "np.save(name, as_trained(images, robust('cnn_se').augment, 1))\n"
    )
    for backend in ("torch", "tensorflow"):
        python(code, backend)
    ours, theirs = (np.load(f"{name}.npy").astype(int) for name in ("torch", "tensorflow"))
    # A value that lies between two may be rounded either way.
    assert np.abs(ours - theirs).max() <= 1
    assert (ours == theirs).mean() > 0.99
