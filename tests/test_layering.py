"""No stage imports a later one, and what must be light stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("bloodedge", "train", "compress", "deploy", "benchmarks")


def stage_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in STAGES[1:] else "bloodedge"


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # What is copied to a device is a package of its own there.
            assert node.level == 0 or path.parent.name == "agent", f"{path}: relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.split(".")[0] == "bloodedge"}


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_imports_a_later_one(stage: str):
    later = STAGES[STAGES.index(stage) + 1 :]
    files = [p for p in (ROOT / stage).rglob("*.py") if p.parent.name != "cli"]
    assert files
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imports(path)
        if stage_of(name) in later
    ]
    assert not wrong, wrong


def test_only_the_bridge_knows_keras_2():
    legacy = {"tf_keras", "tensorflow_model_optimization"}
    files = [p for stage in STAGES for p in (ROOT / stage).rglob("*.py")]
    found = {
        path.relative_to(ROOT).parent.as_posix()
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
        if name.split(".")[0] in legacy
    }
    assert found == {"compress/bridge"}


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_loads_nothing_heavy():
    heavy = [
        "tensorflow",
        "keras",
        "numpy",
        "cv2",
        "medmnist",
        "sklearn",
        "scipy",
        "matplotlib",
        "ai_edge_litert",
        "tf_keras",
    ]
    out = run_python(
        f"import sys, bloodedge.cli; print([m for m in {heavy!r} if m in sys.modules])"
    )
    assert out.strip() == "[]"


def test_training_and_distilling_import_without_what_a_bare_gpu_host_lacks():
    run_python(
        """
import sys
for name in ("tensorflow", "cv2", "medmnist", "sklearn", "matplotlib", "ai_edge_litert"):
    sys.modules[name] = None
for name in ("tf_keras", "tensorflow_model_optimization"):
    sys.modules[name] = None
import bloodedge.cli
import bloodedge.compress.channels.stage
import bloodedge.compress.sparsity, bloodedge.compress.clustering
import bloodedge.compress.distill, bloodedge.data.sources, bloodedge.train.restore
import bloodedge.compress.quantize, bloodedge.compress.sensitivity
import bloodedge.train.stage
"""
    )
