"""Result files of several devices as one comparison; what is hostile costs only itself."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from bloodedge.benchmarks.report.figures import Point, pareto, scatter
from bloodedge.benchmarks.report.plots import section_figures
from bloodedge.benchmarks.report.stage import Report, ReportConfig, report
from bloodedge.cli.reporting import report as report_command
from bloodedge.errors import ConfigError, DataError, RunError

EVIL = "<img src=x onerror=alert(1)>"


def row(model: str, us: float, accuracy: float = 0.95, **more: Any) -> dict[str, Any]:
    """A row as the runner writes it; each name is another file."""
    values = {"model": f"{model}.tflite", "threads": 1, "sha256": f"{hash_of(model):064x}"}
    values |= {"bytes": 60_000, "gzip_bytes": 50_000, "median_us": us, "p90_us": 1.2 * us}
    values |= {"p99_us": 1.5 * us, "min_us": 0.9 * us, "load_ms": 3.0, "first_ms": 0.4}
    values |= {"peak_rss_kib": 2048, "accuracy": accuracy, "images": 400, "spread": 0.02}
    values |= {"repeats": 5}
    return {**values, "drift": False, "error": None, **more}


def hash_of(name: str) -> int:
    return int.from_bytes(name.encode()[:32], "big")


def write(path: str, device: str, rows: list[dict[str, Any]], **more: Any) -> str:
    environment = {"runtime": "ai_edge_litert", "runtime_version": "2.3.0"}
    environment |= {"machine": "aarch64", "cpu_model": device, **more.pop("environment", {})}
    value = {"schema": "bloodedge-benchmark/1", "complete": True, "environment": environment}
    Path(path).write_text(json.dumps({**value, "rows": rows, **more}), encoding="utf-8")
    return path


def merged(*paths: str, **more: Any) -> Report:
    return report(ReportConfig(paths, force=True, **more))


def table(made: Report, name: str = "devices", section: int = 0) -> list[dict[str, str]]:
    part = next(part for part in made.parts[section] if part.name == name)
    head, *rows = part.table
    return [dict(zip(head, line, strict=True)) for line in rows]


def read_csv(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.fsync", lambda handle: None)


PI, PHONE = "Pi 4 (aarch64), ai_edge_litert 2.3.0", "Pixel (aarch64), ai_edge_litert 2.3.0"


# ---- the table device x model ----


def test_result_files_alone_make_one_table() -> None:
    pi = write("pi.json", "Pi 4", [row("net-int8", 80.0, 0.96), row("net-float32", 160.0, 0.97)])
    phone = write("phone.json", "Pixel", [row("net-int8", 40.0, 0.955, threads=4)])
    made = merged(pi, phone)
    assert table(made) == [
        {"model": "net float32", "KB": "60.0", PI: "160 · 97.00 %", PHONE: ""},
        {"model": "net int8", "KB": "60.0", PI: "80.0 · 96.00 %", PHONE: "40.0 (4) · 95.50 %"},
    ]
    lines = read_csv("report/table-devices-1.csv")
    assert [(line["model"], line["variant"], line["sha256"]) for line in lines] == [
        ("net", name, f"{hash_of(f'net-{name}'):064x}") for name in ("float32", "int8")
    ]
    assert [line[f"{PI}: median us"] for line in lines] == ["160.0", "80.0"]
    assert [line[f"{PHONE}: threads"] for line in lines] == ["", "4"]
    assert [line[f"{PHONE}: accuracy"] for line in lines] == ["", "0.955"]
    markdown = Path("report/report.md").read_text(encoding="utf-8")
    assert "| net int8 | 60.0 | 80.0 · 96.00 % | 40.0 (4) · 95.50 % |" in markdown
    page = made.page.read_text(encoding="utf-8")
    assert "<td>80.0 · 96.00 %</td><td>40.0 (4) · 95.50 %</td>" in page
    assert "no result says which images were classified" in page


def test_browser_android_quick_and_runtimes_are_columns_of_their_own() -> None:
    files = [
        write("a.json", "Pixel", [row("net", 10.0)]),
        write("b.json", "Pixel", [row("net", 20.0, delegate="wasm"),
                                  row("net", 21.0, delegate="webgpu")], protocol="browser"),
        write("c.json", "Pixel", [row("net", 30.0, delegate="cpu")], protocol="android"),
        write("d.json", "Pixel", [row("net", 40.0)], config={"quick": True, "seconds": 0.2}),
        write("e.json", "Pixel", [row("net", 50.0)],
              environment={"runtime": "tflite_runtime", "runtime_version": "2.14.0"}),
    ]  # fmt: skip
    (line,) = table(merged(*files))
    assert {key: value[:4] for key, value in line.items() if "Pixel" in key} == {
        PHONE: "10.0",
        "Pixel (aarch64), browser, ai_edge_litert 2.3.0, wasm": "20.0",
        "Pixel (aarch64), browser, ai_edge_litert 2.3.0, webgpu": "21.0",
        "Pixel (aarch64), android, ai_edge_litert 2.3.0, cpu": "30.0",
        "Pixel (aarch64), quick, ai_edge_litert 2.3.0": "40.0",
        "Pixel (aarch64), tflite_runtime 2.14.0": "50.0",
    }


def test_of_two_results_of_one_place_the_later_counts_wherever_it_is_named() -> None:
    def dated(path: str, us: float, hour: int, threads: int) -> str:
        before = {"before": {"utc": f"2026-01-01T{hour:02}:00:00Z"}}
        return write(path, "Pi 4", [row("net", us, threads=threads)], environment=before)

    new, old = dated("new.json", 10.0, 9, 1), dated("old.json", 20.0, 8, 1)
    many = dated("many.json", 5.0, 10, 4)
    for order in ([new, old, many], [many, old, new]):
        made = merged(*order)
        (found,) = [r.latency for r in made.rows if r.latency]
        assert found.single
        assert found.all_cores
        assert (found.single.median_us, found.all_cores.median_us) == (10.0, 5.0)
        # What the older one says is nowhere: its reader is told so.
        why = "new.json has later figures of the same files, device and runtime"
        assert made.data.left_out == (("old.json", why),)


@pytest.mark.parametrize("counts", [(1, 2, 4), (4, 2, 1)])
def test_all_cores_are_the_most_threads_of_a_result(counts: tuple[int, ...]) -> None:
    rows = [row("net", 40.0 / threads, threads=threads) for threads in counts]
    (found,) = [r.latency for r in merged(write("pi.json", "Pi 4", rows)).rows if r.latency]
    assert found.single
    assert found.all_cores
    assert (found.single.threads, found.single.median_us) == (1, 40.0)
    assert (found.all_cores.threads, found.all_cores.median_us) == (4, 10.0)


def test_results_of_one_name_are_no_one_result() -> None:
    for folder, us, hour in (("mon", 20.0, 8), ("tue", 10.0, 9), ("x/tue", 30.0, 7)):
        Path(folder).mkdir(parents=True)
        before = {"before": {"utc": f"2026-01-01T{hour:02}:00:00Z"}}
        write(f"{folder}/result.json", "Pi 4", [row("net", us)], environment=before)
    made = merged("mon/result.json", "tue/result.json")
    why = "tue/result.json has later figures of the same files, device and runtime"
    assert made.data.left_out == (("mon/result.json", why),)
    made = merged("mon/result.json", "tue/result.json", "x/tue/result.json")
    assert {name for name, _ in made.data.left_out} == {
        "mon/result.json", str(Path("x/tue/result.json").absolute()),
    }  # fmt: skip
    # Whoever is alone keeps a short name.
    made = merged("mon/result.json", write("one.json", "Pi 5", [row("net", 9.0)]))
    assert [origin.run for origin in made.data.origins] == ["result.json", "one.json"]


def test_float32_and_int8_from_results_of_one_name_are_of_different_runs() -> None:
    for folder, name, us in (("mon", "net-float32", 10.0), ("tue", "net-int8", 20.0)):
        Path(folder).mkdir()
        rows = [row(name, us, repeats=5)]
        write(f"{folder}/result.json", "Pi 4", rows)
    made = merged("mon/result.json", "tue/result.json")
    (part,) = (part for part in made.parts[0] if part.name == "int8")
    assert part.table[1][-1] == "2.00, unknown: from different runs"


def test_a_result_about_other_images_is_not_dropped_without_a_word() -> None:
    def about(path: str, us: float, letter: str) -> str:
        data = {"title": letter, "fingerprint": letter * 64, "class_names": ["a", "b"]}
        return write(path, "Pi 4", [row("net", us)], sample={"data": data})

    one, two = about("one.json", 10.0, "1"), about("two.json", 20.0, "2")
    why = "classified other images than those whose figures of the same files are shown"
    for shown, other in ((one, two), (two, one)):
        made = merged(shown, other)
        assert made.data.left_out == ((other, why),)
        assert made.data.bad == ()
    assert merged(one).data.left_out == ()


def test_a_noisy_run_is_named_also_where_only_its_figures_with_all_cores_are_shown() -> None:
    noise = {"verdict": "noisy", "reasons": ["a loop varies"]}
    old = {"before": {"utc": "2026-01-01T08:00:00Z"}}
    many = [row("net", 5.0, threads=4), row("other", 6.0)]
    write("many.json", "Pi 4", many, environment=old, noise=noise)
    new = {"before": {"utc": "2026-01-01T09:00:00Z"}}
    quiet = {"verdict": "quiet", "reasons": []}
    write("one.json", "Pi 4", [row("net", 10.0), row("other", 9.0)], environment=new, noise=quiet)
    made = merged("many.json", "one.json")
    notes = next(part for part in made.parts[0] if part.name == "devices").notes
    said = "Too noisy to conclude, says the runner on Pi 4 (aarch64): a loop varies."
    assert said in notes
    # One of its figures is shown, although those of the other file are replaced.
    assert made.data.left_out == ()
    write("one.json", "Pi 4", [row("net", 10.0)], environment=new,
          noise={"verdict": "noisy", "reasons": ["a loop varies", "it throttled"]})  # fmt: skip
    made = merged("many.json", "one.json")
    notes = next(part for part in made.parts[0] if part.name == "devices").notes
    assert f"{said[:-1]}; it throttled." in notes


def test_what_the_runner_did_to_the_images_is_said() -> None:
    fitted = "images of (64, 64, 3) are fitted to (32, 32, 3)"
    rows = [row("a", 10.0, note=fitted), row("b", 20.0, note=fitted), row("c", 30.0)]
    made = merged(write("pi.json", "Pi 4", rows))
    (notes,) = (part.notes for part in made.parts[0] if part.name == "devices")
    assert f"a tflite, b tflite: {fitted}." in notes


def test_peaks_are_those_of_the_run_that_measured() -> None:
    def peaks(threads: int, rate: float) -> dict[str, Any]:
        rates = dict.fromkeys(("int8_gmacs", "float32_gmacs", "numpy_float32_gmacs"), rate)
        return {"threads": threads, **rates, "copy": [{"resident_bytes": 1 << 20, "gb_s": 5.0}]}

    both = [row("net", 20.0), row("net", 5.0, threads=4)]
    write("both.json", "Pi 4", both, peaks=[peaks(1, 10.0), peaks(4, 40.0)],
          environment={"before": {"utc": "2026-01-01T08:00:00Z"}})  # fmt: skip
    write("one.json", "Pi 4", [row("net", 10.0)], peaks=[peaks(1, 20.0)],
          environment={"before": {"utc": "2026-01-01T09:00:00Z"}})  # fmt: skip
    (found,) = [r.latency for r in merged("both.json", "one.json").rows if r.latency]
    assert [(p.threads, p.int8_gmacs) for p in found.peaks] == [(1, 20.0), (4, 40.0)]


def test_the_result_of_a_bundle_says_whose_images_it_classified() -> None:
    data = {"title": "drawn", "synthetic": True, "fingerprint": "f" * 64, "class_names": ["a", "b"]}
    loose = write("loose.json", "Pi 3", [row("other", 9.0)])
    made = merged(write("pi.json", "Pi 4", [row("net", 9.0)], sample={"data": data}), loose)
    titles = [(section.title, section.synthetic) for section in made.data.sections]
    assert titles == [("drawn", True), ("Measured on devices", False)]
    silent = {key: value for key, value in data.items() if key != "synthetic"}
    first = write("first.json", "Pi 4", [row("net", 9.0)], sample={"data": silent})
    (section,) = merged(first, "pi.json").data.sections
    assert section.synthetic
    damaged = write("pi.json", "Pi 4", [row("net", 9.0)], sample={"data": {"fingerprint": 3}})
    (section,) = merged(damaged).data.sections
    assert section.title == "Measured on devices"


def test_devices_that_answer_differently_are_named() -> None:
    same, other = "a" * 64, "b" * 64
    files = [
        write(f"{name}.json", name, [row("net", 9.0, predictions_sha256=digest)])
        for name, digest in (("one", same), ("two", same), ("three", other))
    ]
    (part,) = merged(*files).parts[0]
    assert part.notes[-1] == (
        "net tflite: if these saw the same 400 images, they disagree: "
        "one (aarch64), ai_edge_litert 2.3.0, two (aarch64), ai_edge_litert 2.3.0 / "
        "three (aarch64), ai_edge_litert 2.3.0."
    )
    files[2] = write("three.json", "three", [row("net", 9.0, predictions_sha256=same)])
    assert "disagree" not in str(merged(*files).parts[0])


def test_accuracies_over_other_images_are_told_apart() -> None:
    few = write("few.json", "few", [row("a", 9.0, images=50), row("b", 8.0, 0.9, images=50)])
    many = write("many.json", "many", [row("a", 9.0, 0.5), row("b", 8.0), row("c", 7.0)])
    made = merged(few, many)
    assert "50 images: few (aarch64), ai_edge_litert 2.3.0; 400 images: many" in str(made.parts)
    size, *latency = section_figures(made.data.sections[0])
    # By size stand those of the device that has most of them, and none of the other's.
    assert "accuracy of 400 images, %" in size.svg
    assert "as many (aarch64), ai_edge_litert 2.3.0 answers" in size.svg
    assert size.svg.count("<circle") == 3 + 3  # the legend has a mark for each of three families
    assert ["50 images" in f.svg for f in latency] == [True, False]


def test_files_of_one_name_are_told_apart_by_their_folder() -> None:
    def file(path: str, us: float) -> dict[str, Any]:
        return {**row(path[-10:], us), "model": f"{path}.tflite"}

    rows = [file("/x/a/net-int8", 10.0), file("/x/b/net-int8", 20.0), row("only-int8", 5.0)]
    made = merged(write("pi.json", "Pi 4", rows))
    labels = ["net (a) int8", "net (b) int8", "only int8"]
    assert [line["model"] for line in table(made)] == labels
    assert [line["model"] for line in read_csv("report/table-devices-1.csv")] == [
        "net (a)", "net (b)", "only",
    ]  # fmt: skip
    # Folders of one name leave only the digest, and so do results that name no folder.
    rows = [file("/x/a/net-int8", 10.0), file("/a/net-int8", 20.0) | {"sha256": "c" * 64}]
    found = merged(write("pi.json", "Pi 4", rows)).rows
    assert {r.mark for r in found} == {rows[0]["sha256"][:8], "cccccccc"}
    one = write("one.json", "Pi 4", [row("net-int8", 10.0)])
    two = write("two.json", "Pi 5", [row("net-int8", 20.0, sha256="b" * 64)])
    assert {r.mark for r in merged(one, two).rows} == {"bbbbbbbb", "00000000"}


# ---- what is never ranked together ----


def test_an_emulator_shows_its_answers_and_no_time() -> None:
    real = write("pi.json", "Pi 4", [row("a", 80.0), row("b", 90.0)])
    rows = [row("a", 777.25, 0.96), row("b", 888.5, 0.96, threads=4)]
    emulated = write("qemu.json", "cortex-a72", rows, emulated=True)
    made = merged(real, emulated)
    column = "cortex-a72 (aarch64), emulated, ai_edge_litert 2.3.0"
    assert [line[column] for line in table(made)] == ["96.00 %", "96.00 %"]
    assert [line[PI] for line in table(made)] == ["80.0 · 95.00 %", "90.0 · 95.00 %"]
    written = "".join(p.read_text(encoding="utf-8") for p in Path("report").iterdir())
    assert "cortex-a72" in written
    assert "777" not in written.replace(f"{hash_of('a'):x}", "")
    assert "888" not in written
    latency = [f for f in section_figures(made.data.sections[0]) if "latency" in f.title]
    assert len(latency) == 1
    assert "Pi 4 (aarch64)" in latency[0].svg
    assert made.data.bad == ()


def test_only_an_emulator_makes_no_latency_plot() -> None:
    made = merged(write("q.json", "q", [row("a", 1.0), row("b", 2.0, 0.9)], emulated=True))
    assert [f.title for f in section_figures(made.data.sections[0])] == ["Accuracy against size"]
    page = made.page.read_text(encoding="utf-8")
    assert "fastest" not in page
    assert [part.name for part in made.parts[0]] == ["devices"]


def test_each_place_and_protocol_has_a_plot_and_a_fastest_of_its_own() -> None:
    pairs = {"runner": {}, "quick": {"config": {"quick": True}}, "android": {}, "browser": {}}
    files = []
    for at, (name, more) in enumerate(pairs.items()):
        kind = {"protocol": name} if name in ("android", "browser") else {}
        rows = [row("a-int8", 10.0 + at), row("b-int8", 20.0 + at, 0.99)]
        files.append(write(f"{name}.json", "Pixel", rows, **more, **kind))
    figures = section_figures(merged(*files).data.sections[0])
    latency = [f.svg for f in figures if "latency" in f.title]
    assert [svg.count("<g opacity") for svg in latency] == [2, 2, 2, 2]
    for svg, place in zip(latency, ("", ", quick", ", android", ", browser"), strict=True):
        assert f">Pixel (aarch64){place}</text>" in svg


def test_float32_and_int8_of_different_protocols_are_no_pair() -> None:
    float32 = write("a.json", "Pixel", [row("net-float32", 100.0)])
    int8 = write("b.json", "Pixel", [row("net-int8", 300.0)], protocol="android")
    quick = write("c.json", "Pixel", [row("net-int8", 300.0)], config={"quick": True})
    emulated = write("d.json", "Pixel", [row("net-int8", 300.0)], emulated=True)
    made = merged(float32, int8, quick, emulated)
    assert [part.name for part in made.parts[0]] == ["devices"]


# ---- Pareto ----


def point(label: str, x: float, y: float) -> Point:
    return Point(label, x, y, y - 0.5, y + 0.5, 0)


def test_the_pareto_front_is_what_nothing_beats() -> None:
    points = [point("small", 1, 90), point("worse", 2, 90), point("good", 3, 95),
              point("twin", 3, 95), point("slow", 9, 94), point("best", 10, 99)]  # fmt: skip
    assert [p.label for p in pareto(points)] == ["small", "good", "twin", "best"]
    for p in points:
        beaten = any(
            q.x <= p.x and q.y >= p.y and (q.x < p.x or q.y > p.y) for q in points if q is not p
        )
        assert beaten == (p not in pareto(points))


def test_optimal_points_are_named_and_the_others_faint() -> None:
    points = [point("small", 1, 90), point("worse", 2, 90), point("best", 10, 99)]
    svg = scatter(points, "title", "x", "y")
    marks = dict(re.findall(r'<g opacity="([\d.]+)"><title>(\w+)', svg))
    assert {label: shade for shade, label in re.findall(r'opacity="([\d.]+)"><title>(\w+)', svg)}
    assert marks == {"1": "best", "0.4": "worse"}
    bold = re.findall(r'font-size="11">(\w+)</text>', svg)
    assert sorted(bold) == ["best", "small"]
    # A pointer that rests on a faint one learns its name and figures.
    assert "worse: 90.00 % [89.50, 90.50], 2</title>" in svg


def test_no_name_in_a_crowd_of_faint_points_covers_another() -> None:
    points = [point(f"model-{i} int8", 50 + 3 * i, 98 - 0.05 * i) for i in range(40)]
    points += [point("best-of-all float32", 500, 99.5)]
    svg = scatter(points, "title", "x", "y")
    found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*font-size="1[01]"[^>]*>([^<]+)', svg)
    boxes = [(float(x), float(y), 6.1 * len(name)) for x, y, name in found]
    assert any(name == "best-of-all float32" for *_, name in found)
    for i, (x, y, wide) in enumerate(boxes):
        assert x >= 0
        assert x + wide <= 522
        for u, v, other in boxes[i + 1 :]:
            assert abs(y - v) >= 12 or x + wide <= u or u + other <= x


# ---- hostile and newer files ----


def test_a_newer_schema_is_one_line_that_names_the_file_and_what_to_update() -> None:
    good = write("good.json", "Pi 4", [row("net", 9.0)])
    newer = write("newer.json", "Pi 5", [row("net", 9.0)], schema="bloodedge-benchmark/3")
    made = merged(good, newer)
    ((name, why),) = made.data.left_out
    assert (name, made.data.bad) == ("newer.json", ("newer.json",))
    assert (
        "newer.json has the schema bloodedge-benchmark/3, newer than bloodedge-benchmark/1" in why
    )
    assert "update bloodedge" in why
    assert "\n" not in why


@pytest.mark.parametrize(
    "schema",
    ["bloodedge-benchmark/0", "other/9", "bloodedge-benchmark/99999999", 1, None, "\x1b[2J" * 99],
)
def test_another_schema_is_refused_in_short(schema: object) -> None:
    path = write("odd.json", "Pi 4", [row("net", 9.0)], schema=schema)
    with pytest.raises(DataError, match="no benchmark result") as caught:
        merged(path)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "damage",
    [
        {"model": "\x1b[2Jnet.tflite"},
        {"model": "net\u202egnp.tflite"},
        {"delegate": "a\nb"},
        {"bytes": 10**300},
        {"bytes": 1 << 60},
        {"threads": 10**9},
        {"median_us": 1e300},
        {"p99_us": 10**400},
        {"load_ms": 1e18},
        {"sha256": "../../etc/passwd"},
        {"images": -1},
        {"runs": {"a": 1}},
        {"runs": [{"timed_s": [1.0]}]},
        {"runs": [{"timed_s": [0.0, 1e300], "count": 5}]},
        {"runs": [{"timed_s": [0.0, 1.0], "count": -5}]},
    ],
)
def test_one_hostile_file_costs_only_itself(damage: dict[str, Any]) -> None:
    good = write("good.json", "Pi 4", [row("net", 9.0)])
    bad = write("bad.json", "Pi 5", [{**row("net", 8.0), **damage}])
    made = merged(bad, good)
    assert made.data.bad == ("bad.json",)
    ((name, why),) = made.data.left_out
    assert name == "bad.json"
    assert why.isprintable()
    assert len(table(made)) == 1
    assert len(table(made)[0]) == 3


def test_nesting_without_end_costs_only_its_file() -> None:
    good = write("good.json", "Pi 4", [row("net", 9.0)])
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    write("deep.json", "Pi 5", [row("net", 8.0)], environment={"deep": {"a": deep}})
    Path("deeper.json").write_text('{"schema":' + "[" * 10**5 + "]" * 10**5 + "}")
    made = merged("deep.json", "deeper.json", good)
    assert "deeper.json" in made.data.bad
    assert "good.json" not in made.data.bad


def test_a_crowd_is_drawn_with_few_names_and_a_flood_is_refused() -> None:
    crowd = [row(f"m{i}-int8", 1.0 + i, 0.5 + i / 2000, bytes=1000 + i) for i in range(900)]
    made = merged(write("crowd.json", "Pi 4", crowd))
    assert len(table(made)) == 900
    # All are optimal; looking for room for all their names would take minutes.
    for figure in section_figures(made.data.sections[0]):
        assert figure.svg.count("<g opacity") == 900
        assert figure.svg.count(" int8</text>") == 60
    flood = [row(f"m{i}", 1.0) for i in range(1001)]
    with pytest.raises(DataError, match="more than 1000 items"):
        merged(write("flood.json", "Pi 4", flood))


def test_names_in_results_are_escaped_everywhere() -> None:
    rows = [row(f"{EVIL}|`x`-int8", 9.0), row("=cmd()-float32", 8.0, 0.9)]
    path = write(
        "evil.json", EVIL, rows, environment={"runtime": EVIL, "note": "\x1b[31m", EVIL: EVIL}
    )
    made = merged(path)
    page = made.page.read_text(encoding="utf-8")
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    for file in Path("report").iterdir():
        assert "\x1b" not in file.read_text(encoding="utf-8"), file
    for svg in Path("report").glob("*.svg"):
        assert "<img" not in svg.read_text(encoding="utf-8")
    markdown = Path("report/report.md").read_text(encoding="utf-8")
    assert "<img" not in re.sub(r"`[^`\n]*`", "", markdown).replace(r"\<img", "")
    for line in read_csv("report/table-devices-1.csv"):
        assert not line["model"].startswith(("=", "+", "-", "@"))


def test_a_report_of_nothing_but_bad_files_is_an_error() -> None:
    with pytest.raises(DataError, match=r"newer\.json has the schema"):
        merged(write("newer.json", "Pi 5", [row("net", 9.0)], schema="bloodedge-benchmark/3"))
    assert not Path("report").exists()
    with pytest.raises(RunError, match="no run or result 'absent"):
        merged("absent.json")
    with pytest.raises(ConfigError, match="twice"):
        ReportConfig(("a.json",), results=(Path("a.json"),))


# ---- the command ----


def invoke(*arguments: str, columns: int = 120) -> Any:
    app = typer.Typer()
    app.command()(report_command)
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": str(columns)})


def test_the_exit_code_says_that_a_file_was_left_out() -> None:
    good = write("good.json", "Pi 4", [row("net", 9.0)])
    bad = write("bad.json", "Pi 5", [row("net", 9.0)], schema="bloodedge-benchmark/9")
    fine = invoke(good)
    assert fine.exit_code == 0, fine.output
    done = invoke(good, bad, "--force")
    assert done.exit_code == 1
    assert "left out bad.json: bad.json has the schema bloodedge-benchmark/9" in done.stderr
    assert done.stdout.strip().endswith("report/report.html")
    assert "9.00 · 95.00 %" in done.stdout


def test_every_part_of_one_device_is_printed() -> None:
    work = {"macs_int8": 1, "macs_float": 2_000_000, "traffic_bytes": 900, "resident_bytes": 900}
    peaks = {"threads": 1, "int8_gmacs": 9.0, "float32_gmacs": 9.0}
    peaks |= {"copy": [{"resident_bytes": 1 << 20, "gb_s": 5.0}]}
    rows = [row("net-float32", 300.0, work=work), row("net-int8", 400.0, work=work)]
    # Another device adds a column of places.
    files = [write(f"{name}.json", name, rows, peaks=[peaks]) for name in ("Pi 4", "Pi 5")]
    for names in (files[:1], files):
        for columns in (60, 200):
            done = invoke(*names, "--force", columns=columns)
            assert done.exit_code == 0, done.output
            for heading in ("Device by model", "int8 against float32", "How far from the physical"):
                assert heading in done.stdout


def test_a_narrow_terminal_shows_every_device(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"device-{i}" for i in range(7)]
    files = [write(f"{name}.json", name, [row("net", 9.0)]) for name in names]
    assert invoke(*files, columns=60).stdout.count("Device by model") == 1
    monkeypatch.setattr(Console, "is_terminal", property(lambda _: True))
    for columns in (60, 80, 200):
        styled = invoke(*files, "--force", columns=columns).stdout
        out = re.sub(r"\x1b\[[0-9;]*m", "", styled)
        assert all(name in out for name in names)
        tables = out.count("Device by model")
        assert tables == {60: 7, 80: 4, 200: 1}[columns]
        assert max(len(line) for line in out.splitlines() if "device-" in line) <= columns
