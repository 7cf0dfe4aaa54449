"""The recorded sizes add up, and what is above its floor is so for the reason that is given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bloodedge.benchmarks.size_floors import STEM, STUDENTS, files, main, render, row
from bloodedge.deploy.convert import ALL_VARIANTS
from bloodedge.deploy.flat.bytemap import FILES, METADATA, ByteMap, map_bytes
from bloodedge.errors import ModelError

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{STEM}.json").read_text())
    return found


def test_the_table_is_that_of_the_json(recorded: dict[str, Any]) -> None:
    assert (RESULTS / f"{STEM}.md").read_text() == render(recorded)


def test_every_variant_of_every_student_is_in_it(recorded: dict[str, Any]) -> None:
    names = {f"{student} {variant}" for student in STUDENTS for variant in ALL_VARIANTS}
    assert set(recorded["files"]) == names


def test_figures_add_up_and_the_tables_are_what_is_above(recorded: dict[str, Any]) -> None:
    for name, entry in recorded["files"].items():
        assert sum(entry["purposes"].values()) == entry["bytes"], name
        constants = entry["weights_and_biases"]
        assert entry["floor"] == constants + max(4096, round(0.1 * constants)), name
        assert 800 < entry["added"] <= 1024, name
        lean = entry["bytes"] - entry["added"]
        assert entry["above_floor"] == lean - entry["floor"], name
        assert lean - entry["quantization_tables"] <= entry["floor"], name
        if "float" in name:
            assert entry["above_floor"] <= 0, name


def test_a_row_counts_metadata_apart() -> None:
    purposes = {"weights": 50_000, "biases": 1000, "scales": 300, "zero points": 200}
    found = row(ByteMap({**purposes, METADATA: 900, FILES: 200, "padding": 0}, 52_600))
    assert found["above_floor"] == 52_600 - 1100 - 51_000 - 5100
    assert (found["added"], found["quantization_tables"]) == (1100, 500)
    assert "padding" not in found["purposes"]


def test_any_file_can_be_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ((title, content),) = files("cnn_se")
    main(["cnn_se", "--out", str(tmp_path)])
    found = json.loads((tmp_path / f"{STEM}.json").read_text())
    assert found["files"][title] == row(map_bytes(content))
    assert found["command"].endswith("size_floors cnn_se")
    assert f"| {title} |" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["nothing_of_that_name", "cnn_se:wide"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(ModelError):
        list(files(name))
