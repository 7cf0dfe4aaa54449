"""The table of the students, from runs that are there."""

from __future__ import annotations

from typing import Any

from bloodedge.benchmarks.students import finishable, students, trainable
from bloodedge.deploy.pipeline.plan import steps
from bloodedge.deploy.pipeline.presets import PRESETS
from bloodedge.deploy.pipeline.scores import markdown, preferred, rows
from bloodedge.files import write_json
from bloodedge.runs import MANIFEST, runs_root


def finish(name: str, metrics: dict[str, Any], model: dict[str, Any] | None = None) -> None:
    folder = runs_root() / name
    folder.mkdir(parents=True)
    entry = {"schema_version": 1, "kind": "x", "name": name, "data": {}, "files": {}}
    write_json(folder / MANIFEST, {**entry, "model": model or {}, "metrics": metrics})


def file(
    run: str, variant: str, size: int, val: float, test: float, worst: float, *failed: str
) -> None:
    if not (runs_root() / f"{run}-tflite").exists():
        made = {
            v: {"file": f"{run}-{v}.tflite", "accuracy_val": val, "failed": failed}
            for v in ("float32", "int8")
        }
        finish(f"{run}-tflite", {"variants": made})
    figures = {"accuracy": test, "accuracy_95ci": [test - 0.01, test + 0.01]}
    by_class = {"recall": [1.0, worst], "confusion": [[9, 0], [1, 9]]}
    model = {"file": {"bytes": size, "gzip_bytes": size // 2}}
    finish(f"{run}-{variant}-test", {"test": {**figures, **by_class}}, model)


def test_a_table_gives_means_spreads_and_what_int8_costs() -> None:
    for seed, accuracy in enumerate((0.98, 0.99, 1.0)):
        file(f"cnn_se-s{seed}", "float32", 60_000, 0.97, accuracy, 0.9 + seed / 100)
        file(f"cnn_se-s{seed}", "int8", 60_000, 0.97, accuracy - 0.005, 0.8)
    file("cnn_se-s0-qat", "int8", 60_000, 0.98, 0.97, 0.95)
    preset = students(["cnn_se", "cnn_se_pico"], 3)
    assert markdown(preset).splitlines()[2:] == [
        "| `cnn_se` | float32 | 3 | 60.0 | 30.0 | 97.00 | 99.00 ± 1.00 |  | 90.0 |",
        "| `cnn_se` | int8 | 3 | 60.0 | 30.0 | 97.00 | 98.50 ± 1.00 | -0.50 | 80.0 |",
        "| `cnn_se` | int8, QAT | 1 | 60.0 | 30.0 | 98.00 | 97.00 [96.00, 98.00] |  | 95.0 |",
        "| `cnn_se_pico` | float32 | 0 | not run yet |  |  |  |  |  |",
        "| `cnn_se_pico` | int8 | 0 | not run yet |  |  |  |  |  |",
        "| `cnn_se_pico` | int8, QAT | 0 | not run yet |  |  |  |  |  |",
    ]
    of_both = [preferred(student) for student in preset.students]
    assert of_both == ["cnn_se-s0-qat-tflite/cnn_se-s0-qat-int8.tflite", ""]


def test_a_file_that_failed_its_gate_is_marked_and_not_preferred() -> None:
    file("cnn_se_pico-s0", "int8", 9_000, 0.99, 0.97, 0.9, "agreement 0.9")
    file("cnn_se_pico-s0-qat", "int8", 9_000, 0.95, 0.96, 0.9)
    preset = students(["cnn_se_pico"], 1)
    kinds = [kind for _, kind, *_ in rows(preset)]
    assert kinds == ["float32", "int8, failed its gate", "int8, QAT"]
    assert preferred(preset.students[0]).startswith("cnn_se_pico-s0-qat-tflite/")


def test_students_are_trained_as_the_champions_and_peers_like_them() -> None:
    champion = PRESETS["champion"]
    ours = students([student.model for student in champion.students], 3)
    assert ours.students == champion.students
    peer = students(["mobilenet_v2_035"], 2).students[0]
    assert (peer.epochs, peer.int8) == (100, "qat")
    assert students(["cnn_se"], 1, 7).students[0].epochs == 7


def test_processes_can_share_the_seeds() -> None:
    preset = students(["cnn_se", "cnn_se_pico"], 3)
    of_one = ["cnn_se-s1", "cnn_se-s1-qat", "cnn_se_pico-s1", "cnn_se_pico-s1-qat"]
    assert [link.name for link in trainable(preset, 1)] == of_one
    shares = [link for seed in range(3) for link in trainable(preset, seed)]
    assert shares == trainable(preset)
    assert len(shares) == 12


def test_only_what_is_trained_is_finished() -> None:
    preset = students(["cnn_se", "cnn_se_pico"], 2)
    assert finishable(preset) == []
    finish("cnn_se-s1", {})
    finish("cnn_se_pico-s0-qat", {})
    assert [link.name for link in finishable(preset)] == [
        "cnn_se_pico-s0-qat-tflite",
        "cnn_se_pico-s0-qat-int8-test",
        "cnn_se-s1-tflite",
        "cnn_se-s1-float32-test",
        "cnn_se-s1-int8-test",
    ]
    assert not any(link in trainable(preset) for link in finishable(preset))
    assert len(steps(preset)) == 28
