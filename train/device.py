"""What the hardware under Keras allows: compilation, half precision, several devices."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, TypeVar

from bloodedge import hosts
from bloodedge.errors import ConfigError
from bloodedge.hardware import usable_cores
from bloodedge.threads import threads

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")

# Into how many parts each batch is cut; like Keras' own distribution, one for the process.
_parts = 1
# How many devices share a batch, in parts or by that distribution.
_devices = 1


def has_accelerator() -> bool:
    """Return whether Keras computes on something else than the CPU."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    if backend == "jax":
        import jax

        return bool(jax.default_backend() != "cpu")
    return bool(sys.modules["torch"].cuda.is_available())


def use_jit() -> bool:
    """Return whether to compile with XLA.

    It pays on a GPU; on a CPU, TensorFlow's own oneDNN kernels are at least as fast and start
    sooner. JAX knows nothing else.
    """
    import keras

    if keras.backend.backend() == "tensorflow":
        return has_accelerator()
    return bool(keras.backend.backend() == "jax")


def resolve_precision(wanted: str) -> str:
    """Return `float32` or `bfloat16`; `auto` is half precision where there is an accelerator."""
    if wanted == "auto":
        return "bfloat16" if has_accelerator() else "float32"
    return wanted


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Build the models inside for a precision; weights stay float32 in either."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if name == "bfloat16" else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def spread_over(devices: str, batch: int) -> int:
    """Make everything built afterwards train data-parallel on several devices.

    On JAX each device holds the weights and a part of the batch; the step computes what one device
    would. On TensorFlow's CPU, the cores are the devices: see `batch_parts`.

    Args:
        devices: `all`, or a number.
        batch: images a step, which the devices share.

    Returns:
        How many devices.

    Raises:
        ConfigError: there are not so many, they cannot share the batch evenly, or the backend
            gives Keras no data parallelism.
    """
    global _devices, _parts
    import keras

    _devices = _parts = 1
    if devices == "1":
        return 1
    if keras.backend.backend() == "tensorflow" and not has_accelerator():
        _devices = _parts = _fitting(devices, usable_cores(), batch)
        return _parts
    if keras.backend.backend() != "jax":
        raise ConfigError(
            f"several devices with {keras.backend.backend()}", fix="--backend jax, or --devices 1"
        )
    found: list[Any] = keras.distribution.list_devices()
    if _uneven(found):
        raise ConfigError("the hosts have different numbers of devices")
    count = _fitting(devices, len(found), batch)
    parallel = keras.distribution.DataParallel(devices=found[:count], auto_shard_dataset=False)
    keras.distribution.set_distribution(parallel)
    _devices = count
    return count


def check_batch(batch: int, images: int) -> None:
    """Refuse batches that the devices cannot share: where train has fewer images, it is one batch.

    Args:
        batch: images a step, as asked for.
        images: how many there are to train on.

    Raises:
        ConfigError: they cannot.
    """
    if images < _devices:
        fix = "--devices 1" if hosts.count() == 1 else "fewer hosts, or more images"
        raise ConfigError(f"{_devices} devices, but {images} images in train", fix=fix)
    if images < batch:
        _check_share(_devices, images, ", which is all of train")
    else:
        _check_share(_devices, batch)


def batch_parts() -> int:
    """Return into how many parts each batch is cut, for as many cores of TensorFlow's CPU.

    A small net's operations gain little from a second thread each; whole nets side by side do, each
    on one thread. The gradient is that of the whole batch, but batch norm takes its statistics
    over a part, as is usual in data-parallel training ("ghost" batch norm, Hoffer et al. 2017).
    """
    return _parts


@contextmanager
def side_by_side(
    work: Callable[[_Item], _Made], items: Sequence[_Item]
) -> Iterator[Iterator[_Made]]:
    """Yield the results of work on each item, in order, with as many at once as batches have parts.

    Where batches are cut each operation has one thread, so that one item would leave cores idle.
    """
    if _parts == 1 or not items:
        yield map(work, items)
        return
    # What TensorFlow traces at the first call, two threads would both trace.
    first = work(items[0])
    with threads(_parts) as pool:
        yield chain([first], pool.map(work, items[1:]))


def sharing() -> dict[str, int]:
    """Return what a run records of the parts of its batches: nothing where they are whole."""
    return {"devices": _parts} if _parts > 1 else {}


def conditions() -> dict[str, Any]:
    """Return what a fit runs on, beside its settings, as manifests and checkpoints record it."""
    import keras

    return {**sharing(), "backend": keras.backend.backend()}


def _fitting(devices: str, found: int, batch: int) -> int:
    """Return how many of the devices found are asked for, if they can share a batch."""
    count = found if devices == "all" else _number(devices)
    if not 1 <= count <= found:
        raise ConfigError(f"--devices {devices}", expected=f"all, or 1 to {found}")
    _check_share(count, batch)
    return count


def _check_share(count: int, batch: int, what: str = "") -> None:
    if batch % count:
        fewer = max(n for n in range(1, count) if batch % n == 0)
        another = f"--batch {batch // count * count or count}"
        raise ConfigError(
            f"{count} devices cannot share a batch of {batch}{what}",
            # Several hosts train on all their devices, or not at all: see `check_hosts`.
            fix=f"--devices {fewer}, or where the command has it {another}"
            if hosts.count() == 1
            else f"{another}, or another number of hosts",
        )


def _uneven(found: list[Any]) -> bool:
    """Whether the hosts, if there are several, do not each have an equal part of the devices."""
    if hosts.count() == 1:
        return False
    import jax

    return bool(jax.local_device_count() * hosts.count() != len(found))


def check_hosts(backend: str, devices: str) -> None:
    """Refuse what several hosts cannot do together.

    Raises:
        ConfigError: the backend is not JAX, or not all devices are to be used.
    """
    if backend != "jax":
        raise ConfigError(f"several hosts with {backend}", fix="--backend jax")
    if devices != "all":
        raise ConfigError(f"several hosts with --devices {devices}", fix="--devices all")


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
