"""`bloodedge cluster`: each kernel's weights take a few shared values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.compress.bridge.runtime import tfmot
from bloodedge.compress.choice import LayerChoice, choose_layers
from bloodedge.compress.finetune import FinetuneConfig, Method, Parent, finetune, load_parent
from bloodedge.compress.preserve import can_share
from bloodedge.console import say
from bloodedge.data.dataset import Dataset
from bloodedge.errors import ConfigError, check_range
from bloodedge.runs import Run

KIND = "cluster"
_FEW_ZEROS = 0.05
# How the first centroids are found, by tfmot's names.
INITS = {"kmeans++": "KMEANS_PLUS_PLUS", "linear": "LINEAR", "density": "DENSITY_BASED"}


@dataclass(frozen=True)
class ClusterConfig(FinetuneConfig):
    """What `bloodedge cluster` does; see `FinetuneConfig` for the rest.

    Attributes:
        clusters: how many distinct values a kernel may have.
        init: how the first ones are found: `kmeans++`, `linear` between the smallest and the
            largest weight, or `density`, by the weights' distribution.
        preserve_sparsity: whether zeros stay zero, and zero is one of the values; kernels that
            were pruned ask for it by themselves.

    Raises:
        ConfigError: an unknown init, or a number out of range.
    """

    clusters: int = 16
    init: str = "kmeans++"
    preserve_sparsity: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        # With zero as one of the values, the others are shared between both signs.
        check_range("--clusters", self.clusters, 3, 256)
        if self.init not in INITS:
            raise ConfigError(f"--init {self.init!r}", expected=", ".join(INITS))


def cluster(config: ClusterConfig, data: Dataset) -> Run:
    """Fine-tune a trained model with few distinct weights, and write its run folder.

    Each kernel that is chosen ends with at most `clusters` distinct values, which training moves.
    That shrinks what gzip makes of the weights; the size on the device and the latency stay.

    Raises:
        ConfigError: Keras runs on another backend than TensorFlow.
        ModelError: the model or the teacher is missing, damaged, does not fit the data, or has
            layers without a twin.
        RunError: the run exists, or cannot be resumed.
    """
    parent = load_parent(config, data)
    choices = choose_layers(parent.model, config.layers, partial(_too_small, config))
    strip = tfmot().clustering.keras.strip_clustering
    _tell_of_zeros(config, parent, choices)
    method = Method(KIND, choices, partial(wrap_layer, config), strip)
    return finetune(config, parent, method, data)


def wrap_layer(config: ClusterConfig, layer: Any) -> Any:
    """Return a tf_keras layer, called before, with tfmot's wrapper around it.

    The zeros of one that was pruned are preserved, asked for or not.
    """
    keras = tfmot().clustering.keras
    return keras.cluster_weights(
        layer,
        config.clusters,
        getattr(keras.CentroidInitialization, INITS[config.init]),
        preserve_sparsity=config.preserve_sparsity or is_pruned(layer.get_weights()[0]),
    )


def is_pruned(kernel: NDArray[Any]) -> bool:
    """Whether a kernel, of any shape, has zeros: more than half precision makes of tiny weights."""
    return float(np.mean(kernel == 0)) > _FEW_ZEROS


def _tell_of_zeros(config: ClusterConfig, parent: Parent, choices: Sequence[LayerChoice]) -> None:
    layers = [parent.model.get_layer(choice.name) for choice in choices if not choice.reason]
    pruned = [layer.name for layer in layers if is_pruned(layer.get_weights()[0])]
    if pruned and not config.preserve_sparsity:
        say(f"{parent.reference.name} was pruned: the zeros of {', '.join(pruned)} are preserved")


def _too_small(config: ClusterConfig, kernel: Any) -> str:
    """Return why a kernel is left alone: its weights, zeros aside, are too few to share values.

    Args:
        config: how many values, and whether zeros stay apart.
        kernel: of any shape, such as `(H, W, in, out)`.

    Returns:
        The reason; empty where it can be clustered.
    """
    values = np.asarray(kernel)
    apart = config.preserve_sparsity or is_pruned(values)
    weights = int(np.count_nonzero(values)) if apart else values.size
    if can_share(weights, config.clusters):
        return ""
    what = "weights that are not zero" if apart else "weights"
    return f"{weights} {what} are fewer than two for each of {config.clusters} clusters"
