"""Training on the other Keras backends and over several devices, in processes of their own."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from importlib import util
from pathlib import Path

import numpy as np
import pytest

from bloodedge.data.dataset import Dataset

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
    assert "--backend jax" in refusal("--devices", "all", "--backend", "tensorflow")
    assert "--precision 'float8'" in refusal("--precision", "float8")
    if util.find_spec("jax"):
        assert "expected all, or 1 to 1" in refusal("--devices", "2", "--backend", "jax")
