"""A squeeze-and-excitation block that died in training must not spoil the int8 file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.deploy import ranges
from bloodedge.deploy.convert import convert
from bloodedge.deploy.interpreter import predict_parallel, probe
from bloodedge.errors import ModelError
from bloodedge.metrics import softmax
from bloodedge.train.loop import predict_logits
from bloodedge.train.registry import ModelConfig, build

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


@pytest.fixture
def model() -> Any:
    """A student whose first SE block never fires."""
    net = build(ModelConfig("cnn_se", 4, 32, 0.5))
    kernel, bias = net.get_layer("se1_a").get_weights()
    net.get_layer("se1_a").set_weights([kernel, bias - 100.0])
    # Training leaves no gate's bias at 0, where the block itself would be constantly 0.
    kernel, bias = net.get_layer("se1_b").get_weights()
    net.get_layer("se1_b").set_weights([kernel, bias + np.linspace(-1, 1, bias.size)])
    return net


def test_the_int8_file_of_a_dead_block_loads_and_answers_as_its_parent(
    model: Any, tmp_path: Path, monkeypatch
):
    path = tmp_path / "int8.tflite"
    path.write_bytes(convert(model, "int8", IMAGES))
    found = predict_parallel(path, IMAGES)
    np.testing.assert_allclose(found, softmax(predict_logits(model, IMAGES)), atol=0.05)

    # With the range as it was measured, it is the file that XNNPACK refuses.
    monkeypatch.setattr(ranges, "usable_range", lambda low, high: (low, high))
    path.write_bytes(convert(model, "int8", IMAGES))
    with pytest.raises(ModelError):
        probe(path)
