"""Operation by operation: what is not listed computes what the int8 file computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bloodedge.backend import use_backend
from bloodedge.compress.fake_quant import rounded_constant
from bloodedge.compress.fold import fold
from bloodedge.compress.simulate import Simulation
from bloodedge.deploy.convert import convert
from bloodedge.deploy.interpreter import find_runtime
from bloodedge.errors import ModelError
from bloodedge.quiet import quiet

SIZE = 10
Step = Callable[[Any], Any]

RNG = np.random.default_rng(3)
EACH_PLACE = RNG.uniform(-1, 1, (8, 8, 4)).astype("f4")
EACH_CHANNEL = RNG.uniform(0.3, 2, 4).astype("f4")


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


def images(count: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(1)
    x = rng.integers(0, 120, (count, SIZE, SIZE, 3)).astype(np.uint8)
    x[np.arange(count), :, :, rng.integers(0, 3, count)] += 100
    return x


def net(*steps: Step) -> Any:
    """Return a net of these steps behind a convolution with a bias, its values flattened."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3))
    bias = keras.initializers.RandomUniform(-0.3, 0.3)
    x = layers.Rescaling(1 / 64)(image)
    x = layers.Conv2D(4, 3, bias_initializer=bias, name="stem")(x)
    for step in steps:
        x = step(x)
    return keras.Model(image, layers.Flatten(name="values")(x))


def int8_values(content: bytes, x: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
    """Return what an int8 file computes before the softmax at its end, and its step."""
    with quiet():
        runner = find_runtime().interpreter(
            model_content=content, experimental_preserve_all_tensors=True
        )
        runner.allocate_tensors()
    *_, last = (op for op in runner._get_ops_details() if op["op_name"] == "SOFTMAX")
    details = {d["index"]: d for d in runner.get_tensor_details()}
    scale, zero = details[last["inputs"][0]]["quantization"]
    rows = []
    for image in x:
        runner.set_tensor(runner.get_input_details()[0]["index"], image[None])
        runner.invoke()
        rows.append(runner.get_tensor(last["inputs"][0])[0])
    return (np.stack(rows).astype(np.float32) - zero) * scale, scale


def steps_off(model: Any) -> tuple[float, float]:
    """Return how many int8 steps simulation and float model are away from the int8 file."""
    folded = fold(model)
    twin = Simulation(folded)
    assert twin.partly == {}
    x = images(16)
    twin.observe(x)
    found, step = int8_values(convert(folded.model, "int8", x), x)
    simulated, plain = (
        np.asarray(m.predict_on_batch(x.astype("f4"))) for m in (twin.net, folded.model)
    )
    return float(np.abs(simulated - found).mean() / step), float(
        np.abs(plain - found).mean() / step
    )


def cases() -> dict[str, tuple[Step, ...]]:
    from keras import layers, ops

    relu, sigmoid, conv = layers.ReLU(), layers.Activation("sigmoid"), layers.Conv2D(4, 3)
    return {
        "slice": (lambda x: x[:, 1:5, ::2],),
        "slice of a sigmoid": (sigmoid, lambda x: x[:, 1:5]),
        "take": (lambda x: ops.take(x, [0, 2, 1], axis=1),),
        "flip": (lambda x: ops.flip(x, axis=1),),
        "pad": (lambda x: ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect"),),
        "stack": (lambda x: ops.stack([x, layers.Conv2D(4, 1)(x)], axis=1),),
        "constant less layer": (lambda x: 1.0 - x,),
        "constants less layer, relu": (lambda x: ops.subtract(EACH_PLACE, x), relu),
        "layer by constants": (lambda x: x / EACH_CHANNEL,),
        "layer and places, relu": (lambda x: x + EACH_PLACE, relu),
        "layer less places": (lambda x: x - EACH_PLACE,),
        "values and places": (relu, lambda x: x + EACH_PLACE),
        "constants before a layer": (relu, lambda x: x * EACH_CHANNEL, conv),
        "scaling before a layer": (relu, lambda x: (x * 0.3 - 0.7) / -2, conv),
        "scaled sigmoid before a layer": (sigmoid, lambda x: x * 0.3, conv),
        "scaling before a dense layer": (sigmoid, lambda x: x * 0.3, layers.Dense(4)),
    }


NAMES = (
    "slice", "slice of a sigmoid", "take", "flip", "pad", "stack", "constant less layer",
    "constants less layer, relu", "layer by constants", "layer and places, relu",
    "layer less places", "values and places", "constants before a layer",
    "scaling before a layer", "scaled sigmoid before a layer", "scaling before a dense layer",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_operations_that_are_not_listed_compute_what_the_file_computes(name: str):
    simulated, plain = steps_off(net(*cases()[name]))
    assert simulated < 0.02
    # Else the file might not round at all.
    assert plain > 0.05


def test_every_case_is_tested():
    assert set(NAMES) == set(cases())


def reasons(*steps: Step) -> list[str]:
    """Return why steps are not simulated, by the first two words."""
    partly = Simulation(fold(net(*steps))).partly
    return sorted({" ".join(reason.split()[:2]) for reason in partly.values()})


def test_operations_that_nothing_is_known_about_are_listed():
    import keras
    from keras import layers, ops

    unknown = ["the steps"]
    for name in ("celu", "selu", "hard_tanh", "hard_sigmoid", "softplus", "leaky_relu", "mish"):
        assert reasons(layers.Activation(name)) == unknown, name
    for step in (
        layers.ReLU(max_value=1.0),
        layers.ReLU(negative_slope=0.1),
        lambda x: layers.Average()([x, x]),
        layers.Softmax(axis=1),
        lambda x: ops.logsumexp(x, axis=1),
        lambda x: ops.normalize(x, axis=-1),
        lambda x: ops.matmul(x, ops.transpose(x, (0, 1, 3, 2))),
        lambda x: ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0),
        ops.sign,
        ops.abs,
        ops.exp,
    ):
        assert reasons(step) == unknown

    class Permute(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return 0.3 * ops.sin(x)

    assert reasons(Permute()) == unknown


def test_constants_in_lists_of_tensors_are_listed():
    from keras import layers, ops

    for join in (ops.concatenate, ops.stack, layers.Add()):
        assert reasons(lambda x, join=join: join([x, x + 1.0])) == []
        assert reasons(lambda x, join=join: join([x, ops.full((1, 8, 8, 4), 9.0)])) == ["the steps"]


def test_truth_values_are_listed_and_not_rounded():
    from keras import ops

    twin = Simulation(fold(net(lambda x: ops.where(x > 0, x, x[:, ::-1]))))
    assert [name.split("_")[0] for name in twin.partly] == ["greater", "where"]
    assert not any(name.startswith("greater") for name in twin.observe(images(4)))
    assert np.isfinite(twin.net.predict_on_batch(images(2).astype("f4"))).all()


def test_sums_and_products_that_become_others_are_listed():
    from keras import layers

    relu = layers.ReLU()
    assert reasons(lambda x: layers.Add()([x, x, x])) == ["of more"]
    assert reasons(lambda x: x / (x + 3.0)) == ["a quotient"]
    assert reasons(relu, lambda x: x / EACH_CHANNEL) == ["a division"]
    assert reasons(lambda x: x + EACH_PLACE) == ["a constant"]
    assert reasons(lambda x: x * EACH_PLACE) == ["a constant"]
    # The offset of a dense layer is not simulated, only that of a convolution.
    assert reasons(relu, lambda x: x + 0.7, layers.Dense(4)) == ["a constant"]
    assert reasons(relu, lambda x: x + 0.7, layers.Conv2D(4, 3, padding="same")) == []


def test_operations_across_the_images_of_a_batch_are_refused():
    from keras import ops

    for step in (
        lambda x: ops.broadcast_to(ops.mean(x, axis=(1, 2), keepdims=True), (1, 8, 8, 4)),
        lambda x: x * ops.sum(x),
    ):
        with pytest.raises(ModelError, match="does not treat each image of a batch by itself"):
            Simulation(fold(net(step)))


def test_constants_are_rounded_to_the_grid_of_their_range():
    values = np.asarray([-0.5, 0.1, 0.123, 0.52], np.float32)
    found = rounded_constant(values) / (1.02 / 255)
    np.testing.assert_allclose(found, np.round(found), atol=1e-3)
    assert np.abs(found - values / (1.02 / 255)).max() <= 0.51
    np.testing.assert_allclose(rounded_constant(np.float32([0.3])), [0.3], rtol=1e-6)
