"""A Keras file that needs code of its own is refused by the name of what needs it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bloodedge.backend import use_backend
from bloodedge.errors import ModelError
from bloodedge.train import modelio
from bloodedge.train.modelio import load_model

use_backend()
import keras  # noqa: E402
from keras import layers  # noqa: E402


class Twice(layers.Layer):  # type: ignore[misc]
    """A layer that no other program has."""

    def call(self, x: Any) -> Any:
        return x * 2


def own(x: Any) -> Any:
    return x


def in_a_sequence(x: Any) -> Any:
    return keras.Sequential([keras.Input((12,)), Twice(name="deep")])(x)


PARTS: dict[str, Callable[[Any], Any]] = {
    "Lambda mine": layers.Lambda(lambda x: x * 2, name="mine"),
    "Twice first": lambda x: Twice(name="second")(Twice(name="first")(x)),
    "Twice deep": in_a_sequence,
    "function own": layers.Dense(3, activation=own),
}


def saved(part: Callable[[Any], Any], folder: Path) -> Path:
    image = keras.Input((2, 2, 3))
    path = folder / "outside.keras"
    keras.Model(image, layers.Dense(3)(part(layers.Flatten()(image)))).save(path)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PARTS)
def test_the_first_part_that_needs_code_is_named(name: str, tmp_path: Path):
    with pytest.raises(ModelError) as caught:
        load_model(saved(PARTS[name], tmp_path))
    assert f"cannot be loaded: it needs code of its own ({name}), which is not" in str(caught.value)
    assert "built-in layers" in str(caught.value)


def changed(path: Path, description: str) -> Path:
    made = path.with_name("changed.keras")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w") as new:
        for info in old.infolist():
            own = info.filename == "config.json"
            new.writestr(info.filename, description if own else old.read(info))
    return made


@pytest.mark.parametrize("description", ["{", "[" * 9999, "[]", '{"config": {"class_name": 3}}'])
def test_a_damaged_description_is_told_as_keras_tells_it(description: str, tmp_path: Path):
    path = changed(saved(layers.Dense(3), tmp_path), description)
    with pytest.raises(ModelError, match=r"cannot be loaded: .*written by Keras 3"):
        load_model(path)


def test_a_description_that_is_too_long_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = saved(Twice(), tmp_path)
    monkeypatch.setattr(modelio, "_MAX_DESCRIPTION_BYTES", 10)
    with pytest.raises(ModelError, match="written by Keras 3"):
        load_model(path)


def test_what_keras_says_ends_at_a_word(tmp_path: Path):
    path = saved(layers.Dense(3), tmp_path)
    with zipfile.ZipFile(path) as archive:
        description = json.loads(archive.read("config.json"))
    description["config"]["layers"][1]["config"]["no such setting"] = "word " * 90
    with pytest.raises(ModelError, match=r"cannot be loaded: .{0,196} \.\.\.; expected a \.keras"):
        load_model(changed(path, json.dumps(description)))
