"""Compare our training loop with the obvious Keras one, in one run on whatever hardware is there.

    python -m bloodedge.benchmarks.train_speed [--models cnn_se,vgg16] [--batch 64] [--seconds 2]
        [--backend B] [--precision P] [--our-precision P]

For each model, in turns, images a second of: Keras' `fit` on tf.data with the same augmentation by
tf.image, image by image; our loop; the same with `--devices all`, on a CPU with TensorFlow or
several devices with JAX; and `fit` on one constant batch, whose input costs nothing, with as many
steps a dispatch as ours. The last column is the arithmetic of our loop in percent of a large matrix
product's. `--our-precision` changes our loop alone: Keras' is float32 unless one asks for another.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import util
from multiprocessing import get_context
from random import Random
from statistics import median
from typing import Any

import numpy as np

from bloodedge.backend import use_backend
from bloodedge.benchmarks.comparison import exit_code
from bloodedge.data.dataset import Split
from bloodedge.hardware import describe_devices, usable_cores
from bloodedge.train.augment import AugmentConfig
from bloodedge.train.config import PRECISIONS, FitConfig
from bloodedge.train.cost import STEP_OVER_FORWARD, count_macs
from bloodedge.train.device import (
    has_accelerator,
    precision,
    resolve_precision,
    spread_over,
    use_jit,
)
from bloodedge.train.dispatch import scanning, steps_per_dispatch
from bloodedge.train.feed import without_tuner
from bloodedge.train.registry import ModelConfig, build
from bloodedge.train.targets import HardLabels
from bloodedge.train.trainer import Trainer

SIDE, CLASSES, _ROUNDS, _MOST_IMAGES = 64, 8, 9, 12_800
Epoch = Callable[[], object]


def random_split(images: int) -> Split:
    """Return noise in the shape of the blood cells: speed does not depend on what is seen."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, SIDE, SIDE, 3), dtype=np.uint8)
    return Split(pixels, rng.integers(0, CLASSES, images))


def our_epoch(net: Any, split: Split, batch: int) -> Epoch:
    """Return one epoch as `bloodedge train` runs it."""
    config = FitConfig(epochs=10_000, batch=batch)
    trainer = Trainer(net, split, HardLabels(split.labels, CLASSES), config)
    numbers = itertools.count()
    return lambda: trainer.train_epoch(next(numbers), SIDE)


def _serve(model: str, images: int, batch: int, kind: str, asked: Any) -> None:
    """Run our epochs on all cores when asked, in a process of its own: its threads differ."""
    # Ctrl-C reaches it, too; what is to be said then, the script itself says.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    use_backend("tensorflow", side_by_side=True)
    spread_over("all", batch)
    with precision(kind):
        net = build(ModelConfig(model, CLASSES, SIDE))
    epoch = our_epoch(net, random_split(images), batch)
    while True:
        asked.recv()
        epoch()
        asked.send(True)


@contextmanager
def spread_epoch(model: str, images: int, batch: int, kind: str) -> Iterator[Epoch]:
    """Yield the same on JAX, in this process: a second one finds the devices' memory taken."""
    import keras

    spread_over("all", batch)
    everywhere = keras.distribution.distribution()
    with precision(kind):
        net = build(ModelConfig(model, CLASSES, SIDE))
    on_all = our_epoch(net, random_split(images), batch)
    # What else is measured runs on one.
    spread_over("1", batch)
    keras.distribution.set_distribution(None)

    def epoch() -> None:
        with everywhere.scope():
            on_all()

    yield epoch


@contextmanager
def shared_epoch(model: str, images: int, batch: int, kind: str) -> Iterator[Epoch]:
    """Yield what runs one epoch as `bloodedge train --devices all` does."""
    here, there = get_context("spawn").Pipe()
    arguments = (model, images, batch, kind, there)
    worker = get_context("spawn").Process(target=_serve, args=arguments, daemon=True)
    worker.start()
    # So that a worker that ends is an error here, not silence.
    there.close()

    def epoch() -> None:
        here.send(True)
        here.recv()

    try:
        yield epoch
    finally:
        worker.terminate()
        worker.join()


def tf_data_epoch(net: Any, split: Split, batch: int) -> Epoch:
    """Return one epoch of `fit` on tf.data with tf.image, image by image."""
    import tensorflow as tf

    limits = AugmentConfig()
    reach = round(limits.shift * SIDE)

    def augment(image: Any, label: Any) -> tuple[Any, Any]:
        image = tf.cast(image, tf.float32)
        image = tf.image.random_flip_left_right(tf.image.random_flip_up_down(image))
        image = tf.image.rot90(image, tf.random.uniform((), 0, 4, tf.int32))
        image = tf.pad(image, [[reach, reach], [reach, reach], [0, 0]], mode="REFLECT")
        image = tf.image.random_crop(image, (SIDE, SIDE, 3))
        image *= tf.random.uniform((1, 1, 3), 1 - limits.colour, 1 + limits.colour)
        image = tf.image.random_brightness(image, 255 * limits.brightness)
        return tf.clip_by_value(image, 0.0, 255.0), label

    data = tf.data.Dataset.from_tensor_slices((split.images, split.labels)).shuffle(len(split))
    data = data.map(augment, num_parallel_calls=tf.data.AUTOTUNE)
    data = data.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    _compile(net)
    return lambda: net.fit(data, verbose=0)


def constant_epoch(net: Any, split: Split, batch: int) -> Epoch:
    """Return as many steps of `fit` on one batch that is ready, as many a dispatch as ours."""
    import keras

    images, labels = split.images[:batch].astype(np.float32), split.labels[:batch]
    steps = len(split) // batch
    macs = STEP_OVER_FORWARD * batch * count_macs(net, images.shape[1:])
    together = steps_per_dispatch(steps, macs)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # A generator would copy the batch at every step.
        data = tf.data.Dataset.from_tensors((images, labels)).repeat(steps)
        data = without_tuner(data)
        _compile(net, together)
        return lambda: net.fit(data, verbose=0)
    if together > 1:
        # As in our loop: Keras' own way is still one dispatch a step on JAX.
        net = scanning(keras.Model, batch)(net.inputs, net.outputs)
    _compile(net)

    def ready(count: int) -> tuple[Any, Any]:
        pixels, truth = np.repeat(images, count, axis=0), np.repeat(labels, count, axis=0)
        return keras.ops.convert_to_tensor(pixels), keras.ops.convert_to_tensor(truth)

    whole, left = divmod(steps, together)
    feed = [ready(together)] * whole + ([ready(left)] if left else [])
    return lambda: net.fit((rows for rows in feed), steps_per_epoch=len(feed), verbose=0)


def _compile(net: Any, together: int = 1) -> None:
    import keras

    net.compile(
        keras.optimizers.AdamW(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=use_jit(),
        steps_per_execution=together,
    )


def seconds_of(epoch: Epoch) -> float:
    """Return how long one epoch takes."""
    start = time.perf_counter()
    epoch()
    return time.perf_counter() - start


def gemm_macs_per_second(kind: str) -> float:
    """Return the multiply-accumulates a second of a large square matrix product."""
    import keras
    from keras import ops

    side = 8192 if has_accelerator() else 2048

    class Product(keras.Model):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return ops.sum(ops.matmul(x, x), axis=-1)

    product = Product()
    product.jit_compile = use_jit()
    x = ops.cast(ops.ones((side, side)), kind)
    product.predict_on_batch(x)
    return side**3 / min(seconds_of(lambda: product.predict_on_batch(x)) for _ in range(10))


def compare(name: str, batch: int, seconds: float, kind: str, ours: str, peak: float) -> str:
    """Measure one model, our loop in a precision of its own, and return a row of the table."""
    import keras

    config = ModelConfig(name, CLASSES, SIDE)

    def fresh(its: str) -> Any:
        with precision(its):
            return build(config)

    pilot = our_epoch(fresh(ours), random_split(2 * batch), batch)
    pilot()
    steps = max(2, min(_MOST_IMAGES // batch, round(2 * seconds / seconds_of(pilot))))
    split = random_split(steps * batch)
    makers = {"ours": our_epoch, "constant": constant_epoch}
    if util.find_spec("tensorflow"):
        makers["tf.data"] = tf_data_epoch
    with ExitStack() as stack:
        kinds = {label: ours if label == "ours" else kind for label in makers}
        epochs = {label: make(fresh(kinds[label]), split, batch) for label, make in makers.items()}
        if can_share(batch):
            share = shared_epoch if keras.backend.backend() == "tensorflow" else spread_epoch
            epochs["shared"] = stack.enter_context(share(name, len(split), batch, ours))
        taken = in_turns(epochs)
    rate = {label: len(split) / median(times) for label, times in taken.items()}
    return row(name, rate, count_macs(fresh(kind), (SIDE, SIDE, 3)), peak)


def all_devices() -> int:
    """Return how many devices `--devices all` means: with TensorFlow on a CPU, its cores."""
    import keras

    if keras.backend.backend() == "jax":
        return len(keras.distribution.list_devices())
    on_cores = keras.backend.backend() == "tensorflow" and not has_accelerator()
    return usable_cores() if on_cores else 1


def can_share(batch: int) -> bool:
    """Return whether `--devices all` means several here, and they can share a batch."""
    count = all_devices()
    return count > 1 and batch % count == 0


def in_turns(epochs: dict[str, Epoch]) -> dict[str, list[float]]:
    """Return how long each took in every round, after one that does not count.

    Each round has an order of its own: an epoch leaves threads behind that disturb the next one.
    """
    for epoch in epochs.values():
        epoch()
    taken: dict[str, list[float]] = {label: [] for label in epochs}
    order = Random(0)
    for _ in range(_ROUNDS):
        for label in order.sample(sorted(epochs), len(epochs)):
            taken[label].append(seconds_of(epochs[label]))
    return taken


def row(name: str, rate: dict[str, float], forward: int, peak: float) -> str:
    """Return a model's row from its images a second and MACs a pass."""
    naive = rate.get("tf.data")

    def against(label: str) -> str:
        if label not in rate:
            return "- | -"
        return f"{rate[label]:,.0f} | " + (f"{rate[label] / naive:.2f}" if naive else "-")

    used = 100 * rate["ours"] * STEP_OVER_FORWARD * forward / peak
    return (
        f"| {name} | {forward / 1e6:,.1f} M | {f'{naive:,.0f}' if naive else '-'} | "
        f"{against('ours')} | {against('shared')} | "
        f"{rate['constant']:,.0f} | {rate['ours'] / rate['constant']:.3f} | {used:.0f} % |"
    )


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default="cnn_se,vgg16", help="[cnn_se,vgg16]")
    parser.add_argument("--batch", type=int, default=64, help="images a step [64]")
    parser.add_argument("--seconds", type=float, default=2.0, help="a round, about [2]")
    parser.add_argument("--backend", help="tensorflow, jax or torch")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    parser.add_argument("--our-precision", choices=PRECISIONS, help="of our loop [as --precision]")
    args = parser.parse_args()
    # Keras warns that it does not shuffle what comes shuffled.
    warnings.filterwarnings("ignore", message=".*shuffle=True.*")
    keras = use_backend(args.backend)
    kind = resolve_precision(args.precision)
    ours = resolve_precision(args.our_precision or args.precision)
    peak = gemm_macs_per_second(ours)
    print(
        f"{keras.backend.backend()} on {describe_devices()['device']}, all devices: "
        f"{all_devices()}; {kind}, ours {ours}, batch {args.batch}; "
        f"a large matrix product: {peak / 1e9:,.0f} GMAC/s\n\n"
        "| model | MACs | tf.data, images/s | ours | ratio | ours, all devices | ratio "
        "| constant | ours to it | of peak |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        flush=True,
    )
    for name in args.models.split(","):
        print(compare(name, args.batch, args.seconds, kind, ours, peak), flush=True)


if __name__ == "__main__":
    sys.exit(exit_code(main))
