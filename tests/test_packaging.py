"""The wheel holds the folders on disk: an editable install would hide what is missing."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from bloodedge.backend import BACKENDS

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("train", "compress", "deploy", "benchmarks")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]


def modules_on_disk() -> set[str]:
    found = {p.relative_to(ROOT).as_posix() for p in (ROOT / "bloodedge").rglob("*.py")}
    for stage in STAGES:
        paths = (ROOT / stage).rglob("*.py")
        found |= {f"bloodedge/{p.relative_to(ROOT).as_posix()}" for p in paths}
    return found


def test_every_package_folder_is_declared():
    on_disk = {str(Path(name).parent).replace("/", ".") for name in modules_on_disk()}
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == on_disk


# The modules of the distributions that are called otherwise.
MODULES = {
    "ai-edge-litert": "ai_edge_litert",
    "opencv-python-headless": "cv2",
    "tensorflow-model-optimization": "tensorflow_model_optimization",
    "tflite-micro": "tflite_micro",
}
# What is imported and yet no dependency, and who does without it, or has it.
OPTIONAL = {
    "PIL": "classify.py, on a device, says where Pillow is missing",
    "_typeshed": "type checkers bring it, and only they import it",
    "flatbuffers": "gemm_model.py, which is run here only; in the extra dev",
    "jax": "the backend that was asked for; an extra",
    "pip": "the emulator says where it is missing",
    "runner": "classify.py's neighbour in a bundle",
    "tflite_micro": "the arena is left out; the extra micro",
    "tflite_runtime": "devices that have no ai-edge-litert",
}
LOADERS = {"import_module", "find_spec", "__import__"}


def declared(lines: list[str]) -> set[str]:
    """Return the modules of requirements such as `keras>=3.15,<4`."""
    names = [re.split(r"[<>=~! ;\[]", line)[0] for line in lines]
    return {MODULES.get(name, name) for name in names}


def names_in(node: ast.AST) -> list[str]:
    """Return what a statement imports, or a call looks for by a name that is written there."""
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=str(name), level=0):
            return [name]
        case ast.Call(
            func=ast.Name(id=loader) | ast.Attribute(attr=loader),
            args=[ast.Constant(value=str(name)), *_],
        ) if loader in LOADERS:
            return [name]
    return []


def imported() -> set[str]:
    """Return the first parts of all that the package imports from outside, or looks for."""
    paths = [p for folder in ("bloodedge", *STAGES) for p in (ROOT / folder).rglob("*.py")]
    nodes = [node for p in paths for node in ast.walk(ast.parse(p.read_text("utf-8")))]
    names = {name.partition(".")[0] for node in nodes for name in names_in(node)}
    return names - sys.stdlib_module_names - {"bloodedge"}


def test_imports_are_told_from_other_text():
    code = """
import a.b, c as d
from e.f import g
from . import h
import_module("i.j"); importlib.util.find_spec("k"); __import__("l")
print("m"); import_module(n)
"""
    names = [name for node in ast.walk(ast.parse(code)) for name in names_in(node)]
    assert sorted(names) == ["a.b", "c", "e.f", "i.j", "k", "l"]


def test_what_the_package_depends_on_is_what_it_imports():
    found = imported()
    assert declared(PROJECT["dependencies"]) == found - OPTIONAL.keys()
    assert found >= OPTIONAL.keys()


def test_an_extra_brings_what_the_package_asks_for_and_does_not_have():
    extras: dict[str, list[str]] = PROJECT["optional-dependencies"]
    # No literal names a backend where it is looked for.
    used = imported() | set(BACKENDS)
    assert all(declared(lines) <= used for name, lines in extras.items() if name != "dev")
    assert not {line for lines in extras.values() for line in lines} & set(PROJECT["dependencies"])
    # The README names extras, of the checkout: the package is on no index.
    readme = (ROOT / "README.md").read_text()
    assert not re.search(r"install '?bloodedge", readme)
    shown = set(re.findall(r"install '\.\[([\w-]+)\]", readme))
    assert shown >= {"gpu", "jax-cuda", "micro"}
    assert shown | (set(BACKENDS) - declared(PROJECT["dependencies"])) <= extras.keys()


def test_all_say_the_same_of_python():
    """TensorFlow has no wheels for a newer one, and pip would say so by a resolver's error."""
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()
    makefile, readme = ((ROOT / name).read_text() for name in ("Makefile", "README.md"))
    assert f"not (3, {low}) <= sys.version_info < (3, {high})" in makefile
    assert f"needs Python 3.{low} to 3.{int(high) - 1};" in makefile
    versions = [f"3.{minor}" for minor in range(int(low), int(high))]
    assert f"Python {', '.join(versions[:-1])} or {versions[-1]}" in readme


@pytest.mark.slow
def test_the_wheel_holds_what_is_on_disk(tmp_path: Path):
    # setuptools copies into build/lib and never clears it: a deleted module would live on there.
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
    ]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {n for n in archive.namelist() if ".dist-info/" not in n}
    assert {n for n in names if n.endswith(".py")} == modules_on_disk()
    assert "bloodedge/py.typed" in names
    zoo = {p.relative_to(ROOT).as_posix() for p in (ROOT / "bloodedge" / "zoo").glob("[!_]*/*")}
    assert any(name.endswith(".tflite") for name in zoo)
    assert zoo <= names
    page = {p.relative_to(ROOT).as_posix() for p in (ROOT / "benchmarks/browser/page").iterdir()}
    assert {f"bloodedge/{name}" for name in page} <= names
    assert "bloodedge/benchmarks/result.schema.json" in names
    assert all(n.startswith("bloodedge/") for n in names)


def test_the_constraints_hold_names_and_versions_only():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert lines
    assert not [line for line in lines if "://" in line or "==" not in line]
    names = {line.split("==")[0] for line in lines}
    assert "medmnist" in names
    assert not {"torch", "torchvision"} & names
