"""What each runtime makes of each file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.benchmarks.loading_matrix import COMMAND, browser
from bloodedge.benchmarks.loading_matrix.files import COMPAT, Row

LOADER = Path(__file__).with_name("loader.py")
REFERENCE, JS = "ai-edge-litert", "LiteRT.js"
RUNTIMES = (REFERENCE, "tflite-runtime", "tf.lite", "tflite-micro", JS)
OLD_PACKAGES = ("tflite-runtime==2.14.0", "numpy<2")
RUNS, REFUSED, CRASHED, OTHERWISE = "runs", "refused", "ends the process", "answers otherwise"
# Kernels round differently: float in the last digits, int8 by a few of 256 steps.
_FLOAT, _QUANTIZED = 1e-4, 8 / 256
_TIMEOUT_S = 900.0
_Answers = tuple[dict[Path, NDArray[np.float64]], dict[Path, str]]


@dataclass
class Matrix:
    """What was found.

    Attributes:
        cells: for each file, what each runtime that was tried made of it.
        compat: for each file, whether `--compat tflite-runtime` writes it.
        reasons: what a runtime said when it refused, by file and runtime.
        versions: of the runtimes that were tried.
        not_tried: the other runtimes, and why.
    """

    cells: dict[str, dict[str, str]]
    compat: dict[str, bool]
    reasons: dict[str, dict[str, str]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    not_tried: dict[str, str] = field(default_factory=dict)


def measure(rows: Sequence[Row], images: NDArray[np.uint8]) -> Matrix:
    """Load every file in every runtime that can be had."""
    matrix = Matrix({row.name: {} for row in rows}, {row.name: row.compat for row in rows})
    by_path = {row.path: row.name for row in rows}
    with tempfile.TemporaryDirectory(prefix="bloodedge-runtimes-") as folder:
        reference: dict[Path, NDArray[np.float64]] = {}
        for runtime in RUNTIMES:
            try:
                answers, refused = _ask(runtime, list(by_path), images, Path(folder), matrix)
            except OSError as error:
                matrix.not_tried[runtime] = str(error)
                continue
            reference = reference or answers
            for path, name in by_path.items():
                found = _verdict(name, answers.get(path), reference.get(path), refused.get(path))
                matrix.cells[name][runtime] = found
                if path in refused and found == REFUSED:
                    matrix.reasons.setdefault(name, {})[runtime] = refused[path][:200]
    return matrix


def _verdict(
    name: str,
    answers: NDArray[np.float64] | None,
    reference: NDArray[np.float64] | None,
    refused: str | None,
) -> str:
    if refused is not None:
        return CRASHED if refused == CRASHED else REFUSED
    if answers is None or reference is None:
        return CRASHED
    limit = _FLOAT if "float32" in name.split(", ") or "float16" in name else _QUANTIZED
    return RUNS if np.abs(answers - reference).max() <= limit else OTHERWISE


def _ask(
    runtime: str, paths: Sequence[Path], images: NDArray[np.uint8], folder: Path, matrix: Matrix
) -> _Answers:
    """Return a runtime's answers and refusals.

    Raises:
        OSError: it cannot be had here.
    """
    if runtime == JS:
        if reason := browser.missing():
            raise OSError(reason)
        answers, refused = browser.answer_in_browser(paths, images)
        matrix.versions[runtime] = browser.VERSION
        return {path: np.asarray(rows) for path, rows in answers.items()}, refused
    python = sys.executable
    if runtime == "tflite-runtime":
        python = old_environment(folder / "old")
        matrix.versions[runtime] = OLD_PACKAGES[0].partition("==")[2]
    elif runtime == "tflite-micro":
        if find_spec("tflite_micro") is None:
            raise OSError("the package tflite-micro is not installed")
        matrix.versions[runtime] = metadata.version("tflite-micro")
    else:
        package = "tensorflow" if runtime == "tf.lite" else runtime
        matrix.versions[runtime] = metadata.version(package)
    return ask_python(python, runtime, paths, images, folder)


def ask_python(
    python: str, runtime: str, paths: Sequence[Path], images: NDArray[np.uint8], folder: Path
) -> _Answers:
    """Run `loader.py`, again after each file that ends it, and return answers and refusals."""
    sample = folder / "images.npy"
    np.save(sample, images)
    answers: dict[Path, NDArray[np.float64]] = {}
    refused: dict[Path, str] = {}
    left = {str(path): path for path in paths}
    while left:
        started = None
        for entry in _lines(python, runtime, sample, list(left)):
            if "start" in entry:
                started = entry["start"]
                continue
            path = left.pop(entry["file"])
            if "error" in entry:
                refused[path] = " ".join(str(entry["error"]).split())
            else:
                answers[path] = np.asarray(entry["answers"])
            started = None
        if started is None:
            if left:
                raise OSError(f"{runtime} did not start")
            break
        refused[left.pop(started)] = CRASHED
    return answers, refused


def _lines(python: str, runtime: str, sample: Path, files: Sequence[str]) -> Iterator[Any]:
    # Python 3.8 to 3.10 know no -P; those environments are our own.
    command = [python, *(["-P"] if python == sys.executable else []), str(LOADER)]
    try:
        done = subprocess.run(
            [*command, runtime, str(sample), *files],
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"{runtime} took more than {_TIMEOUT_S:g} s") from None
    for line in done.stdout.decode(errors="replace").splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def old_environment(folder: Path) -> str:
    """Make an environment with tflite-runtime, and return its Python.

    Raises:
        OSError: there is no Python up to 3.11, or no package index.
    """
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    python = folder / "bin" / "python"
    if uv:
        commands = [
            [uv, "venv", "--quiet", "--python", "3.11", str(folder)],
            [uv, "pip", "install", "--quiet", "--python", str(python), *OLD_PACKAGES],
        ]
    else:
        old = sys.executable if sys.version_info < (3, 12) else shutil.which("python3.11")
        if old is None:
            raise OSError("no Python 3.11")
        commands = [
            [old, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", *OLD_PACKAGES],
        ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise OSError(f"{OLD_PACKAGES[0]} could not be installed with Python 3.11")
    return str(python)


def to_json(matrix: Matrix) -> dict[str, Any]:
    """Return the matrix as the JSON that is recorded."""
    return {"schema": "bloodedge-loading-matrix/1", "command": COMMAND, **vars(matrix)}


def render(found: Mapping[str, Any]) -> str:
    """Return the recorded JSON as Markdown."""
    tried = [runtime for runtime in RUNTIMES if runtime in found["versions"]]
    heads = [f"{runtime} {found['versions'][runtime]}" for runtime in tried]
    lines = [
        "# Which runtime runs which file",
        "",
        f"`{COMMAND}`, on x86-64: every variant of a small `cnn_se`, batch 1, asked the same "
        "images in every runtime.",
        f"`{RUNS}`: it loads and answers as {REFERENCE} does. `{REFUSED}`: it says so and loads "
        "nothing.",
        "",
        f"| file | `--compat {COMPAT}` | " + " | ".join(heads) + " |",
        "| --- " * (2 + len(heads)) + "|",
    ]
    for name, row in found["cells"].items():
        written = "written" if found["compat"][name] else REFUSED
        lines.append(f"| {name} | {written} | " + " | ".join(row[r] for r in tried) + " |")
    lines += ["", "Why a runtime refuses:", ""]
    reasons: dict[str, list[str]] = {}
    for name, row in found["reasons"].items():
        for runtime, reason in row.items():
            reasons.setdefault(f"{runtime}: {reason}", []).append(name)
    lines += [f"- {reason} ({'; '.join(names)})" for reason, names in reasons.items()]
    lines += [f"- {r} was not tried: {why}." for r, why in found["not_tried"].items()]
    return "\n".join(lines) + "\n"
