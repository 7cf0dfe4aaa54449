from __future__ import annotations

from pathlib import Path

import pytest

from bloodedge.benchmarks import publish
from bloodedge.errors import ModelError


def test_a_file_without_a_run_is_not_published(brightest_tflite: bytes, tmp_path: Path) -> None:
    """Its manifest would have no schema, and one such model hides the whole zoo."""
    path = tmp_path / "net.tflite"
    path.write_bytes(brightest_tflite)
    for command in (publish.teacher, publish.student):
        with pytest.raises(ModelError, match=r"net\.tflite has no manifest beside it"):
            command(str(path), "net", tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_what_is_no_teacher_leaves_no_folder_behind(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no Keras model"):
        publish.teacher("cnn_se_pico", "net", tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()
