"""The comparison of training loops measures what it says."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from importlib import util

import pytest

from bloodedge.benchmarks import train_speed
from bloodedge.train.config import FitConfig
from bloodedge.train.registry import ModelConfig, build
from bloodedge.train.targets import HardLabels
from bloodedge.train.trainer import Trainer

OnJax = Callable[..., subprocess.CompletedProcess[str]]
BATCH, STEPS = 8, 10
PICO = ModelConfig("cnn_se_pico", train_speed.CLASSES, train_speed.SIDE)

ON_JAX = f"""
import numpy as np
from bloodedge.backend import use_backend
keras = use_backend("jax")
from bloodedge.benchmarks import train_speed
from bloodedge.hardware import describe_devices
from bloodedge.train.registry import ModelConfig, build
split = train_speed.random_split({BATCH * STEPS})


def trained(together):
    train_speed.steps_per_dispatch = lambda steps, macs: together
    keras.utils.set_random_seed(0)
    net = build(ModelConfig("cnn_se_pico", train_speed.CLASSES, train_speed.SIDE))
    before = net.get_weights()
    train_speed.constant_epoch(net, split, {BATCH})()
    return before, net.get_weights()
"""
needs_jax = pytest.mark.skipif(util.find_spec("jax") is None, reason="jax is not installed")


def test_the_constant_batch_has_as_many_steps_a_dispatch_as_ours():
    split = train_speed.random_split(BATCH * STEPS)
    targets = HardLabels(split.labels, train_speed.CLASSES)
    ours = Trainer(build(PICO), split, targets, FitConfig(epochs=1, batch=BATCH))
    net = build(PICO)
    train_speed.constant_epoch(net, split, BATCH)
    assert net.steps_per_execution == ours._together > 1


@needs_jax
@pytest.mark.slow
def test_several_steps_a_dispatch_on_jax_learn_what_single_ones_do(on_jax: OnJax):
    on_jax(
        ON_JAX
        + """
dispatches, fit = [], keras.Model.fit

def counted(self, *data, steps_per_epoch, **options):
    dispatches.append(steps_per_epoch)
    return fit(self, *data, steps_per_epoch=steps_per_epoch, **options)

keras.Model.fit = counted
(first, single), (same, several) = trained(1), trained(4)
# Four steps, four, and the two that are left.
assert dispatches == [10, 3], dispatches
moved = [np.abs(a - b).max() for a, b in zip(first, single)]
apart = [np.abs(a - b).max() for a, b in zip(single, several)]
assert max(np.abs(a - b).max() for a, b in zip(first, same)) == 0
assert max(moved) > 5e-3 > 5e-4 > max(apart), (max(moved), max(apart))
""",
        devices=4,
    )


@needs_jax
@pytest.mark.slow
def test_all_devices_of_jax_are_measured_and_the_others_run_on_one(on_jax: OnJax):
    on_jax(
        f"""{ON_JAX}
seen = []
ours = train_speed.our_epoch

def watched(*arguments):
    epoch = ours(*arguments)
    return lambda: (epoch(), seen.append(describe_devices()["devices"]))

train_speed.our_epoch = watched
assert train_speed.can_share({BATCH}) and not train_speed.can_share(6)
with train_speed.spread_epoch("cnn_se_pico", {BATCH * STEPS}, {BATCH}, "float32") as epoch:
    assert keras.distribution.distribution() is None
    trained(1)
    epoch()
    epoch()
    trained(1)
    assert keras.distribution.distribution() is None
assert seen == [4, 4], seen
""",
        devices=4,
    )
