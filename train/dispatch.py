"""Several steps in one dispatch, so that a fast device does not wait for Python between them."""

from __future__ import annotations

from typing import Any

from bloodedge.train.device import has_accelerator

_MOST = 32


def steps_per_dispatch(steps: int) -> int:
    """Return how many of an epoch's steps to hand to the device at once.

    A step on a CPU takes far longer than its dispatch, so there it is one. It is one as well on
    PyTorch, for which Keras offers nothing else.
    """
    import keras

    if keras.backend.backend() == "torch" or not has_accelerator():
        return 1
    # Steps that are left over would be compiled a second time.
    even = [count for count in range(_MOST, _MOST // 4 - 1, -1) if steps % count == 0]
    return even[0] if even else min(_MOST, steps)


def scanning(learner: type, batch: int) -> type:
    """Return a JAX learner whose step takes several batches, interleaved as `Feed` does.

    Keras itself calls the compiled step once for each of its `steps_per_execution`. The batches and
    draws are those of single steps; XLA compiles the loop's body in its own way, so that weights
    may differ in their last bit.

    Args:
        learner: a `keras.Model` on JAX.
        batch: images a step.
    """
    import jax
    from jax import numpy as jnp

    class Scanning(learner):  # type: ignore[misc]
        def train_step(self, state: Any, data: Any) -> Any:
            """Make one step after the other; the figures are those after the last."""

            def step(state: Any, batch: Any) -> Any:
                logs, state = super(Scanning, self).train_step(state, batch)
                return state, logs

            state, logs = jax.lax.scan(step, state, jax.tree.map(apart, data))
            return jax.tree.map(lambda values: values[-1], logs), state

    def apart(rows: Any) -> Any:
        return jnp.moveaxis(rows.reshape(batch, -1, *rows.shape[1:]), 1, 0)

    return Scanning


def cut(batch: Any, parts: int) -> list[Any]:
    """Return equal parts of a batch: an array `(B, ...)`, or a dictionary of such arrays."""
    from keras import ops

    if isinstance(batch, dict):
        pieces = {name: ops.split(rows, parts) for name, rows in batch.items()}
        return [{name: pieces[name][i] for name in pieces} for i in range(parts)]
    return list(ops.split(batch, parts))
