"""The scripts that hold the runner against itself and against LiteRT's own tool."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bloodedge.benchmarks import latency_parity, repeatability
from bloodedge.benchmarks.host import BenchmarkConfig
from bloodedge.benchmarks.machine import Noise
from bloodedge.benchmarks.repeatability import AGREE, DIFFER, INCONCLUSIVE, differences, verdict
from bloodedge.benchmarks.result import BenchmarkResult, BenchmarkRow
from bloodedge.errors import ConfigError, DataError

ROW = BenchmarkRow(
    "m", 10, 9, 1, 100.0, 110.0, 120.0, 90.0, 1.0, 1.0, 100, None, 0, 0.0, False, None
)  # fmt: skip


def result(*medians: float | None, noise: Noise | None = None) -> BenchmarkResult:
    rows = tuple(replace(ROW, model=f"m{i}", median_us=us) for i, us in enumerate(medians))
    return BenchmarkResult(Path("r.json"), True, "litert 2", "a Pi", {}, rows, noise=noise)


QUIET, NOISY = Noise("quiet", ()), Noise("noisy", ("a loop varies",))


def test_runs_that_agree_within_5_per_cent_pass(capsys: pytest.CaptureFixture[str]) -> None:
    pair = result(100.0, 200.0, noise=QUIET), result(104.9, 190.5, noise=QUIET)
    assert differences(*pair) == pytest.approx({("m0", 1): 0.049, ("m1", 1): -0.0475})
    assert verdict(*pair) == AGREE
    assert "largest difference 4.9 %, limit 5 %" in capsys.readouterr().out


def test_runs_that_differ_on_a_quiet_machine_fail() -> None:
    assert verdict(result(100.0, noise=QUIET), result(106.0, noise=QUIET)) == DIFFER


@pytest.mark.parametrize("second", [100.0, 150.0])
def test_nothing_follows_on_a_noisy_machine(
    second: float, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verdict(result(100.0, noise=QUIET), result(second, noise=NOISY)) == INCONCLUSIVE
    assert "too noisy: a loop varies" in capsys.readouterr().out


def test_a_model_that_failed_once_is_an_error() -> None:
    for pair in ((result(1.0), result(None)), (result(1.0, 1.0), result(1.0))):
        with pytest.raises(DataError, match="not measured twice"):
            differences(*pair)


@pytest.mark.parametrize(
    ("words", "threads"),
    [([], BenchmarkConfig.threads), (["--threads", "1"], (1,)), (["--threads", "2,0"], (2, 0))],
)
def test_both_runs_measure_with_the_thread_counts_that_are_asked_for(
    words: list[str], threads: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    configs: list[BenchmarkConfig] = []

    def run(config: BenchmarkConfig) -> BenchmarkResult:
        configs.append(config)
        return result(100.0, noise=QUIET)

    monkeypatch.setattr(repeatability, "run_benchmark", run)
    assert repeatability.main(["m.tflite", *words]) == AGREE
    assert [config.threads for config in configs] == [threads, threads]
    assert [config.models for config in configs] == [(Path("m.tflite"),)] * 2


def test_thread_counts_that_are_none_are_refused() -> None:
    with pytest.raises(SystemExit):
        repeatability.main(["m.tflite", "--threads", "many"])
    with pytest.raises(ConfigError, match="1 is there twice"):
        repeatability.main(["m.tflite", "--threads", "1,1"])


@pytest.mark.parametrize(
    ("ratio", "ours", "code", "said"),
    [
        (1.049, 0.3, 0, "within 5 %"),
        (0.951, 0.3, 0, "within 5 %"),
        (1.051, 0.3, 1, "not within 5 %"),
        (0.949, 10.0, 1, "not within 5 %"),
        (0.5, 0.2, 0, "not judged: the rule is for models above 0.2 ms"),
    ],
)
def test_parity_with_litert_is_judged_by_the_rule(
    ratio: float, ours: float, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert latency_parity.verdict(ratio, ours) == code
    assert capsys.readouterr().out.splitlines()[-1] == said


def test_litert_s_own_tool_gives_its_figures_unrounded(tmp_path: Path) -> None:
    model = Path(latency_parity.__file__).parent.parent / "bloodedge/zoo/cnn_se/cnn_se.tflite"
    found = latency_parity.official_ms(model, tmp_path, 50)
    assert 0 < found < 1000
    # A median of clock readings is no multiple of 0.01 ms.
    assert round(found, 2) != found
