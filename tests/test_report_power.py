"""Energy by a power meter's log: the arithmetic, and every reason why there is none."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from scipy import stats
from typer.testing import CliRunner

from bloodedge.benchmarks.host import RUNNER
from bloodedge.benchmarks.processes import Timed
from bloodedge.benchmarks.quantile import student_t
from bloodedge.benchmarks.report.energy import meter
from bloodedge.benchmarks.report.power import Energy, PowerLog, energy, read_power
from bloodedge.benchmarks.report.stage import Report, ReportConfig, report
from bloodedge.benchmarks.result import load_result
from bloodedge.cli.reporting import report as report_command
from bloodedge.errors import DataError
from bloodedge.references import packaged_zoo

# Two processes of 10 s in a benchmark of 30 s.
BEGIN = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
TIMED = (Timed(BEGIN + 5, BEGIN + 15, 1000), Timed(BEGIN + 18, BEGIN + 28, 1000))
BUSY = ((BEGIN, BEGIN + 30),)


def utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def log(
    step: float = 0.5, idle: float = 2.0, active: float = 5.0, noise: float = 0.1, seed: int = 0
) -> PowerLog:
    """A meter that shows the mean since its last sample, from 20 s before to 20 s after."""
    fine = np.arange(-20, 50, 0.01)
    watts = np.where((fine > 0) & (fine < 30), 3.0, idle)
    for one in TIMED:
        inside = (fine > one.begin_s - BEGIN) & (fine < one.end_s - BEGIN)
        watts = np.where(inside, active, watts)
    each = round(step / 0.01)
    shown = watts[: len(watts) // each * each].reshape(-1, each).mean(axis=1)
    times = BEGIN - 20 + step * np.arange(1, len(shown) + 1)
    shown = shown + np.random.default_rng(seed).normal(0, noise, len(shown))
    return PowerLog("meter.csv", times, shown)


def write_log(path: Path, found: PowerLog) -> Path:
    rows = [f"{t:.3f},{w:.6f}" for t, w in zip(found.times, found.watts, strict=True)]
    path.write_text("\n".join(["time,watts", *rows, ""]))
    return path


# ---- arithmetic ----


def test_energy_is_the_power_beyond_idling_times_the_time_of_one_inference() -> None:
    found = energy(log(noise=1e-6), TIMED, BUSY)
    assert isinstance(found, Energy)
    # (5 - 2) W * 20 s / 2000 inferences
    assert found.millijoule == pytest.approx(30.0, rel=1e-5)
    assert (found.active_w, found.idle_w) == pytest.approx((5.0, 2.0), rel=1e-5)
    # Of 20 samples a process the first tells of what was before it, too.
    assert found.samples == 2 * 20


def test_samples_that_straddle_an_edge_are_left_out() -> None:
    # 3 s do not divide 10 s: samples that mix two powers would shift the means.
    found = energy(log(step=0.7, noise=1e-6), TIMED, BUSY)
    assert isinstance(found, Energy)
    assert (found.active_w, found.idle_w) == pytest.approx((5.0, 2.0), abs=1e-4)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(400):
        found = energy(log(noise=0.5, seed=seed), TIMED, BUSY)
        assert isinstance(found, Energy)
        hits += abs(found.millijoule - 30.0) <= found.plus_minus
    # 95 % of 400 is 380; +- 4 standard deviations of a binomial count.
    assert 362 <= hits <= 397


def test_the_interval_is_welchs() -> None:
    found = log(noise=0.5)
    told = energy(found, TIMED, BUSY)
    assert isinstance(told, Energy)
    spans = [(one.begin_s, one.end_s) for one in TIMED]
    low, high = stats.ttest_ind(
        found.inside(spans), found.outside(BUSY), equal_var=False
    ).confidence_interval(0.95)
    # 10 mJ a watt; what the meter rounds away adds next to nothing here.
    assert told.plus_minus == pytest.approx(10 * (high - low) / 2, rel=1e-3)
    assert told.millijoule == pytest.approx(10 * (high + low) / 2, rel=1e-9)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (8, 2.3060), (15, 2.1314), (60, 2.0003), (1e9, 1.95996)]
)
def test_students_quantiles_are_those_of_the_tables(freedom: float, quantile: float) -> None:
    assert student_t(freedom) == pytest.approx(quantile, abs=1e-4)


def test_a_coarse_meter_is_not_taken_for_an_exact_one() -> None:
    fine = log(noise=0.0)
    coarse = PowerLog("meter.csv", fine.times, np.rint(fine.watts))
    found = energy(coarse, TIMED, BUSY)
    assert isinstance(found, Energy)
    # Two means, each off by up to half a watt: sqrt(2 / 12) W, 10 mJ a watt.
    assert found.plus_minus > 10 * 1.95 * math.sqrt(2 / 12)


@pytest.mark.parametrize("step", [1.0, 0.1])
def test_what_a_coarse_meter_rounds_away_is_a_uniform_error(step: float) -> None:
    fine = log(noise=0.0)
    found = energy(PowerLog("meter.csv", fine.times, step * np.rint(fine.watts)), TIMED, BUSY)
    assert isinstance(found, Energy)
    # The variance of each mean is a twelfth of a squared step, and nothing scatters; 10 mJ a watt.
    assert found.plus_minus == pytest.approx(10 * 1.98 * step * math.sqrt(2 / 12), rel=0.02)


def current_log(idle: float, active: float, seed: int = 0) -> PowerLog:
    """A meter of 0.01 A at 5.1 V, whose volts jitter by some of its millivolts."""
    watts = log(idle=idle, active=active, noise=0.0).watts
    volts = (5.1 + np.random.default_rng(seed).normal(0, 0.004, len(watts))).round(3)
    amperes = (watts / 5.1).round(2)
    return PowerLog("meter.csv", log().times, volts * amperes, volts, amperes)


def test_jitter_of_the_volts_makes_no_fine_meter_of_a_coarse_one() -> None:
    # 0.094 and 0.096 A, which are shown as 0.09 and 0.10.
    found = current_log(5.1 * 0.094, 5.1 * 0.096)
    assert np.diff(np.unique(found.watts)).min() < 1e-4
    volts, amperes = found.volts, found.amperes
    assert volts is not None
    assert amperes is not None
    assert found.resolution_w == pytest.approx(volts.max() * 0.01 + amperes.max() * 0.001)
    told = energy(found, TIMED, BUSY)
    assert isinstance(told, Energy)
    # (0.096 - 0.094) A * 5.1 V * 20 s / 2000 inferences
    assert abs(told.millijoule - 0.102) <= told.plus_minus
    assert told.plus_minus > 10 * 1.95 * found.resolution_w * math.sqrt(2 / 12)


def test_volts_that_stay_the_same_leave_the_step_of_the_amperes() -> None:
    times, amperes = log().times, (log(noise=0.0).watts / 5).round(1)
    volts = np.full(len(times), 5.0)
    products = PowerLog("m", times, volts * amperes, volts, amperes)
    assert products.resolution_w == pytest.approx(5.0 * np.diff(np.unique(amperes)).min())
    assert energy(products, TIMED, BUSY) == energy(
        PowerLog("m", times, volts * amperes), TIMED, BUSY
    )


# ---- why not ----


SHORT = (Timed(BEGIN + 5, BEGIN + 7, 99),)
INSIDE = PowerLog("m", log().times[30:100], log().watts[30:100])
# The volts, and with them the products, change all the same.
VOLTS = 5.1 + 0.001 * (np.arange(140) % 7)
UNLOADED = PowerLog("m", log().times, 0.4 * VOLTS, VOLTS, np.full(140, 0.4))


@pytest.mark.parametrize(
    ("found", "timed", "why"),
    [
        (log(), (Timed(1.0, 11.0, 9),), "do not overlap with the timings (1970-01-01 00:00:01"),
        (log(step=1.0), SHORT, "only 2 samples, one each 1 s, lie wholly in the 2 s"),
        (INSIDE, TIMED, "before or after the benchmark"),
        (PowerLog("m", log().times, np.full(140, 2.0)), TIMED, "the meter shows 2 W all the time"),
        (UNLOADED, TIMED, "the meter shows 0.4 A all the time"),
    ],
)
def test_one_line_says_why_there_is_no_energy(found: PowerLog, timed: Any, why: str) -> None:
    said = energy(found, timed, BUSY)
    assert isinstance(said, str)
    assert why in said
    assert "\n" not in said


# ---- logs from anywhere ----


@pytest.mark.parametrize(
    "text",
    [
        "time,watts\n100,5\n101.5,6\n",
        "Time , WATTS,note\n100,5,x\n\n101.5,6,y\n",
        "\ufeffvolts,amperes,time\n5,1.0,100\n12,0.5,101.5\n",
        "time,watts\n1970-01-01T00:01:40Z,5\n1970-01-01 00:01:41.5,6\n",
        "time,watts\n1970-01-01T01:01:40+01:00,5\n1970-01-01T00:01:41.500+00:00,6\n",
        "watts,volts,amperes,time\n5,9,9,1e2\n6,9,9,101.5\n",
    ],
)
def test_columns_and_times_are_read_as_documented(text: str, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(text, encoding="utf-8")
    found = read_power(path)
    assert found.times.tolist() == [100.0, 101.5]
    assert found.watts.tolist() == [5.0, 6.0]
    assert found.step_s == 1.5
    if "watts" in text.lower():
        assert found.volts is found.amperes is None
    else:
        assert found.volts is not None
        assert found.amperes is not None
        assert (found.volts * found.amperes).tolist() == [5.0, 6.0]


@pytest.mark.parametrize("cells", ["watts\n{},1e-170\n", "volts,amperes\n{},1e-100,1e-100\n"])
def test_what_no_meter_shows_is_nothing(cells: str, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    head, line = cells.split("\n")[:2]
    idle = "".join(f"{line.format(second)}\n" for second in range(100))
    path.write_text(f"time,{head}\n{idle}100,0,0\n")
    found = read_power(path)
    assert not found.watts.any()
    assert "0 W all the time" in str(energy(found, [Timed(40.0, 60.0, 9)], [(40.0, 60.0)]))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "time\n1\n2\n",
        "time,volts\n1,2\n2,3\n",
        "watts\n1\n2\n",
        "time,watts\n",
        "time,watts\n1,2\n",
        "time,watts\n1,2\n1,3\n",
        "time,watts\n2,2\n1,3\n",
        "time,watts\n1,nan\n2,3\n",
        "time,watts\n1,1e9\n2,3\n",
        "time,watts\ninf,1\n2,3\n",
        "time,watts\n1e300,1\n2,3\n",
        "time,watts\nyesterday,1\n2,3\n",
        "time,watts\n-5,1\n2,3\n",
        "time,watts\n0001-01-01T00:00:00+14:00,1\n2,3\n",
        "time,watts\n1970-01-01T00:00:00Z,1\n9999-12-31T23:59:59-14:00,3\n",
        "time,watts\n1\n2\n",
        "time,watts\n" + "9" * 20_000 + ",1\n",
        '"time,watts\n1,2\n',
        "time,watts\n1,\x00\n2,3\n",
        "," * 50_000,
    ],
)
def test_a_damaged_log_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"m\.csv is no power meter's log") as caught:
        read_power(path)
    assert "time, and watts or volts and amperes" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_missing_a_binary_and_a_huge_log_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no power meter's log"):
        read_power(tmp_path / "absent.csv")
    (tmp_path / "b.csv").write_bytes(b"time,watts\n\xff\xfe\x00")
    with pytest.raises(DataError, match="no power meter's log"):
        read_power(tmp_path / "b.csv")
    with (tmp_path / "h.csv").open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(DataError, match="larger than 64 MiB"):
        read_power(tmp_path / "h.csv")


# ---- in the report ----


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.fsync", lambda handle: None)


def write_result(path: str, device: str = "Pi 4", timed: Any = TIMED, **more: Any) -> str:
    names = {"model": "net-int8.tflite", "threads": 1, "sha256": "a" * 64, "error": None}
    row = {**names, "bytes": 10, "gzip_bytes": 8, "accuracy": 0.9, "images": 40, "drift": False}
    row |= dict.fromkeys(("median_us", "p90_us", "p99_us", "min_us"), 80.0)
    row |= {"load_ms": 1.0, "first_ms": 1.0, "spread": 0.0, "peak_rss_kib": 9}
    row["runs"] = [{"count": one.invokes, "timed_s": [one.begin_s, one.end_s]} for one in timed]
    environment = {"runtime": "ai_edge_litert", "runtime_version": "2.3.0", "machine": "aarch64"}
    environment |= {"cpu_model": device, "before": {"utc": utc(BEGIN)}}
    environment |= {"after": {"utc": utc(BEGIN + 29)}}
    value = {"schema": "bloodedge-benchmark/1", "complete": True, "environment": environment}
    Path(path).write_text(json.dumps({**value, "rows": [row], **more}))
    return path


def told(*results: str, power: Path | None = None) -> tuple[Report, Any]:
    power = power or write_log(Path("meter.csv"), log())
    made = report(ReportConfig(results, power=power, force=True))
    return made, next((p for p in made.parts[0] if p.name == "energy"), None)


def test_energies_stand_in_every_form_of_the_report() -> None:
    made, part = told(write_result("pi.json"))
    (line,) = part.table[1:]
    assert line[:3] == ("net int8", "Pi 4 (aarch64), ai_edge_litert 2.3.0", "1")
    assert re.fullmatch(r"(30\.\d\d|29\.9\d) ± 0\.[1-9]\d", line[3])
    with Path("report/table-energy-1.csv").open(newline="") as file:
        (values,) = csv.DictReader(file)
    assert float(values["millijoule"]) == pytest.approx(30.0, abs=3 * float(values["plus_minus"]))
    assert (values["samples"], values["why_not"]) == ("40", "")
    assert line[3] in made.page.read_text(encoding="utf-8")
    assert line[3] in Path("report/report.md").read_text(encoding="utf-8")


def test_a_benchmark_that_a_later_one_replaced_was_no_idling() -> None:
    earlier = [one._replace(begin_s=one.begin_s - 500, end_s=one.end_s - 500) for one in TIMED]
    old = json.loads(Path(write_result("old.json", timed=earlier)).read_text())
    old["environment"] |= {"before": {"utc": utc(BEGIN - 500)}, "after": {"utc": utc(BEGIN - 471)}}
    Path("old.json").write_text(json.dumps(old))
    made, _ = told("old.json", write_result("new.json"))
    spans = sorted(meter(log(), made.data.sections).busy)
    assert [(a - BEGIN, b - BEGIN) for a, b in spans] == [(-500, -470), (0, 30)]


def test_of_figures_from_two_results_each_keeps_when_its_own_benchmark_ran() -> None:
    earlier = [one._replace(begin_s=one.begin_s - 500, end_s=one.end_s - 500) for one in TIMED]
    many = json.loads(Path(write_result("many.json", timed=earlier)).read_text())
    many["environment"] |= {"before": {"utc": utc(BEGIN - 500)}, "after": {"utc": utc(BEGIN - 471)}}
    many["rows"][0]["threads"] = 4
    Path("many.json").write_text(json.dumps(many))
    for order in (("many.json", "one.json"), ("one.json", "many.json")):
        write_result("one.json")
        made, part = told(*order)
        # What lies between them was idling, and what lies around the timings in each was not.
        spans = sorted(meter(log(), made.data.sections).busy)
        assert [(a - BEGIN, b - BEGIN) for a, b in spans] == [(-500, -470), (0, 30)]
        assert float(part.raw[1][part.raw[0].index("idle_w")]) == pytest.approx(2.0, abs=0.05)


def test_no_better_than_idling_is_said() -> None:
    _, part = told(
        write_result("pi.json"), power=write_log(Path("m.csv"), log(active=2.0, noise=0.5))
    )
    assert part.table[1][3].endswith("not above idling")


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ({"timed": ()}, "the result does not say when it was timed"),
        ({"timed": (), "protocol": "android"}, "the android driver cannot tell when"),
        ({"timed": (Timed(1.0, 2.0, 3),)}, "compare the two clocks"),
    ],
)
def test_why_there_is_no_energy_stands_in_the_report(result: dict[str, Any], why: str) -> None:
    made, part = told(write_result("pi.json", **result))
    assert part.table == ()
    (note,) = part.notes
    assert note.startswith("No energy of net int8 (1 thread) on Pi 4")
    assert why in note
    assert why in made.page.read_text(encoding="utf-8")
    assert made.data.bad == ()


@pytest.mark.parametrize("set_by_s", [-9.0, -2.0, 2.0, 60.0, 1e6])
def test_a_process_during_which_the_clock_was_set_costs_only_its_own_samples(
    set_by_s: float,
) -> None:
    one, two = TIMED
    value = json.loads(Path(write_result("pi.json")).read_text())
    runs = value["rows"][0]["runs"]
    for run in runs:
        run |= {"mean_us": 9900.0, "with_input_median_us": 9980.0}
    Path("pi.json").write_text(json.dumps(value))
    assert load_result(Path("pi.json")).rows[0].timed == (one, two)
    runs[0]["timed_s"][0] -= set_by_s
    Path("pi.json").write_text(json.dumps(value))
    assert load_result(Path("pi.json")).rows[0].timed == (two,)
    _, part = told("pi.json")
    (raw,) = (dict(zip(part.raw[0], line, strict=True)) for line in part.raw[1:])
    assert raw["millijoule"] == pytest.approx(30.0, abs=3 * raw["plus_minus"])


def test_one_meter_hangs_on_one_device() -> None:
    _, part = told(write_result("a.json", "Pi 4"), write_result("b.json", "Pi 5"))
    assert part.table == ()
    assert "Pi 4 (aarch64) and Pi 5 (aarch64) were timed" in part.notes[0]
    later = [Timed(one.begin_s + 9999, one.end_s + 9999, 5) for one in TIMED]
    _, part = told(write_result("a.json", "Pi 4"), write_result("b.json", "Pi 5", later))
    assert [line[1][:4] for line in part.table[1:]] == ["Pi 4"]
    assert "Pi 5" in part.notes[-1]


def test_an_emulator_has_no_energy() -> None:
    made, part = told(write_result("q.json", emulated=True))
    assert part is None
    why = "nothing here was timed on a device, so it tells no energy"
    assert made.data.left_out[-1] == ("meter.csv", why)
    assert made.data.bad == ()


def test_the_command_takes_a_log_and_a_bad_one_costs_only_the_energy() -> None:
    app = typer.Typer()
    app.command()(report_command)
    result = write_result("pi.json")
    good = str(write_log(Path("meter.csv"), log()))
    done = CliRunner().invoke(app, [result, "--power", good], env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    assert re.search(r"mJ an .*\n.*inference ", done.stdout)
    Path("bad.csv").write_text("a,b\n")
    done = CliRunner().invoke(app, [result, "--power", "bad.csv", "--force"])
    assert done.exit_code == 1
    assert "left out bad.csv: bad.csv is no power meter's log" in done.stderr
    assert Path("report/report.html").is_file()
    assert not Path("report/table-energy-1.csv").exists()


# ---- what the runner records for it ----


def test_the_runner_records_when_it_timed() -> None:
    model = packaged_zoo() / "cnn_se" / "cnn_se.tflite"
    command = [sys.executable, str(RUNNER), str(model), "--out", "result.json", "--threads", "1"]
    command += ["--repeats", "2", "--seconds", "0.2", "--warmup", "0"]
    before = time.time()
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    after = time.time()
    (row,) = load_result(Path("result.json")).rows
    one, two = row.timed
    assert before <= one.begin_s < one.end_s <= two.begin_s < two.end_s <= after
    for timed in (one, two):
        assert timed.end_s - timed.begin_s >= 0.2
        # No more inferences than fit, each as short as the shortest.
        assert row.min_us
        assert 50 <= timed.invokes <= (timed.end_s - timed.begin_s) / (row.min_us / 1e6)
    steps = np.arange(one.begin_s - 5, two.end_s + 5, 0.01)
    watts = 1.0 + (steps > one.begin_s) * (steps < two.end_s) * 2.0
    found = energy(PowerLog("m", steps, watts), row.timed, [(one.begin_s, two.end_s)])
    assert isinstance(found, Energy)
    seconds = sum(timed.end_s - timed.begin_s for timed in row.timed)
    expected = 1000 * 2.0 * seconds / (one.invokes + two.invokes)
    assert found.millijoule == pytest.approx(expected)
