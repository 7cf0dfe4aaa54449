"""What fine-tuning keeps of a kernel: clusters of a whole kernel and of each channel alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bloodedge.backend import use_backend
from bloodedge.compress.fold import Folded, fold
from bloodedge.compress.preserve import clusters_of, keeper, preserve

Kernel = NDArray[np.float32]
VALUES = np.asarray([0, -0.4, -0.2, -0.1, 0.1, 0.2, 0.3, 0.5], np.float32)


@pytest.fixture(autouse=True, scope="module")
def keras() -> Any:
    return use_backend()


def drawn(*shape: int) -> Kernel:
    """Return a kernel of eight values, one of them zero."""
    return VALUES[np.random.default_rng(0).integers(0, 8, shape)]


def clustered(keras: Any, gamma: NDArray[np.float64]) -> Any:
    """Return a net whose two kernels behind batch norm have eight values each."""
    layers = keras.layers
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(len(gamma), 3, name="conv")(image)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.DepthwiseConv2D(5, padding="same", name="deep")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="deep_norm")(x))
    x = layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, x)
    for name, norm in (("conv", "norm"), ("deep", "deep_norm")):
        kernel, bias = model.get_layer(name).get_weights()
        model.get_layer(name).set_weights([drawn(*kernel.shape), bias])
        model.get_layer(norm).set_weights([gamma, *model.get_layer(norm).get_weights()[1:]])
    return model


def tuned(folded: Folded, name: str) -> Kernel:
    """Return a kernel, one row a channel, after a step that moved every weight."""
    variable = folded.model.get_layer(name).trainable_variables[0]
    noise = np.random.default_rng(1).normal(0, 0.01, variable.shape)
    variable.assign(variable.constraint(variable + noise.astype(np.float32)))
    channels = int(folded.model.get_layer(name).output.shape[-1])
    rows: Kernel = np.asarray(variable).reshape(-1, channels).T
    return rows


def test_what_is_fine_tuned_twice_keeps_its_clusters_channel_by_channel(keras: Any):
    gamma = np.random.default_rng(2).uniform(0.5, 2, 64)
    first = fold(clustered(keras, gamma))
    assert preserve(first, "auto") == {"conv": "8 clusters", "deep": "8 clusters"}
    before = {name: tuned(first, name) for name in ("conv", "deep")}
    # Without batch norm 64 channels have 64 times seven values, which are no clusters of a kernel.
    second = fold(first.model)
    kept = preserve(second, "clusters")
    assert kept == {"conv": "8 clusters a channel", "deep": "8 clusters a channel"}
    for name, old in before.items():
        new = tuned(second, name)
        assert (new != old).any()
        np.testing.assert_array_equal(new == 0, old == 0)
        for channel, was in zip(new, old, strict=True):
            assert len(np.unique(channel)) == len(np.unique(was))


def test_a_channels_cluster_takes_the_mean_of_its_weights():
    kernel = drawn(3, 3, 4, 64) * np.random.default_rng(3).uniform(0.5, 2, 64).astype(np.float32)
    constraint, words = keeper(kernel, (kernel.ndim - 1,))
    assert words == "8 clusters a channel"
    np.testing.assert_allclose(np.asarray(constraint(kernel)), kernel, rtol=1e-5)
    noisy = kernel + np.random.default_rng(4).normal(0, 0.1, kernel.shape).astype(np.float32)
    expected = np.zeros_like(kernel)
    for c in range(64):
        for value in np.unique(kernel[..., c]):
            inside = kernel[..., c] == value
            expected[inside, c] = noisy[inside, c].mean() if value else 0
    np.testing.assert_allclose(np.asarray(constraint(noisy)), expected, rtol=1e-4, atol=1e-6)


def test_channels_whose_weights_are_too_few_or_too_many_apart_have_no_clusters():
    rng = np.random.default_rng(5)
    few = rng.normal(size=(7, 300)).astype(np.float32)
    few[6] = few[5]
    assert keeper(few, (few.ndim - 1,)) == (None, "")
    # 257 values, each there twice.
    many = np.repeat(rng.normal(size=(257, 2)), 2, axis=0).astype(np.float32)
    assert keeper(many, (many.ndim - 1,)) == (None, "")
    assert keeper(many[2:], (many.ndim - 1,))[1] == "256 clusters a channel"


@pytest.mark.parametrize("twice", [False, True])
def test_channels_that_batch_norm_made_zero_stay_zero_beside_clusters(keras: Any, twice: bool):
    gamma = np.random.default_rng(6).uniform(0.5, 2, 64)
    gamma[[3, 40]] = 0
    folded = fold(clustered(keras, gamma))
    if twice:
        preserve(folded, "auto")
        folded = fold(folded.model)
    kept = preserve(folded, "clusters")
    assert set(kept) == {"conv", "deep"}
    for name in kept:
        rows = tuned(folded, name)
        assert not rows[[3, 40]].any()
        assert all(2 < len(np.unique(rows[c])) <= 8 for c in range(64) if gamma[c])


def test_a_channel_that_batch_norm_made_zero_takes_none_of_256_clusters():
    values = np.linspace(1, 2, 256, dtype=np.float32)
    kernel = np.stack([values, values, values], axis=1)
    gain = np.asarray([[1, 0.5, 0]], np.float32)
    found = clusters_of(kernel * gain, gain)
    assert found is not None
    assert found.number == 257
    assert (found.place[:, 2] == 0).all()
    np.testing.assert_array_equal(found.place[:, :2], np.arange(1, 257)[:, None] * [[1, 1]])
