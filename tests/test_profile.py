"""Profiles by operator: the tables of benchmark_model and LiteRT, read, kept and drawn."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bloodedge.benchmarks import runner
from bloodedge.benchmarks.profile import litert, litert_child
from bloodedge.benchmarks.profile.files import (
    CSV_FILE,
    figure_name,
    lines,
    profile_table,
    read_profiles,
    save_profiles,
)
from bloodedge.benchmarks.profile.litert import middle, profile_here, profile_model, read_profile
from bloodedge.benchmarks.profile.table import Operator, Profile, parse
from bloodedge.cli.app import app
from bloodedge.deploy import runtimes

OUTPUTS = Path(__file__).with_name("benchmark_model")
NEW = OUTPUTS.joinpath("profile.txt").read_text()
# Of 2019: with a column of starts, which was 0 calls then.
OLD = OUTPUTS.joinpath("profile_old.txt").read_text()
LITERT = OUTPUTS.joinpath("profile_litert.txt").read_text()
MODEL = Path(litert.__file__).parents[2] / "bloodedge" / "zoo" / "cnn_se" / "cnn_se.tflite"


def test_a_runtime_of_another_distribution_has_no_known_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(distribution: str) -> str:
        raise metadata.PackageNotFoundError(distribution)

    monkeypatch.setattr(metadata, "version", none)
    answer = json.dumps({"summaries": [NEW], "invoke_us": 200.0})
    printed = subprocess.CompletedProcess([], 0, answer.encode(), b"")
    monkeypatch.setattr(litert.subprocess, "run", lambda *_, **__: printed)
    assert profile_model("a", MODEL, 1, 0.1).runtime == "ai_edge_litert unknown"
    found = runtimes._load("ai_edge_litert.interpreter", "ai-edge-litert")
    assert found is not None
    assert found.version == "unknown"


def told(operators: tuple[Operator, ...]) -> list[tuple[str, float]]:
    return [(operator.kind, pytest.approx(operator.us)) for operator in operators]


def test_a_delegates_node_is_replaced_by_what_is_inside_and_loading_is_left_out() -> None:
    # The mean of an inference is 200 us in all and 160 us inside of the delegate.
    assert told(parse(NEW)) == [
        ("Convolution (NHWC, QC8) IGEMM", 100.0),
        ("Convolution (NHWC, QC8) IGEMM", 40.0),
        ("Sigmoid 2", 20.0),
        ("QUANTIZE", 20.0),
    ]


def test_a_delegate_that_tells_nothing_stays_one_operator() -> None:
    operators = parse(NEW[: NEW.index("INFO: Delegate internal")])
    assert told(operators) == [("TfLiteXNNPackDelegate", 180.0), ("QUANTIZE", 20.0)]


def test_an_old_build_is_read_by_the_same_rules() -> None:
    assert told(parse(OLD)) == [("CONV_2D", 4269.0), ("SOFTMAX", 1423.0)]
    assert parse(OLD)[0].name == "[a/Relu6]"


def test_litert_adds_up_over_inferences() -> None:
    operators = parse(LITERT.format(runs=50, total=500))
    assert told(operators) == [("Convolution (NHWC, QC8) IGEMM", 8.0), ("SOFTMAX", 2.0)]
    assert [operator.runs for operator in operators] == [50, 50]


def test_a_block_that_was_disturbed_does_not_reach_the_median() -> None:
    # Ten inferences a block, 10 us each; in the second block something took 90,000 us more.
    totals = [(10, 100), (20, 90_200), (30, 90_300)]
    blocks = [parse(LITERT.format(runs=runs, total=total)) for runs, total in totals]
    assert told(middle(blocks)) == [("Convolution (NHWC, QC8) IGEMM", 8.0), ("SOFTMAX", 2.0)]


def test_blocks_of_other_operators_are_refused() -> None:
    one = parse(LITERT.format(runs=10, total=100))
    for blocks in ([one, one[:1]], [one, one], []):
        with pytest.raises(ValueError, match="the profiler"):
            middle(blocks)


SUMMARY = LITERT.format(runs=10, total=100)
LATER = LITERT.format(runs=20, total=200)
ANSWER = {"summaries": [SUMMARY, LATER], "invoke_us": 11.0}


def test_an_answer_from_another_device_is_read() -> None:
    profile = read_profile("m", 2, "ai_edge_litert 2", json.dumps(ANSWER))
    assert (profile.threads, profile.runtime, profile.invoke_us) == (2, "ai_edge_litert 2", 11.0)
    assert told(profile.operators) == [("Convolution (NHWC, QC8) IGEMM", 8.0), ("SOFTMAX", 2.0)]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("", "gave no profile"),
        ("[" * 100_000, "gave no profile"),
        ("[1]", "gave no profile"),
        (json.dumps({"refused": "no\x1b[2J\nway"}), r"^no\?\[2J way$"),
        (json.dumps({**ANSWER, "summaries": 3}), "no list of at most"),
        (json.dumps({**ANSWER, "summaries": [SUMMARY] * 1001}), "no list of at most"),
        (json.dumps({**ANSWER, "summaries": [{}, None]}), "no table"),
        (json.dumps({**ANSWER, "summaries": [SUMMARY, SUMMARY]}), "counted no inferences"),
        (json.dumps({**ANSWER, "invoke_us": "fast"}), "invoke_us"),
        (json.dumps({**ANSWER, "invoke_us": -1}), "invoke_us"),
        ('{"summaries": [], "invoke_us": 1}', "the profiler"),
    ],
)
def test_a_device_that_lies_of_its_profile_is_refused_in_a_line(answer: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        read_profile("m", 1, "ai_edge_litert 2", answer)
    assert "\n" not in str(caught.value)


def test_a_row_without_end_is_passed_over_at_once() -> None:
    hostile = OLD.replace("CONV_2D", "CONV_2D " + "1.0 " * 50_000)
    assert told(parse(hostile)) == [("SOFTMAX", 1423.0)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no table"),
        ("INFO: STARTING!\nERROR: no", "no table"),
        (NEW[: NEW.index("INFO: Profiling Info")], "no table"),
        (OLD[: OLD.index("Timings")], "cut short"),
        (OLD.replace("75.000%\t 75", "975.000%\t 75"), "printed the row"),
        (OLD.replace("avg=5692", "avg=1e300"), "printed the time"),
        (OLD.replace("avg=5692", "avg=-5"), "printed the time"),
        (re.sub(r"\d+(\s+\S+)$", r"1e999\1", OLD, count=1, flags=re.M), "printed the row"),
    ],
)
def test_what_is_no_table_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(text)


def test_a_hostile_row_is_shown_without_what_acts_on_a_terminal() -> None:
    operators = parse(OLD.replace("CONV_2D", "CONV\x1b[2J").replace("[b]", "=cmd()"))
    assert operators[0].kind == "CONV?[2J"


# ---- what is kept ----

PROFILE = Profile(
    "=a$.tflite",
    2,
    "benchmark_model 2.17, xnnpack",
    (Operator("Conv", "x:0", 6.0), Operator("=Mul", "y:1", 1.0), Operator("Conv", "z:2", 2.0)),
    invoke_us=10.0,
)


def test_operators_of_a_kind_are_added_and_what_is_left_is_named() -> None:
    assert lines(PROFILE) == [
        ("Conv", 2, 8.0),
        ("=Mul", 1, 1.0),
        ("not in any operator's time", None, 1.0),
    ]


def test_profiles_are_kept_as_csv_and_chart_and_read_back(tmp_path: Path) -> None:
    other = Profile("b.tflite", 1, "benchmark_model 2.17, cpu", (Operator("Conv", "x:0", 3.0),))
    save_profiles([PROFILE, other], tmp_path)
    with (tmp_path / CSV_FILE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    # A spreadsheet takes none of it for a formula.
    assert (rows[0]["model"], rows[1]["kind"]) == ("'=a$.tflite", "'=Mul")
    assert [row["share"] for row in rows] == ["0.666667", "0.111111", "0.222222", "1.0"]
    first, second = read_profiles(tmp_path / CSV_FILE)
    assert [operator.us for operator in first.operators] == [6.0, 1.0, 2.0]
    assert (first.threads, first.invoke_us, second.invoke_us) == (2, 10.0, None)
    for number, profile in enumerate((PROFILE, other), 1):
        chart = tmp_path / figure_name(profile, number)
        assert chart.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_nothing_is_written_where_nothing_was_profiled(tmp_path: Path) -> None:
    save_profiles([], tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert read_profiles(tmp_path / CSV_FILE) == []


def test_the_table_for_a_terminal_has_every_kind() -> None:
    table = profile_table(PROFILE)
    assert table.row_count == 3
    assert [*map(str, table.columns[3].cells)] == ["80.0", "10.0", "10.0"]


# ---- the real runtime ----


def test_the_packaged_student_is_profiled_by_the_real_runtime() -> None:
    profile = profile_model("cnn_se.tflite", MODEL, 1, 0.2)
    assert profile.runtime.startswith("ai_edge_litert ")
    kinds = profile.by_kind()
    convolutions = [kind for kind in kinds if kind.startswith("Convolution")]
    assert sum(kinds[kind][0] for kind in convolutions) == 6
    assert all(operator.us >= 0 for operator in profile.operators)
    assert 0 < profile.total_us < 1e6
    assert profile.invoke_us is not None
    # Most of the time of a network of convolutions is theirs, on any processor.
    assert sum(kinds[kind][1] for kind in convolutions) > profile.total_us / 2


def test_the_profiler_is_bound_to_the_cores_that_the_runner_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fastest ones, which have low numbers on some machines and high ones on others."""
    for cpu, khz in enumerate((5_000_000, 5_000_000, 3_800_000, 3_800_000)):
        path = tmp_path / f"devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq"
        path.parent.mkdir(parents=True)
        path.write_text(f"{khz}\n")
    bound: list[list[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(
        os, "sched_setaffinity", lambda _, cpus: bound.append(sorted(cpus)), raising=False
    )
    for module in (runner, litert_child):
        monkeypatch.setattr(module, "SYS", tmp_path)
        module.pin(1)
        module.pin(3)
    assert bound == 2 * [[1], [0, 1, 3]]
    monkeypatch.setattr(litert_child, "SYS", tmp_path / "unknown")
    litert_child.pin(1)
    assert bound[-1] == [3]


def test_a_model_that_does_not_load_is_a_line_and_no_profile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(MODEL.read_bytes()[:1000])
    assert profile_here({"bad.tflite": bad}, 1, 0.1) == []
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bad.tflite: no profile by operator: ")


def test_ctrl_c_keeps_the_profiles_so_far(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def profiled(name: str, _path: Path, threads: int, _seconds: float) -> Profile:
        if name == "second":
            raise KeyboardInterrupt
        return Profile(name, threads, "x", (), None)

    monkeypatch.setattr("bloodedge.benchmarks.profile.litert.profile_model", profiled)
    models = {name: Path(name) for name in ("first", "second", "third")}
    assert [profile.model for profile in profile_here(models, 1, 0.1)] == ["first"]
    assert "second and what comes after it: not profiled" in capsys.readouterr().err


def test_a_litert_without_a_profiler_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "ai_edge_litert"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ValueError, match="this ai-edge-litert has no C interface"):
        profile_model("m", MODEL, 1, 0.1)


def test_a_browser_gives_no_profile_and_is_refused_before_anything_starts() -> None:
    done = CliRunner().invoke(app, ["benchmark", "cnn_se", "--profile", "--browser"])
    assert done.exit_code != 0
    assert "--profile with --browser" in str(done.exception or done.output)
