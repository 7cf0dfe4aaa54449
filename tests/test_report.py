from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from bloodedge.benchmarks.report.axes import linear_axis, log_ticks
from bloodedge.benchmarks.report.figures import Point, scatter
from bloodedge.benchmarks.report.plots import section_figures
from bloodedge.benchmarks.report.read import count, number
from bloodedge.benchmarks.report.stage import Report, ReportConfig, report, summary_table
from bloodedge.benchmarks.report.text import md
from bloodedge.cli.reporting import report as report_command
from bloodedge.deploy.flat.lean import lean
from bloodedge.deploy.flat.reader import read_model
from bloodedge.deploy.flat.writer import write_tables
from bloodedge.deploy.metadata import About, notes
from bloodedge.errors import BloodedgeError, ConfigError, DataError, RunError
from bloodedge.files import sha256_of
from bloodedge.metrics import classification_metrics
from bloodedge.references import packaged_zoo
from bloodedge.runs import Manifest, Run, open_run

CELLS = ("basophil", "eosinophil", "erythroblast", "neutrophil")
HISTORY = (
    "epoch,train_loss,train_accuracy,val_loss,val_accuracy\n1,1.2,0.5,1.1,0.6\n2,0.4,0.9,0.5,0.8\n"
)


def data(synthetic: bool = False, fingerprint: str = "f" * 64, **more: Any) -> dict[str, Any]:
    entry = {"title": "Blood cells", "synthetic": synthetic, "fingerprint": fingerprint}
    return {**entry, "class_names": list(CELLS), **more}


def scores(share: float, images: int = 400, seed: int = 0) -> dict[str, Any]:
    """Metrics of a classifier that is right about `share` of the time."""
    rng = np.random.default_rng(seed)
    y = np.arange(images) % len(CELLS)
    said = np.where(rng.random(images) < share, y, rng.integers(0, len(CELLS), images))
    p = 0.05 + 0.8 * np.eye(len(CELLS))[said]
    return classification_metrics(y, p)


def make(kind: str, name: str, model: dict[str, Any], metrics: dict[str, Any], **more: Any) -> Run:
    """Write a run; `files` are its files' contents by name."""
    files: dict[str, bytes] = more.pop("files", {})
    fields = {"config": {}, "data": data(), "parents": {}, "seed": 0, "duration_s": 1.0, **more}
    with open_run(name) as run:
        for file, content in files.items():
            (run.path / file).write_bytes(content)
        return run.commit(Manifest(kind, name, model=model, metrics=metrics, **fields))


def trained(name: str, content: bytes, family: str, share: float, **more: Any) -> Run:
    files = {"model.keras": content, "history.csv": HISTORY.encode()}
    return make(
        "train", name, {"config": {"name": family}}, {"val": scores(share)}, files=files, **more
    )


def exported(name: str, parent: Run, variants: dict[str, bytes], **more: Any) -> Run:
    files = {f"{parent.name}-{v}.tflite": content for v, content in variants.items()}
    listed = {v: {"file": f"{parent.name}-{v}.tflite", "agreement": 0.999} for v in variants}
    parents = {"parent": sha256_of(parent.path / "model.keras")}
    metrics = {"variants": listed}
    return make("export", name, {}, metrics, files=files, parents=parents, **more)


def evaluated(path: Path, share: float, name: str = "", **more: Any) -> Run:
    file = {"name": path.name, "bytes": path.stat().st_size, "gzip_bytes": 77}
    model = {"reference": path.stem, "file": {**file, "sha256": sha256_of(path)}}
    metrics = {"test": {**scores(share, 4000), "images_per_s": 9.0}}
    return make("evaluate", name or f"{path.stem}-test", model, metrics, **more)


def timing(path: Path, threads: int, us: float) -> dict[str, Any]:
    row = {"model": path.name, "threads": threads, "sha256": sha256_of(path), "bytes": 10}
    row |= {"gzip_bytes": 8, "median_us": us, "p90_us": 1.2 * us, "p99_us": 1.5 * us}
    row |= {"min_us": 0.9 * us, "load_ms": 3.0, "first_ms": 0.4, "peak_rss_kib": 3500}
    row |= {"accuracy": None, "images": 0, "spread": 0.02, "drift": False, "error": None}
    row |= {"repeats": 5}
    return row


def result(rows: list[dict[str, Any]], device: str = "Raspberry Pi 4") -> dict[str, Any]:
    environment = {"runtime": "ai_edge_litert", "runtime_version": "2.3.0"}
    environment |= {"machine": "aarch64", "cpu_model": device}
    return {
        "schema": "bloodedge-benchmark/1",
        "complete": True,
        "environment": environment,
        "rows": rows,
    }


def benchmarked(name: str, rows: list[dict[str, Any]], **more: Any) -> Run:
    content = json.dumps(result(rows)).encode()
    return make("benchmark", name, {}, {}, files={"benchmark.json": content}, **more)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BLOODEDGE_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    # Nothing here has to survive a power cut, and on a busy disk flushing takes most of the time.
    monkeypatch.setattr("os.fsync", lambda handle: None)
    return tmp_path / "runs"


@pytest.fixture
def student() -> Run:
    """A trained student, its two exported variants, both evaluated and timed."""
    run = trained("cnn_se", b"keras" * 900, "cnn_se", 0.9)
    export = exported("cnn_se-export", run, {"int8": b"i" * 100, "float32": b"f" * 300})
    int8, float32 = (export.path / f"cnn_se-{v}.tflite" for v in ("int8", "float32"))
    evaluated(int8, 0.95)
    evaluated(float32, 0.97)
    benchmarked("pi", [timing(int8, 1, 50.0), timing(int8, 4, 20.0), timing(float32, 1, 110.0)])
    return run


def read_csv(folder: Path) -> dict[str, dict[str, str]]:
    rows = csv.DictReader(io.StringIO((folder / "results.csv").read_text(encoding="utf-8")))
    return {row["variant"]: row for row in rows}


# ---- joining ----


@pytest.mark.usefixtures("student")
def test_runs_are_joined_by_the_models_digest() -> None:
    made = report(ReportConfig())
    assert made.page == Path("report/report.html")
    rows = read_csv(Path("report"))
    assert set(rows) == {"keras", "int8", "float32"}
    int8 = rows["int8"]
    assert (int8["model"], int8["family"], int8["file"]) == (
        "cnn_se",
        "cnn_se",
        "cnn_se-int8.tflite",
    )
    assert (int8["bytes"], int8["split"]) == ("100", "test")
    assert float(int8["accuracy"]) == scores(0.95, 4000)["accuracy"]
    assert [float(int8[k]) for k in ("accuracy_low", "accuracy_high")] == scores(0.95, 4000)[
        "accuracy_95ci"
    ]
    assert (int8["median_us"], int8["all_cores"], int8["all_cores_median_us"]) == (
        "50.0",
        "4",
        "20.0",
    )
    assert int8["device"] == "Raspberry Pi 4 (aarch64)"
    assert (rows["float32"]["median_us"], rows["float32"]["all_cores_median_us"]) == ("110.0", "")
    assert (rows["keras"]["split"], rows["keras"]["median_us"]) == ("val", "")
    assert not made.data.left_out


def test_a_figure_may_be_as_small_as_rounding_leaves_it() -> None:
    # Wilson's interval has ends such as this where no image of some hundred was right.
    assert number(1.7e-18, "accuracy_95ci") == 1.7e-18
    for wrong in (True, "1", -1, 1.5, 10**400, float("nan"), None):
        with pytest.raises(DataError, match="`accuracy`"):
            number(wrong, "accuracy")
    for wrong in (True, 1.0, -1, 1 << 60):
        with pytest.raises(DataError, match="`bytes` is not a whole number"):
            count(wrong, "bytes")


@pytest.mark.usefixtures("student")
def test_the_page_names_every_model_with_its_figures() -> None:
    page = report(ReportConfig()).page.read_text(encoding="utf-8")
    markdown = Path("report/report.md").read_text(encoding="utf-8")
    for shown in ("cnn_se int8", "50.0", "20.0 (4)", "Raspberry Pi 4", "Accuracy against size"):
        assert shown in page
    # 3500 KiB are 3.4 MiB, and 3.5 thousand KiB.
    assert "<td>3.4</td>" in page
    for shown in ("| cnn_se | int8 | test | 0.1 |", "50.0", "Raspberry Pi 4"):
        assert shown in markdown
    assert "cnn_se: accuracy" in page  # the learning curve
    for figure in re.findall(r"!\[.*?\]\((.*?)\)", markdown):
        assert (Path("report") / figure).is_file()


def test_the_newer_of_two_evaluations_counts(student: Run) -> None:
    int8 = student.path.parent / "cnn_se-export" / "cnn_se-int8.tflite"
    evaluated(int8, 0.5, name="later", created="2999-01-01T00:00:00+00:00")
    evaluated(int8, 0.2, name="earlier", created="1999-01-01T00:00:00+00:00")
    report(ReportConfig())
    assert float(read_csv(Path("report"))["int8"]["accuracy"]) == scores(0.5, 4000)["accuracy"]


def test_data_of_different_fingerprints_stays_apart(student: Run) -> None:
    keras = student.path / "model.keras"
    evaluated(keras, 0.4, name="drawn", data=data(True, "a" * 64, title="Drawn cells"))
    sections = report(ReportConfig()).data.sections
    assert [(s.fingerprint[0], s.synthetic, len(s.rows)) for s in sections] == [
        ("f", False, 3),
        ("a", True, 1),
    ]
    real, drawn = sections
    assert all("synthetic" not in figure.title for figure in section_figures(real))
    assert {row.scores.split for row in drawn.rows if row.scores} == {"test"}


def test_a_model_timed_on_two_devices_has_a_row_for_each(student: Run, tmp_path: Path) -> None:
    int8 = student.path.parent / "cnn_se-export" / "cnn_se-int8.tflite"
    path = tmp_path / "phone.json"
    path.write_text(json.dumps(result([timing(int8, 1, 33.0)], "Pixel")), encoding="utf-8")
    made = report(ReportConfig(results=(path,)))
    timed = {
        row.latency.device: row.latency.single.median_us
        for row in made.rows
        if row.latency and row.latency.single and row.variant == "int8"
    }
    assert timed == {"Raspberry Pi 4 (aarch64)": 50.0, "Pixel (aarch64)": 33.0}
    assert len(made.data.sections[0].scored) == 2  # one mark a model in the size plot


def test_the_accuracy_on_a_device_counts_for_the_images_it_was_given(student: Run) -> None:
    int8 = student.path.parent / "cnn_se-export" / "cnn_se-int8.tflite"
    evaluated(int8, 0.4, name="drawn", data=data(True, "a" * 64))
    benchmarked("real", [timing(int8, 1, 45.0) | {"accuracy": 0.75, "images": 40}])
    real, drawn = report(ReportConfig()).parts
    assert [line[-1] for line in real[0].table[1:]] == ["110", "45.0 · 75.00 %"]
    assert [line[-1] for line in drawn[0].table[1:]] == ["45.0"]


def by_browser(path: Path, us: float, delegate: str = "wasm") -> dict[str, Any]:
    row = {**timing(path, 1, us), "delegate": delegate}
    return {**row, "peak_rss_kib": None}


def test_a_browsers_latency_is_never_ranked_with_the_runners(student: Run, tmp_path: Path) -> None:
    folder = student.path.parent / "cnn_se-export"
    int8, float32 = (folder / f"cnn_se-{v}.tflite" for v in ("int8", "float32"))
    # The same device, and faster than anything that the runner measured on it.
    rows = [by_browser(int8, 1.0), by_browser(float32, 2.0), by_browser(int8, 3.0, "webgpu")]
    phone = tmp_path / "phone.json"
    phone.write_text(json.dumps({**result(rows), "protocol": "browser"}), encoding="utf-8")
    made = report(ReportConfig(results=(phone,)))
    figures = section_figures(made.data.sections[0])
    latency = [f.svg for f in figures if f.title.startswith("Accuracy against latency")]
    assert len(latency) == 2
    assert ["aarch64), browser" in svg for svg in latency] == [False, True]
    assert [svg.count("<circle") for svg in latency] == [2, 3]
    page = made.page.read_text(encoding="utf-8")
    assert "fastest, one thread, Raspberry Pi 4 (aarch64)</span><b>50.0 µs" in page
    assert "fastest, one thread, Raspberry Pi 4 (aarch64), browser</span><b>1.00 µs" in page
    csv_rows = list(csv.DictReader(io.StringIO(Path("report/results.csv").read_text())))
    found = {(r["variant"], r["protocol"], r["runtime"][-6:], r["median_us"]) for r in csv_rows}
    assert ("int8", "browser", "webgpu", "3.0") in found
    assert ("int8", "runner", " 2.3.0", "50.0") in found


def test_an_emulators_latency_is_left_out(student: Run, tmp_path: Path) -> None:
    int8 = student.path.parent / "cnn_se-export" / "cnn_se-int8.tflite"
    path = tmp_path / "emulated.json"
    value = {**result([timing(int8, 1, 1.0)], "emulator"), "emulated": True}
    path.write_text(json.dumps(value), encoding="utf-8")
    made = report(ReportConfig(results=(path,)))
    devices = {row.latency.device for row in made.rows if row.latency}
    assert devices == {"Raspberry Pi 4 (aarch64)"}
    why = "measured in an emulator, whose latencies mean nothing: only its answers are shown"
    assert ("emulated.json", why) in made.data.left_out
    assert made.data.bad == ()


def test_a_timed_model_that_no_run_holds_belongs_to_the_images_it_was_given(
    student: Run, tmp_path: Path
) -> None:
    other = tmp_path / "other-int8.tflite"
    other.write_bytes(b"other")
    drawn = data(True, "a" * 64, title="Drawn cells")
    benchmarked("drawn", [timing(other, 1, 5.0)], data=drawn)
    made = report(ReportConfig())
    real, synthetic = made.data.sections
    assert (real.fingerprint[0], len(real.rows)) == ("f", 3)
    assert (synthetic.fingerprint[0], synthetic.synthetic) == ("a", True)
    assert [part.heading for part in made.parts[1]] == ["Device by model (synthetic)"]
    assert (
        (Path("report") / "table-devices-2.csv").read_text().splitlines()[1].endswith(",synthetic")
    )
    (row,) = synthetic.rows
    assert (row.model, row.variant, row.sha256) == ("other", "int8", sha256_of(other))
    assert student.name in Path("report/report.html").read_text(encoding="utf-8")


def test_the_best_of_each_family(student: Run) -> None:
    teacher = trained("vgg16", b"v" * 9000, "vgg16", 0.99)
    evaluated(teacher.path / "model.keras", 0.99, name="vgg16-test")
    best = report(ReportConfig()).data.sections[0].best
    assert [(row.label, row.family) for row, _ in best] == [
        ("vgg16 keras", "vgg16"),
        ("cnn_se float32", "cnn_se"),
    ]
    assert student.name == "cnn_se"


# ---- files of one name ----


def test_files_of_one_name_are_told_apart_by_their_run(student: Run) -> None:
    other = exported("cnn_se-app", student, {"int8": b"j" * 90})
    made = report(ReportConfig())
    labels = ["cnn_se keras", "cnn_se float32", "cnn_se (cnn_se-export) int8"]
    assert [row.label for row in made.rows] == [*labels, "cnn_se (cnn_se-app) int8"]
    assert {row.model for row in made.rows} == {"cnn_se"}
    # Wherever a row is named, it is named so.
    for name in ("results.csv", "report.md", "report.html", "table-int8-1.csv"):
        said = (Path("report") / name).read_text(encoding="utf-8").replace("\\", "")
        assert "cnn_se (cnn_se-export)" in said
    assert "cnn_se (cnn_se-app)" in Path("report/results.csv").read_text(encoding="utf-8")
    names = [*map(str, summary_table(made.rows, "").columns[0].cells)]
    assert names[-2:] == ["cnn_se (cnn_se-export)", "cnn_se (cnn_se-app)"]
    # Where the runs have one name, too, only the digest is left.
    apart = other.path.rename("apart")
    manifest = json.loads((apart / "manifest.json").read_text())
    (apart / "manifest.json").write_text(json.dumps({**manifest, "name": "cnn_se-export"}))
    made = report(ReportConfig(("cnn_se-export", "apart"), force=True))
    twins = [row for row in made.rows if row.variant == "int8"]
    assert [row.mark for row in twins] == [row.sha256[:8] for row in twins]
    assert len({row.label for row in twins}) == 2


# ---- what the page must and must not hold ----


@pytest.mark.usefixtures("student")
def test_the_page_stands_alone() -> None:
    page = report(ReportConfig()).page.read_text(encoding="utf-8")
    assert not re.search(r"(src|href|url\()\s*=?\s*[\"']?\s*(https?:|//)", page, re.I)
    assert "http:" not in page
    assert "https:" not in page
    assert not re.search(r"<(script|link|iframe|img|object|base)\b", page, re.I)
    assert "prefers-color-scheme:dark" in page
    assert "width=device-width" in page


def test_synthetic_data_is_marked_everywhere() -> None:
    drawn = data(True)
    run = trained("toy", b"k" * 50, "cnn_se", 0.9, data=drawn)
    evaluated(run.path / "model.keras", 0.9, name="toy-test", data=drawn)
    exported("toy-export", run, {"int8": b"i" * 9}, data=drawn)
    evaluated(run.path.parent / "toy-export/toy-int8.tflite", 0.8, data=drawn)
    made = report(ReportConfig())
    assert "SYNTHETIC DATA" in made.page.read_text(encoding="utf-8")
    assert "SYNTHETIC DATA" in Path("report/report.md").read_text(encoding="utf-8")
    assert read_csv(Path("report"))["int8"]["synthetic"] == "True"
    figures = section_figures(made.data.sections[0])
    assert len(figures) == 3
    assert all("synthetic" in figure.title and "synthetic" in figure.svg for figure in figures)


EVIL = "<img src=x onerror=alert(1)>"


def test_text_from_manifests_is_escaped() -> None:
    evil = data(title=EVIL, class_names=[EVIL, "<b>b</b>", "c|d", '"e"'])
    run = make("train", "a", {}, {"val": scores(0.9)}, data=evil, files={"model.keras": b"1"})
    path = run.path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest |= {"name": EVIL, "command": f"`{EVIL}", "packages": {EVIL: EVIL}, "seed": EVIL}
    path.write_text(json.dumps(manifest))
    (run.path / "history.csv").write_text(HISTORY)
    report(ReportConfig())
    page = Path("report/report.html").read_text(encoding="utf-8")
    markdown = Path("report/report.md").read_text(encoding="utf-8")
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<img" not in page
    assert "<b>b" not in page
    # In Markdown it is escaped, or inside a code span that it cannot leave.
    assert "<img" not in re.sub(r"`[^`\n]*`", "", markdown).replace(r"\<img", "")
    for svg in Path("report").glob("*.svg"):
        assert "<img" not in svg.read_text(encoding="utf-8")


def test_markdown_and_spreadsheets_show_text_as_it_is() -> None:
    assert md("a|b <c> [d](e) `f` *g* h_i") == r"a\|b \<c\> \[d\](e) \`f\` \*g\* h_i"
    make(
        "train",
        "a",
        {},
        {"val": scores(0.9)},
        data=data(title="=cmd()"),
        files={"model.keras": b"1"},
    )
    report(ReportConfig())
    assert read_csv(Path("report"))["keras"]["data_title"] == "'=cmd()"


# ---- the cards ----


def cards(**more: Any) -> list[tuple[str, ...]]:
    page = report(ReportConfig(force=True, **more)).page.read_text(encoding="utf-8")
    return re.findall(r'"card"><span class="soft">(.*?)</span><b>(.*?)</b>(.*?)<div', page)


def test_cards_say_what_they_leave_out(student: Run) -> None:
    most, least = ("most accurate", "97.97 %", "cnn_se float32"), ("0.1 KB", "cnn_se int8")
    fast = ("50.0 µs", "cnn_se int8")
    assert cards() == [most, ("smallest", *least), ("fastest, one thread", *fast)]
    tiny = exported("tiny", student, {"float16": b"t"}).path / "cnn_se-float16.tflite"
    benchmarked("pi-tiny", [timing(tiny, 1, 9.0)])
    assert cards()[1:] == [
        ("smallest of those evaluated on test", *least),
        ("fastest of the evaluated, one thread", *fast),
    ]


def test_the_fastest_is_of_no_quick_look_and_of_no_drift(student: Run, tmp_path: Path) -> None:
    folder = student.path.parent / "cnn_se-export"
    int8, float32 = (folder / f"cnn_se-{v}.tflite" for v in ("int8", "float32"))
    quick = tmp_path / "quick.json"
    value = {**result([timing(int8, 1, 1.0)], "Pixel"), "config": {"quick": True}}
    quick.write_text(json.dumps(value), encoding="utf-8")
    names = [what for what, *_ in cards(results=(quick,))]
    # The table has the quick look as well.
    where = "Raspberry Pi 4 (aarch64)"
    assert names == ["most accurate", "smallest", f"fastest, one thread, {where}"]
    rows = [timing(int8, 1, 40.0) | {"drift": True}, timing(float32, 1, 90.0)]
    benchmarked("pi-later", rows)
    assert cards()[2] == ("fastest without †, one thread", "90.0 µs", "cnn_se float32")
    benchmarked("pi-latest", [timing(float32, 1, 90.0) | {"drift": True}])
    assert [what for what, *_ in cards()] == ["most accurate", "smallest"]


def measured(path: Path, rows: list[dict[str, Any]], **more: Any) -> Path:
    path.write_text(json.dumps({**result(rows, "Pixel"), **more}), encoding="utf-8")
    return path


def axis(made: Report) -> str:
    """Return what the plot of the Pixel's latency says on its axis, with how many marks faint."""
    (svg,) = (f.svg for f in section_figures(made.data.sections[0]) if ">Pixel" in f.svg)
    faint, line = svg.count('<g opacity="0.4"'), svg.count("stroke-dasharray")
    (said,) = re.findall(r">(median latency[^<]*)<", svg)
    return f"{said}; {faint} faint, {line} joined"


USUAL = "median latency, µs, 1 thread"
NOISY = {"noise": {"verdict": "noisy", "reasons": ["a loop varies"]}}


@pytest.fixture
def both(student: Run) -> tuple[Path, Path]:
    """The student's float32 and int8 files; what the Pi measured of them is gone."""
    shutil.rmtree(student.path.parent / "pi")
    folder = student.path.parent / "cnn_se-export"
    return folder / "cnn_se-float32.tflite", folder / "cnn_se-int8.tflite"


@pytest.mark.parametrize(
    ("row", "more", "why"),
    [
        ({"repeats": 2}, {}, "too few processes"),
        ({"repeats": 1, "spread": 0.0}, {}, "too few processes"),
        ({}, NOISY, "too noisy to conclude"),
        ({}, {"config": {"quick": True}}, "a quick look"),
    ],
)
def test_what_allows_no_conclusion_ranks_no_latency(
    row: dict[str, Any], more: dict[str, Any], why: str, both: tuple[Path, Path], tmp_path: Path
) -> None:
    rows = [timing(both[0], 1, 90.0) | row, timing(both[1], 1, 40.0) | row]
    path = measured(tmp_path / "a.json", rows, **more)
    assert [what for what, *_ in cards(results=(path,))] == ["most accurate", "smallest"]
    made = report(ReportConfig(results=(path,), force=True))
    assert axis(made) == f"{USUAL}, not ranked: {why}; 0 faint, 0 joined"
    (int8,) = (part for part in made.parts[0] if part.name == "int8")
    assert int8.table[1][-1] == f"0.44, unknown: {why}"
    fine = measured(path, [timing(both[0], 1, 90.0), timing(both[1], 1, 40.0)])
    assert cards(results=(fine,))[2] == ("fastest, one thread", "40.0 µs", "cnn_se int8")
    made = report(ReportConfig(results=(fine,), force=True))
    assert axis(made) == f"{USUAL}; 0 faint, 1 joined"


def test_a_ranking_names_what_it_is_from_and_what_it_leaves_out(
    both: tuple[Path, Path], tmp_path: Path
) -> None:
    float32, int8 = both
    one = measured(tmp_path / "one.json", [timing(float32, 1, 90.0)])
    two = measured(tmp_path / "two.json", [timing(int8, 1, 40.0)])
    card = ("40.0 µs", "cnn_se int8")
    assert cards(results=(one, two))[2] == ("fastest, one thread, from different runs", *card)
    made = report(ReportConfig(results=(one, two), force=True))
    assert axis(made) == f"{USUAL}, from different runs; 0 faint, 1 joined"
    # A noisy one may be the fastest or not, whatever it shows.
    for us in (20.0, 90.0):
        measured(one, [timing(float32, 1, us)], **NOISY)
        said = "fastest, one thread, not ranked: too noisy to conclude"
        assert cards(results=(one, two))[2] == (said, *card)
        made = report(ReportConfig(results=(one, two), force=True))
        assert axis(made) == f"{USUAL}, not ranked: too noisy to conclude; 1 faint, 0 joined"
    measured(one, [timing(float32, 1, 20.0) | {"drift": True}])
    made = report(ReportConfig(results=(one, two), force=True))
    assert axis(made) == f"{USUAL}, not ranked: medians that drift; 1 faint, 0 joined"


# ---- gates ----


def fail(run: Run, variant: str) -> None:
    path = run.path / "manifest.json"
    manifest = json.loads(path.read_text())
    for name, inside in manifest["metrics"]["variants"].items():
        inside["failed"] = ["agreement is 0.9"] if name == variant else []
    path.write_text(json.dumps(manifest))


def test_a_file_that_failed_its_gate_is_named_so_in_every_table(student: Run) -> None:
    export = Run(student.path.parent / "cnn_se-export", {})
    fail(export, "int8")
    made = report(ReportConfig())
    rows = read_csv(Path("report"))
    found = {variant: row["failed_gate"] for variant, row in rows.items()}
    assert found == {"int8": "True", "float32": "False", "keras": ""}
    page = made.page.read_text(encoding="utf-8")
    markdown = Path("report/report.md").read_text(encoding="utf-8")
    assert '<th class="words">cnn_se int8, failed its gate</th>' in page
    assert "| cnn_se | int8, failed its gate | test |" in markdown
    assert "float32, failed" not in page + markdown
    devices, int8 = made.parts[0][:2]
    assert devices.table[-1][0] == "cnn_se int8, failed its gate"
    assert int8.table[1][0] == "cnn_se, failed its gate"
    assert "int8, failed its gate" in [*map(str, summary_table(made.rows, "").columns[1].cells)]
    # Also where the export is not among what is reported on.
    (row,) = report(ReportConfig(("cnn_se-int8-test",), force=True)).rows
    assert row.failed


@pytest.mark.parametrize("failing", ["first", "second"])
def test_a_file_of_two_exports_has_failed_where_one_of_them_says_so(failing: str) -> None:
    parent = trained("net", b"k" * 50, "cnn_se", 0.9)
    for name in ("first", "second"):
        fail(exported(name, parent, {"int8": b"i" * 100}), "int8" if name == failing else "none")
    found = {row.variant: row.failed for row in report(ReportConfig()).rows}
    assert found == {"int8": True, "keras": None}


@pytest.mark.parametrize("failed", [["accuracy"], []])
def test_without_the_manifests_word_a_file_tells_of_its_gate(failed: list[str]) -> None:
    run = trained("net", b"k" * 50, "cnn_se", 0.9)
    (zoo,) = (packaged_zoo() / "cnn_se_pico").glob("*.tflite")
    tree = read_model(zoo.read_bytes()).model
    tree.drop("metadata")
    content = lean(write_tables(tree), notes(About("net"), {"failed": failed}))
    exported("app", run, {"int8": content})
    found = {row.variant: row.failed for row in report(ReportConfig()).rows}
    assert found == {"int8": bool(failed), "keras": None}


@pytest.mark.parametrize("failed", [None, 7, {"a": "b"}, "agreement"])
def test_a_gate_that_is_no_list_says_nothing(failed: object, student: Run) -> None:
    path = student.path.parent / "cnn_se-export" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["metrics"]["variants"]["int8"]["failed"] = failed
    path.write_text(json.dumps(manifest))
    assert {row.failed for row in report(ReportConfig()).rows} == {None}


# ---- what is refused, and what is left out ----


@pytest.mark.usefixtures("student")
def test_an_earlier_report_is_replaced_only_when_asked() -> None:
    report(ReportConfig())
    with pytest.raises(RunError, match="holds a report"):
        report(ReportConfig())
    mine = [Path("report/notes.txt"), Path("report/notes-1.csv")]
    stale = [Path("report/figure-9-9.svg"), Path("report/table-energy-9.csv")]
    for path in (*mine, *stale):
        path.write_text("old")
    report(ReportConfig(force=True))
    assert all(path.read_text() == "old" for path in mine)
    assert not any(path.exists() for path in stale)


@pytest.mark.usefixtures("student")
@pytest.mark.parametrize("at", [1, 4])
def test_a_full_disk_costs_no_earlier_report(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    report(ReportConfig())
    Path("report/figure-9-9.svg").write_text("old")
    before = {path.name: path.read_bytes() for path in Path("report").iterdir()}
    trained("more", b"k" * 50, "cnn_se", 0.9)
    write_text, written = Path.write_text, []

    def filling(path: Path, *arguments: Any, **more: Any) -> int:
        written.append(path)
        if len(written) == at:
            raise OSError(28, "No space left on device")
        return write_text(path, *arguments, **more)

    monkeypatch.setattr(Path, "write_text", filling)
    with pytest.raises(BloodedgeError, match=r"could not write report/.*No space left"):
        report(ReportConfig(force=True))
    assert {path.name: path.read_bytes() for path in Path("report").iterdir()} == before


def test_a_folder_with_other_files_is_written_into(student: Run) -> None:
    Path("report").mkdir()
    Path("report/notes.txt").write_text("mine")
    assert report(ReportConfig()).page.is_file()
    Path("file").write_text("")
    with pytest.raises(RunError, match="not a folder"):
        report(ReportConfig((student.name,), out=Path("file")))


def test_a_damaged_run_is_left_out_with_its_reason(student: Run) -> None:
    broken = trained("broken", b"b", "cnn_se", 0.9)
    (broken.path / "manifest.json").write_text('{"schema_version": 1, "kind"')
    made = report(ReportConfig())
    ((name, why),) = made.data.left_out
    assert name == "broken"
    assert "cannot be read as JSON" in why
    assert "cannot be read as JSON" in made.page.read_text(encoding="utf-8")
    named = report(ReportConfig((student.name, "broken"), out=Path("other")))
    assert {row.model for row in named.rows} == {"cnn_se"}
    assert made.data.bad == named.data.bad == ("broken",)
    (broken.path / "manifest.json").write_text('{"schema_version": 2}')
    ((_, why),) = report(ReportConfig(force=True)).data.left_out
    assert why.endswith("to mend it: update bloodedge here to the version that wrote it")


@pytest.mark.parametrize(
    ("split", "damage"),
    [
        ("val", {"accuracy": 1.5}),
        ("val", {"accuracy": float("inf")}),
        ("val", {"confusion": [[1, 2]]}),
        ("val", {"confusion": [[1, 2, 3, -4]] * 4}),
        ("val", {"recall": "high"}),
        ("val", {"recall": [None] * 4}),
        ("val", {"accuracy_95ci": [0.1]}),
        ("val", {"auc": True}),
    ],
)
@pytest.mark.usefixtures("student")
def test_damaged_figures_leave_the_run_out(split: str, damage: dict[str, Any]) -> None:
    run = trained("bad", b"b", "cnn_se", 0.9)
    path = run.path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["metrics"][split] |= damage
    path.write_text(json.dumps(manifest))
    made = report(ReportConfig())
    assert [name for name, _ in made.data.left_out] == ["bad"]
    assert {row.model for row in made.rows} == {"cnn_se"}


@pytest.mark.usefixtures("student")
def test_a_file_name_that_no_file_system_holds_costs_no_report() -> None:
    odd = trained("odd", b"b", "cnn_se", 0.9)
    path = odd.path / "manifest.json"
    manifest = json.loads(path.read_text())
    files = manifest["files"]
    (name,) = (name for name in files if name.endswith(".keras"))
    files[f"{'x' * 5000}.keras"] = files.pop(name)
    path.write_text(json.dumps(manifest))
    made = report(ReportConfig())
    assert made.data.bad == ()
    assert len(made.rows) == 4


@pytest.mark.parametrize("key", ["kind", "name", "model", "data", "metrics", "files", "parents"])
@pytest.mark.parametrize("value", [None, 7, "text", ["list"], {"an": "object"}])
@pytest.mark.usefixtures("student")
def test_no_manifest_stops_the_report(key: str, value: object) -> None:
    for run in (trained("odd", b"b", "cnn_se", 0.9), benchmarked("odd-pi", [])):
        path = run.path / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    assert len(report(ReportConfig()).rows) >= 3


@pytest.mark.parametrize(
    "content",
    [
        "",
        "epoch\n",
        "epoch,val_loss\n1,nan\n",
        "epoch,val_loss\n1,1e308\n2,-1e308\n",
        "epoch,val_loss\n1,inf\n",
        "a,b\n1\n",
        "a\nx\n",
    ],
)
def test_a_damaged_history_costs_only_the_curve(content: str, student: Run) -> None:
    (student.path / "history.csv").write_text(content)
    made = report(ReportConfig())
    # Its row stays, so that "left out" must not be said of the whole run.
    ((name, why),) = made.data.left_out
    assert (name, why.startswith("of this only the curve: ")) == ("cnn_se", True)
    assert made.data.bad == ("cnn_se",)
    assert len(made.rows) == 3
    assert made.data.sections[0].curves == ()


def test_a_malformed_benchmark(student: Run, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("{}")
    with pytest.raises(DataError, match=r"no run to report on .*no benchmark result"):
        report(ReportConfig((str(path),)))
    run = benchmarked("broken", [])
    (run.path / "benchmark.json").write_text('{"schema": "bloodedge-benchmark/1", "rows": 3}')
    made = report(ReportConfig(results=(path,)))
    assert [name for name, _ in made.data.left_out] == ["broken", "result.json"]
    assert made.data.bad == ("broken", "result.json")
    assert {row.model for row in made.rows} == {student.name}


def test_models_that_could_not_be_measured_are_listed(student: Run) -> None:
    int8 = student.path.parent / "cnn_se-export" / "cnn_se-int8.tflite"
    failed = {"model": "x", "threads": 2, "bytes": 1, "gzip_bytes": 1, "error": "no model"}
    benchmarked("failed", [failed, {**timing(int8, 1, 44.0)}])
    made = report(ReportConfig())
    assert made.data.left_out == (
        ("failed", "x with 2 threads was not measured: no model"),
        ("failed", "pi has later figures of the same files, device and runtime"),
    )


def test_what_is_left_out_of_an_interrupted_benchmark_is_not_what_it_measured(
    student: Run,
) -> None:
    int8 = student.path.parent / "cnn_se-export" / "cnn_se-int8.tflite"
    value = {**result([timing(int8, 1, 44.0)], "Pixel"), "complete": False}
    Path("half.json").write_text(json.dumps(value), encoding="utf-8")
    made = report(ReportConfig(results=(Path("half.json"),)))
    why = "what it had not measured yet when it was interrupted"
    assert made.data.left_out == (("half.json", why),)


@pytest.mark.usefixtures("student")
def test_a_run_without_a_model_of_its_own_is_missed_where_it_was_named() -> None:
    make("verify", "pair", {}, {"failed": []})
    assert report(ReportConfig()).data.left_out == ()
    made = report(ReportConfig(("cnn_se", "pair"), force=True))
    assert made.data.left_out == (("pair", "a run of kind verify has no model of its own"),)
    assert made.data.bad == ()


def test_nothing_to_report() -> None:
    with pytest.raises(DataError, match="no run to report on"):
        report(ReportConfig())
    with pytest.raises(RunError, match="no run or result 'missing'"):
        report(ReportConfig(("missing",)))
    with pytest.raises(ConfigError, match="twice"):
        ReportConfig(("a", "a"))


# ---- figures ----


def test_a_plot_shows_the_interval_of_the_accuracy_on_a_device(student: Run) -> None:
    folder = student.path.parent / "cnn_se-export"
    scored = {"accuracy": 0.95, "images": 400}
    rows = [timing(folder / f"cnn_se-{v}.tflite", 1, 9.0) | scored for v in ("int8", "float32")]
    path = Path("alone.json")
    path.write_text(json.dumps(result(rows)), encoding="utf-8")
    made = report(ReportConfig((str(path),)))
    for figure in section_figures(made.data.sections[0]):
        # Wilson's, of 380 among 400.
        assert figure.svg.count("95.00 % [92.40, 96.74]") == 2


def test_log_ticks_lie_inside_and_are_few() -> None:
    for low, high in ((0.0, 0.5), (1.2, 3.0), (-1.0, 2.9), (0.0, 7.0)):
        ticks = log_ticks(low, high)
        assert 1 <= len(ticks) <= 8
        assert all(10**low <= tick <= 10**high for tick in ticks)


@pytest.mark.parametrize(
    "values",
    [
        [1e17], [-1e17], [1e38, 1e38], [-1e38, 1e38], [1e17, 1e17 + 32], [0.0], [100.0, 100.0],
        [0.0, 5e-324], [1.0, 1.0 + 2**-52], [1e-9, 2e-9], [0.3, 0.7], [-5.0, -4.0],
    ],
)  # fmt: skip
def test_any_values_have_an_axis(values: list[float]) -> None:
    scale, ticks = linear_axis(values, 300.0, 20.0)
    assert 2 <= len(ticks) <= 9
    assert ticks == sorted(set(ticks))
    for value in (*values, *ticks):
        assert 20.0 - 1e-6 <= scale(value) <= 300.0 + 1e-6
    assert scale(max(values)) <= scale(min(values))


def test_equal_percentages_keep_half_a_point_around_them() -> None:
    scale, _ = linear_axis([100.0, 100.0], 0.0, 1.0)
    assert [scale(99.5), scale(100.0), scale(100.5)] == [0.0, 0.5, 1.0]


def test_a_diverged_run_costs_no_report(student: Run) -> None:
    (student.path / "history.csv").write_text("epoch,train_loss,val_loss\n1,1e17,1e17\n")
    made = report(ReportConfig())
    assert made.data.left_out == ()
    assert "cnn_se: loss" in made.page.read_text(encoding="utf-8")


def test_names_in_a_plot_do_not_cover_each_other() -> None:
    crowd = [Point(f"model number {i}", 100 + i, 98 + 0.01 * i, 97, 99, 0) for i in range(6)]
    svg = scatter(crowd, "title", "x", "y")
    spots = re.findall(
        r'<text x="([\d.]+)" y="([\d.]+)" style="paint-order[^"]*" font-size="11">', svg
    )
    boxes = [(float(x), float(y)) for x, y in spots]
    assert len(boxes) == 6
    wide = 6.0 * len("model number 0")
    for i, (x, y) in enumerate(boxes):
        for u, v in boxes[i + 1 :]:
            assert abs(y - v) >= 12 or abs(x - u) >= wide


def test_one_point_and_equal_points_can_be_drawn() -> None:
    point = Point("a", 5.0, 100.0, 100.0, 100.0, 0)
    for points in ([point], [point, point]):
        assert "nan" not in scatter(points, "t", "x", "y").lower()


# ---- the command ----


def invoke(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(report_command)
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


@pytest.mark.usefixtures("student")
def test_the_command_prints_the_table_and_the_page() -> None:
    done = invoke("--out", "out")
    assert done.exit_code == 0, done.output
    assert done.stdout.strip().endswith("out/report.html")
    assert re.search(r"cnn_se .* int8 .* test .* 0\.1 .* 50\.0\n", done.stdout)
    assert "Raspberry Pi 4 (aarch64)" in done.stdout
    assert isinstance(invoke("--out", "out").exception, BloodedgeError)
    assert invoke("cnn_se", "--out", "out", "--force").exit_code == 0
    assert [row["variant"] for row in read_csv(Path("out")).values()] == ["keras"]


def test_a_title_is_no_markup() -> None:
    trained("odd", b"b", "cnn_se", 0.9, data=data(title=r"x\[/y] z"))
    done = invoke()
    assert done.exit_code == 0, done.output
    assert r"x\[/y] z" in done.stdout


@pytest.mark.usefixtures("student")
def test_the_summary_takes_names_literally() -> None:
    rows = report(ReportConfig()).rows
    assert summary_table(rows, "").row_count == 3
