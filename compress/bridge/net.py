"""A tf_keras model as a Keras 3 model, so that the one training loop trains it, too."""

from __future__ import annotations

from typing import Any

from bloodedge.train.device import batch_parts

_NAME = "twin"


def as_net(twin: Any, parameters: int) -> Any:
    """Return a Keras 3 model that runs a tf_keras model on its very variables.

    Whatever the tf_keras model keeps as a weight (masks, steps, centroids) is a weight of the
    Keras 3 model, so a checkpoint of the one holds the other.

    Args:
        twin: a tf_keras model, logits out.
        parameters: how many it has without what wrappers add, which is not counted.
    """
    import keras

    class Twin(keras.layers.Layer):  # type: ignore[misc]
        """Calls the tf_keras model; its penalties on weights are this layer's losses."""

        def __init__(self) -> None:
            super().__init__(name=_NAME, dtype="float32")
            self.twin = twin
            trained = {id(weight) for weight in twin.trainable_weights}
            self.shared = [_share(weight, id(weight) in trained) for weight in twin.weights]

        def call(self, images: Any, training: bool = False) -> Any:
            logits = self.twin(images, training=training)
            if training:
                # Called once a part of the batch; Keras adds up what each call adds.
                for penalty in self.twin.losses:
                    self.add_loss(penalty / batch_parts())
            return logits

        def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
            return (shape[0], *self.twin.output_shape[1:])

    class Net(keras.Model):  # type: ignore[misc]
        def count_params(self) -> int:
            return parameters

    image = keras.Input(batch_shape=twin.input_shape, name="image")
    return Net(image, Twin()(image), name=twin.name)


def twin_in(net: Any) -> Any:
    """Return the tf_keras model inside what `as_net` returned."""
    return net.get_layer(_NAME).twin


def constrain(net: Any, weight: Any, constraint: Any) -> None:
    """Have the training of a net apply a Keras 3 constraint to a weight of the tf_keras model.

    Args:
        net: from `as_net`.
        weight: one of the tf_keras model's.
        constraint: takes its value, and returns what it becomes after every step.
    """
    layer = net.get_layer(_NAME)
    place = [id(own) for own in layer.twin.weights].index(id(weight))
    layer.shared[place].constraint = constraint


def _share(weight: Any, trainable: bool) -> Any:
    """Return a Keras 3 variable over a TensorFlow variable, named as the optimizer expects."""
    import keras

    name = weight.name.split("/")[-1].split(":")[0]
    return keras.Variable(
        weight, shape=weight.shape, dtype=weight.dtype.name, trainable=trainable, name=name
    )
