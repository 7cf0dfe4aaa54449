"""`bloodedge quantize`: what each mode hands over, and what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bloodedge.backend import use_backend
from bloodedge.cli.app import app
from bloodedge.compress.quantize import QatConfig
from bloodedge.compress.targets import KdConfig
from bloodedge.compress.teaching import TeachingConfig
from bloodedge.deploy.audit import summary
from bloodedge.deploy.export import ExportConfig
from bloodedge.deploy.ranges import RangeConfig
from bloodedge.errors import ConfigError
from bloodedge.runs import Run
from bloodedge.train.recipes import qat_tuning


class HandedError(Exception):
    """Raised with what a command hands over."""


@pytest.fixture(autouse=True)
def stages(monkeypatch: pytest.MonkeyPatch) -> None:
    use_backend()

    def stop(*handed: Any) -> None:
        raise HandedError(*handed)

    monkeypatch.setattr("bloodedge.data.sources.load_data", lambda data, size: (data, size))
    monkeypatch.setattr("bloodedge.compress.quantize.quantize", stop)
    monkeypatch.setattr("bloodedge.deploy.export.export", stop)


def handed(line: str) -> Any:
    stopped = CliRunner().invoke(app, ["quantize", *line.split(), "--data", "cells"])
    assert isinstance(stopped.exception, HandedError), stopped.output
    config, data = stopped.exception.args
    assert data == ("cells", None)
    return config


def test_qat_is_fine_tuning(tiny_file: Path):
    words = "--mode qat --teacher {0} --temperature 2 --alpha 0.5 --teacher-views 4 --epochs 3 "
    words += "--batch 8 --lr 0.01 --seed 2 --preserve sparsity --calibration-per-class 9 --resume"
    fit = qat_tuning(epochs=3, batch=8, learning_rate=0.01, seed=2)
    teaching = TeachingConfig((str(tiny_file),), KdConfig(2, 0.5), 4)
    assert handed(f"{tiny_file} {words}".format(tiny_file)) == QatConfig(
        str(tiny_file), fit, "tiny-qat", teaching, "sparsity", 9, resume=True
    )


@pytest.mark.parametrize(
    ("words", "mode", "options"),
    [
        ("", "int8", {}),
        ("--mode float16", "float16", {}),
        ("--mode dynamic", "dynamic", {}),
        ("--mode int16x8", "int16x8", {}),
        ("--mode mixed --float-layers 3", "mixed", {"float_layers": 3}),
        ("--calibration mse", "int8", {"ranges": RangeConfig("mse")}),
        (
            "--calibration percentile --percentile 99.9",
            "int8",
            {"ranges": RangeConfig("percentile", 99.9)},
        ),
        # The audit that was promised: five draws.
        ("--audit --seed 3", "int8", {"audit": 5, "seed": 3}),
    ],
)
def test_a_mode_after_training_is_an_export(
    words: str, mode: str, options: dict[str, Any], tiny_file: Path
):
    expected = ExportConfig(str(tiny_file), f"tiny-{mode}", (mode,), 32, **{"seed": 0, **options})
    assert handed(f"{tiny_file} {words}") == expected


@pytest.mark.parametrize(
    ("accuracies", "words"),
    [
        ((0.9, 0.92), "over 2 draws of calibration images 91.00 % (standard deviation 1.41, 90.00"),
        (
            (0.9,),
            "int8: val accuracy 90.00 %, whatever the draw of calibration images: each is all",
        ),
    ],
)
def test_the_audit_is_printed(
    accuracies: tuple[float, ...], words: str, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
):
    found = summary([{"seed": s, "accuracy_val": a} for s, a in enumerate(accuracies)])
    metrics = {"variants": {}, "audit": {"int8": found}}
    run = Run(tiny_file.parent, {"metrics": metrics, "data": {"title": "drawn [cells]"}})
    monkeypatch.setattr("bloodedge.deploy.export.export", lambda config, data: run)
    done = CliRunner().invoke(app, ["quantize", str(tiny_file), "--audit"])
    assert done.exit_code == 0, done.output
    assert words in done.stdout
    assert "drawn [cells]" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--mode dynamic --calibration mse", "mse is for"),
        ("--float-layers 2", "is for mixed"),
        ("--mode float16 --audit", "no calibration images"),
        ("--mode int8 --teacher x", "--teacher with --mode int8"),
        ("--mode qat --float-layers 2", "modes after training"),
        ("--mode qat --float-layers 0", "modes after training"),
        ("--mode int8 --preserve none", "--preserve with --mode int8"),
        (
            "--mode int8 --method dkd --temperature -5 --alpha 3 --teacher-views 77",
            "--method, --temperature, --alpha, --teacher-views with --mode int8",
        ),
        ("--mode float16 --calibration-per-class 3", "class with float16; expected int8, mixed"),
        ("--mode dynamic --calibration-per-class 32", "--calibration-per-class with dynamic"),
        ("--mode qat --teacher x --method dist --temperature 2", "--temperature with --method"),
        # Typed is typed, even as it is by default.
        ("--mode float16 --method kd", "--method with --mode float16"),
        ("--mode qat --method nonsense --epochs 1", "--method without --teacher"),
        ("--mode qat --audit --percentile 9", "--percentile, --audit with --mode qat"),
        ("--percentile 99", "--percentile with --calibration minmax"),
        ("--calibration percentile --percentile 0", "--percentile 0"),
    ],
)
def test_what_a_mode_does_not_heed_is_refused(words: str, message: str, tiny_file: Path):
    refused = CliRunner().invoke(app, ["quantize", str(tiny_file), *words.split()])
    with pytest.raises(ConfigError, match=message):
        raise refused.exception or AssertionError(refused.output)
