"""Accuracy against effort: which runs count, and what the table says of them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bloodedge.backend import use_backend
from bloodedge.benchmarks import effort
from bloodedge.benchmarks.comparison import exit_code
from bloodedge.benchmarks.report.text import SYNTHETIC
from bloodedge.train.augment import AugmentConfig
from bloodedge.train.recipes import fit_config

MODEL = "cnn_se_nano"
PARAMETERS, MACS = 17_992, 3_526_848
# So many that no factor of the work is lost in rounding.
IMAGES = 1_000_000


@pytest.fixture(autouse=True, scope="module")
def backend() -> None:
    use_backend()


def write(
    folder: Path,
    name: str,
    accuracy: float,
    *,
    taught: bool = False,
    parameters: int = PARAMETERS,
    attention: str = "",
    init: str | None = None,
    teaching: dict[str, Any] | None = None,
    about: dict[str, Any] | None = None,
    **changes: Any,
) -> None:
    fit = asdict(fit_config("strong", MODEL, **{"epochs": 20, **changes}))
    config: dict[str, Any] = {"model": MODEL, "fit": fit, "width": 1.0}
    config |= {"attention": attention, "init": init}
    if taught:
        kd = {"method": "kd", "alpha": 0.5}
        lesson = {"teachers": ["a", "b"], "kd": kd, **(teaching or {})}
        config = {**config, "student": MODEL, "teaching": lesson}
    # Only those of train are work.
    images = {"train": IMAGES, "val": IMAGES // 2, "test": IMAGES}
    data = {"fingerprint": "f", "images": images, "class_names": ["x"] * 8, "size": 64}
    data |= about or {}
    manifest = {
        "schema_version": 1,
        "kind": "distill" if taught else "train",
        "name": name,
        "config": config,
        "model": {"parameters": parameters},
        "data": data,
        "metrics": {"val": {"accuracy": accuracy}},
        "parents": {},
        "files": {},
    }
    (folder / f"{name}.json").write_text(json.dumps(manifest))


def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["effort", str(folder), "--out", str(folder / "out")])
    (folder / "out").mkdir(exist_ok=True)
    return exit_code(effort.main)


def test_runs_of_one_way_are_grouped_by_their_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "short-s0", 0.96)
    # Its own attention, named.
    write(tmp_path, "short-s1", 0.97, seed=1, attention="none")
    write(tmp_path, "long", 0.99, epochs=80)
    write(tmp_path, "taught", 0.98, taught=True)
    write(tmp_path, "earlier-net", 0.5, parameters=5_916)
    write(tmp_path, "other-attention", 0.5, parameters=17_156, attention="se")
    write(tmp_path, "other-start", 0.5, init="short-s0")
    write(tmp_path, "other-rate", 0.5, learning_rate=0.1)
    write(tmp_path, "other-augmentation", 0.5, augment=AugmentConfig(colour=0.1))
    assert run(tmp_path, monkeypatch) == 0
    work = [f"{3 * MACS * IMAGES * epochs / 1e12:,.0f}" for epochs in (20, 80)]
    rows = (tmp_path / "out/effort.md").read_text().splitlines()[-3:]
    assert rows == [
        f"| {MODEL} | labels alone | 20 | 2 | {work[0]} | 96.50 | 96.00 to 97.00 |",
        f"| {MODEL} | labels alone | 80 | 1 | {work[1]} | 99.00 | 99.00 to 99.00 |",
        f"| {MODEL} | a + b (kd, alpha 0.5) | 20 | 1 | {work[0]} | 98.00 | 98.00 to 98.00 |",
    ]
    assert (tmp_path / "out/effort.svg").read_text().startswith("<?xml")


def test_a_damaged_manifest_does_not_cost_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "whole", 0.96)
    write(tmp_path, "damaged", 0.96)
    path = tmp_path / "damaged.json"
    path.write_text(path.read_text().replace('"accuracy"', '"other"'))
    assert run(tmp_path, monkeypatch) == 0
    said = capsys.readouterr()
    assert "left out damaged: its manifest lacks 'accuracy'" in said.out + said.err


def test_nothing_to_show_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "other", 0.5, learning_rate=0.1)
    assert run(tmp_path, monkeypatch) == 2
    assert capsys.readouterr().err.startswith("error: no run by the strong recipe")
    assert not (tmp_path / "out/effort.md").exists()


def test_every_data_set_has_a_table_and_synthetic_images_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "real", 0.96, about={"title": "Blood"})
    drawn = {"title": "Drawn cells", "fingerprint": "e", "synthetic": True}
    write(tmp_path, "drawn", 0.99, about=drawn)
    # Of the same images, by what did not yet record that they are synthetic.
    write(tmp_path, "early", 0.99, about={**drawn, "synthetic": False})
    assert run(tmp_path, monkeypatch) == 0
    text = (tmp_path / "out/effort.md").read_text()
    real, _, synthetic = text.partition("## Drawn cells\n")
    assert "## Blood\n" in real
    assert ("96.00" in real, "SYNTHETIC" in real, "99.00" in real) == (True, False, False)
    assert ("99.00" in synthetic, SYNTHETIC in synthetic) == (True, True)
    figure = (tmp_path / "out/effort.svg").read_text()
    assert ("<!-- Blood -->" in figure, SYNTHETIC in figure) == (True, True)


def test_runs_that_were_taught_otherwise_are_not_averaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kd = {"method": "kd", "alpha": 0.5}
    usual = {"kd": {**kd, "temperature": 4.0}, "views": 8, "live": False}
    write(tmp_path, "as-usual", 0.96, taught=True)
    write(tmp_path, "so-named", 0.96, taught=True, teaching=usual)
    write(tmp_path, "cold", 0.97, taught=True, teaching={"kd": {**kd, "temperature": 2.0}})
    write(tmp_path, "live", 0.98, taught=True, teaching={"views": 2, "live": True})
    assert run(tmp_path, monkeypatch) == 0
    rows = (tmp_path / "out/effort.md").read_text().splitlines()[-3:]
    assert [(row.split(" | ")[1], row.split(" | ")[3]) for row in rows] == [
        ("a + b (kd, alpha 0.5)", "2"),
        ("a + b (kd, alpha 0.5, T 2)", "1"),
        ("a + b (kd, alpha 0.5, views 2, live)", "1"),
    ]
