"""Comparisons of variants over seeds, from the runs that are there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bloodedge.benchmarks import attention, distill_methods, recipe_ablation
from bloodedge.benchmarks.comparison import (
    Variant,
    chosen,
    compare,
    difference,
    exit_code,
    interval,
    run_missing,
    table,
)
from bloodedge.compress.chain.link import Link
from bloodedge.data.dataset import Dataset
from bloodedge.errors import ConfigError, RunError
from bloodedge.files import write_json
from bloodedge.runs import MANIFEST, runs_root


def finish(name: str, accuracy: float, losses: list[float], **more: Any) -> None:
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
            **more,
        },
    )
    rows = "\n".join(str(loss) for loss in losses)
    (folder / "history.csv").write_text(f"val_loss\n{rows}\n")


@dataclass(frozen=True)
class Settings:
    """Those of a stand-in for a training."""

    name: str
    epochs: int = 2


def variants(*names: str, trained: list[str] | None = None, epochs: int = 2) -> list[Variant]:
    def stage(config: Settings, data: Dataset) -> Any:
        assert trained is not None
        trained.append(config.name)

    def link(name: str, seed: int) -> Link:
        return Link(name, Settings(f"{name}-s{seed}", epochs), stage)

    return [Variant(name, partial(link, name)) for name in names]


def made_on(data: Dataset) -> dict[str, Any]:
    """What a manifest says of a run of `variants` on a data set."""
    return {"data": data.describe(), "config": {"epochs": 2}, "parents": {}}


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


def test_only_what_is_missing_is_trained_seed_by_seed(colours: Dataset):
    trained: list[str] = []
    finish("a-s1", 0.9, [0.1], **made_on(colours))
    run_missing(variants("a", "b", trained=trained), 2, colours)
    assert trained == ["a-s0", "b-s0", "b-s1"]


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
    # 19 degrees of freedom: 2.09302.
    assert interval([0.0, 1.0] * 10)[1] == pytest.approx(0.5 + 2.09302 * 0.512989 / 20**0.5)


def test_a_file_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def script() -> None:
        (tmp_path / "absent" / "table.md").write_text("")

    assert exit_code(script) == 2
    assert capsys.readouterr().err == (
        f"error: No such file or directory: {tmp_path / 'absent' / 'table.md'}\n"
    )


def other_than(data: Dataset) -> Dataset:
    """Another data set of the same title."""
    return replace(data, splits={**data.splits, "train": data["val"]})


def test_a_run_that_was_made_otherwise_is_not_taken_for_the_wanted_one(colours: Dataset) -> None:
    trained: list[str] = []
    finish("b-s1", 0.9, [0.1], **made_on(colours))
    rows = variants("a", "b", trained=trained)
    with pytest.raises(RunError, match=r"made otherwise: its data is other images of synthetic"):
        run_missing(rows, 2, other_than(colours))
    longer = variants("a", "b", trained=trained, epochs=3)
    with pytest.raises(RunError, match=r"b-s1 was made otherwise: epochs is 2, not 3"):
        run_missing(longer, 2, colours)
    # Nothing is trained before that is known.
    assert trained == []


def test_what_is_shown_is_of_one_data_set_which_is_named(
    colours: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(variants("a", "b"), 1, "a", None)
    assert capsys.readouterr().out.endswith("| b | 0 | not run yet | | | |\n")
    finish("a-s0", 0.9, [0.1], **made_on(colours))
    compare(variants("a", "b"), 1, "a", None)
    assert capsys.readouterr().out.endswith("\n\nVal accuracy on synthetic colours.\n")
    finish("b-s0", 0.9, [0.1], **made_on(other_than(colours)))
    with pytest.raises(RunError, match=r"b-s0 has other data, .*, than a-s0, synthetic colours"):
        compare(variants("a", "b"), 1, "a", None)
    assert capsys.readouterr().out == ""


def test_every_script_names_its_runs_as_it_trains_them() -> None:
    assert attention.link("cnn_se", "cbam", 3, 1).name == "attention-cnn_se-cbam-e3-s1"
    assert attention.link("cnn_se", "cbam", 3, 1).config.attention == "cbam"
    assert recipe_ablation.link("cnn_se", "lr-2", 3, 1).name == "ablation-cnn_se-lr-2-e3-s1"
    setting = distill_methods.Setting(("a",), "cnn_se", 20)
    for method in distill_methods.KNOWN:
        link = setting.link(method, 1)
        assert link.name == setting.run_name(method, 1)
        assert (link.teaching is None) == (method == distill_methods.ALONE)
        assert link.config.fit.augment.mixes == (method == "patient")
