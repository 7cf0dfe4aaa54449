"""A model that computes as its int8 TFLite file will, and can be trained.

It shares its weights with the ordinary model it simulates. Each call rounds the kernels to their
int8 grids and the activations to theirs (`fake_quant`, `grid_points`), so training sees what
the device will compute, and the ordinary model can be exported the usual way afterwards.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.compress.fold import Folded
from bloodedge.compress.graph import Graph
from bloodedge.compress.grid_points import find_points
from bloodedge.compress.rounding import kernels_of, rounding_layers
from bloodedge.data.calibration import pinned, usable_range
from bloodedge.errors import ModelError

_OBSERVE_BATCH = 32
_UNKNOWN = "its kernel is not rounded: kernels_of in compress/rounding.py has no rule for "

Ranges = dict[str, tuple[float, float]]


class Simulation:
    """A folded model, and its twin that computes in int8.

    Args:
        folded: the model to simulate; its weights are shared, not copied.
        switchable: whether single layers can be switched off, at some cost.

    Attributes:
        model: the ordinary Keras model.
        net: the twin, logits out, on the same weights.
        layers: the names of the layers whose kernels are rounded, in the graph's order.
        partly: what is not simulated, by layer, with the reason.

    Raises:
        ModelError: the model's graph cannot be read, or mixes the images of a batch.
    """

    def __init__(self, folded: Folded, *, switchable: bool = False) -> None:
        graph = Graph(folded.model)
        _refuse_mixing(graph)
        self.model = graph.model
        self._points = find_points(graph)
        self._rounded: dict[str, Any] = {}
        self._grids: dict[str, Any] = {}
        self.net = self._twin(switchable)
        self._observer = _observer(graph)
        self.layers = [name for name, layer in self._rounded.items() if layer.kernels]
        unknown = {
            name: f"{_UNKNOWN}{type(layer.inner).__name__}"
            for name, layer in self._rounded.items()
            if _is_unknown(layer)
        }
        self.partly = {**unknown, **self._points.partly}

    def kernels(self, layer: str) -> list[Any]:
        """Return the variables of one of `layers` that are rounded."""
        rounded = self._rounded[layer]
        return [rounded.inner.trainable_variables[place] for place in rounded.kernels]

    def output_of(self, layer: str) -> str:
        """Return the operation at which one of `layers` has its output rounded: its ReLU, maybe."""
        name = layer
        while name not in self._points.group and name in self._points.fused:
            name = self._points.fused[name]
        return name

    def observe(self, images: NDArray[np.uint8]) -> Ranges:
        """Set every grid to the least and largest value that the float model gives on images.

        Args:
            images: `(N, S, S, 3)` calibration images, the same as for export.

        Returns:
            The ranges by operation.
        """
        seen = self._seen(pinned(images))
        spans = {
            group: usable_range(min(seen[m][0] for m in members), max(seen[m][1] for m in members))
            for group, members in self._points.members.items()
        } | self._points.fixed
        ranges = {name: spans[group] for name, group in self._points.group.items()}
        for name, span in ranges.items():
            self._grids[name].span.assign(np.asarray(span, np.float32))
        return ranges

    def round_only(self, names: Collection[str] | None) -> None:
        """Round the kernels and outputs of these operations alone, or of all for None.

        A layer's output is rounded at `output_of` it.
        """
        for group in (self._rounded, self._grids):
            for name, layer in group.items():
                layer.switch.assign(float(names is None or name in names))

    def _twin(self, switchable: bool) -> Any:
        import keras

        rounded, grid = rounding_layers()

        def clone(operation: Any) -> Any:
            if not getattr(operation, "weights", []):
                return type(operation).from_config(operation.get_config())
            layer = rounded(operation, kernels_of(operation), self._offset(operation), switchable)
            self._rounded[operation.name] = layer
            return layer

        def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
            if (constant := self._points.constants.get(operation.name)) is not None:
                args = tuple(a if isinstance(a, keras.KerasTensor) else constant for a in args)
            output = operation(*args, **kwargs)
            if operation.name not in self._points.group:
                # Keras takes the product of a tensor and a number for a sparse one.
                sparse = getattr(output, "sparse", False)
                return keras.layers.Activation("linear")(output) if sparse else output
            ties = self._points.ties.get(operation.name, "up")
            self._grids[operation.name] = grid(f"{operation.name}_grid", switchable, ties)
            return self._grids[operation.name](output)

        return keras.models.clone_model(self.model, clone_function=clone, call_function=call)

    def _offset(self, layer: Any) -> float:
        return self._points.offsets.get(layer.name, 0.0)

    def _seen(self, images: NDArray[np.float32]) -> Ranges:
        import keras

        found: dict[str, list[NDArray[np.float32]]] = {}
        for start in range(0, len(images), _OBSERVE_BATCH):
            # A short batch is filled up with its own images, so that nothing is compiled twice.
            batch = images[start : start + _OBSERVE_BATCH]
            batch = np.resize(batch, (_OBSERVE_BATCH, *images.shape[1:]))
            for name, spans in self._observer.predict_on_batch(batch).items():
                found.setdefault(name, []).append(keras.ops.convert_to_numpy(spans))
        spans = {name: np.concatenate(parts) for name, parts in found.items()}
        return {n: (float(s[:, 0].min()), float(s[:, 1].max())) for n, s in spans.items()}


def _refuse_mixing(graph: Graph) -> None:
    for call in graph.calls:
        shape = tuple(call.output.shape)
        if not shape or (call.kind == "BroadcastTo" and shape[0] is not None):
            raise ModelError(
                f"{call.name} of {graph.model.name} does not treat each image of a batch by itself",
                expected="operations that take any number of images",
                fix="leave the first axis, that of the images, as it is",
            )


def _observer(graph: Graph) -> Any:
    """Return a model that answers with the `(N, 2)` least and largest value of every call."""
    import keras
    from keras import ops

    spans = {}
    for call in (call for call in graph.calls if call.is_float):
        axes = tuple(range(1, len(call.output.shape)))
        low, high = ops.min(call.output, axis=axes), ops.max(call.output, axis=axes)
        spans[call.name] = ops.stack([low, high], axis=1)
    return keras.Model(graph.model.inputs, spans, name="observer")


def _is_unknown(layer: Any) -> bool:
    return not layer.kernels and any(len(v.shape) > 1 for v in layer.inner.trainable_variables)
