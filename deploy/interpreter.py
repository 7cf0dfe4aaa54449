"""Run a .tflite image classifier; look at files from elsewhere in a child process first.

The model takes raw pixel values 0..255: uint8 inputs get the bytes as they are, which is what
Android and browsers feed them, and float32 inputs the same values. An int8 input gets what these
values mean in its scale, or where that does not reach 255 the bytes less 128.
"""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge import isolated
from bloodedge.deploy.runtimes import Runtime, find_runtime
from bloodedge.errors import DataError, ModelError
from bloodedge.hardware import usable_cores
from bloodedge.quiet import quiet
from bloodedge.text import one_line
from bloodedge.threads import threads

# A flatbuffer's offsets are 32-bit and signed.
MAX_BYTES = 2 << 30
PROBE_TIMEOUT_S = isolated.TIMEOUT_S
PROBE_MEMORY_BYTES = 16 << 30
# A part of the images on one core; Ctrl-C waits for those that have begun.
_PART_S = 0.25
# `__name__` is `__main__` in the child.
_MODULE = "bloodedge.deploy.interpreter"


class Classifier:
    """An image classifier in a .tflite file, loaded in this process; an inference takes one thread.

    Files from elsewhere go through `probe` first: a malformed one can end the process.

    Args:
        path: the file.
        runtime: what runs it; by default the first that is installed.

    Raises:
        ModelError: the file is missing, damaged, or no image classifier with one `(N, S, S, 3)`
            input and one `(N, C)` output.
        ConfigError: no runtime is installed.
    """

    def __init__(self, path: Path, runtime: Runtime | None = None) -> None:
        check_file(path)
        self._path = path
        self.runtime = runtime or find_runtime()
        try:
            with quiet():
                # Bytes, as a name from another disk may be no UTF-8.
                name = os.fsencode(path)
                self._interpreter = self.runtime.interpreter(name, num_threads=1)
                self._interpreter.allocate_tensors()
        # tflite-runtime answers NumPy 2 with SystemError.
        except (ValueError, RuntimeError, TypeError, SystemError) as error:
            reason = one_line(error)
            raise ModelError(f"{path} cannot be loaded by {self.runtime.name}: {reason}") from error
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        _check_classifier(path, inputs, outputs)
        self._input, self._output = inputs[0], outputs[0]

    @property
    def input_size(self) -> int:
        """Height and width of the images, in pixels."""
        return int(self._input["shape"][1])

    @property
    def batch(self) -> int:
        """The static batch size; 1 where the model leaves it open."""
        return int(self._input["shape"][0])

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self._output["shape"][1])

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """The input's type: uint8, int8 or float32."""
        dtype: np.dtype[Any] = np.dtype(self._input["dtype"])
        return dtype

    @property
    def output_dtype(self) -> np.dtype[Any]:
        """The output's type: uint8, int8 or float32."""
        dtype: np.dtype[Any] = np.dtype(self._output["dtype"])
        return dtype

    @property
    def takes_shifted_bytes(self) -> bool:
        """Whether the input is int8 and made for scaled pixels: it gets the bytes less 128."""
        return _takes_shifted_bytes(self._input)

    @property
    def input_name(self) -> str:
        """The input tensor's name."""
        return str(self._input["name"])

    def encode(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """Return `(N, S, S, 3)` pixel values as the input tensor takes them, in its type."""
        return _encode(images, self._input)

    def decode(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        """Return `(N, C)` probabilities from as many values of the output tensor's type."""
        return _decode(raw, self._output)

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return `(N, C)` float32 probabilities for `(N, S, S, 3)` uint8 RGB images.

        Raises:
            DataError: the images have another shape or type.
            ModelError: the file loads, but what it computes is damaged.
        """
        size, batch = self.input_size, self.batch
        if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
            raise DataError(
                f"images of shape {images.shape} and type {images.dtype}",
                expected=f"uint8 (N, {size}, {size}, 3), as the model takes them",
            )
        raw = np.zeros((len(images), self.classes), self.output_dtype)
        for start in range(0, len(images), batch):
            chunk = images[start : start + batch]
            if len(chunk) < batch:
                chunk = np.concatenate([chunk, np.zeros((batch - len(chunk), size, size, 3), "u1")])
            raw[start : start + batch] = self._run(chunk)[: len(images) - start]
        return _decode(raw, self._output)

    def _run(self, chunk: NDArray[np.uint8]) -> NDArray[Any]:
        try:
            self._interpreter.set_tensor(self._input["index"], _encode(chunk, self._input))
            self._interpreter.invoke()
            out: NDArray[Any] = self._interpreter.get_tensor(self._output["index"])
        except (ValueError, RuntimeError) as error:
            reason = one_line(error)
            raise ModelError(f"{self._path} cannot be run: {reason}") from error
        return out


def predict_parallel(
    path: Path, images: NDArray[np.uint8], workers: int | None = None
) -> NDArray[np.float32]:
    """Return what `Classifier.predict` returns, on all cores.

    One thread per worker, each with its own single-threaded interpreter: the runtimes release
    the GIL while they compute, and threads start at once where processes would load NumPy and
    the runtime again. One image at a time on every core gives more images a second than one
    image on all cores, which a small model is too short to share.

    Args:
        path: the model.
        images: `(N, S, S, 3)` uint8.
        workers: by default, the cores this process may use.

    Raises:
        ModelError, DataError, ConfigError: as `Classifier`.
    """
    first = Classifier(path)
    count = max(1, min(workers or usable_cores(), len(images) // first.batch))
    if count == 1:
        return first.predict(images)
    started = time.perf_counter()
    head, rest = first.predict(images[: first.batch]), images[first.batch :]
    size = _part_size(len(rest), first.batch, count, time.perf_counter() - started)
    free: SimpleQueue[Classifier] = SimpleQueue()
    for model in (first, *(Classifier(path) for _ in range(count - 1))):
        free.put(model)

    def predict(part: NDArray[np.uint8]) -> NDArray[np.float32]:
        model = free.get()
        try:
            return model.predict(part)
        finally:
            free.put(model)

    parts = (rest[start : start + size] for start in range(0, len(rest), size))
    with threads(count) as pool:
        return np.concatenate([head, *pool.map(predict, parts)])


def _part_size(images: int, batch: int, workers: int, batch_s: float) -> int:
    """Return how many images a part has, so that each worker gets as many parts of about a length.

    Args:
        images: how many there are.
        batch: how many an inference takes.
        workers: among how many they are shared.
        batch_s: seconds of an inference.
    """
    batches = math.ceil(images / batch)
    most = max(1, int(_PART_S / batch_s))
    parts = workers * math.ceil(batches / (workers * most))
    return batch * math.ceil(batches / parts)


def check_file(path: Path) -> None:
    """Check what can be checked without a runtime.

    Raises:
        ModelError: the file is missing, larger than 2 GiB, or lacks the TFLite identifier.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    if size > MAX_BYTES:
        raise ModelError(f"{path} has {size >> 20} MiB", expected="at most 2 GiB, TFLite's limit")
    if head[4:8] != b"TFL3":
        raise ModelError(f"{path} is no TFLite model", expected="the identifier TFL3 at byte 4")


def probe(path: Path, *, cpu_s: float = isolated.CPU_S) -> None:
    """Load a file from elsewhere and run it on a few images, in a child process.

    Args:
        path: the file.
        cpu_s: seconds of processor time it may take; more for large files.

    Raises:
        ModelError: it is no TFLite file, no image classifier, ends the child, or takes too long.
        ConfigError: no runtime is installed.
    """
    check_file(path)
    find_runtime()
    words = ["--probe", str(path.resolve()), str(cpu_s)]
    isolated.check_in_child(
        _MODULE, words, path, timeout_s=PROBE_TIMEOUT_S + cpu_s - isolated.CPU_S
    )


def _probe_here(path: Path) -> None:
    model = Classifier(path)
    shape = (model.batch, model.input_size, model.input_size, 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    # Values reach further into the kernels than zeros alone.
    for images in (np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8), noise):
        if not np.isfinite(model.predict(images)).all():
            raise ModelError(f"{path} gives answers that are not finite")


def _check_classifier(
    path: Path, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]
) -> None:
    shapes = [tuple(int(n) for n in detail["shape"]) for detail in (*inputs, *outputs)]
    found = f"{path} has {len(inputs)} inputs and {len(outputs)} outputs of shapes {shapes}"
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(found, expected="one image in, one row of class scores out")
    image, scores = shapes
    open_sides = inputs[0].get("shape_signature", inputs[0]["shape"])[1:]
    if any(side < 0 for side in open_sides):
        raise ModelError(
            f"{path} takes images of any size", expected="one fixed size: export it with one"
        )
    if len(image) != 4 or image[0] < 1 or image[1] != image[2] or image[1] < 1 or image[3] != 3:
        raise ModelError(found, expected="an input of shape (N, S, S, 3)")
    if len(scores) != 2 or scores[0] != image[0] or scores[1] < 2:
        raise ModelError(found, expected="an output of shape (N, C)")
    for detail in (inputs[0], outputs[0]):
        if np.dtype(detail["dtype"]).name not in ("float32", "uint8", "int8"):
            raise ModelError(
                f"{path} works on {np.dtype(detail['dtype'])}", expected="float or 8-bit"
            )


def _takes_shifted_bytes(detail: dict[str, Any]) -> bool:
    """Return whether an input is int8 of a scale that 255 is beyond, so pixels were scaled before.

    Whatever range they were scaled to, its 256 steps are then those of a byte, less 128: the
    same convention by which a uint8 input gets bytes as they are. The runner has it, too.
    """
    return np.dtype(detail["dtype"]) == np.int8 and 255 * float(detail["quantization"][0]) < 128


def _encode(images: NDArray[np.uint8], detail: dict[str, Any]) -> NDArray[Any]:
    """Return pixel values as the input tensor takes them."""
    dtype = np.dtype(detail["dtype"])
    if dtype != np.int8:
        return images.astype(dtype, copy=False)
    if _takes_shifted_bytes(detail):
        return (images.astype(np.int16) - 128).astype(np.int8)
    scale, zero_point = detail["quantization"]
    steps = np.rint(images.astype(np.float32) / np.float32(scale)) + zero_point
    clipped: NDArray[np.int8] = np.clip(steps, -128, 127).astype(np.int8)
    return clipped


def _decode(raw: NDArray[Any], detail: dict[str, Any]) -> NDArray[np.float32]:
    """Return the output as real numbers: scale * (q - zero point) where it is quantized."""
    scale, zero_point = detail["quantization"]
    values = raw.astype(np.float32)
    if raw.dtype == np.float32 or scale == 0:
        return values
    real: NDArray[np.float32] = (values - np.float32(zero_point)) * np.float32(scale)
    return real


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] != "--probe":
        sys.exit("usage: python -m bloodedge.deploy.interpreter --probe FILE SECONDS")
    _file = Path(sys.argv[2])
    _memory, _seconds = PROBE_MEMORY_BYTES, float(sys.argv[3])
    # To import the runtime is not the file's work.
    find_runtime()
    sys.exit(isolated.check_here(lambda: _probe_here(_file), _file, memory=_memory, cpu_s=_seconds))
