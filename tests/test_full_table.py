"""The full table: every figure is one of a manifest or a result, and what is missing is said."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodedge.benchmarks.comparison import exit_code
from bloodedge.benchmarks.full_table import STEM
from bloodedge.benchmarks.full_table.__main__ import main
from bloodedge.benchmarks.full_table.table import found_in, render, spreadsheet
from bloodedge.benchmarks.report.stage import ReportConfig, report
from bloodedge.deploy.runtime_trials import recorded_arena
from bloodedge.errors import DataError, RunError
from bloodedge.metrics import classification_metrics

RECORDED = Path(__file__).parent.parent / "benchmarks/results/manifests"
CELLS = ("basophil", "neutrophil", "platelet")
PICO = {"name": "cnn_se_pico", "classes": 8, "size": 64, "width": 1.0}
PICO_PARAMETERS, PICO_MACS = 7_496, 1_523_840


def digest(name: str) -> str:
    return f"{int.from_bytes(name.encode(), 'big'):064x}"[-64:]


def figures(right: int) -> dict[str, Any]:
    """Metrics over 300 images of which so many are right."""
    y = np.arange(300) % 3
    said = np.where(np.arange(300) < right, y, (y + 1) % 3)
    return classification_metrics(y, 0.1 + 0.7 * np.eye(3)[said])


def write(folder: Path, name: str, kind: str, **more: Any) -> None:
    data = {"title": "Cells", "fingerprint": "f" * 64, "class_names": list(CELLS)}
    manifest = {"schema_version": 1, "kind": kind, "name": name, "data": data}
    manifest |= {"config": {}, "model": {}, "metrics": {}, "parents": {}, "files": {}, **more}
    (folder / f"{name}.json").write_text(json.dumps(manifest))


def student(folder: Path, seed: int, right: int) -> None:
    """A student, its QAT, the int8 file of that, and what it is worth on test."""
    run = f"pico-s{seed}"
    model = {"config": PICO, "parameters": PICO_PARAMETERS}
    file = {"model.keras": {"bytes": 25_000, "sha256": digest(run)}}
    write(folder, run, "train", model=model, files=file, metrics={"val": figures(200)})
    model = {**model, "parameters": PICO_PARAMETERS - 100}
    file = {"model.keras": {"bytes": 25_000, "sha256": digest(f"{run}-qat")}}
    parents = {"parent": digest(run)}
    write(folder, f"{run}-qat", "quantize", model=model, files=file, parents=parents)
    name = f"{run}-qat-int8.tflite"
    listed = {"int8": {"file": name, "gzip_bytes": 9_000}}
    if seed:
        listed["int8"]["runtimes"] = {"tflite-micro 1": "loads, arena 66,120 bytes"}
    file = {name: {"bytes": 11_200, "sha256": digest(name)}}
    parents = {"parent": digest(f"{run}-qat")}
    write(
        folder,
        f"{run}-qat-tflite",
        "export",
        model=model,
        files=file,
        parents=parents,
        metrics={"variants": listed},
    )
    entry = {"name": name, "gzip_bytes": 9_000, **file[name]}
    about = {"reference": f"{run}-qat-int8", "variant": "int8", "file": entry}
    write(folder, f"{run}-qat-int8-test", "evaluate", model=about, metrics={"test": figures(right)})


def timed(folder: Path, seed: int, us: float, **more: Any) -> None:
    name = f"pico-s{seed}-qat-int8.tflite"
    row = {"model": name, "threads": 1, "sha256": digest(name), "bytes": 11_200, "gzip_bytes": 9}
    row |= {"median_us": us, "p90_us": us, "p99_us": us, "min_us": us, "load_ms": 1.0}
    row |= {"first_ms": 1.0, "peak_rss_kib": 3072, "accuracy": None, "images": 0, "spread": 0.0}
    environment = {"runtime": "litert", "runtime_version": "2", "machine": "x86", "cpu_model": "A"}
    value = {"schema": "bloodedge-benchmark/1", "complete": True, "environment": environment}
    value |= {"rows": [{**row, "drift": False, "error": None, **more}]}
    (folder / "result.json").write_text(json.dumps(value))


def shown(folder: Path) -> list[dict[str, str]]:
    data, facts = found_in([str(folder)])
    table = [line for line in render(data, facts, "x").splitlines() if line.startswith("|")]
    head, _, *lines = [line.strip("| ").split(" | ") for line in table]
    return [dict(zip(head, line, strict=True)) for line in lines]


def test_seeds_share_a_line_and_what_nobody_measured_says_so(tmp_path: Path):
    student(tmp_path, 0, 270)
    student(tmp_path, 1, 276)
    (line,) = shown(tmp_path)
    low, high = (100 * bound for bound in figures(270)["accuracy_95ci"])
    assert line == {
        "model": "pico-qat",
        "file": "int8",
        r"test accuracy % \[95 %\]": rf"90.00 \[{low:.2f}, {high:.2f}\]",
        "seeds, mean ± sd": "2: 91.00 ± 1.41",
        "macro F1": f"{figures(270)['macro_f1']:.4f}",
        "AUC": f"{figures(270)['auc']:.4f}",
        "ECE": f"{figures(270)['ece']:.4f}",
        "worst class recall %": "90.00 (basophil)",
        "KB": "11.2",
        "KB gzip": "9.0",
        "MMAC": "1.52",
        "median µs": "not measured",
        "peak MiB": "not measured",
        "arena KB": "not measured",
    }
    data, facts = found_in([str(tmp_path)])
    rows = list(csv.DictReader(io.StringIO(spreadsheet(data, facts))))
    tested = {row["model"]: row for row in rows if row["split"] == "test"}
    assert [tested[f"pico-s{seed}-qat"]["arena_bytes"] for seed in (0, 1)] == ["", "66120"]
    assert {row["macs"] for row in rows} == {str(PICO_MACS)}
    assert len(rows) == 6


def test_latency_is_of_the_seed_that_was_timed_and_scores_of_the_first(tmp_path: Path):
    student(tmp_path, 0, 270)
    student(tmp_path, 1, 276)
    work = {"macs_int8": 2_000_000, "macs_float": 0, "traffic_bytes": 1, "resident_bytes": 1}
    timed(tmp_path, 1, 12.3, work=work)
    (line,) = shown(tmp_path)
    assert line[r"test accuracy % \[95 %\]"].startswith("90.00")
    assert line["macro F1"] == f"{figures(270)['macro_f1']:.4f}"
    assert line["seeds, mean ± sd"] == "2: 91.00 ± 1.41"
    cells = [line[key] for key in ("MMAC", "median µs", "peak MiB", "arena KB")]
    assert cells == ["2.00", "12.3", "3.0", "66.1"]


def test_the_first_seed_is_not_the_first_name(tmp_path: Path):
    """The first seed's name often tells none, and `a-s10` stands before `a-s2`."""
    for run, right in (("pico-slim", 270), ("pico-s10-slim", 279), ("pico-s2-slim", 276)):
        about = {"reference": run, "variant": "keras", "file": {"name": f"{run}.keras"}}
        about["file"] |= {"bytes": 9, "gzip_bytes": 9, "sha256": digest(run)}
        write(tmp_path, f"{run}-test", "evaluate", model=about, metrics={"test": figures(right)})
    (line,) = shown(tmp_path)
    assert line["model"] == "pico-slim"
    assert line[r"test accuracy % \[95 %\]"].startswith("90.00 ")


def test_a_model_whose_channels_were_cut_has_no_count_of_the_whole_one(tmp_path: Path):
    student(tmp_path, 0, 270)
    model = {"config": PICO, "parameters": 3_000}
    file = {"model.keras": {"bytes": 12_000, "sha256": digest("slim")}}
    tested = {"test": figures(290)}
    # Its name comes after its parent's, so that this one's count is known by then.
    parents = {"parent": digest("pico-s0")}
    write(tmp_path, "slim", "prune", model=model, files=file, metrics=tested, parents=parents)
    lines = {line["model"]: line for line in shown(tmp_path)}
    assert lines["pico-qat"]["MMAC"] == "1.52"
    line = lines["slim"]
    assert (line["MMAC"], line["seeds, mean ± sd"]) == ("not counted", "1 seed")


def test_a_damaged_name_of_a_file_costs_its_arena_alone(tmp_path: Path):
    student(tmp_path, 1, 270)
    path = tmp_path / "pico-s1-qat-tflite.json"
    manifest = json.loads(path.read_text())
    manifest["metrics"]["variants"]["int8"]["file"] = ["x"]
    path.write_text(json.dumps(manifest))
    (line,) = shown(tmp_path)
    assert (line["KB"], line["arena KB"]) == ("11.2", "not measured")


def test_what_micro_said_is_read_back():
    assert recorded_arena({"x": "runs", "tflite-micro 1.2": "loads, arena 1,234 bytes"}) == 1234
    assert recorded_arena({"tflite-micro 1.2": "refused"}) == 0
    assert recorded_arena({"tensorflow 2": "loads, arena 1 bytes"}) is None


def test_the_recorded_results_give_the_table_and_the_report(tmp_path: Path):
    main([str(RECORDED), "--out", str(tmp_path)])
    rows = list(csv.DictReader((tmp_path / "full_table.csv").open(encoding="utf-8")))
    assert (tmp_path / "full_table.md").read_text().startswith("# Every model\n")
    tests = [json.loads(path.read_text()) for path in RECORDED.glob("*-test.json")]
    by_digest = {m["model"]["file"]["sha256"]: m["metrics"]["test"] for m in tests}
    tested = {row["sha256"]: row for row in rows if row["split"] == "test"}
    assert tested.keys() == by_digest.keys()
    for sha, row in tested.items():
        wanted = by_digest[sha]
        for column, key in (("accuracy", "accuracy"), ("ece", "ece"), ("auc", "auc")):
            assert float(row[column]) == wanted[key]
        assert float(row["worst_class_recall"]) == min(wanted["recall"])
    # What was cut cannot be built from its name; only a measured file of it tells its MACs.
    assert not any(row["macs"] == "" for row in tested.values() if "slim" not in row["model"])
    made = report(ReportConfig((str(RECORDED),), out=tmp_path / "report"))
    assert {row.sha256 for row in made.rows} >= tested.keys()
    assert not made.data.bad


def test_a_damaged_manifest_costs_only_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    student(tmp_path, 0, 270)
    (tmp_path / "broken.json").write_text("{")
    assert len(shown(tmp_path)) == 1
    assert "left out broken.json" in capsys.readouterr().err


def test_a_data_set_without_test_figures_is_left_out_and_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model = {"config": PICO, "parameters": PICO_PARAMETERS}
    file = {"model.keras": {"bytes": 25_000, "sha256": digest("x")}}
    write(tmp_path, "x", "train", model=model, files=file, metrics={"val": figures(200)})
    out = tmp_path / "out"
    assert exit_code(lambda: main([str(tmp_path), "--out", str(out)])) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "Cells: nothing was evaluated on test or timed" in said.err
    assert not out.exists()
    other = {"title": "Others", "fingerprint": "e" * 64, "class_names": list(CELLS)}
    figured = {"metrics": {"test": figures(290)}, "data": other}
    write(tmp_path, "y", "train", model=model, files=file, **figured)
    assert exit_code(lambda: main([str(tmp_path), "--out", str(out)])) == 0
    text = (out / "full_table.md").read_text()
    assert ("## Others" in text, "## Cells" in text) == (True, False)


def test_nothing_to_show_is_one_clear_error(tmp_path: Path):
    with pytest.raises(RunError, match="no run or result 'nowhere'"):
        found_in(["nowhere"])
    with pytest.raises(DataError, match="no run in"):
        main(["--out", str(tmp_path)])
    assert not list(tmp_path.glob(f"{STEM}.*"))


def test_a_timed_seed_without_an_evaluation_does_not_hide_the_others(tmp_path: Path):
    for seed, right in enumerate((270, 276, 270)):
        student(tmp_path, seed, right)
    timed(tmp_path, 2, 12.3)
    (tmp_path / "pico-s2-qat-int8-test.json").unlink()
    (line,) = shown(tmp_path)
    assert line[r"test accuracy % \[95 %\]"].startswith("90.00")
    assert (line["seeds, mean ± sd"], line["median µs"]) == ("2: 91.00 ± 1.41", "12.3")


def exported_again(folder: Path, seed: int, right: int) -> None:
    """Another export of a student's QAT, such as one with other images for calibration."""
    name, run = f"pico-s{seed}-qat-int8.tflite", f"pico-s{seed}-qat-again"
    file = {"bytes": 11_300, "sha256": digest(run)}
    listed = {"int8": {"file": name, "gzip_bytes": 9_100}}
    parents = {"parent": digest(f"pico-s{seed}-qat")}
    more = {"files": {name: file}, "parents": parents, "metrics": {"variants": listed}}
    write(folder, run, "export", **more)
    about = {
        "reference": f"pico-s{seed}-qat-int8",
        "variant": "int8",
        "file": {"name": name, "gzip_bytes": 9_100, **file},
    }
    write(folder, f"{run}-test", "evaluate", model=about, metrics={"test": figures(right)})


def test_two_files_of_one_seed_are_not_two_seeds(tmp_path: Path):
    student(tmp_path, 0, 270)
    exported_again(tmp_path, 0, 282)
    lines = {line["model"]: line for line in shown(tmp_path)}
    assert {name: line["seeds, mean ± sd"] for name, line in lines.items()} == {
        "pico-qat (pico-qat-tflite)": "1 seed",
        "pico-qat (pico-qat-again)": "1 seed",
    }
    # A seed that was exported once stands with the exports of the others that are made alike.
    student(tmp_path, 1, 276)
    lines = {line["model"]: line for line in shown(tmp_path)}
    assert {name: line["seeds, mean ± sd"] for name, line in lines.items()} == {
        "pico-qat (pico-qat-tflite)": "2: 91.00 ± 1.41",
        "pico-qat (pico-qat-again)": "1 seed",
    }
