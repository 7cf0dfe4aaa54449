"""What docstrings list is what there is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("bloodedge", "train", "compress", "deploy", "benchmarks")


def dataclasses() -> Iterator[tuple[str, ast.ClassDef]]:
    """Yield every data class whose docstring lists its attributes, by file and name."""
    for part in PARTS:
        for path in sorted((ROOT / part).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef) and is_data(node):
                    yield f"{path.relative_to(ROOT)}:{node.name}", node


def is_data(node: ast.ClassDef) -> bool:
    kinds = " ".join(map(ast.unparse, [*node.decorator_list, *node.bases]))
    documented = "Attributes:" in (ast.get_docstring(node) or "")
    return documented and ("dataclass" in kinds or "NamedTuple" in kinds)


FOUND = dict(dataclasses())


@pytest.mark.parametrize("name", FOUND)
def test_the_attributes_listed_are_those_of_the_class(name: str):
    node = FOUND[name]
    fields = [
        line.target.id
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    ]
    listed = (ast.get_docstring(node) or "").partition("Attributes:")[2].partition("\n\n")[0]
    entries = re.findall(r"^    (\w[\w, ]*):", listed, re.MULTILINE)
    told = [word for entry in entries for word in entry.split(", ")]
    public = [field for field in fields if not field.startswith("_")]
    assert sorted(told) == sorted(public)
