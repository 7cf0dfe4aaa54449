"""Keras models from elsewhere made plain: one flat graph, float32, names TensorFlow can take."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bloodedge.errors import ModelError
from bloodedge.train.graph import find_graph, nodes
from bloodedge.train.noise import noise

_OTHER_FLOATS = ("float16", "bfloat16", "float64")
_IMAGES = 2
# How far the answers may be off, relative to the largest: rounding alone, or that of the few
# digits of half precision over all layers. A layer that is wired wrongly is off by more.
_TOLERANCE, _TOLERANCE_HALF = 1e-4, 0.1


def plain(model: Any, path: Path) -> Any:
    """Return a model as a flat graph of layers that compute in float32, with the same weights.

    The models inside it (a pretrained net under a new head, a sequence of layers) are opened:
    their layers stand in its own graph, so that all of them can be pruned, clustered and
    quantized. Layers that compute in half precision, which TFLite cannot, are made anew in
    float32. What TensorFlow refuses in names, such as spaces, becomes an underscore.

    Args:
        model: a Keras model. One that is plain already, is no graph, has several inputs or
            outputs, or cannot be made anew is returned as it is.
        path: its file, for the message.

    Raises:
        ModelError: it computes in another precision than float32 and cannot be made anew.
    """
    graph = find_graph(model)
    if graph is None or len(graph.inputs) != 1 or len(graph.outputs) != 1:
        return model
    other = _other_float(graph)
    names = [model.name, *(operation.name for operation in graph.operations)]
    if not other and not _nested(graph) and all(name == _clean(name) for name in names):
        return model
    try:
        made = _Replay(graph).model(str(model.name))
        same = _agree(model, made, _TOLERANCE_HALF if other else _TOLERANCE)
        # A layer with int8 weights may go on computing in what it was quantized from.
        same = same and not _other_float(find_graph(made))
    # Keras raises whatever its layers meet in a description they cannot be made from.
    except Exception as error:
        return _as_it_is(model, path, other, error)
    return made if same else _as_it_is(model, path, other, None)


def _as_it_is(model: Any, path: Path, other: str, error: Exception | None) -> Any:
    if not other:
        return model
    raise ModelError(
        f"{path} computes in {other}, and does not compute the same in float32",
        expected="a model that computes in float32, as what runs on devices is made from that",
        fix='build it under keras.config.set_dtype_policy("float32"), give it the same weights '
        "and save it again",
    ) from error


def _nested(graph: Any) -> bool:
    return any(find_graph(operation) is not None for operation in graph.operations)


def _other_float(graph: Any) -> str:
    """Return the first type, other than float32, that something in a graph computes in."""
    for operation in graph.operations:
        inner = find_graph(operation)
        kinds = [_other_float(inner)] if inner is not None else [_compute_type(operation)]
        kinds += [tensor.dtype for node in operation._inbound_nodes for tensor in node.outputs]
        found = next((kind for kind in kinds if kind in _OTHER_FLOATS), "")
        if found:
            return found
    return ""


def _compute_type(operation: Any) -> str:
    import keras

    # What an input is given as tells its tensor; the policy of its layer means nothing.
    if isinstance(operation, keras.layers.InputLayer):
        return ""
    return str(getattr(operation, "compute_dtype", ""))


def _clean(name: str) -> str:
    """Return a name that TensorFlow takes for the root of a scope."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    return name if re.match(r"[A-Za-z0-9.]", name) else f"model{name}"


class _Replay:
    """Makes every layer of a graph, and of the models inside it, anew in one flat graph.

    Args:
        graph: a functional graph with one input and one output.
    """

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._made: dict[int, tuple[Any, Any]] = {}
        # The outermost keep their names where those inside have the same.
        self._names = _own_names(graph)
        self._taken = set(self._names.values())

    def model(self, name: str) -> Any:
        """Return the flat model, with the weights of the layers it is made from."""
        import keras

        image = self._graph.inputs[0]
        dtype = "float32" if image.dtype in _OTHER_FLOATS else image.dtype
        label = self._names.get(id(image._keras_history.operation))
        start = keras.Input(batch_shape=image.shape, dtype=dtype, name=label)
        (answers,) = self._run(self._graph, [start], None, "")
        for old, new in self._made.values():
            _copy_weights(old, new)
        return keras.Model(start, answers, name=_clean(name))

    def _run(self, graph: Any, inputs: list[Any], training: bool | None, outer: str) -> list[Any]:
        """Call everything in a graph on new tensors, and return its outputs.

        Args:
            graph: the model's, or that of one inside it.
            inputs: what it is called on.
            training: whether it was said, when the model was called, that it trains.
            outer: the names of the models around it, to tell its layers by.
        """
        import keras

        tensors = {id(old): new for old, new in zip(graph.inputs, inputs, strict=True)}
        for node in nodes(graph):
            operation = node.operation
            args, kwargs = node.arguments.fill_in(tensors)
            inner = find_graph(operation)
            if inner is not None:
                given = [tensors[id(tensor)] for tensor in node.input_tensors]
                said = kwargs.get("training", training)
                outputs = self._run(inner, given, said, f"{outer}{operation.name}_")
            else:
                if training is not None and _takes_training(operation):
                    kwargs["training"] = training
                outputs = keras.tree.flatten(self._anew(operation, outer)(*args, **kwargs))
            tensors |= {id(old): new for old, new in zip(node.outputs, outputs, strict=True)}
        return [tensors[id(tensor)] for tensor in graph.outputs]

    def _anew(self, operation: Any, outer: str) -> Any:
        """Return the layer or operation made anew, the same one for every call of it."""
        if id(operation) not in self._made:
            config = _in_single(operation.get_config())
            config["name"] = self._name(operation, outer)
            self._made[id(operation)] = (operation, type(operation).from_config(config))
        return self._made[id(operation)][1]

    def _name(self, operation: Any, outer: str) -> str:
        if id(operation) in self._names:
            return self._names[id(operation)]
        name = _clean(operation.name)
        name = _unique(name if name not in self._taken else _clean(outer + name), self._taken)
        self._taken.add(name)
        return name


def _own_names(graph: Any) -> dict[int, str]:
    """Return the new names of a graph's own layers by their `id`, without those inside models."""
    names: dict[int, str] = {}
    for operation in graph.operations:
        if find_graph(operation) is None:
            names[id(operation)] = _unique(_clean(operation.name), set(names.values()))
    return names


def _unique(name: str, taken: set[str]) -> str:
    found, number = name, 1
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    return found


def _takes_training(operation: Any) -> bool:
    return "training" in inspect.signature(operation.call).parameters


def _in_single(config: Any) -> Any:
    """Return a layer's description with float32 wherever it names another float's policy."""
    if isinstance(config, Mapping):
        if config.get("class_name") == "DTypePolicy":
            return {**config, "config": {"name": _single(config["config"]["name"])}}
        return {
            key: _single(value) if key == "dtype" and isinstance(value, str) else _in_single(value)
            for key, value in config.items()
        }
    if isinstance(config, (list, tuple)):
        return type(config)(_in_single(value) for value in config)
    return config


def _single(policy: str) -> str:
    """Return `float32` for the name of another float, mixed or not; any other name as it is."""
    return "float32" if policy.removeprefix("mixed_") in _OTHER_FLOATS else policy


def _copy_weights(old: Any, new: Any) -> None:
    import keras

    if not isinstance(old, keras.layers.Layer):
        return
    weights = old.get_weights()
    new.set_weights([w.astype(np.float32) if w.dtype.name in _OTHER_FLOATS else w for w in weights])
    if isinstance(new, keras.layers.Normalization):
        # It computes with copies of its weights.
        new.finalize_state()


def _agree(model: Any, made: Any, tolerance: float) -> bool:
    """Return whether two models give the same answers to noise, where the first gives numbers."""
    images = noise(made.inputs[0].shape, _IMAGES)
    before, after = (_answers(one, images) for one in (model, made))
    if before.shape != after.shape:
        return False
    known = np.isfinite(before)
    largest = max(1.0, float(np.abs(before[known]).max(initial=0)))
    return bool(np.abs(after[known] - before[known]).max(initial=0) <= tolerance * largest)


def _answers(model: Any, images: Any) -> Any:
    """Return what a model answers, out of whatever its input and output are packed in."""
    import keras

    packed = None if isinstance(model, keras.Sequential) else model.input
    asked = keras.tree.map_structure(lambda _: images, packed) if packed is not None else images
    (found,) = keras.tree.flatten(model(asked, training=False))
    return keras.ops.convert_to_numpy(keras.ops.cast(found, "float32"))
