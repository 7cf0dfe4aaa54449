from __future__ import annotations

from pathlib import Path

from bloodedge.benchmarks.open_models import open_models
from bloodedge.data.dataset import Dataset


def test_no_model_takes_the_place_of_another(
    colours: Dataset, brightest_tflite: bytes, tmp_path: Path
) -> None:
    # The second is what a browser calls a second download.
    paths = [tmp_path / name for name in ("x/a.tflite", "x/a (2).tflite", "y/a.tflite")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(brightest_tflite)
    assert list(open_models([str(path) for path in paths], colours)) == ["a", "a (2)", "a (3)"]
