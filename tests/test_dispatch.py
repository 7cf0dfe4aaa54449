"""Batches in the form that a backend takes, and several steps a dispatch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from importlib import util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.data.dataset import Split
from bloodedge.train import dispatch
from bloodedge.train.architecture import Registered
from bloodedge.train.augment import AugmentConfig
from bloodedge.train.config import FitConfig
from bloodedge.train.cost import count_macs
from bloodedge.train.feed import Feed, as_dataset, interleaved
from bloodedge.train.optimize import learning_rate, make_optimizer
from bloodedge.train.registry import ModelConfig, build
from bloodedge.train.targets import HardLabels

STEPS, BATCH = 7, 4
FIT = FitConfig(3, BATCH, augment=AugmentConfig(mixup=0.2))
TWICE = Path(__file__).with_name("training_twice.py")


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


def images_and_labels() -> Split:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, STEPS * BATCH)
    return Split(rng.integers(0, 256, (len(labels), 8, 8, 3), dtype=np.uint8), labels)


def feed(*, rows: slice = slice(None), by_index: bool = False) -> Feed:
    split = images_and_labels()
    return Feed(split, HardLabels(split.labels, 3), FIT, by_index=by_index, rows=rows)


def assert_same(found, expected):
    (inputs, targets), (x, y) = found, expected
    assert inputs.keys() == x.keys()
    for name in x:
        np.testing.assert_array_equal(inputs[name], x[name], err_msg=name)
    np.testing.assert_array_equal(targets, y)


def test_interleaved_batches_hold_every_step_in_every_part_of_the_rows():
    steps = list(feed().epoch(1))
    groups = list(interleaved(feed().epoch(1), 3))
    assert [len(y) // BATCH for _, y in groups] == [3, 3, 1]
    for number, (inputs, targets) in enumerate(groups):
        count = len(targets) // BATCH
        for k in range(count):
            one = {name: values[k::count] for name, values in inputs.items()}
            assert_same((one, targets[k::count]), steps[3 * number + k])


def test_hosts_share_the_batch_that_one_would_have():
    whole = list(feed().epoch(2))
    parts = [list(feed(rows=slice(at, at + 2)).epoch(2)) for at in (0, 2)]
    for batch, *shares in zip(whole, *parts, strict=True):
        joined = {name: np.concatenate([x[name] for x, _ in shares]) for name in batch[0]}
        assert_same((joined, np.concatenate([y for _, y in shares])), batch)


def test_one_dataset_gives_the_batches_of_every_epoch():
    epochs = as_dataset(feed(by_index=True).epoch, images_and_labels().images)
    datasets = [epochs(0)]
    for epoch in range(3):
        datasets.append(epochs(epoch))
        found = list(datasets[-1].as_numpy_iterator())
        for batch, expected in zip(found, feed().epoch(epoch), strict=True):
            assert_same(batch, expected)
    assert len(set(map(id, datasets))) == 1


def test_no_tuner_of_tensorflow_makes_the_end_of_an_epoch_wait():
    assert as_dataset(feed().epoch)(0).options().autotune.enabled is False


@pytest.mark.parametrize(
    ("steps", "together"), [(186, 31), (96, 32), (12, 12), (5, 5), (191, 32), (1, 1)]
)
def test_an_accelerator_gets_many_steps_at_once_without_a_rest_where_it_can(
    steps: int, together: int, monkeypatch
):
    monkeypatch.setattr(dispatch, "has_accelerator", lambda: True)
    assert dispatch.steps_per_dispatch(steps, None) == together


@pytest.mark.parametrize(
    ("steps", "macs", "together"),
    [(186, 10**9, 8), (186, 4 * 10**9, 2), (186, 10**11, 1), (5, 10**6, 5), (186, None, 1)],
)
def test_tensorflows_cpu_gets_as_many_steps_at_once_as_end_soon(
    steps: int, macs: int | None, together: int
):
    assert dispatch.steps_per_dispatch(steps, macs) == together


@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_the_rate_that_is_recorded_is_the_optimizers(final: float):
    fit = replace(FIT, final_rate=final)
    optimizer = make_optimizer(fit, STEPS)
    optimizer.build([])
    for step in (0, 1, 10, 3 * STEPS):
        optimizer.iterations.assign(step)
        expected = pytest.approx(float(optimizer.learning_rate), abs=1e-9)
        assert learning_rate(fit, STEPS, step) == expected
    assert learning_rate(fit, STEPS, 3 * STEPS) == pytest.approx(final * fit.learning_rate)


def test_a_fit_of_one_step_makes_it_at_the_peak():
    fit = replace(FIT, epochs=1)
    optimizer = make_optimizer(fit, 1)
    optimizer.build([])
    assert float(optimizer.learning_rate) == pytest.approx(fit.learning_rate)
    assert learning_rate(fit, 1, 0) == fit.learning_rate
    # With more, the first is the warm-up's, as ever.
    optimizer = make_optimizer(fit, 2)
    optimizer.build([])
    assert float(optimizer.learning_rate) == learning_rate(fit, 2, 0) == 0
    optimizer.iterations.assign(1)
    assert float(optimizer.learning_rate) == pytest.approx(fit.learning_rate)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_several_steps_a_dispatch_train_as_single_ones_do(backend: str):
    if util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, TWICE, backend], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_trainer_tells_what_its_step_costs(monkeypatch):
    from bloodedge.train.trainer import Trainer

    config = ModelConfig("cnn_se", 3, 16, 0.25)
    images = np.zeros((STEPS * BATCH, 16, 16, 3), np.uint8)
    split = Split(images, np.arange(len(images)) % 3)
    seen = []
    monkeypatch.setattr(
        "bloodedge.train.trainer.steps_per_dispatch", lambda *given: seen.append(given) or 1
    )
    # As a run builds it: for images of any size.
    Trainer(Registered(config).build(), split, HardLabels(split.labels, 3), FIT)
    assert seen == [(STEPS, 3 * BATCH * count_macs(build(config, size=16)))]


def test_every_epoch_trains_on_its_own_batches(monkeypatch):
    import keras

    from bloodedge.train import trainer

    seen = []

    def fit(data, **options):
        seen.append([({k: np.asarray(v) for k, v in x.items()}, np.asarray(y)) for x, y in data])
        return SimpleNamespace(history={"finite_steps": [STEPS], "loss": [1], "accuracy": [1]})

    learner = SimpleNamespace(fit=fit, compile=lambda *given, **options: None)
    monkeypatch.setattr(trainer, "has_accelerator", lambda: False)
    monkeypatch.setattr(trainer, "steps_per_dispatch", lambda *given: 1)
    monkeypatch.setattr(trainer, "make_learner", lambda *given, **options: learner)
    monkeypatch.setattr(trainer, "_make_watch", lambda *given: None)
    net = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
    split = images_and_labels()
    training = trainer.Trainer(net, split, HardLabels(split.labels, 3), FIT)
    for epoch in range(2):
        training.train_epoch(epoch, 8)
        for found, expected in zip(seen[epoch], feed().epoch(epoch), strict=True):
            assert_same(found, expected)
    assert (seen[0][0][0]["images"] != seen[1][0][0]["images"]).any()


def test_a_phase_on_smaller_images_shows_the_net_smaller_images():
    import keras

    from bloodedge.train.trainer import Trainer

    sizes = set()

    class Watching(keras.layers.Layer):
        def call(self, x):
            sizes.add(x.shape[1:3])
            return x

    layers = [keras.Input((None, None, 3)), Watching(), keras.layers.GlobalAveragePooling2D()]
    net = keras.Sequential([*layers, keras.layers.Dense(3)])
    split = images_and_labels()
    training = Trainer(net, split, HardLabels(split.labels, 3), replace(FIT, progressive=((1, 4),)))
    sizes.clear()
    training.train_epoch(0, 4)
    assert sizes == {(4, 4)}
