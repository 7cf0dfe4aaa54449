"""Keras models to and from disk. Foreign files are read in safe mode, without running code."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bloodedge import isolated
from bloodedge.errors import BloodedgeError, ModelError
from bloodedge.files import atomic_path, sha256_of
from bloodedge.train.registry import ModelConfig, build

MAX_MODEL_BYTES = 4 << 30
# TensorFlow reserves some GiB of address space before it loads anything.
_PROBE_MEMORY_BYTES = 12 << 30
_MEMORY_PER_BYTE = 16
_PROBED: set[str] = set()


def fixed_size(model: Any, config: ModelConfig, *, batch: int | None = None) -> Any:
    """Return the same model with a static image size, and a static batch if one is given."""
    fixed = build(config, size=config.size, batch=batch)
    fixed.set_weights(model.get_weights())
    return fixed


def save_model(model: Any, path: Path) -> None:
    """Write a `.keras` file whole or not at all."""
    with atomic_path(path) as temporary:
        model.save(temporary)


def load_model(path: Path) -> Any:
    """Load a `.keras` file as untrusted: no lambdas, no custom code, sizes checked first.

    Raises:
        ModelError: the file is missing, damaged, or needs code to load.
    """
    import keras

    try:
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > MAX_MODEL_BYTES:
                raise ModelError(f"{path} unpacks to more than {MAX_MODEL_BYTES >> 30} GiB")
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist") from None
    except BloodedgeError:
        raise
    # Keras raises whatever its parsers meet in a damaged file.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{path} cannot be loaded: {reason[:200]}", expected="a .keras file written by Keras 3"
        ) from error


def probe_model(path: Path) -> None:
    """Load a `.keras` file from elsewhere in a child process; the same content only once.

    Its HDF5 part is read by native code, and its description may ask for any amount of memory.

    Raises:
        ModelError: as `load_model`, or the file ends the child or takes too long.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist")
    digest = sha256_of(path)
    if digest not in _PROBED:
        isolated.check_in_child("bloodedge.train.modelio", ["--probe", str(path.resolve())], path)
        _PROBED.add(digest)


def _probe_here(path: Path) -> int:
    from bloodedge.quiet import quiet

    # NumPy reads the same files and compiles nothing: JAX takes seconds for each shape of weights.
    os.environ["KERAS_BACKEND"] = "numpy"
    # What the imports take is no fault of the file's.
    with quiet():
        import keras

        keras.ops.zeros(1)

    def check() -> None:
        with quiet():
            load_model(path)

    memory = _PROBE_MEMORY_BYTES + _MEMORY_PER_BYTE * path.stat().st_size
    return isolated.check_here(check, path, memory=memory)


def model_entry(config: ModelConfig, model: Any, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Return a manifest's `model` entry: what rebuilds the model and names its outputs."""
    return {
        "config": asdict(config),
        "class_names": list(class_names),
        "parameters": int(model.count_params()),
        "input": "RGB pixel values 0..255; scaling is the first layer",
        "output": "logits",
    }


def entry_config(entry: Mapping[str, Any]) -> ModelConfig:
    """Return the `ModelConfig` recorded in a manifest's `model` entry.

    Raises:
        ModelError: the entry is damaged.
    """
    try:
        config = entry["config"]
        return ModelConfig(
            str(config["name"]),
            int(config["classes"]),
            int(config["size"]),
            float(config["width"]),
            # Manifests written before models took an attention lack the field.
            str(config.get("attention", "")),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"the manifest's model entry is damaged: {error!r}") from error


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "--probe":
        sys.exit("usage: python -m bloodedge.train.modelio --probe FILE")
    sys.exit(_probe_here(Path(sys.argv[2])))
