"""The table of the students, from runs that are there."""

from __future__ import annotations

from typing import Any

import pytest

from bloodedge.benchmarks import students
from bloodedge.benchmarks.students import rows, table
from bloodedge.data.dataset import Dataset
from bloodedge.files import write_json
from bloodedge.runs import MANIFEST, runs_root


def finish(name: str, metrics: dict[str, Any]) -> None:
    folder = runs_root() / name
    folder.mkdir(parents=True)
    entry = {"schema_version": 1, "kind": "x", "name": name, "model": {}, "data": {}, "files": {}}
    write_json(folder / MANIFEST, {**entry, "metrics": metrics})


def file(run: str, variant: str, size: int, val: float, test: float, worst: float) -> None:
    if not (runs_root() / f"{run}-tflite").exists():
        made = {"bytes": size, "gzip_bytes": size // 2, "accuracy_val": val}
        finish(f"{run}-tflite", {"variants": dict.fromkeys(("float32", "int8"), made)})
    finish(f"{run}-{variant}-test", {"test": {"accuracy": test, "recall": [1.0, worst]}})


def test_a_table_gives_means_spreads_and_what_int8_costs() -> None:
    for seed, accuracy in enumerate((0.98, 0.99, 1.0)):
        file(f"cnn_se-s{seed}", "float32", 60_000, 0.97, accuracy, 0.9 + seed / 100)
        file(f"cnn_se-s{seed}", "int8", 60_000, 0.97, accuracy - 0.005, 0.8)
    file("cnn_se-s0-qat", "int8", 60_000, 0.98, 0.97, 0.95)
    assert table(["cnn_se", "cnn_se_pico"], 3).splitlines()[2:] == [
        "| `cnn_se` | float32 | 3 | 60.0 | 30.0 | 97.00 | 99.00 ± 1.00 |  | 90.0 |",
        "| `cnn_se` | int8 | 3 | 60.0 | 30.0 | 97.00 | 98.50 ± 1.00 | -0.50 | 80.0 |",
        "| `cnn_se` | int8, QAT | 1 | 60.0 | 30.0 | 98.00 | 97.00 |  | 95.0 |",
        "| `cnn_se_pico` | float32 | 0 | not run yet | | | | | |",
        "| `cnn_se_pico` | int8 | 0 | not run yet | | | | | |",
        "| `cnn_se_pico` | int8, QAT | 0 | not run yet | | | | | |",
    ]


@pytest.mark.slow
def test_a_student_is_trained_and_finished(
    colours: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bloodedge.train.config import FitConfig

    learning = FitConfig(6, 16, 5e-3)
    tuning = FitConfig(1, 16, 1e-4, weight_decay=0.0, precision="float32")
    monkeypatch.setattr(students, "fit_config", lambda *_, **__: learning)
    monkeypatch.setattr(students, "qat_tuning", lambda **_: tuning)
    for variant in rows(["cnn_se_pico"], 6, colours):
        variant.train(0)
    students.finish(["cnn_se_pico"], 2, colours)
    done = list(students.scores("cnn_se_pico", "int8, QAT", 2))
    assert len(done) == 1
    assert 0 <= done[0].worst <= done[0].test <= 100
    before = {path.name: path.stat().st_mtime_ns for path in runs_root().iterdir()}
    students.finish(["cnn_se_pico"], 2, colours)
    assert {path.name: path.stat().st_mtime_ns for path in runs_root().iterdir()} == before
