"""The two layers of a simulated model: one rounds a layer's kernel, the other a tensor."""

from __future__ import annotations

from functools import cache
from typing import Any

from bloodedge.compress.fake_quant import Ties, fake_quant, fake_quant_weights

# By layer, for each of its trainable variables that is rounded: the axes with a scale of their
# own, which are the output channels.
Kernels = dict[int, tuple[int, ...]]


@cache
def rounding_layers() -> tuple[Any, Any]:
    """Return the classes `Rounded` and `Grid`; Keras is imported only here."""
    import keras
    from keras import ops

    class Switched(keras.layers.Layer):  # type: ignore[misc]
        """Has a switch, if asked for, that turns its rounding off and on without recompiling."""

        def __init__(self, name: str, switchable: bool) -> None:
            super().__init__(name=name)
            self.switch = None
            if switchable:
                self.switch = self.add_weight(
                    shape=(), initializer="ones", trainable=False, name="switch"
                )

        def choose(self, plain: Any, rounded: Any) -> Any:
            """Return the rounded value, unless the switch is off."""
            if self.switch is None:
                return rounded
            return ops.where(self.switch > 0.5, rounded, plain)

    class Rounded(Switched):
        """Calls a layer, which it shares with the ordinary model, with rounded kernels.

        Args:
            inner: the built layer.
            kernels: which of its variables are rounded.
            offset: the scaling's offset, if the converter folds it into this convolution: it
                joins the bias with the kernel as it was before rounding.
        """

        def __init__(
            self, inner: Any, kernels: Kernels, offset: float, switchable: bool = False
        ) -> None:
            super().__init__(inner.name, switchable)
            self.inner = inner
            self.kernels = kernels
            self.offset = offset
            self.built = True

        def call(self, *inputs: Any, **given: Any) -> Any:
            values = [ops.convert_to_tensor(v) for v in self.inner.trainable_variables]
            kept = [ops.convert_to_tensor(v) for v in self.inner.non_trainable_variables]
            shift = None
            if self.offset:
                inputs = (inputs[0] - self.offset,)
                depthwise = isinstance(self.inner, keras.layers.DepthwiseConv2D)
                summed = ops.sum(values[0], axis=(0, 1) if depthwise else (0, 1, 2))
                shift = self.offset * ops.reshape(summed, (-1,))
            for place, axes in self.kernels.items():
                plain = values[place]
                values[place] = self.choose(plain, fake_quant_weights(plain, axes))
            # Frozen as on the device: batch norm's averages and dropout do not apply here.
            options = {name: value for name, value in given.items() if value is not None}
            if _has_training(self.inner):
                options["training"] = False
            output, _ = self.inner.stateless_call(values, kept, *inputs, **options)
            return output if shift is None else output + shift

    class Grid(Switched):
        """Rounds a tensor to the int8 grid of its range, ties as `fake_quant` is told."""

        def __init__(self, name: str, switchable: bool = False, ties: Ties = "up") -> None:
            super().__init__(name, switchable)
            self.ties = ties
            self.span = self.add_weight(
                shape=(2,), initializer="zeros", trainable=False, name="span"
            )
            self.built = True

        def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
            # Not inferred: Keras takes the product of a tensor and a number for a sparse one.
            return shape

        def call(self, x: Any) -> Any:
            return self.choose(x, fake_quant(x, self.span[0], self.span[1], self.ties))

    return Rounded, Grid


def _has_training(layer: Any) -> bool:
    return bool(getattr(layer, "_call_has_training_arg", False))


def kernels_of(layer: Any) -> Kernels:
    """Return which variables of a layer TFLite stores as int8, with their channels' axes.

    Empty for a layer that has none, or that is not known.
    """
    import keras

    layers = keras.layers
    axes = {layers.Conv2D: (3,), layers.DepthwiseConv2D: (2, 3), layers.Dense: (1,)}
    if type(layer) in axes:
        return {0: axes[type(layer)]}
    return {}
