"""The names that commands give to runs of a model whose file may be called anything."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bloodedge.backend import use_backend
from bloodedge.cli.app import app
from bloodedge.compress.chain.recipe import RecipeConfig
from bloodedge.errors import RunError
from bloodedge.variants import Recipe


class HandedError(Exception):
    """Raised with what a command hands over."""


def stop(*handed: Any) -> None:
    raise HandedError(*handed)


@pytest.mark.parametrize(
    ("words", "stage", "name"),
    [
        ("export {}", "deploy.export.export", "out_soft_1-tflite"),
        ("quantize {} --mode int8", "deploy.export.export", "out_soft_1-int8"),
        ("quantize {} --mode qat", "compress.quantize.quantize", "out_soft_1-qat"),
        ("sensitivity {}", "compress.sensitivity.sensitivity", "out_soft_1-sensitivity"),
        ("cluster {}", "compress.clustering.cluster", "out_soft_1-cluster16"),
        ("prune {} --weights", "compress.sparsity.sparsify", "out_soft_1-sparse50"),
        (
            "prune {} --channels --macs 0.5",
            "compress.channels.stage.prune_channels",
            "out_soft_1-pruned",
        ),
    ],
)
def test_a_file_of_any_name_gives_a_run_one_it_can_have(
    words: str, stage: str, name: str, tiny_file: Path, tmp_path: Path, monkeypatch
):
    use_backend()
    monkeypatch.setattr("bloodedge.data.sources.load_data", lambda data, size: None)
    monkeypatch.setattr(f"bloodedge.{stage}", stop)
    file = shutil.copy(tiny_file, tmp_path / ".out soft(1.keras")
    line = [word.format(file) for word in words.split()]
    stopped = CliRunner().invoke(app, line)
    assert isinstance(stopped.exception, HandedError), stopped.output
    assert stopped.exception.args[0].name == name
    # A name that was given is not made another in silence.
    refused = CliRunner().invoke(app, [*line, "--name", "out soft"])
    assert isinstance(refused.exception, RunError)
    assert "'out soft' cannot be a run's name" in str(refused.exception)
    assert "choose another --name" in str(refused.exception)


def test_a_recipe_names_its_results_so_too(tiny_file: Path, tmp_path: Path):
    file = shutil.copy(tiny_file, tmp_path / ".out soft(1.keras")
    assert RecipeConfig(str(file), Recipe.parse("int8")).start.base == "out_soft_1"
