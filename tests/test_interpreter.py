"""The interpreter's contract, and files that would end it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bloodedge.benchmarks import runner
from bloodedge.deploy import interpreter
from bloodedge.deploy.interpreter import Classifier, predict_parallel, probe
from bloodedge.deploy.labels import append_labels
from bloodedge.deploy.runtimes import installed_runtimes
from bloodedge.errors import DataError, ModelError
from bloodedge.quiet import quiet

SIDE, CLASSES = 16, 3
Tf = Any


def images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.uint8)


def to_tflite(
    build: Callable[[Tf, Any], Any], shape: tuple[int, ...], *, io: str = "", top: float = 255
) -> bytes:
    """Convert a function of one float input; `io` quantizes it fully, inputs and outputs too.

    Its input is in 0..`top`, for that quantization.
    """
    import tensorflow as tf

    function = tf.function(lambda x: build(tf, x)).get_concrete_function(
        tf.TensorSpec(shape, tf.float32)
    )
    with quiet():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
        if io:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            ends = [[np.full(shape, value, np.float32)] for value in (0, top)]
            converter.representative_dataset = lambda: iter(ends)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.as_dtype(io)
        return bytes(converter.convert())


def means(tf: Tf, x: Any) -> Any:
    """The softmax of the channels' means: the most probable class is the brightest channel."""
    return tf.nn.softmax(tf.reduce_mean(x, axis=(1, 2)) / 32.0)


def expected(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    z = np.exp(pixels.mean(axis=(1, 2)) / 32.0)
    result: NDArray[np.float64] = z / z.sum(axis=1, keepdims=True)
    return result


@pytest.fixture(scope="module")
def content() -> bytes:
    return to_tflite(means, (1, SIDE, SIDE, 3))


@pytest.fixture
def path(content: bytes, tmp_path: Path) -> Path:
    return written(tmp_path, content)


def written(folder: Path, content: bytes) -> Path:
    path = folder / "model.tflite"
    path.write_bytes(content)
    return path


@pytest.mark.slow
def test_a_file_whose_name_is_no_utf_8_is_loaded(path: Path, tmp_path: Path) -> None:
    """As old disks and zips have them; each runtime takes the name's bytes."""
    named = Path(os.fsdecode(os.fsencode(tmp_path) + b"/m\xfc.tflite"))
    named.write_bytes(path.read_bytes())
    for runtime in installed_runtimes():
        assert Classifier(named, runtime).input_size == Classifier(path).input_size
    probe(named)


@pytest.mark.slow
def test_probabilities_are_those_of_the_formula(path: Path) -> None:
    model = Classifier(path)
    assert (model.input_size, model.classes, model.batch) == (SIDE, CLASSES, 1)
    assert model.runtime.version[0].isdigit()
    p = model.predict(images(5))
    assert p.dtype == np.float32
    np.testing.assert_allclose(p, expected(images(5)), atol=1e-5)
    assert model.predict(images(0)).shape == (0, CLASSES)


@pytest.mark.slow
@pytest.mark.parametrize("io", ["uint8", "int8"])
def test_quantized_inputs_and_outputs(tmp_path: Path, io: str) -> None:
    model = Classifier(written(tmp_path, to_tflite(means, (1, SIDE, SIDE, 3), io=io)))
    assert model.input_dtype == model.output_dtype == np.dtype(io)
    # Half a step of the output (1/512) and of the means behind it.
    np.testing.assert_allclose(model.predict(images(20)), expected(images(20)), atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("io", ["uint8", "int8"])
def test_inputs_made_for_scaled_pixels_get_the_bytes(tmp_path: Path, io: str) -> None:
    content = to_tflite(lambda tf, x: means(tf, 255 * x), (1, SIDE, SIDE, 3), io=io, top=1)
    model = Classifier(written(tmp_path, content))
    assert model.takes_shifted_bytes == (io == "int8")
    np.testing.assert_allclose(model.predict(images(20)), expected(images(20)), atol=0.02)


@pytest.mark.parametrize(
    ("scale", "zero_point"), [(1.0, -128), (0.51, 0), (1 / 255, -128), (1 / 127.5, 0), (0.0, 0)]
)
def test_int8_inputs_get_what_the_runner_gives_them(scale: float, zero_point: int) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    detail = {"dtype": np.int8, "quantization": (scale, zero_point)}
    ours, theirs = interpreter._encode(pixels, detail), runner.encode(pixels, detail)
    assert ours.dtype == theirs.dtype == np.int8
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4, 5])
def test_a_static_batch_is_filled_up(tmp_path: Path, count: int) -> None:
    model = Classifier(written(tmp_path, to_tflite(means, (4, SIDE, SIDE, 3))))
    assert model.batch == 4
    np.testing.assert_allclose(model.predict(images(count)), expected(images(count)), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "workers"), [(0, 2), (1, 4), (50, 3), (50, None)])
def test_parallel_equals_serial_in_order(path: Path, count: int, workers: int | None) -> None:
    serial = Classifier(path).predict(images(count))
    np.testing.assert_array_equal(predict_parallel(path, images(count), workers), serial)


@pytest.mark.parametrize(
    ("given", "size"),
    [
        # What is done at once is shared all the same.
        ((100, 1, 4, 1e-6), 25),
        ((101, 4, 4, 1e-6), 28),
        # Of 10 s a worker, 40 parts; where one inference takes longer, one each.
        ((400, 1, 2, 0.05), 5),
        ((7, 2, 2, 3.0), 2),
        ((1, 1, 2, 0.0001), 1),
    ],
)
def test_every_worker_gets_as_many_parts(given: tuple[int, int, int, float], size: int) -> None:
    assert interpreter._part_size(*given) == size


def test_ctrl_c_waits_for_no_more_than_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []

    class Slow:
        batch = 1

        def __init__(self, path: Path) -> None:
            self.path = path

        def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            done.append(len(images))
            if len(done) == 2:
                raise KeyboardInterrupt
            time.sleep(0.02 * len(images))
            return np.zeros((len(images), CLASSES), np.float32)

    monkeypatch.setattr(interpreter, "Classifier", Slow)
    with pytest.raises(KeyboardInterrupt):
        predict_parallel(tmp_path, images(400), 2)
    # In parts as large as there are cores, one alone would be of 200.
    assert sum(done) < 100


@pytest.mark.slow
def test_appended_labels_change_no_output(path: Path, content: bytes, tmp_path: Path) -> None:
    before = Classifier(path).predict(images(8))
    labelled = written(tmp_path, append_labels(content, ("a", "b", "c")))
    probe(labelled)
    np.testing.assert_array_equal(Classifier(labelled).predict(images(8)), before)


@pytest.mark.slow
def test_images_of_another_shape_or_type_are_refused(path: Path) -> None:
    model = Classifier(path)
    for bad in (images(2)[:, :8], images(2).astype(np.float32), images(2)[0]):
        with pytest.raises(DataError, match="expected uint8"):
            model.predict(bad)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda tf, x: x + 1.0, (1, SIDE, SIDE, 3)),
        (lambda tf, x: tf.reduce_mean(x, axis=(1, 2)), (1, SIDE, SIDE, 1)),
        (lambda tf, x: tf.reduce_mean(x, axis=(1, 2)), (1, SIDE, SIDE + 1, 3)),
        (lambda tf, x: tf.reduce_mean(x, axis=1), (1, SIDE, 3)),
        (lambda tf, x: (x[:, 0, 0], x[:, 0, 1]), (1, SIDE, SIDE, 3)),
    ],
    ids=["image out", "grey", "not square", "no image", "two outputs"],
)
def test_what_is_no_image_classifier_is_refused(
    tmp_path: Path, build: Callable[[Tf, Any], Any], shape: tuple[int, ...]
) -> None:
    with pytest.raises(ModelError, match=r"expected (an input|an output|one image)"):
        Classifier(written(tmp_path, to_tflite(build, shape)))


@pytest.mark.slow
def test_two_inputs_and_open_shapes_are_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    spec = tf.TensorSpec((1, SIDE, SIDE, 3), tf.float32)
    both = tf.function(lambda x, y: means(tf, x + y)).get_concrete_function(spec, spec)
    with quiet():
        content = tf.lite.TFLiteConverter.from_concrete_functions([both]).convert()
    with pytest.raises(ModelError, match=r"has 2 inputs.*expected one image in") as caught:
        Classifier(written(tmp_path, content))
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=r"takes images of any size; expected one fixed size"):
        Classifier(written(tmp_path, to_tflite(means, (1, None, None, 3))))  # type: ignore[arg-type]
    # An open batch is none: it is 1 until someone resizes it.
    assert Classifier(written(tmp_path, to_tflite(means, (None, SIDE, SIDE, 3)))).batch == 1  # type: ignore[arg-type]


def test_files_that_are_no_tflite_are_refused_without_a_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subprocess.run", None)
    for content in (b"", b"TFL3", b"PK\3\4" * 100, bytes(1000)):
        with pytest.raises(ModelError, match="identifier TFL3"):
            probe(written(tmp_path, content))
    with pytest.raises(ModelError, match="cannot be read"):
        probe(tmp_path / "missing.tflite")
    with pytest.raises(ModelError, match="cannot be read"):
        probe(tmp_path)


def test_files_beyond_the_format_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, b"\x1c\0\0\0TFL3")
    os.truncate(path, interpreter.MAX_BYTES + 1)  # a hole: nothing is written
    with pytest.raises(ModelError, match="2 GiB"):
        probe(path)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "random", "shuffled"])
def test_damaged_files_give_one_clear_error(content: bytes, tmp_path: Path, damage: str) -> None:
    rng = np.random.default_rng(5)
    body = {
        "truncated": content[8 : len(content) // 2],
        "random": rng.bytes(len(content)),
        "shuffled": rng.permutation(np.frombuffer(content[8:], np.uint8)).tobytes(),
    }[damage]
    path = written(tmp_path, content[:8] + body)
    with pytest.raises(ModelError) as caught:
        probe(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("import os; os.abort()", "SIGABRT"),
        ("raise SystemExit(7)", "exit code 7"),
        ("import time; time.sleep(60)", "within 3 s"),
    ],
)
def test_a_child_that_crashes_or_hangs_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    (tmp_path / "crashing.py").write_text(script)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(interpreter, "_MODULE", "crashing")
    monkeypatch.setattr(interpreter, "PROBE_TIMEOUT_S", 3.0 if "sleep" in script else 120.0)
    with pytest.raises(ModelError, match=message):
        probe(written(tmp_path, b"\x1c\0\0\0TFL3" + bytes(64)))


def test_quiet_hides_what_native_code_prints(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        os.write(1, b"native\n")
        os.write(2, b"native\n")
        print("python")
    print("after", flush=True)
    assert capfd.readouterr() == ("after\n", "")
