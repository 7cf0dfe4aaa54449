"""Every model's images reach the device as that model takes them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from bloodedge.benchmarks.android.adb import Adb, Answer
from bloodedge.benchmarks.android.parity import Parity
from bloodedge.benchmarks.elsewhere import Material
from bloodedge.data.dataset import Dataset
from bloodedge.deploy.runtimes import find_runtime
from bloodedge.quiet import quiet

FOLDER = "/data/local/tmp/bloodedge"


class Phone:
    """An `adb` whose device runs models with this machine's runtime on the bytes it was sent."""

    def __init__(self) -> None:
        self.folders: dict[str, dict[str, bytes]] = {}

    def push(self, source: Path, target: str) -> None:
        self.folders[target] = {path.name: path.read_bytes() for path in source.iterdir()}

    def pull(self, source: str, target: Path) -> None:
        target.mkdir()
        for name, content in self.folders[source].items():
            (target / name).write_bytes(content)

    def shell(self, command: str, timeout: float = 0.0) -> Answer:
        out = f"{FOLDER}/out"
        if command.startswith("ls "):
            return Answer(0, "\n".join(self.folders[out]), "")
        if command.startswith("for i in "):
            found = re.search(r"do (\S+) .*_files=\w+:(\S+)/\$i ", command)
            assert found
            self.folders[out] = outputs(found[1], self.folders[found[2]])
        return Answer(0, "", "")


def outputs(model: str, images: dict[str, bytes]) -> dict[str, bytes]:
    """Run a model on raw input tensors; as benchmark_model, on none of another size."""
    interpreter = find_runtime().interpreter(model)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = {}
    for name, content in images.items():
        values = np.frombuffer(content, taken["dtype"])
        if values.size == np.prod(taken["shape"]):
            interpreter.set_tensor(taken["index"], values.reshape(taken["shape"]))
            interpreter.invoke()
            found[name] = interpreter.get_tensor(given["index"]).tobytes()
    return found


def write_model(path: Path, batch: int = 1, top: float = 0.0) -> Path:
    """Write a .tflite whose class is the brightest channel.

    Args:
        path: the file.
        batch: images in one inference.
        top: the input is int8, of a scale that reaches so far; 0 leaves it float32.
    """
    import tensorflow as tf

    def model(x: Any) -> Any:
        return tf.nn.softmax(tf.reduce_mean(x, axis=(1, 2)) / 32.0)

    def calibrating() -> Any:
        yield [np.linspace(0, top, batch * 16 * 16 * 3, dtype="f4").reshape(batch, 16, 16, 3)]

    with quiet():
        spec = tf.TensorSpec((batch, 16, 16, 3), tf.float32, name="image")
        concrete = tf.function(model).get_concrete_function(spec)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
        if top:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = calibrating
            converter.inference_input_type = converter.inference_output_type = tf.int8
        path.write_bytes(converter.convert())
    return path


@pytest.fixture
def parity(colours: Dataset) -> Parity:
    """Of three images, one of each class."""
    test = colours.splits["test"]
    _, chosen = np.unique(test.labels, return_index=True)
    images, labels = test.images[chosen], test.labels[chosen]
    material = Material({}, images, labels, colours.class_names, "", True, dict)
    return Parity(cast("Adb", Phone()), FOLDER, material)


def same(parity: Parity, model: Path) -> bool:
    """Whether the device's answers are this machine's, to the last bits of float32."""
    found = parity.compare(model, str(model))["parity"]
    return bool(found["argmax_equal"] == 3 and found["max_difference"] < 1e-6)


def test_models_of_several_scales_get_the_images_each_in_its_own(
    parity: Parity, tmp_path: Path
) -> None:
    for top in (255.0, 510.0, 255.0):
        assert same(parity, write_model(tmp_path / f"{top:g}.tflite", top=top))


def test_a_batch_is_filled_and_a_single_image_is_not(parity: Parity, tmp_path: Path) -> None:
    for batch in (2, 1):
        assert same(parity, write_model(tmp_path / f"{batch}.tflite", batch))
