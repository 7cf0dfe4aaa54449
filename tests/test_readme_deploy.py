"""The README's chapter on deployment, run from its first command to its last."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from bloodedge.backend import use_backend
from bloodedge.cli.app import app
from bloodedge.data.dataset import Dataset
from bloodedge.deploy.card import CARD
from bloodedge.train.config import FitConfig
from bloodedge.train.stage import TrainConfig, train

README = Path(__file__).resolve().parent.parent / "README.md"
CHAPTER = "### Deployment in depth"


def commands() -> list[str]:
    """The lines of the chapter's shell blocks, in order."""
    chapter = README.read_text().split(CHAPTER, 1)[1].split("\n##", 1)[0]
    blocks = re.findall(r"```sh\n(.*?)```", chapter, re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line]


def test_the_chapter_shows_every_command_of_deployment() -> None:
    shown = {line.split()[1] for line in commands() if line.startswith("bloodedge ")}
    assert {"export", "verify", "inspect", "predict", "bundle"} <= shown


@pytest.mark.slow
def test_the_chapter_runs(
    colours: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolated_runs: Path
) -> None:
    use_backend()
    monkeypatch.chdir(tmp_path)
    arrays = {f"{name}_images": split.images for name, split in colours.splits.items()}
    arrays |= {f"{name}_labels": split.labels[:, None] for name, split in colours.splits.items()}
    np.savez(tmp_path / "colours.npz", **arrays)
    # The chapter's commands name no data: the setting stands for the user's own.
    monkeypatch.setenv("BLOODEDGE_DATA", "colours.npz")
    monkeypatch.setenv("PYTHON", sys.executable)
    train(TrainConfig("cnn_se", FitConfig(8, 16, 1e-2), "cnn_se", 0.25), colours)
    (tmp_path / "cells").mkdir()
    for i, image in enumerate(colours["test"].images[:5]):
        assert cv2.imwrite(str(tmp_path / "cells" / f"{i}.png"), image[..., ::-1])
    for line in commands():
        program, *words = shlex.split(line)
        if program == "bloodedge":
            done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, (line, done.output, done.exception)
        else:
            assert program == "sh", line
            subprocess.run([program, *words], check=True, timeout=300, capture_output=True)
            device = tmp_path / Path(words[0]).parent
    made = isolated_runs / "cnn_se-app"
    for name in ("cnn_se-int8.tflite", "cnn_se-int8.kt", "cnn_se-int8.cc", "cnn_se-int8.h", CARD):
        assert (made / name).is_file(), name
    assert len((tmp_path / "cells.csv").read_text().splitlines()) == 6
    assert (tmp_path / "cells.png").read_bytes().startswith(b"\x89PNG")
    rows = json.loads((device / "result.json").read_text())["rows"]
    assert {Path(row["model"]).name for row in rows} >= {"cnn_se-int8.tflite"}
