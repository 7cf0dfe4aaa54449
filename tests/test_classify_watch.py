"""`classify.py --watch` takes each picture once it is whole, and again when it was replaced."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from bloodedge.benchmarks.bundle import CLASSIFY


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The program, as a bundle has it: `runner.py` lies beside it here, too."""
    monkeypatch.syspath_prepend(str(CLASSIFY.parent))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec = importlib.util.spec_from_file_location("classify_watching", CLASSIFY)
    assert spec
    assert spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    yield loaded
    sys.modules.pop("runner")


class OverError(Exception):
    """The camera has no more to do."""


def taken(
    module: ModuleType, folder: Path, camera: list[Callable[[], object]]
) -> list[tuple[str, str]]:
    """Return the name and content of each file as it is handed over.

    Args:
        module: the program.
        folder: what is watched.
        camera: what it does between each look and the next.
    """
    steps, found = iter(camera), []

    def sleep(_: float) -> None:
        step = next(steps, None)
        if step is None:
            raise OverError
        step()

    with pytest.MonkeyPatch.context() as patch, pytest.raises(OverError):
        patch.setattr(module.time, "sleep", sleep)
        for file in module.new_files([folder]):
            found.append((file.name, file.read_text()))
    return found


def rest() -> None:
    """Do nothing between two looks."""


def test_a_picture_that_is_being_written_is_left_until_it_is_whole(
    module: ModuleType, tmp_path: Path
) -> None:
    picture = tmp_path / "a.png"
    parts = ["", "one", "one two", "one two three"]
    camera = [lambda part=part: picture.write_text(part) for part in parts]
    assert taken(module, tmp_path, [*camera, rest, rest]) == [("a.png", "one two three")]


def test_a_picture_that_is_replaced_is_taken_again_once_it_is_whole(
    module: ModuleType, tmp_path: Path
) -> None:
    picture = tmp_path / "a.png"
    picture.write_text("first")
    parts = ["se", "second"]
    camera = [lambda part=part: picture.write_text(part) for part in parts]
    found = taken(module, tmp_path, [rest, *camera, rest, rest])
    assert found == [("a.png", "first"), ("a.png", "second")]
