"""`classify.py --watch` takes each picture once it is whole, and again when it was replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


class OverError(Exception):
    """The camera has no more to do."""


def taken(
    classify: ModuleType, folder: Path, camera: list[Callable[[], object]]
) -> list[tuple[str, str]]:
    """Return the name and content of each file as it is handed over.

    Args:
        classify: the program.
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
        patch.setattr(classify.time, "sleep", sleep)
        for file in classify.new_files([folder]):
            found.append((file.name, file.read_text()))
    return found


def rest() -> None:
    """Do nothing between two looks."""


def test_a_picture_that_is_being_written_is_left_until_it_is_whole(
    classify: ModuleType, tmp_path: Path
) -> None:
    picture = tmp_path / "a.png"
    parts = ["", "one", "one two", "one two three"]
    camera = [lambda part=part: picture.write_text(part) for part in parts]
    assert taken(classify, tmp_path, [*camera, rest, rest]) == [("a.png", "one two three")]


def test_a_picture_that_is_replaced_is_taken_again_once_it_is_whole(
    classify: ModuleType, tmp_path: Path
) -> None:
    picture = tmp_path / "a.png"
    picture.write_text("first")
    parts = ["se", "second"]
    camera = [lambda part=part: picture.write_text(part) for part in parts]
    found = taken(classify, tmp_path, [rest, *camera, rest, rest])
    assert found == [("a.png", "first"), ("a.png", "second")]
