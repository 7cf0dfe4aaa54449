"""Gradients times weights, channel by channel, on any Keras backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.compress.channels.graph import ChannelGraph
from bloodedge.compress.channels.members import Member
from bloodedge.console import Meter
from bloodedge.data.dataset import Split
from bloodedge.errors import ModelError
from bloodedge.train.device import use_jit

# Enough for the ranking to settle; it costs about what a tenth of an epoch does.
IMAGES = 1024
_BATCH = 32


def taylor_terms(
    graph: ChannelGraph, train: Split, seed: int
) -> Iterator[tuple[Member, NDArray[np.float64]]]:
    """Yield each layer that ends in channels with `(sum g w)^2`, averaged over mini-batches.

    A layer that batch norm follows is left out: batch norm's own scale and shift are the last to
    act on its channels. The net is seen as it predicts: moving statistics, no dropout.

    Args:
        graph: what is coupled, with the model.
        train: labelled images, of which `IMAGES` are drawn.
        seed: fixes the draw.

    Raises:
        ModelError: a layer is frozen, so that it has no gradients, or they are not finite.
    """
    last = [m for m in graph.members.values() if m.outputs and not m.normalised]
    _refuse_frozen(last)
    index = np.random.default_rng(seed).permutation(len(train))[:IMAGES]
    # All of one size, so that one step is compiled.
    size = min(_BATCH, len(index))
    batches = index[: len(index) // size * size].reshape(-1, size)
    probe, terms = _probe(graph.model, last)
    total = [np.zeros(len(m.out)) for m in last]
    with Meter("importance", len(batches)) as meter:
        for batch in batches:
            probe.train_on_batch(train.images[batch].astype(np.float32), train.labels[batch])
            for place, member in enumerate(last):
                slopes = [terms.read(member.layer.weights[i]) for i in member.outputs]
                total[place] += np.sum(slopes, axis=0) ** 2
            meter.update()
    _refuse_not_finite(last, total)
    yield from zip(last, (t / len(batches) for t in total), strict=True)


def _refuse_frozen(members: list[Member]) -> None:
    frozen = [m.name for m in members if not all(m.layer.weights[i].trainable for i in m.outputs)]
    if frozen:
        raise ModelError(
            f"{frozen[0]} is frozen, so that it has no gradients", fix="--importance l1"
        )


def _refuse_not_finite(members: list[Member], terms: list[NDArray[np.float64]]) -> None:
    for member, term in zip(members, terms, strict=True):
        if not np.isfinite(term).all():
            raise ModelError(
                f"{member.name} cannot be ranked: its gradients are not finite",
                fix="--importance l1",
            )


def _probe(net: Any, members: list[Member]) -> tuple[Any, Any]:
    """Return a model whose training step changes no weight, and what holds its gradients.

    An optimizer is where every backend hands over gradients in the same way.
    """
    import keras

    lengths = {m.layer.weights[i].path: len(m.out) for m in members for i in m.outputs}

    class Terms(keras.optimizers.Optimizer):  # type: ignore[misc]
        """Keeps gradient times weight of the last step, summed for each output channel."""

        def __init__(self) -> None:
            super().__init__(learning_rate=0.0)
            self._terms: list[Any] = []
            self._paths: list[str] = []

        def build(self, variables: list[Any]) -> None:
            if self.built:
                return
            super().build(variables)
            self._paths = [v.path for v in variables]
            for i, path in enumerate(self._paths):
                length = lengths.get(path, 0)
                term = self.add_variable((length,), name=f"term_{i}") if length else None
                self._terms.append(term)

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            term = self._terms[self._get_variable_index(variable)]
            if term is not None:
                product = keras.ops.reshape(gradient * variable, (-1, term.shape[0]))
                self.assign(term, keras.ops.sum(product, axis=0))

        def read(self, variable: Any) -> NDArray[np.float64]:
            term = self._terms[self._paths.index(variable.path)]
            return np.asarray(keras.ops.convert_to_numpy(term), np.float64)

    class Probe(keras.Model):  # type: ignore[misc]
        """The net as it predicts, even in a training step."""

        def __init__(self) -> None:
            super().__init__(name="probe")
            self.net = net

        def call(self, images: Any, training: bool = False) -> Any:
            return self.net(images, training=False)

    probe, terms = Probe(), Terms()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    probe.compile(terms, loss=loss, jit_compile=use_jit())
    return probe, terms
