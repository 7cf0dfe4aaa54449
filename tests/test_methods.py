"""The table of methods: which files it names, and what it reads of their runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bloodedge.backend import use_backend
from bloodedge.benchmarks import methods
from bloodedge.data.dataset import Dataset
from bloodedge.deploy.evaluate import EvaluateConfig, evaluate
from bloodedge.errors import BloodedgeError, RunError
from bloodedge.runs import load_run, runs_root


@pytest.fixture(autouse=True, scope="module")
def backend() -> None:
    use_backend()


@pytest.fixture
def source(student_named: Callable[[str], Path]) -> Path:
    return student_named("net-s0")


def test_each_file_of_a_recipe_has_a_name_in_the_table(source: Path) -> None:
    assert dict(methods.files("float32+int8", "net-s{}", 0)) == {
        "float32": "net-s0-float32",
        "int8": "net-s0-int8",
    }
    assert dict(methods.files("sparse80+qat+int8", "net-s{}", 0)) == {
        "sparse80+qat+int8": "net-s0-sparse80-qat-int8"
    }


def test_every_recipe_is_one(source: Path) -> None:
    for text in methods.RECIPES:
        assert methods.recipe_config(text, "net-s{}", 0).recipe.text == text
    with pytest.raises(BloodedgeError, match="nonsense"):
        methods.recipe_config("nonsense", "net-s{}", 0)


def test_what_was_not_run_says_so(source: Path) -> None:
    lines = methods.table(["qat+int8"], "net-s{}", 3, {}).splitlines()
    assert lines[2:] == ["| qat+int8 | 0 | not run yet | | | | | | |"]


@pytest.mark.slow
def test_a_run_is_made_once_and_read_back(source: Path, colours: Dataset) -> None:
    recipes = ["float32", "cluster8+int8"]
    methods.run(recipes, "net-s{}", 1, colours, 1)
    test = load_run(runs_root() / "net-s0-cluster8-int8-test").manifest
    made = {path: path.stat().st_mtime_ns for path in runs_root().rglob("*") if path.is_file()}
    methods.run(recipes, "net-s{}", 1, colours, 1)
    assert made == {p: p.stat().st_mtime_ns for p in runs_root().rglob("*") if p.is_file()}
    lines = methods.table(recipes, "net-s{}", 1, {}).splitlines()
    assert lines[2].startswith("| float32 | 1 | ")
    assert "not measured" in lines[3]
    assert f" {100 * test['metrics']['test']['accuracy']:.2f} |" in lines[3]


def test_an_evaluation_of_another_file_of_that_name_is_not_taken_for_it(
    source: Path, colours: Dataset
) -> None:
    assert methods.test_name("net-s0") == "net-s0-test"
    evaluate(EvaluateConfig("net-s0"), colours)
    assert methods.test_name("net-s0") == "net-s0-test"
    (source / "model.keras").write_bytes((source / "model.keras").read_bytes() + b" ")
    assert methods.test_name("net-s0") == "net-s0-method-test"


def test_an_evaluation_on_other_images_is_not_taken_for_it(source: Path, colours: Dataset) -> None:
    other = replace(colours, splits={**colours.splits, "test": colours["val"]})
    evaluate(EvaluateConfig("net-s0"), other)
    assert methods.test_name("net-s0") == "net-s0-method-test"
    evaluate(EvaluateConfig("net-s0", name="net-s0-method-test"), colours)
    assert methods.test_name("net-s0") == "net-s0-method-test"
    # Another file under both names.
    (source / "model.keras").write_bytes((source / "model.keras").read_bytes() + b" ")
    with pytest.raises(
        RunError, match=r"method-test does not tell .* of another training or file;"
    ):
        methods.test_name("net-s0")
