"""The commands that prune and cluster weights: what they hand over, print, and survive."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bloodedge.backend import use_backend
from bloodedge.cli.app import app
from bloodedge.compress.clustering import ClusterConfig
from bloodedge.compress.figures import NOTE
from bloodedge.compress.sparsity import SparsityConfig
from bloodedge.compress.targets import KdConfig
from bloodedge.compress.teaching import TeachingConfig
from bloodedge.data.dataset import Dataset
from bloodedge.errors import ConfigError
from bloodedge.runs import Run
from bloodedge.train.config import FitConfig
from bloodedge.train.modelio import load_model

SHARED = "--teacher {0} --temperature 2 --alpha 0.5 --teacher-views 4 --layer a --layer b "
SHARED += "--epochs 7 --batch 8 --lr 0.01 --ema 0.5 --seed 3 --resume --force"


def finished(path: Path) -> Run:
    """A run with two layers, as the stages write it."""
    row = {"name": "conv", "weights": 100, "sparsity": 0.5, "values": 51, "reason": ""}
    other = row | {"name": "wide", "weights": 0, "reason": "DepthwiseConv2D: only [others]"}
    sizes = {"float32": {"bytes": 4000, "gzip_bytes": 3000}}
    smaller = {"float32": {"bytes": 4000, "gzip_bytes": 1500}}
    weights = {
        "layers": [row, other],
        "sizes": {"before": sizes, "after": smaller},
        "counted": "all",
        "note": NOTE,
    }
    val = {"accuracy": 0.9, "accuracy_95ci": [0.8, 0.95]}
    manifest = {"model": {"weights": weights}, "metrics": {"val": val}, "data": {"title": "cells"}}
    return Run(path, manifest)


@pytest.mark.parametrize(
    ("stage", "words", "kind", "own"),
    [
        (
            "sparsity.sparsify",
            "prune {0} --weights --pattern 2:4",
            SparsityConfig,
            {"name": "tiny-2of4", "pattern": "2:4"},
        ),
        (
            "clustering.cluster",
            "cluster {0} --clusters 5 --init linear --preserve-sparsity",
            ClusterConfig,
            {"name": "tiny-cluster5", "clusters": 5, "init": "linear", "preserve_sparsity": True},
        ),
    ],
)
def test_a_command_hands_over_every_option_and_prints_the_layers(
    stage: str, words: str, kind: Any, own: dict[str, Any], tiny_file: Path, monkeypatch
):
    use_backend()
    got = []

    def capture(config: Any, data: Any) -> Run:
        got.append((config, data))
        return finished(tiny_file.parent)

    monkeypatch.setattr(f"bloodedge.compress.{stage}", capture)
    monkeypatch.setattr("bloodedge.data.sources.load_data", lambda data, size: (data, size))
    line = f"{words} {SHARED} --data cells --size 32".format(tiny_file)
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 0, result.output
    fit = FitConfig(7, 8, 0.01, ema=0.5, seed=3)
    shared = {
        "model": str(tiny_file),
        "fit": fit,
        "teaching": TeachingConfig((str(tiny_file),), KdConfig(2, 0.5), 4),
        "layers": ("a", "b"),
        "force": True,
        "resume": True,
    }
    assert got == [(kind(**shared, **own), ("cells", 32))]
    printed = " ".join(result.stdout.split())
    assert "conv 100 50.00 51" in printed
    assert "wide - - - DepthwiseConv2D: only [others]" in printed
    assert "float32 weights: 4,000 bytes; gzip 3,000 -> 1,500" in printed
    assert NOTE in printed
    assert "val accuracy 90.00 %" in printed


def test_the_defaults_are_those_of_fine_tuning(tiny_file: Path, monkeypatch):
    use_backend()
    got = SimpleNamespace(config=None)

    def capture(config: Any, data: Any) -> Run:
        got.config = config
        raise ConfigError("enough")

    monkeypatch.setattr("bloodedge.data.sources.load_data", lambda data, size: None)
    for stage, command, name in (
        ("sparsity.sparsify", f"prune {tiny_file} --weights --sparsity 0.8", "tiny-sparse80"),
        ("clustering.cluster", f"cluster {tiny_file}", "tiny-cluster16"),
    ):
        monkeypatch.setattr(f"bloodedge.compress.{stage}", capture)
        assert isinstance(CliRunner().invoke(app, command.split()).exception, ConfigError)
        assert (got.config.name, got.config.fit.epochs) == (name, 20)


@pytest.mark.parametrize("devices", ["2", "all"])
def test_weights_are_not_pruned_on_several_devices(devices: str, tiny_file: Path, monkeypatch):
    # Refused before the data is loaded.
    monkeypatch.setattr("bloodedge.data.sources.load_data", None)
    line = f"prune {tiny_file} --weights --devices {devices}"
    refused = CliRunner().invoke(app, line.split()).exception
    assert isinstance(refused, ConfigError)
    assert f"--devices {devices} with weights to prune" in str(refused)


@pytest.mark.slow
def test_a_killed_command_ends_in_the_weights_of_one_never_killed(
    tiny_file: Path, colours: Dataset, tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    arrays = {f"{n}_images": s.images for n, s in colours.splits.items()}
    arrays |= {f"{n}_labels": s.labels[:, None] for n, s in colours.splits.items()}
    np.savez(tmp_path / "colours.npz", **arrays)
    # tfmot keeps some of its state outside of weights: the new process must find the same again.
    line = [sys.executable, "-m", "bloodedge", "cluster", str(tiny_file), "--preserve-sparsity"]
    line += ["--data", "colours.npz", "--epochs", "20", "--batch", "16"]
    subprocess.run([*line, "--name", "whole"], check=True, capture_output=True)
    killed = [*line, "--name", "killed", "--resume"]
    with subprocess.Popen(killed, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        next(text for text in process.stderr if text.startswith("epoch 5:"))
        assert process.poll() is None
        process.kill()
    subprocess.run(killed, check=True, capture_output=True)
    first, second = (load_model(tmp_path / "runs" / n / "model.keras") for n in ("whole", "killed"))
    for expected, found in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "neither or both of --channels and --weights"),
        ("--channels --weights", "neither or both of --channels and --weights"),
        ("--weights --macs 0.5", "--macs with --weights; expected --channels"),
        ("--weights --dry-run", "--dry-run with --weights"),
        (
            "--weights --importance nonsense --floor 7 --no-renorm",
            "--importance, --floor, --no-renorm with --weights",
        ),
        ("--weights --renorm", "--renorm with --weights"),
        ("--weights --epochs 0", "--epochs 0 with --weights"),
        ("--channels --macs 0.5 --sparsity 0.5", "--sparsity with --channels; expected --weights"),
        ("--channels --macs 0.5 --layer a --pattern 2:4", "--pattern, --layer with --channels"),
    ],
)
def test_the_two_ways_to_prune_are_kept_apart(options: str, message: str, tiny_file: Path):
    result = CliRunner().invoke(app, ["prune", str(tiny_file), *options.split()])
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("prune {} --weights --method zzz --temperature -3", "--method, --temperature without"),
        ("prune {} --channels --macs 0.5 --alpha 0.5", "--alpha without --teacher"),
        ("cluster {} --teacher-views 77", "--teacher-views without --teacher"),
        (
            "prune {} --channels --macs 0.5 --epochs 0 --lr 9 --batch 4 --precision float32",
            "--batch, --lr, --precision with --epochs 0",
        ),
        (
            "cluster {0} --teacher {0} --method dist --temperature 4",
            "--temperature with --method dist",
        ),
        (
            "distill --student cnn_se --teacher {} --method dist --temperature 2",
            "--temperature with --method dist",
        ),
        (
            "distill --student cnn_se --teacher {} --live --teacher-views 2",
            "--teacher-views with a live teacher",
        ),
        (
            "distill --student cnn_se --teacher-logits x --teacher-views 2",
            "--teacher-views without --teacher",
        ),
        (
            "export {} --variants float32,dynamic --calibration-per-class 3",
            "--calibration-per-class with float32, dynamic",
        ),
    ],
)
def test_options_that_would_change_nothing_are_refused(line: str, message: str, tiny_file: Path):
    use_backend()
    result = CliRunner().invoke(app, line.format(tiny_file).split())
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)
