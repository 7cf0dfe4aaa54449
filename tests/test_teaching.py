"""Who teaches: every teacher that is named, live or stored, and none beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bloodedge.backend import use_backend
from bloodedge.compress.targets import LiveTeachers
from bloodedge.compress.teaching import TeachingConfig, parents, teach
from bloodedge.data.dataset import Dataset
from bloodedge.files import sha256_of
from bloodedge.train.config import FitConfig
from bloodedge.train.modelio import load_model


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


@pytest.fixture
def two(student_named: Callable[[str], Path], tiny_file: Path) -> tuple[str, str]:
    student_named("first")
    return "first", str(tiny_file)


def test_all_live_teachers_answer(two: tuple[str, str], tiny_file: Path, colours: Dataset):
    targets = teach(TeachingConfig(two, live=True), colours, FitConfig(epochs=1))
    assert isinstance(targets, LiveTeachers)
    classroom = targets.respond(load_model(tiny_file))
    assert [teacher.name for teacher in classroom.teachers] == ["cnn_se", "tiny"]


def test_the_manifest_names_every_teacher(
    two: tuple[str, str], tiny_file: Path, isolated_runs: Path
):
    first = sha256_of(isolated_runs / "first" / "model.keras")
    assert parents(TeachingConfig(two)) == {"teacher": first, "teacher_2": sha256_of(tiny_file)}
    assert parents(None) == {}
