"""Work counted from files, limits computed from peaks, and the report's part about them."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.benchmarks.machine import Noise, Peaks, read_noise, read_peaks, read_work
from bloodedge.benchmarks.model_work import Work, count_work, known_work, model_work
from bloodedge.benchmarks.report.data import Latency, Row, Section
from bloodedge.benchmarks.report.roofline import bounds, roofline_part
from bloodedge.benchmarks.report.roofline_figure import Roof
from bloodedge.benchmarks.result import BenchmarkRow
from bloodedge.deploy.convert import convert
from bloodedge.deploy.lint.facts import Operator, Tensor, read_facts
from bloodedge.train.cost import count_macs
from bloodedge.train.registry import ModelConfig, build

SIDE = 8


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """One net in four variants: a convolution, a depthwise one and a dense layer."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    image = keras.Input(batch_shape=(1, SIDE, SIDE, 3))
    x = keras.layers.Conv2D(6, 3, padding="same", activation="relu")(image)
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)
    x = keras.layers.Flatten()(x)
    model = keras.Model(image, keras.layers.Dense(20)(x))
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 1, (8, 1, SIDE, SIDE, 3)).astype(np.float32)
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in ("float32", "float16", "dynamic", "int8"):
            converter = tf.lite.TFLiteConverter.from_keras_model(model)
            converter.optimizations = [] if kind == "float32" else [tf.lite.Optimize.DEFAULT]
            if kind == "float16":
                converter.target_spec.supported_types = [tf.float16]
            if kind == "int8":
                converter.representative_dataset = lambda: ([image] for image in images)
                converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
                converter.inference_input_type = converter.inference_output_type = tf.uint8
            found[kind] = bytes(converter.convert())
    return found


CONV = SIDE * SIDE * 6 * 3 * 3 * 3
DEPTHWISE = SIDE * SIDE * 6 * 3 * 3
DENSE = SIDE * SIDE * 6 * 20


@pytest.mark.parametrize("kind", ["float32", "float16", "dynamic", "int8"])
def test_macs_are_those_of_the_layers_in_every_variant(kind: str, files: dict[str, bytes]) -> None:
    work = model_work(kind, files[kind])
    assert work.macs == CONV + DEPTHWISE + DENSE
    assert (work.macs_int8 == 0) == (kind in ("float32", "float16"))
    if kind == "int8":
        assert work.macs_float == 0


@pytest.mark.parametrize("kind", ["float32", "dynamic", "int8"])
def test_macs_of_a_transformer_are_those_that_keras_counts(kind: str) -> None:
    """Attention's products have no weights; they are int8 where the activations are."""
    keras = use_backend()
    layers = keras.layers
    image = layers.Input((SIDE, SIDE, 3))
    x = layers.Dense(40)(layers.Reshape((SIDE * SIDE, 3))(layers.Rescaling(1 / 255)(image)))
    x = layers.MultiHeadAttention(2, 24)(x, x)
    model = keras.Model(image, layers.Dense(8)(layers.GlobalAveragePooling1D()(x)))
    images = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    facts = read_facts(kind, convert(model, kind, images))
    work = count_work(facts)
    assert work.macs == count_macs(model)
    products = sum(o.macs for o in facts.operators if o.kind == "BATCH_MATMUL")
    assert products == 2 * (SIDE * SIDE) ** 2 * 2 * 24
    # Of the dense layers, the dynamic range variant leaves those with few weights in float32.
    least = {"float32": work.macs, "dynamic": products, "int8": 0}
    assert least[kind] <= work.macs_float <= (0 if kind == "int8" else work.macs)
    assert (work.macs_int8 > 0) == (kind != "float32")


@pytest.mark.slow
def test_macs_of_our_transformer_are_those_that_keras_counts() -> None:
    use_backend()
    model = build(ModelConfig("vit_tiny", 8, 64, 0.125))
    images = np.zeros((1, 64, 64, 3), np.uint8)
    assert model_work("vit", convert(model, "float32", images)).macs == count_macs(model)


@pytest.mark.parametrize(
    ("first", "second", "product", "macs"),
    [
        ((2, 5, 7), (2, 7, 3), (2, 5, 3), 2 * 5 * 7 * 3),
        # The first is stored transposed, then the second; then one is shared by the whole batch.
        ((2, 7, 5), (2, 7, 3), (2, 5, 3), 2 * 5 * 7 * 3),
        ((2, 5, 7), (2, 3, 7), (2, 5, 3), 2 * 5 * 7 * 3),
        ((5, 7), (4, 2, 7, 3), (4, 2, 5, 3), 4 * 2 * 5 * 7 * 3),
        # What only damaged files have.
        ((7,), (7, 3), (3,), 0),
        ((2, 5, 7), (2, 7, 3), (2, 0, 3), 0),
    ],
)
def test_macs_of_a_product_are_its_values_times_the_side_summed_over(
    first: tuple[int, ...], second: tuple[int, ...], product: tuple[int, ...], macs: int
) -> None:
    inputs = tuple(Tensor("FLOAT32", shape, False, False) for shape in (first, second))
    operator = Operator("BATCH_MATMUL", 126, 1, inputs, (Tensor("FLOAT32", product, False, False),))
    assert operator.macs == macs
    assert replace(operator, inputs=inputs[:1]).macs == replace(operator, outputs=()).macs == 0


def test_bytes_are_what_operators_read_and_write(files: dict[str, bytes]) -> None:
    work = model_work("float32", files["float32"])
    image, middle = SIDE * SIDE * 3, SIDE * SIDE * 6
    # The converter leaves out the dense layer's bias, which is zero.
    weights = 6 * 27 + 6 + 9 * 6 + 6 + middle * 20
    # Image in, first layer out and in, second out and in, 20 numbers out.
    assert work.traffic_bytes == 4 * (weights + image + 4 * middle + 20)
    assert work.resident_bytes == 4 * (weights + 2 * middle)


def test_float16_weights_are_made_float32_once_and_then_read_as_such(
    files: dict[str, bytes],
) -> None:
    full, half = (model_work(kind, files[kind]) for kind in ("float32", "float16"))
    assert half.traffic_bytes == full.traffic_bytes


def test_int8_moves_about_a_quarter(files: dict[str, bytes]) -> None:
    full, small = (model_work(kind, files[kind]) for kind in ("float32", "int8"))
    assert 0.25 < small.traffic_bytes / full.traffic_bytes < 0.4


def test_a_damaged_model_is_left_out_of_what_is_known(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    for name, content in (("a", files["int8"]), ("b", files["int8"][:100])):
        (tmp_path / name).write_bytes(content)
    known = known_work({name: tmp_path / name for name in "ab"})
    assert set(known) == {"a"}
    assert Work(**known["a"]["work"]) == model_work("a", files["int8"])


# ---- reading ----

PEAKS: dict[str, Any] = {
    "threads": 1,
    "int8_gmacs": 40.0,
    "float32_gmacs": 10.0,
    "numpy_float32_gmacs": 12.0,
    "copy": [{"resident_bytes": 1 << 20, "gb_s": 20.0}, {"resident_bytes": 1 << 26, "gb_s": 4.0}],
}


def test_peaks_are_read_and_the_better_float_counts() -> None:
    (peaks,) = read_peaks([PEAKS])
    assert (peaks.threads, peaks.int8_gmacs, peaks.float_gmacs) == (1, 40.0, 12.0)
    assert [peaks.bandwidth(size) for size in (1, 1 << 20, (1 << 20) + 1, 1 << 40)] == [
        20,
        20,
        4,
        4,
    ]
    assert read_peaks(None) == ()
    assert read_peaks([{**PEAKS, "int8_gmacs": None}])[0].int8_gmacs is None


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        [3],
        [PEAKS, PEAKS],
        [PEAKS] * 200,
        [{**PEAKS, "threads": 0}],
        [{**PEAKS, "int8_gmacs": "fast"}],
        [{**PEAKS, "int8_gmacs": -1}],
        [{**PEAKS, "int8_gmacs": 1e12}],
        [{**PEAKS, "copy": []}],
        [{**PEAKS, "copy": None}],
        [{**PEAKS, "copy": [{"resident_bytes": 1, "gb_s": 0}]}],
        [{**PEAKS, "copy": [{"resident_bytes": 0, "gb_s": 1}]}],
    ],
)
def test_damaged_peaks_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="`"):
        read_peaks(wrong)


def test_the_verdict_on_noise_is_read() -> None:
    assert read_noise(None) is None
    assert read_noise({"verdict": "noisy", "reasons": ["a", "b"]}) == Noise("noisy", ("a", "b"))


@pytest.mark.parametrize(
    "wrong",
    [
        3,
        {},
        {"verdict": "fine", "reasons": []},
        {"verdict": ["quiet"], "reasons": []},
        {"verdict": "noisy"},
        {"verdict": "noisy", "reasons": "many"},
        {"verdict": "noisy", "reasons": ["\x1b[2J"]},
        {"verdict": "noisy", "reasons": ["a"] * 1000},
    ],
)
def test_a_damaged_verdict_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="`"):
        read_noise(wrong)


WORK = {"macs_int8": 1, "macs_float": 2, "traffic_bytes": 3, "resident_bytes": 4}


@pytest.mark.parametrize(
    "wrong", [3, [], {}, {**WORK, "macs_int8": -1}, {**WORK, "macs_float": 10**30}]
)
def test_damaged_work_is_refused(wrong: object) -> None:
    assert read_work(WORK) == Work(1, 2, 3, 4)
    assert read_work(None) is None
    with pytest.raises(ValueError, match="`"):
        read_work(wrong)


# ---- limits ----


def section(*rows: Row) -> Section:
    return Section("f" * 64, "cells", False, ("a", "b"), rows, (), ())


def timed(work: Work | None, median_us: float, peaks: object = None, threads: int = 1) -> Row:
    """A row that was timed once, on a machine with those peaks."""
    one = BenchmarkRow(
        "m", 10, 9, threads, median_us, median_us, median_us, median_us, 1.0, 1.0, 100, None, 0,
        0.0, False, None, work=work,
    )  # fmt: skip
    known = read_peaks([PEAKS] if peaks is None else peaks)
    single, many = (one, None) if threads == 1 else (None, one)
    place = Latency("a Pi", "litert 2", single, many, peaks=known)
    return Row("m", "int8", "m", "m.tflite", "0" * 64, 10, 9, latency=place)


def test_a_model_of_much_arithmetic_is_bound_by_compute() -> None:
    # 40e6 MACs at 40e9 a second are 1000 us; 1e6 bytes at 20e9 a second are 50.
    (bound,) = bounds(section(timed(Work(40_000_000, 0, 1_000_000, 1000), 2000.0)))
    assert (bound.bound_by, bound.limit_us) == ("compute", pytest.approx(1000))
    assert bound.share == pytest.approx(0.5)


def test_a_model_of_many_bytes_is_bound_by_memory_of_its_size() -> None:
    work = Work(1000, 0, 8_000_000, 1 << 25)
    (bound,) = bounds(section(timed(work, 4000.0)))
    # Too large for the cache: 8e6 bytes at 4e9 a second.
    assert (bound.bound_by, bound.limit_us) == ("memory", pytest.approx(2000))


def test_mixed_arithmetic_takes_each_kind_at_its_own_peak() -> None:
    (bound,) = bounds(section(timed(Work(40_000_000, 12_000_000, 1, 1), 4000.0)))
    assert bound.compute_us == pytest.approx(2000)


@pytest.mark.parametrize(
    "row",
    [
        timed(None, 10.0),
        timed(Work(0, 0, 5, 5), 10.0),
        timed(Work(1, 0, 5, 5), 10.0, peaks=[]),
        timed(Work(1, 0, 5, 5), 10.0, threads=4),
        timed(Work(1, 0, 5, 5), 10.0, peaks=[{**PEAKS, "int8_gmacs": None}]),
    ],
)
def test_without_work_or_a_fitting_peak_nothing_is_claimed(row: Row) -> None:
    assert roofline_part(section(row)) is None


def test_the_part_tells_the_limit_and_draws_every_place() -> None:
    rows = [timed(Work(40_000_000, 0, 1_000_000, 1000), 2000.0)]
    part = roofline_part(section(*rows))
    assert part is not None
    head, line = part.table
    assert dict(zip(head, line, strict=True)) == {
        "model": "m int8",
        "threads": "1",
        "MMAC": "40.00",
        "KB moved": "1,000.0",
        "MAC/byte": "40.0",
        "bound by": "compute",
        "limit µs": "1,000.0",
        "median µs": "2,000",
        "of it %": "50.0",
    }
    assert part.heading == "How far from the physical limit: a Pi, litert 2"
    assert len(part.raw[0]) == len(part.raw[1])
    (figure,) = part.figures
    assert "int8: 40 GMAC/s" in figure.svg
    assert "float32: 12 GMAC/s" in figure.svg
    assert "m int8: 20 GMAC/s at 40 MACs per byte" in figure.svg
    assert not any("100 %" in note for note in part.notes)


def test_a_share_above_the_limit_is_explained_and_not_hidden() -> None:
    part = roofline_part(section(timed(Work(40_000_000, 0, 1_000_000, 1000), 500.0)))
    assert part is not None
    assert part.table[1][-1] == "200.0"
    assert any("A share above 100 %" in note for note in part.notes)


def test_a_roof_rises_with_the_bytes_and_is_flat_from_its_ridge_on() -> None:
    roof = Roof("int8", 40.0, 20.0)
    assert roof.ridge == 2
    assert [roof.at(x) for x in (0.5, 1, 2, 100)] == [10, 20, 40, 40]


def test_peaks_of_a_machine_are_one_value_object() -> None:
    assert Peaks(1, None, 2.0, ((8, 3.0),)).bandwidth(100) == 3.0
