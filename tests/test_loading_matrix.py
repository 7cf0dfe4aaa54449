"""The recorded loading matrix says what the runtimes do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.benchmarks.loading_matrix import STEM, matrix
from bloodedge.benchmarks.loading_matrix.files import make_files
from bloodedge.benchmarks.loading_matrix.matrix import (
    CRASHED,
    JS,
    OTHERWISE,
    REFUSED,
    RUNS,
    RUNTIMES,
    ask_python,
    measure,
    render,
)
from bloodedge.deploy.convert import ALL_VARIANTS, IO_TYPES, convert
from bloodedge.deploy.lint.check import file_case, lint, useless

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"

INT8 = {f"int8, {io} in and out": io for io in IO_TYPES}
# The linter's names of the runtimes by those of the table.
LINTED = {
    "litert": "ai-edge-litert",
    "tflite-runtime": "tflite-runtime",
    "tf-lite": "tf.lite",
    "tflite-micro": "tflite-micro",
    "litert-js": JS,
}


@pytest.fixture(autouse=True, scope="module")
def backend() -> None:
    use_backend()


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{STEM}.json").read_text())
    return found


def test_the_table_is_that_of_the_json(recorded: dict[str, Any]) -> None:
    assert (RESULTS / f"{STEM}.md").read_text() == render(recorded)


def test_every_variant_is_in_it(recorded: dict[str, Any]) -> None:
    names = set(recorded["cells"])
    plain = {name for name in ALL_VARIANTS if name != "int8"}
    int8 = {f"int8, {io} in and out" for io in IO_TYPES}
    kinds = ("QAT", "channels pruned", "weights pruned", "clustered")
    made = {
        f"{kind}, {variant}" for kind in kinds for variant in ("float32", "int8, uint8 in and out")
    }
    assert names == plain | int8 | made


def test_what_it_says_is_what_the_documentation_says(recorded: dict[str, Any]) -> None:
    assert set(recorded["versions"]) | set(recorded["not_tried"]) == set(RUNTIMES)
    for name, row in recorded["cells"].items():
        # Nothing that we write ends a process or answers otherwise.
        assert set(row.values()) <= {RUNS, REFUSED}, name
        assert row["ai-edge-litert"] == row["tf.lite"] == RUNS, name
        # `--compat` writes exactly what that runtime loads.
        assert (row["tflite-runtime"] == RUNS) == recorded["compat"][name], name
        hybrid = name in ("float16", "dynamic")
        assert row["tflite-micro"] == (REFUSED if hybrid else RUNS), name
    for name in ("float32", "int8, uint8 in and out"):
        assert set(recorded["cells"][name].values()) == {RUNS}
    if JS in recorded["versions"]:
        assert recorded["cells"]["int8, int8 in and out"][JS] == REFUSED


@pytest.mark.slow
def test_it_is_what_the_runtimes_do(recorded: dict[str, Any], tmp_path: Path) -> None:
    found = measure(*make_files(tmp_path / "runs"))
    assert found.compat == recorded["compat"]
    for name, row in found.cells.items():
        expected = {r: recorded["cells"][name][r] for r in row if r in recorded["versions"]}
        assert {r: row[r] for r in expected} == expected, (name, found.reasons.get(name))
    if found.not_tried:
        pytest.skip(f"not tried: {found.not_tried}")


@pytest.mark.parametrize("name", ["float32", "float16", "dynamic", *INT8])
def test_the_linter_says_what_the_runtimes_do(name: str, recorded: dict[str, Any], tmp_path: Path):
    import keras

    image = keras.Input((16, 16, 3))
    # Enough weights for the converter to make them int8 in a dynamic-range file.
    x = keras.layers.Conv2D(48, 3, activation="relu")(image)
    net = keras.Model(image, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(x)))
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    path = tmp_path / "model.tflite"
    path.write_bytes(convert(net, name.split(",")[0], images, io=INT8.get(name, "uint8")))
    for runtime, title in LINTED.items():
        found = useless(lint([file_case(path, runtime, load=False)]))
        assert bool(found) == (recorded["cells"][name][title] == REFUSED), (runtime, found)


LOADER = """
import json, os, sys
for path in sys.argv[3:]:
    print(json.dumps({"start": path}), flush=True)
    if "crash" in path:
        os.abort()
    entry = {"error": "no\\nsuch op"} if "refuse" in path else {"answers": [[0.25, 0.75]]}
    print(json.dumps({"file": path, **entry}), flush=True)
"""


def test_a_file_that_ends_the_runtime_is_found_and_the_rest_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "loader.py"
    script.write_text(LOADER)
    monkeypatch.setattr(matrix, "LOADER", script)
    names = ("one", "crash", "two", "refuse", "crash again", "three")
    paths = [tmp_path / name for name in names]
    answers, refused = ask_python(
        sys.executable, "x", paths, np.zeros((1, 2, 2, 3), "u1"), tmp_path
    )
    assert [path.name for path in answers] == ["one", "two", "three"]
    assert {path.name: why for path, why in refused.items()} == {
        "crash": CRASHED,
        "refuse": "no such op",
        "crash again": CRASHED,
    }


def test_a_runtime_that_does_not_start_was_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "loader.py"
    script.write_text("raise SystemExit(1)")
    monkeypatch.setattr(matrix, "LOADER", script)
    with pytest.raises(OSError, match="x did not start"):
        ask_python(sys.executable, "x", [tmp_path], np.zeros((1, 2, 2, 3), "u1"), tmp_path)


def test_verdicts() -> None:
    verdict = matrix._verdict
    p = np.array([[0.25, 0.75]])
    assert verdict("float32", p, p, None) == RUNS
    assert verdict("QAT, float32", p, p + 0.01, None) == OTHERWISE
    assert verdict("int8, uint8 in and out", p, p + 0.01, None) == RUNS
    # The ends are float, the arithmetic is not.
    assert verdict("int8, float32 in and out", p, p + 0.01, None) == RUNS
    assert verdict("int8, uint8 in and out", p, p + 0.1, None) == OTHERWISE
    assert verdict("dynamic", None, p, "no such op") == REFUSED
    assert verdict("dynamic", None, p, CRASHED) == CRASHED
