"""Comparisons of variants over seeds, from the runs that are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from bloodedge.benchmarks import distill_methods
from bloodedge.benchmarks.comparison import (
    Variant,
    chosen,
    difference,
    exit_code,
    interval,
    run_missing,
    table,
)
from bloodedge.errors import ConfigError
from bloodedge.files import write_json
from bloodedge.runs import MANIFEST, runs_root


def finish(name: str, accuracy: float, losses: list[float]) -> None:
    """Leave what a comparison reads of a run."""
    folder = runs_root() / name
    folder.mkdir(parents=True)
    metrics = {"val": {"accuracy": accuracy}}
    write_json(
        folder / MANIFEST,
        {
            "schema_version": 1,
            "kind": "train",
            "name": name,
            "model": {},
            "data": {},
            "metrics": metrics,
            "files": {},
        },
    )
    rows = "\n".join(str(loss) for loss in losses)
    (folder / "history.csv").write_text(f"val_loss\n{rows}\n")


def variants(*names: str, train=lambda seed: None) -> list[Variant]:
    return [Variant(name, lambda seed, n=name: f"{n}-s{seed}", train) for name in names]


def test_a_table_gives_means_ranges_and_differences_of_what_was_run():
    finish("base-s0", 0.90, [9.0, 0.3, 0.2, 0.1])
    finish("base-s1", 0.92, [9.0, 0.3, 0.2, 0.1])
    finish("other-s0", 0.95, [0.5, 0.5, 0.5])
    rows = table(variants("base", "other", "third"), 3, "base").splitlines()[2:]
    assert rows == [
        "| base | 2 | 91.00 | 90.00 to 92.00 |  | 0.2000 |",
        "| other | 1 | 95.00 | 95.00 to 95.00 | +5.00 | 0.5000 |",
        "| third | 0 | not run yet | | | |",
    ]


def test_only_what_is_missing_is_trained_seed_by_seed():
    trained: list[tuple[str, int]] = []
    rows = [
        Variant(name, lambda s, n=name: f"{n}-s{s}", lambda s, n=name: trained.append((n, s)))
        for name in ("a", "b")
    ]
    finish("a-s1", 0.9, [0.1])
    run_missing(rows, 2)
    assert trained == [("a", 0), ("b", 0), ("b", 1)]


def test_an_unknown_name_is_refused():
    with pytest.raises(ConfigError, match=r"no variant c; expected a, b"):
        chosen("a,c", ("a", "b"), "variant")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [(ConfigError("bad"), 2, "error: bad"), (KeyboardInterrupt(), 130, "interrupted")],
)
def test_a_script_ends_in_one_line(error, code: int, line: str, capsys):
    def script() -> None:
        raise error

    assert exit_code(script) == code
    assert capsys.readouterr().err.startswith(line)
    assert exit_code(lambda: 1) == 1
    assert exit_code(lambda: None) == 0


def test_every_method_of_the_comparison_is_one_that_distill_takes(tmp_path: Path):
    setting = distill_methods.Setting(("a",), "cnn_se", 20)
    taught = [m for m in distill_methods.KNOWN if m != distill_methods.ALONE]
    alphas = {method: setting.teaching(method).kd.alpha for method in taught}
    assert alphas["kd-half"] == 0.5 != alphas["kd"]
    names = {setting.run_name(method, seed) for method in distill_methods.KNOWN for seed in (0, 1)}
    assert len(names) == 2 * len(distill_methods.KNOWN)


def test_a_difference_is_one_of_pairs_with_students_interval() -> None:
    for name, values in {"base": (0.97, 0.98, 0.96), "other": (0.98, 0.985, 0.965)}.items():
        for seed, value in enumerate(values):
            finish(f"{name}-s{seed}", value, [0.1])
    finish("other-s3", 0.1, [0.1])
    # Mean 2/3, standard deviation 0.2887, t = 4.303 with two degrees of freedom.
    assert interval([1.0, 0.5, 0.5]) == pytest.approx((-0.0505, 1.3838), abs=1e-3)
    assert "| +0.67 [-0.05, +1.38] |" in table(variants("base", "other"), 4, "base")
    assert difference([]) == ""
    # Beyond eight degrees of freedom the interval is a little wide, never narrow.
    assert interval([0.0, 1.0] * 10)[1] > 0.5 + 2.1 * 0.513 / 20**0.5


def test_a_file_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def script() -> None:
        (tmp_path / "absent" / "table.md").write_text("")

    assert exit_code(script) == 2
    assert capsys.readouterr().err == (
        f"error: No such file or directory: {tmp_path / 'absent' / 'table.md'}\n"
    )
