"""What a model costs: parameters and multiply-accumulates, on any backend.

Conventions. One MAC is one multiplication and the addition that follows it, so that a figure in
FLOPs is about twice as large. Counted, for a single image: convolutions (plain, depthwise,
separable), dense layers, `EinsumDense`, and multi-head attention with its projections, scores and
weighted sums. Padding counts as if it were pixels. Not counted, as is usual: biases, batch norm
(folded when exported), activations, pooling, resizing, additions and products of whole tensors.
Other layers with a kernel raise an error instead of a wrong figure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from bloodedge.errors import ModelError
from bloodedge.train.graph import find_graph, nodes

# A step of training computes the forward pass, and products of the same size for two gradients.
STEP_OVER_FORWARD = 3


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        parameters: all weights, batch norm's running statistics included.
        fixed: those that training does not change by gradients.
        macs: multiply-accumulates for one image.
    """

    parameters: int
    fixed: int
    macs: int

    @property
    def float_bytes(self) -> int:
        """Size of the weights in float32, in bytes."""
        return 4 * self.parameters


def model_cost(model: Any) -> Cost:
    """Return what a built functional or sequential model costs at its static image size.

    Raises:
        ModelError: its image size is open, or it has a layer whose cost is not known.
    """
    fixed = sum(prod(w.shape) for w in model.non_trainable_weights if _is_number(w))
    trainable = sum(prod(w.shape) for w in model.trainable_weights)
    return Cost(trainable + fixed, fixed, count_macs(model))


def count_macs(model: Any, shape: Sequence[int] | None = None) -> int:
    """Return the multiply-accumulates of a model for one image; see the module's conventions.

    A layer that is called twice counts twice; a nested model counts as its layers, and a layer
    that computes another one, its `inner`, as that.

    Args:
        model: a built functional or sequential model.
        shape: `(H, W, 3)` of the image, for a model of one input that takes any size; by default
            the model's own.

    Raises:
        ModelError: as `model_cost`.
    """
    return sum(macs_by_layer(model, shape).values())


def macs_by_layer(model: Any, shape: Sequence[int] | None = None) -> dict[str, int]:
    """Return the multiply-accumulates of each layer, by its name, over all its calls.

    Takes and raises what `count_macs` does.
    """
    macs: dict[str, int] = {}
    for layer, inputs, output in _calls(model, shape):
        macs[layer.name] = macs.get(layer.name, 0) + _call_macs(layer, inputs, output)
    return macs


def _is_number(weight: Any) -> bool:
    """Whether a weight counts as a parameter: states of random generators do not."""
    return "float" in str(weight.dtype)


def _calls(model: Any, shape: Sequence[int] | None = None) -> Iterator[tuple[Any, list[Any], Any]]:
    """Yield every call of a layer in a model's graph, with its input and output tensors."""
    graph = find_graph(model)
    if graph is None:
        raise ModelError(
            f"the cost of {model.name} cannot be counted",
            expected="a functional or sequential Keras model",
        )
    if shape is not None:
        yield from _calls_at(graph, shape)
        return
    for node in nodes(graph):
        yield node.operation, node.input_tensors, node.output_tensors[0]


def _calls_at(graph: Any, shape: Sequence[int]) -> list[tuple[Any, list[Any], Any]]:
    """Return the calls for an image of that shape: no layer is called, none gets a node."""
    import keras

    calls: list[tuple[Any, list[Any], Any]] = []

    def recorded(operation: Any) -> Any:
        def call(*given: Any, **options: Any) -> Any:
            output = operation.compute_output_spec(*given, **options)
            inputs = keras.tree.flatten((given, options))
            tensors = [x for x in inputs if isinstance(x, keras.KerasTensor)]
            calls.append((operation, tensors, keras.tree.flatten(output)[0]))
            return output

        return call

    image = keras.KerasTensor((None, *shape), graph.inputs[0].dtype)
    graph._run_through_graph([image], operation_fn=recorded)
    return calls


def _call_macs(layer: Any, inputs: list[Any], output: Any) -> int:
    import keras

    layers = keras.layers
    if isinstance(layer, keras.Model):
        return count_macs(layer, inputs[0].shape[1:] if len(inputs) == 1 else None)
    if isinstance(inner := getattr(layer, "inner", None), layers.Layer):
        return _call_macs(inner, inputs, output)
    if isinstance(layer, layers.MultiHeadAttention):
        return _attention_macs(layer, inputs, output)
    if isinstance(layer, layers.SeparableConv2D):
        return _separable_macs(layer, inputs[0], output)
    if isinstance(layer, layers.DepthwiseConv2D):
        return _size(output) * _area(layer)
    if isinstance(layer, layers.Conv2D):
        return _size(output) * _area(layer) * int(inputs[0].shape[-1] // layer.groups)
    if isinstance(layer, layers.Dense):
        return _size(output) * int(inputs[0].shape[-1])
    if isinstance(layer, layers.EinsumDense):
        return _einsum_macs(layer, inputs[0], output)
    _check_free(layer)
    return 0


def _size(tensor: Any) -> int:
    """Return the number of values for one image.

    Raises:
        ModelError: a side is open.
    """
    shape = tensor.shape[1:]
    if any(side is None for side in shape):
        raise ModelError(
            "the cost of a model for images of any size is unknown",
            fix="build it with a static image size",
        )
    return int(prod(shape))


def _area(layer: Any) -> int:
    """Return the number of positions under a convolution's kernel."""
    return int(prod(layer.kernel_size))


def _separable_macs(layer: Any, image: Any, output: Any) -> int:
    """A depthwise convolution, then a 1x1 convolution over its channels."""
    between = int(image.shape[-1]) * layer.depth_multiplier
    pixels = _size(output) // layer.filters
    return int(pixels * between * (_area(layer) + layer.filters))


def _einsum_macs(layer: Any, tensor: Any, output: Any) -> int:
    """One MAC for every combination of the equation's letters, the batch left out."""
    left, letters_out = layer.equation.replace(" ", "").split("->")
    first, second = left.split(",")
    if "." in layer.equation:
        raise ModelError(f"the cost of {layer.name} is unknown", expected="an equation in letters")
    _size(tensor)
    sides = dict(zip(first[1:], tensor.shape[1:], strict=True))
    sides |= dict(zip(second, layer.kernel.shape, strict=True))
    sides |= dict(zip(letters_out[1:], output.shape[1:], strict=True))
    return prod(sides.values())


def _attention_macs(layer: Any, inputs: list[Any], output: Any) -> int:
    """Projections of query, key and value, scores, weighted sums, and the output's projection.

    With T queries and S keys, h heads, k channels a head for keys and v for values:
    `T C h k + S C h k + S C h v + T S h (k + v) + T h v D`.
    """
    query, value = inputs[0], inputs[1]
    key = inputs[2] if len(inputs) > 2 else value
    heads, k, v = int(layer.num_heads), int(layer.key_dim), int(layer.value_dim)
    queries = _size(query) // int(query.shape[-1])
    keys = _size(key) // int(key.shape[-1])
    projections = _size(query) * heads * k + _size(key) * heads * k + _size(value) * heads * v
    scores = queries * keys * heads * (k + v)
    return projections + scores + _size(output) * heads * v


def _check_free(layer: Any) -> None:
    """Refuse layers with matrices that no rule counts; vectors, as batch norm's, are free.

    Raises:
        ModelError: there is one.
    """
    weights = getattr(layer, "weights", [])
    if any(len(weight.shape) > 1 and _is_number(weight) for weight in weights):
        raise ModelError(
            f"the cost of {layer.name} ({type(layer).__name__}) is unknown",
            fix="teach train/cost.py to count it",
        )
