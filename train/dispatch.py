"""Several steps in one dispatch, so that the device does not wait for Python between them."""

from __future__ import annotations

from typing import Any

from bloodedge.train.device import has_accelerator

_MOST = 32
# On a CPU, so that one can see it go on and end it: at most 8 steps, together of as many
# multiply-accumulates as cores from slow to fast compute in a second to a tenth of one.
_MOST_ON_CPU, _MACS_ON_CPU = 8, 10**10


def steps_per_dispatch(steps: int, macs: int | None) -> int:
    """Return how many of an epoch's steps to hand to the device at once.

    Between the steps of a small net TensorFlow's cores would wait for Python
    (`benchmarks/results/train_speed.md`). It is one step on JAX's CPU, and on PyTorch, for which
    Keras offers nothing else.

    Args:
        steps: how many an epoch has.
        macs: multiply-accumulates of one step, None if they are not known.
    """
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow" and not has_accelerator():
        room = _MACS_ON_CPU // macs if macs else 1
        return max(1, min(_MOST_ON_CPU, room, steps))
    if backend == "torch" or not has_accelerator():
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
