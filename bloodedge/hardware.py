"""The machine a result was made on."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any


def describe_hardware() -> dict[str, Any]:
    """Return the machine a run was made on: system, processor, cores and memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "memory_gib": round(memory / 2**30, 1),
    }


def describe_devices() -> dict[str, Any]:
    """Return what Keras, which is in use already, computes on in this process.

    Returns:
        `device`: the kind of accelerator, such as `NVIDIA H200`, or `cpu`; and `devices`: how many
        share a batch, on all hosts together. The cores of a CPU are one device.
    """
    import keras

    distribution = keras.distribution.distribution()
    count = 1 if distribution is None else int(distribution.device_mesh.devices.size)
    return {"device": _device_kind(keras.backend.backend()), "devices": count}


def describe_keras_hardware() -> dict[str, Any]:
    """Return `describe_hardware` and `describe_devices` together."""
    return {**describe_hardware(), **describe_devices()}


def _device_kind(backend: str) -> str:
    # Keras has imported the one that it runs on.
    library = sys.modules[backend]
    if backend == "jax":
        return str(library.devices()[0].device_kind)
    if backend == "torch":
        return str(library.cuda.get_device_name()) if library.cuda.is_available() else "cpu"
    gpus = library.config.list_physical_devices("GPU")
    if not gpus:
        return "cpu"
    details = library.config.experimental.get_device_details(gpus[0])
    return str(details.get("device_name", "GPU"))


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    for key in ("model name", "Model", "Hardware"):
        for line in lines:
            if line.split(":")[0].strip() == key:
                return line.split(":", 1)[1].strip()
    return platform.processor()
