"""Keras models to and from disk. Foreign files are read in safe mode, without running code."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import textwrap
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bloodedge import isolated
from bloodedge.errors import BloodedgeError, ModelError
from bloodedge.files import atomic_path, sha256_of
from bloodedge.text import one_line
from bloodedge.train.registry import ModelConfig, build

MAX_MODEL_BYTES = 4 << 30
# TensorFlow reserves some GiB of address space before it loads anything.
_PROBE_MEMORY_BYTES = 12 << 30
_MEMORY_PER_BYTE = 16
_PROBED: set[str] = set()
# What describes the layers in a `.keras` file, and how much of it is read for a message.
_DESCRIPTION, _MAX_DESCRIPTION_BYTES, _REASON = "config.json", 64 << 20, 200
# A function that is not Keras' own is told from its own, which are names alone, by its class.
_OWN_MODULES, _CODE = ("keras", "builtins"), ("Lambda", "__lambda__", "function")


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
        raise _not_loaded(path, error) from error


def _not_loaded(path: Path, error: Exception) -> ModelError:
    """Return why a file was not loaded: the first layer that needs code, or what Keras said."""
    name = _needs_code(path)
    if name:
        return ModelError(
            f"{path} cannot be loaded: it needs code of its own ({name}), which is not run",
            expected="layers that Keras itself has, without Lambda",
            fix="replace it by built-in layers and save the model again",
        )
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    reason = textwrap.shorten(reason, _REASON, placeholder=" ...")
    return ModelError(
        f"{path} cannot be loaded: {reason}", expected="a .keras file written by Keras 3"
    )


def _needs_code(path: Path) -> str:
    """Return the class and name of the first part of a model that is not Keras' own, if any."""
    # The file may be damaged in any way; what Keras said of it is told then.
    with contextlib.suppress(Exception), zipfile.ZipFile(path) as archive:
        if archive.getinfo(_DESCRIPTION).file_size <= _MAX_DESCRIPTION_BYTES:
            return next(_foreign(json.loads(archive.read(_DESCRIPTION))), "")
    return ""


def _foreign(entry: Any) -> Iterator[str]:
    """Yield the class, and the name where it has one, of whatever in a description needs code."""
    if isinstance(entry, list):
        for part in entry:
            yield from _foreign(part)
    if not isinstance(entry, dict):
        return
    kind, module = str(entry.get("class_name", "")), entry.get("module")
    outside = "module" in entry and str(module or "").split(".")[0] not in _OWN_MODULES
    if kind in _CODE or outside:
        config = entry.get("config")
        # A function is described by its name alone.
        name = config.get("name", "") if isinstance(config, dict) else config
        yield one_line(f"{kind} {name or ''}".strip())
    for key, part in entry.items():
        # A model is not compiled when it is loaded: its loss and optimizer may be anything.
        if key != "compile_config":
            yield from _foreign(part)


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
