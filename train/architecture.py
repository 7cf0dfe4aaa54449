"""What a fit trains: a registered model with fresh weights, or a model that is already there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from bloodedge.train.modelio import fixed_size, model_entry
from bloodedge.train.registry import ModelConfig, build


class Architecture(Protocol):
    """What can be fitted and kept as a run."""

    @property
    def name(self) -> str:
        """The model's name, for people."""

    def build(self) -> Any:
        """Return a Keras model to train, in the precision that is set."""

    def fixed(self, model: Any) -> Any:
        """Return the trained model as it is kept: in float32, with a static image size."""

    def entry(self, model: Any, class_names: tuple[str, ...]) -> dict[str, Any]:
        """Return the manifest's `model` entry."""


@dataclass(frozen=True)
class Registered:
    """A model of the registry, with fresh weights."""

    config: ModelConfig

    @property
    def name(self) -> str:
        """The registered name."""
        return self.config.name

    def build(self) -> Any:
        """Return the model for images of any size, if it takes them."""
        return build(self.config)

    def fixed(self, model: Any) -> Any:
        """Return it for the configured size."""
        return fixed_size(model, self.config)

    def entry(self, model: Any, class_names: tuple[str, ...]) -> dict[str, Any]:
        """Return what rebuilds it."""
        return model_entry(self.config, model, class_names)


@dataclass(frozen=True)
class Ready:
    """A Keras model with weights, such as a pruned one, which no registry can rebuild.

    Attributes:
        model: the model, in float32, with a static image size.
        origin: the `model` entry of the manifest it descends from, empty if there is none.
    """

    model: Any
    origin: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The model's name."""
        return str(self.model.name)

    def build(self) -> Any:
        """Return a copy with the same weights, in the precision that is set."""
        import keras

        return _copy(self.model, self.model.get_weights(), keras.config.dtype_policy())

    def fixed(self, model: Any) -> Any:
        """Return the trained weights in the model's own precision."""
        return _copy(self.model, model.get_weights(), None)

    def entry(self, model: Any, class_names: tuple[str, ...]) -> dict[str, Any]:
        """Return what is known of its origin; the `.keras` file alone rebuilds it."""
        return {
            "input": "RGB pixel values 0..255; scaling is the first layer",
            "output": "logits",
            **self.origin,
            "class_names": list(class_names),
            "parameters": int(model.count_params()),
            "rebuilt_from": "the .keras file alone",
        }


def _copy(model: Any, weights: list[Any], policy: Any) -> Any:
    import keras

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        if policy is not None and isinstance(layer, keras.layers.Layer):
            config["dtype"] = policy
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(weights)
    return copy
