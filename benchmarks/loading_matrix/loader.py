"""Does a runtime load a model, and what does it answer? One line of JSON for each file.

    python loader.py RUNTIME IMAGES.npy MODEL.tflite...

Runs with any of the runtimes below under Python 3.8 or newer and needs NumPy and nothing else. A
file that ends the process leaves its `start` as the last line: see `loading_matrix.py`.
"""

import json
import sys
from typing import Any

import numpy as np


def main() -> None:
    """Load every file and answer every image."""
    runtime, images, files = sys.argv[1], np.load(sys.argv[2], allow_pickle=False), sys.argv[3:]
    answer = answer_micro if runtime == "tflite-micro" else answer_interpreter
    for path in files:
        say({"start": path})
        try:
            say({"file": path, "answers": answer(runtime, path, images).tolist()})
        # A runtime refuses a file with whatever it has at hand.
        except Exception as error:
            say({"file": path, "error": str(error) or type(error).__name__})


def say(entry: Any) -> None:
    """Print a line of JSON at once."""
    print(json.dumps(entry), flush=True)


def answer_interpreter(runtime: str, path: str, images: Any) -> Any:
    """Return probabilities `(N, C)` for uint8 images `(N, S, S, 3)`."""
    interpreter = interpreter_class(runtime)(path, num_threads=1)
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    rows = []
    for image in images:
        interpreter.set_tensor(
            taken["index"], encoded(image, taken["dtype"], taken["quantization"])
        )
        interpreter.invoke()
        rows.append(decoded(interpreter.get_tensor(given["index"])[0], given["quantization"]))
    return np.stack(rows)


def interpreter_class(runtime: str) -> Any:
    """Return the `Interpreter` of a runtime."""
    if runtime == "tf.lite":
        import tensorflow as tf

        return tf.lite.Interpreter
    if runtime == "ai-edge-litert":
        from ai_edge_litert.interpreter import Interpreter
    else:
        from tflite_runtime.interpreter import Interpreter
    return Interpreter


def answer_micro(runtime: str, path: str, images: Any) -> Any:
    """Return what TFLite Micro answers, as `answer_interpreter`."""
    from tflite_micro import runtime as micro

    with open(path, "rb") as file:  # noqa: PTH123
        interpreter = micro.Interpreter.from_bytes(file.read(), arena_size=16 << 20)
    taken, given = interpreter.get_input_details(0), interpreter.get_output_details(0)
    rows = []
    for image in images:
        interpreter.set_input(encoded(image, taken["dtype"], micro_quantization(taken)), 0)
        interpreter.invoke()
        rows.append(decoded(interpreter.get_output(0)[0], micro_quantization(given)))
    return np.stack(rows)


def micro_quantization(detail: Any) -> Any:
    """Return scale and zero point as the other runtimes give them."""
    found = detail["quantization_parameters"]
    if len(found["scales"]) == 0:
        return 0.0, 0
    return float(found["scales"][0]), int(found["zero_points"][0])


def encoded(image: Any, dtype: Any, quantization: Any) -> Any:
    """Return one image as the input takes it."""
    batch = image[None]
    if np.dtype(dtype) != np.int8:
        return batch.astype(dtype)
    scale, zero = quantization
    return np.clip(np.rint(batch / np.float32(scale)) + zero, -128, 127).astype(np.int8)


def decoded(row: Any, quantization: Any) -> Any:
    """Return one output as real numbers."""
    scale, zero = quantization
    return (row.astype(np.float64) - zero) * scale if scale else row.astype(np.float64)


if __name__ == "__main__":
    main()
