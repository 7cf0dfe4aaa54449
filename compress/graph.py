"""Reading a model's graph: which operation feeds which, and layers written in their basic form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.compress.walk import calls, graph_of
from bloodedge.errors import ModelError


@dataclass(frozen=True)
class Call:
    """One call of a layer or operation in a model's graph.

    Attributes:
        operation: the layer or `keras.ops` operation.
        inputs: the symbolic tensors it takes.
        output: the one it gives.
        arguments: what it is called with, the tensors among it.
        options: what it is called with by name.
    """

    operation: Any
    inputs: tuple[Any, ...]
    output: Any
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The operation's name, unique in its model."""
        return str(self.operation.name)

    @property
    def kind(self) -> str:
        """The class of one of Keras' own layers or operations; empty for anybody else's."""
        kind = type(self.operation)
        return kind.__name__ if kind.__module__.startswith("keras.") else ""

    @property
    def is_float(self) -> bool:
        """Whether it gives numbers that int8 stands for: no truth values and no indices."""
        return str(self.output.dtype).startswith(("float", "bfloat"))

    @property
    def leads(self) -> bool:
        """Whether a tensor is what it is called with first: `x - 1` and not `1 - x`."""
        return any(self.arguments[:1] and self.arguments[0] is tensor for tensor in self.inputs)

    def constant(self) -> NDArray[np.float32] | None:
        """Return what a call of two arguments takes beside its one tensor; None without."""
        import keras

        others = [a for a in self.arguments if all(a is not tensor for tensor in self.inputs)]
        if len(self.inputs) != 1 or len(self.arguments) != 2 or len(others) != 1:
            return None
        return np.asarray(keras.ops.convert_to_numpy(others[0]), np.float32)


class Graph:
    """The calls of a functional or sequential model, in an order in which they can be computed.

    Args:
        model: a built Keras model.

    Raises:
        ModelError: the model is neither, holds another model, calls a layer twice, or one that
            gives several tensors: no code here could tell such calls apart.
    """

    def __init__(self, model: Any) -> None:
        self.model = functional(model)
        self.calls = list(_calls(self.model))
        self._takers: dict[int, list[Call]] = {}
        for call in self.calls:
            for tensor in call.inputs:
                self._takers.setdefault(id(tensor), []).append(call)
        self._made = {id(call.output): call for call in self.calls}
        self._outputs = {id(tensor) for tensor in self.model.outputs}

    def takers(self, call: Call) -> list[Call]:
        """Return the calls that take what `call` gives."""
        return self._takers.get(id(call.output), [])

    def sole_taker(self, call: Call) -> Call | None:
        """Return the only call that takes what `call` gives; None if others, or users, do too."""
        takers = self.takers(call)
        alone = len(takers) == 1 and id(call.output) not in self._outputs
        return takers[0] if alone else None

    def maker(self, tensor: Any) -> Call | None:
        """Return the call that gives a tensor; None for the model's input."""
        return self._made.get(id(tensor))


def functional(model: Any) -> Any:
    """Return a model as a functional one: a sequential model's graph, any other as it is.

    Raises:
        ModelError: it is of another kind, whose graph cannot be read.
    """
    import keras

    if isinstance(model, keras.Sequential) and model.built:
        return keras.Model(model.inputs, model.outputs, name=model.name)
    graph_of(model)
    return model


def _calls(model: Any) -> Iterator[Call]:
    import keras

    seen: set[str] = set()
    for node in calls(model):
        operation, outputs = node.operation, node.output_tensors
        what = ""
        if isinstance(operation, keras.Model):
            what = "is a model itself"
        elif operation.name in seen:
            what = "is called twice"
        elif len(outputs) != 1:
            what = "gives several tensors"
        if what:
            raise ModelError(
                f"the layer {operation.name} of {model.name} {what}",
                expected="a flat graph in which each layer is called once",
                fix="build it of layers alone, each called once, give it the same weights and "
                "save it again",
            )
        seen.add(operation.name)
        given = node.arguments
        inputs = tuple(node.input_tensors)
        yield Call(operation, inputs, outputs[0], tuple(given.args), dict(given.kwargs))


def without_idle_padding(model: Any) -> Any:
    """Return the model with `same` written `valid` in convolutions where it pads nothing.

    The result computes the same. But the converter folds the scaling in front of a convolution
    (a MUL and an ADD on every pixel) into its weights only if that is `valid`: with zero padding
    the offset would be missing at the borders.
    """
    import keras

    idle = {layer.name for layer in model.layers if _pads_nothing(layer)}
    if not idle or type(model).__name__ not in ("Functional", "Sequential"):
        return model

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name in idle:
            config["padding"] = "valid"
        return type(layer).from_config(config)

    twin = keras.models.clone_model(model, clone_function=clone)
    twin.set_weights(model.get_weights())
    return twin


def _pads_nothing(layer: Any) -> bool:
    import keras

    if not isinstance(layer, keras.layers.Conv2D) or layer.padding != "same":
        return False
    sides = layer.input.shape[1:3]
    windows = zip(sides, layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
    return all(
        side is not None and (-(-side // stride) - 1) * stride + (kernel - 1) * dilation + 1 <= side
        for side, kernel, stride, dilation in windows
    )
