"""What each layer alone costs, recomputed by hand."""

from __future__ import annotations

import csv
from typing import Any

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.compress.fold import fold
from bloodedge.compress.sensitivity import SensitivityConfig, examine, pruned, sensitivity
from bloodedge.compress.simulate import Simulation
from bloodedge.data.dataset import Dataset
from bloodedge.errors import ConfigError, ModelError
from bloodedge.files import sha256_of
from bloodedge.runs import runs_root
from bloodedge.train.modelio import save_model
from bloodedge.train.registry import ModelConfig, build


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


def model() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    return build(ModelConfig("cnn_se", 3, 16, 0.25), size=16)


def test_rows_are_what_changing_one_layer_by_hand_gives(colours: Dataset):
    net = model()
    twin = Simulation(fold(net), switchable=True)
    images, labels = colours["val"].images[:32], colours["val"].labels[:32]
    twin.observe(images)
    figures, rows = examine(twin, images, labels, 0.5)
    assert [row.layer for row in rows] == twin.layers
    x = images.astype("f4")
    plain = np.asarray(net.predict_on_batch(x))
    size = np.sqrt((plain**2).mean())
    assert figures["float_accuracy_val"] == (plain.argmax(axis=1) == labels).mean()
    row = next(row for row in rows if row.layer == "conv1")
    kernel = net.get_layer("conv1").get_weights()[0]
    assert row.weights == kernel.size
    folded = twin.model.get_layer("conv1")
    kernel, bias = folded.get_weights()
    cut = np.where(np.abs(kernel) < np.median(np.abs(kernel)), 0, kernel)
    folded.set_weights([cut, bias])
    changed = np.asarray(twin.model.predict_on_batch(x))
    folded.set_weights([kernel, bias])
    assert row.pruned_error == pytest.approx(
        np.sqrt(((changed - plain) ** 2).mean()) / size, rel=1e-3
    )
    assert row.pruned_accuracy == (changed.argmax(axis=1) == labels).mean()
    # Rounding to 8 bits is a far smaller change than losing half the weights.
    assert 0 < row.int8_error < 0.5 * row.pruned_error
    # Nothing stays behind.
    np.testing.assert_allclose(twin.model.predict_on_batch(x), plain, atol=1e-5)


def test_pruning_takes_the_smallest_and_gives_them_back():
    import keras

    kernel = keras.Variable(np.array([[4.0, -1.0], [0.5, -3.0]], np.float32))
    with pruned([kernel], 0.5):
        np.testing.assert_array_equal(kernel.numpy(), [[4, 0], [0, -3]])
    np.testing.assert_array_equal(kernel.numpy(), [[4, -1], [0.5, -3]])


def test_the_run_holds_table_plot_and_manifest(colours: Dataset, tmp_path):
    save_model(model(), tmp_path / "net.keras")
    before = sha256_of(tmp_path / "net.keras")
    config = SensitivityConfig(str(tmp_path / "net.keras"), "s", images=20, per_class=4)
    run = sensitivity(config, colours)
    assert sha256_of(tmp_path / "net.keras") == before
    assert set(run.manifest["files"]) == {"sensitivity.csv", "sensitivity.png"}
    layers = run.manifest["metrics"]["layers"]
    with (run.path / "sensitivity.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == [row["layer"] for row in layers]
    assert float(rows[0]["int8_error"]) == pytest.approx(layers[0]["int8_error"])
    assert run.manifest["kind"] == "sensitivity"
    assert run.manifest["metrics"]["images"] == 21  # 7 of each class


def test_bad_settings_are_refused(colours: Dataset, tmp_path):
    for changes, message in [
        ({"sparsity": 1.0}, "--sparsity"),
        ({"images": -1}, "--images"),
        ({"per_class": 0}, "--calibration-per-class"),
        ({"seed": -1}, "--seed -1"),
    ]:
        with pytest.raises(ConfigError, match=message):
            SensitivityConfig("x", "y", **changes)
    save_model(build(ModelConfig("cnn_se", 5, 16, 0.25), size=16), tmp_path / "five.keras")
    with pytest.raises(ModelError, match="5 classes"):
        sensitivity(SensitivityConfig(str(tmp_path / "five.keras"), "s"), colours)
    assert not (runs_root() / "s").exists()
