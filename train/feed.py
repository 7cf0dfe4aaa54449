"""The batches of each epoch, made on the host, in the form that costs each backend least."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.data.dataset import Split
from bloodedge.train.augment import Draws, draw
from bloodedge.train.config import FitConfig
from bloodedge.train.targets import Targets

Batch = tuple[dict[str, NDArray[Any]], NDArray[np.float32]]
EVERY_ROW = slice(None)
_STACKED = 8


def steps_per_epoch(images: int, batch: int) -> int:
    """Return how many whole batches an epoch has, at least one."""
    return max(1, images // batch)


class Feed:
    """The batches of each epoch: images or their numbers, the draws, and the targets.

    Each batch depends on seed, epoch and step alone, so resuming repeats it.

    Args:
        train: the images.
        targets: what each is trained towards.
        config: batch size, seed and augmentation.
        by_index: whether to yield the images' numbers instead of the images.
        rows: which rows of each batch to yield: those of this host's devices.
    """

    def __init__(
        self,
        train: Split,
        targets: Targets,
        config: FitConfig,
        *,
        by_index: bool,
        rows: slice = EVERY_ROW,
    ) -> None:
        self._train = train
        self._targets = targets
        self._config = config
        self._by_index = by_index
        self._rows = rows
        self.steps = steps_per_epoch(len(train), config.batch)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch, counted from 0."""
        c = self._config
        order = self._order(epoch)
        for step in range(self.steps):
            index = order[step * c.batch : (step + 1) * c.batch]
            rng = np.random.default_rng([c.seed, epoch, step])
            yield self._batch(index, rng)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        c, count = self._config, len(self._train)
        if not c.balance:
            return np.random.default_rng([c.seed, epoch]).permutation(count)
        # NumPy takes [seed, epoch] for [seed, epoch, 0], the key of the first step's draws. Above,
        # that stays as it is, so that runs without balance can be repeated. Choices by odds would
        # let one image's class decide another's view: they get a key that no step has.
        rng = np.random.default_rng([c.seed, epoch, self.steps])
        labels = self._train.labels
        odds = np.bincount(labels)[labels] ** -c.balance
        return rng.choice(count, count, p=odds / odds.sum())

    def _batch(self, index: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        side = self._train.images.shape[1]
        # Every host draws for the whole batch, so that it is the same however it is shared.
        drawn = draw(self._config.augment, len(index), side, rng)
        inputs: Draws = {name: values[self._rows] for name, values in drawn.items()}
        index = index[self._rows]
        rows = self._targets.for_batch(index, inputs["view"].astype(np.int64))
        if self._by_index:
            inputs["index"] = index.astype(np.int32)
        else:
            inputs["images"] = self._train.images[index]
        return inputs, rows


def interleaved(batches: Iterator[Batch], together: int) -> Iterator[Batch]:
    """Yield the batches of `together` steps as one, at the end of those that are left.

    Row `b * steps + k` is row b of step k: devices that share the rows in equal parts then hold
    their part of every step.
    """
    while group := list(islice(batches, together)):
        inputs = {name: _woven([x[name] for x, _ in group]) for name in group[0][0]}
        yield inputs, _woven([y for _, y in group])


def _woven(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    return np.stack(arrays, axis=1).reshape(-1, *arrays[0].shape[1:])


def as_dataset(
    epochs: Callable[[int], Iterator[Batch]], images: NDArray[np.uint8] | None = None
) -> Callable[[int], Any]:
    """Return what gives each epoch as a tf.data.Dataset.

    It is always the same one: from a generator, Keras would make and trace another each epoch.
    TensorFlow takes several batches at a time from Python, which the training of a small net would
    otherwise wait for.

    Args:
        epochs: yields the batches of an epoch, with the numbers of their images.
        images: what to put in the numbers' place, in one copy for several batches; None to leave
            them, for a learner that holds the images.
    """
    import tensorflow as tf

    waiting: list[Iterator[Batch]] = []
    made: list[Any] = []

    def spec(array: NDArray[Any]) -> Any:
        return tf.TensorSpec((None, *array.shape[1:]), array.dtype)

    def stack(group: list[Batch]) -> Batch:
        inputs, rows = tf.nest.map_structure(lambda *rows: np.stack(rows), *group)
        if images is not None:
            inputs["images"] = images[inputs.pop("index")]
        return inputs, rows

    def stacks() -> Iterator[Batch]:
        while group := list(islice(waiting[0], _STACKED)):
            yield stack(group)

    def dataset(epoch: int) -> Any:
        waiting[:] = [epochs(epoch)]
        if not made:
            first = next(waiting[0])
            waiting[0] = chain([first], waiting[0])
            signature = tf.nest.map_structure(spec, stack([first]))
            data = tf.data.Dataset.from_generator(stacks, output_signature=signature)
            made.append(without_tuner(data.unbatch().prefetch(_STACKED)))
        return made[0]

    return dataset


def without_tuner(dataset: Any) -> Any:
    """Return a tf.data.Dataset that tunes nothing by itself.

    The tuner sleeps for 10 ms, 20, 40 and so on, and whoever closes an epoch waits until it wakes,
    which can double the time of an epoch.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
