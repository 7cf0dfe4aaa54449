"""Every rule of `bloodedge lint` is shown to be true: the case is built and the runtime asked."""

from __future__ import annotations

import gzip
import json
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bloodedge import isolated
from bloodedge.backend import use_backend
from bloodedge.benchmarks.loading_matrix.matrix import ask_python, old_environment
from bloodedge.cli.app import app
from bloodedge.compress.channels.stage import PruneConfig, prune_channels
from bloodedge.compress.fold import fold
from bloodedge.compress.quantize import QatConfig, quantize
from bloodedge.compress.simulate import Simulation
from bloodedge.data.dataset import Dataset
from bloodedge.deploy.convert import convert, export_twin
from bloodedge.deploy.converter_errors import unknown_operation
from bloodedge.deploy.flat.reader import read_model
from bloodedge.deploy.flat.tree import Vector
from bloodedge.deploy.flat.writer import write_tables
from bloodedge.deploy.interpreter import Classifier, find_runtime, probe
from bloodedge.deploy.lint import partitions
from bloodedge.deploy.lint.check import file_case, lint, model_cases, recipe_case, useless
from bloodedge.deploy.lint.facts import FileFacts, Operator, Tensor, read_facts
from bloodedge.deploy.lint.registry import RULES, registered
from bloodedge.deploy.lint.rule import RUNTIMES, Case, Severity
from bloodedge.errors import ConfigError, ModelError
from bloodedge.quiet import quiet
from bloodedge.references import find_model
from bloodedge.train.config import FitConfig
from bloodedge.train.modelio import save_model
from bloodedge.train.recipes import qat_tuning
from bloodedge.train.registry import ModelConfig, build
from bloodedge.train.restore import restore
from bloodedge.variants import Recipe

SIDE = 32


@pytest.fixture(autouse=True)
def backend():
    use_backend().utils.set_random_seed(0)


def noise(count: int = 4) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.uint8)


def net(middle: Callable[[Any], Any] | None = None, channels: int = 16, classes: int = 4) -> Any:
    """Two convolutions, with something between them."""
    import keras

    layers = keras.layers
    image = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(image)
    x = middle(x) if middle else x
    x = layers.Conv2D(channels, 3, padding="same", activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(classes)(x))


def activation(name: str) -> Callable[[Any], Any]:
    def middle(x: Any) -> Any:
        import keras

        return keras.layers.Activation(name)(x)

    return middle


def case(tmp_path: Path, content: bytes, runtime: str = "litert", form: str = "") -> Any:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    return file_case(path, runtime, form)


def found_by(*cases: Any) -> dict[str, str]:
    """Return what each rule says."""
    return {finding.rule.name: finding.says for finding in lint(cases)}


def interpreter(content: bytes) -> Any:
    with quiet():
        made = find_runtime().interpreter(model_content=content, num_threads=1)
        made.allocate_tensors()
    return made


def fastest(*contents: bytes) -> list[float]:
    """Return the shortest inference of each file, taken in turns so that noise meets them all."""
    made = [interpreter(content) for content in contents]
    best = [float("inf")] * len(made)
    for _ in range(40):
        for place, one in enumerate(made):
            started = time.perf_counter()
            one.invoke()
            best[place] = min(best[place], time.perf_counter() - started)
    return best


def test_what_is_good_is_left_in_peace(tmp_path: Path):
    cases = model_cases(net(), ("float32", "int8"), SIDE, "litert", "net")
    assert found_by(*cases, recipe_case(Recipe.parse("kd+slim+qat+int8"), "litert")) == {}
    assert [c.name for c in cases] == ["net-float32.tflite", "net-int8.tflite"]


def test_a_model_named_by_its_path_is_converted_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "net.keras"
    (case,) = model_cases(net(), ("float32",), SIDE, "litert", str(path))
    assert case.name == "net.keras-float32.tflite"
    assert list(tmp_path.iterdir()) == []

    def fail(*_: object) -> bytes:
        raise ModelError("no file can be made of it")

    monkeypatch.setattr("bloodedge.deploy.lint.check.convert", fail)
    (case,) = model_cases(net(), ("int8",), SIDE, "litert", str(path))
    assert (case.name, case.format) == ("net.keras-int8", "int8")


def test_operators_and_their_macs_are_those_of_the_model():
    facts = read_facts("net", convert(net(), "float32", noise()))
    first, second = (o for o in facts.operators if o.kind == "CONV_2D")
    assert (first.channels, first.macs) == (32, SIDE * SIDE * 32 * 27)
    assert (second.channels, second.macs) == (16, SIDE * SIDE * 16 * 9 * 32)
    (dense,) = (o for o in facts.operators if o.kind == "FULLY_CONNECTED")
    assert dense.macs == 64
    assert [t.type for t in (*facts.inputs, *facts.outputs)] == ["FLOAT32", "FLOAT32"]


@pytest.mark.parametrize("form", ["float16", "dynamic", "int8"])
def test_operators_have_as_many_macs_in_every_variant(form: str):
    full, other = (
        read_facts("net", convert(net(channels=9), kind, noise())) for kind in ("float32", form)
    )
    assert [o.macs for o in other.operators if o.weights] == [
        o.macs for o in full.operators if o.weights
    ]


def test_a_transposed_convolution_meets_its_kernel_once_for_each_value_that_it_takes():
    import keras

    upward = keras.layers.Conv2DTranspose(16, 3, strides=2, padding="same")
    facts = read_facts("net", convert(net(upward), "float32", noise()))
    (operator,) = (o for o in facts.operators if o.kind == "TRANSPOSE_CONV")
    assert operator.macs == SIDE * SIDE * 32 * 9 * 16


def test_int16x8_is_slower_than_float(tmp_path: Path):
    wide, plain = (convert(net(), form, noise()) for form in ("int16x8", "float32"))
    slow, fast = fastest(wide, plain)
    # About 30 times where it was measured in peace.
    assert slow > 5 * fast
    assert not any(d["op_name"] == "DELEGATE" for d in interpreter(wide)._get_ops_details())
    assert "int16x8" in found_by(case(tmp_path, wide))
    assert "int16x8" not in found_by(case(tmp_path, wide, "tflite-micro"))
    recipe = Recipe.parse("slim+int16x8")
    assert "int16x8" in found_by(recipe_case(recipe, "litert"))
    assert "int16x8" not in found_by(recipe_case(recipe, "tflite-micro"))


def sparse(form: str) -> bytes:
    """Convert a net with many zeros, and ask for sparse tensors."""
    import tensorflow as tf

    model = net()
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if weights := layer.get_weights():
            weights[0] = weights[0] * (rng.random(weights[0].shape) < 0.1)
            layer.set_weights(weights)
    converter = tf.lite.TFLiteConverter.from_keras_model(export_twin(model, SIDE))
    converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    if form != "float32":
        converter.optimizations.append(tf.lite.Optimize.DEFAULT)
    if form == "int8":
        converter.representative_dataset = lambda: ([i[None].astype("f4")] for i in noise())
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    with quiet(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *a, **k: None)
        return bytes(converter.convert())


@pytest.mark.parametrize("form", ["float32", "dynamic", "int8"])
def test_a_sparse_file_loads_only_in_float(form: str, tmp_path: Path):
    content = sparse(form)
    found = found_by(case(tmp_path, content))
    assert any(t.sparse for o in read_facts("", content).operators for t in o.inputs)
    if form == "float32":
        probe(tmp_path / "model.tflite")
        assert found == {}
        return
    with pytest.raises(ModelError, match="failed to prepare"):
        probe(tmp_path / "model.tflite")
    assert "int8 kernels are stored as sparse" in found["sparse-int8"]
    assert "failed to prepare" in found["does-not-load"]


def dynamic_ranges() -> tuple[bytes, bytes]:
    """Return a dynamic-range file as the converter makes it, and as ours is."""
    import tensorflow as tf

    # The converter leaves kernels of fewer than 1024 weights in float.
    model = net(classes=128)
    converter = tf.lite.TFLiteConverter.from_keras_model(export_twin(model, SIDE))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    with quiet():
        theirs = bytes(converter.convert())
    return theirs, convert(model, "dynamic", noise())


def test_a_dynamic_range_file_is_too_new_for_tflite_runtime(tmp_path: Path):
    theirs, ours = dynamic_ranges()
    versions = {o.kind: o.version for o in read_facts("", theirs).operators}
    assert versions["FULLY_CONNECTED"] == 12
    assert (
        "FULLY_CONNECTED has version 12"
        in found_by(case(tmp_path, theirs, "tflite-runtime"))["too-new"]
    )
    assert "too-new" not in found_by(case(tmp_path, theirs))
    assert "too-new" not in found_by(case(tmp_path, ours, "tflite-runtime"))


@pytest.mark.slow
def test_tflite_runtime_refuses_what_is_too_new_and_nothing_else(tmp_path: Path):
    try:
        python = old_environment(tmp_path / "old")
    except OSError as error:
        pytest.skip(str(error))
    paths = [tmp_path / "theirs.tflite", tmp_path / "ours.tflite"]
    for path, content in zip(paths, dynamic_ranges(), strict=True):
        path.write_bytes(content)
    answers, refused = ask_python(python, "tflite-runtime", paths, noise(), tmp_path)
    assert (list(refused), list(answers)) == (paths[:1], paths[1:])
    assert "FULLY_CONNECTED' version '12'" in refused[paths[0]]


def test_elu_falls_back_to_float(tmp_path: Path):
    content = convert(net(activation("elu")), "int8", noise())
    running = interpreter(content)
    types = {d["index"]: d["dtype"] for d in running.get_tensor_details()}
    (elu,) = (d for d in running._get_ops_details() if d["op_name"] == "ELU")
    assert types[elu["outputs"][0]] == np.float32
    assert found_by(case(tmp_path, content))["float-fallback"] == "ELU computes in float32"
    # Where float was asked for, it is no fall-back.
    assert "float-fallback" not in found_by(case(tmp_path, content, form="mixed"))
    plain = convert(net(activation("elu")), "float32", noise())
    assert "float-fallback" not in found_by(case(tmp_path, plain))


def test_hard_silu_splits_the_graph_in_int8(tmp_path: Path):
    def parts(content: bytes) -> int:
        details = interpreter(content)._get_ops_details()
        return sum(d["op_name"] == "DELEGATE" for d in details)

    model = net(activation("hard_silu"))
    content, plain = convert(model, "int8", noise()), convert(net(), "int8", noise())
    assert parts(content) == parts(plain) + 1
    found = found_by(case(tmp_path, content))
    assert found["unaccelerated"] == "HARD_SWISH runs outside XNNPACK"
    assert found_by(case(tmp_path, content, "tflite-micro")) == {}
    # In float XNNPACK has a kernel.
    assert found_by(case(tmp_path, convert(model, "float32", noise()))) == {}


def test_nine_channels_cost_as_much_as_sixteen(tmp_path: Path):
    nine, sixteen = (convert(net(channels=n), "float32", noise()) for n in (9, 16))
    narrow, full = fastest(nine, sixteen)
    # 9 / 16 of the work of the second convolution, which is 5 / 6 of all.
    assert narrow > 0.8 * full
    found = found_by(case(tmp_path, nine))
    assert "layers of 9, 4 channels" in found["vector-width"]
    macs = [(27, 32, 32), (288, 9, 16)]
    lost = sum(k * (up - c) for k, c, up in macs) / sum(k * up for k, _, up in macs)
    assert found["vector-width"].startswith(f"{100 * lost:.0f} %")
    assert "vector-width" not in found_by(case(tmp_path, sixteen))
    half = case(tmp_path, convert(net(channels=9), "float16", noise()))
    assert found_by(half)["vector-width"] == found["vector-width"]


def test_javascript_knows_no_int8_inputs(tmp_path: Path):
    content = convert(net(), "int8", noise(), io="int8")
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    assert Classifier(path).input_dtype == np.int8
    says = [f.says for f in lint([file_case(path, "litert-js")]) if f.rule.name == "js-types"]
    assert says == ["the model takes int8", "the model gives int8"]
    for io in ("uint8", "float32"):
        good = convert(net(), "int8", noise(), io=io)
        assert "js-types" not in found_by(case(tmp_path, good, "litert-js"))


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("dynamic", "int8 weights meet float activations, in CONV_2D for one"),
        ("float16", "weights are float16"),
        ("int8", ""),
    ],
)
def test_what_tflite_micro_refuses(form: str, message: str, tmp_path: Path):
    content = convert(net(), form, noise())
    assert found_by(case(tmp_path, content, "tflite-micro")).get("micro-refuses", "") == message
    micro = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    if message:
        with pytest.raises(RuntimeError, match="failed to allocate"):
            micro.Interpreter.from_bytes(content)
    else:
        micro.Interpreter.from_bytes(content)


def repeated(x: Any) -> Any:
    import keras

    return keras.layers.Lambda(lambda x: keras.ops.tile(x, (1, 1, 1, 2)))(x)


@pytest.mark.parametrize(("kind", "middle"), [("GELU", activation("gelu")), ("TILE", repeated)])
def test_tflite_micro_has_no_such_operator(kind: str, middle: Any, tmp_path: Path):
    content = convert(net(middle), "int8", noise())
    found = found_by(case(tmp_path, content, "tflite-micro"))
    assert found["micro-refuses"] == f"it has no {kind}"
    assert "micro-refuses" not in found_by(case(tmp_path, content))
    micro = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    with pytest.raises((RuntimeError, ValueError)):
        micro.Interpreter.from_bytes(content)


def test_a_model_that_does_not_convert_is_a_finding():
    import keras

    class Bend(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return keras.ops.erf(x)

    for middle, who in ((Bend(name="bend"), "the layer bend"), (keras.ops.erf, "the model")):
        cases = model_cases(net(middle), ("float32", "int8"), SIDE, "litert", "net")
        first, second = lint(cases)
        assert (first.where, second.where) == ("net-float32", "net-int8")
        assert {first.rule.name, second.rule.name} == {"does-not-load"}
        assert f"float32 failed: TFLite has no Erf, which {who} needs; expected" in first.says
        assert "TF Select would support it" in second.says


def test_of_layers_within_each_other_the_inner_one_is_named():
    model = SimpleNamespace(layers=[SimpleNamespace(name=name) for name in ("block", "gate")])
    place = 'fused["Erf:", "export_1/block_1/gate_1/Erf@__inference_function_138"]'
    message = f"{place}: error: 'tf.Erf' op is neither a custom op nor a flex op"
    assert unknown_operation(model, message) == ("Erf", "gate")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kd+slim+sparse+cluster+qat+int8", ""),
        ("sparse+slim+int8", "slim undoes what sparse did"),
        ("cluster+sparse", "sparse undoes what cluster did"),
        ("2of4+cluster+slim", "slim undoes what 2of4 did"),
        ("qat+sparse", "sparse undoes what qat did"),
        ("sparse+2of4", "2of4 undoes what sparse did"),
        ("qat+qat", "qat undoes"),
        ("slim+slim", ""),
    ],
)
def test_a_recipe_that_undoes_itself(text: str, message: str):
    found = lint([recipe_case(Recipe.parse(text), "litert")])
    undone = [finding.says for finding in found if finding.rule.name == "undone"]
    assert bool(undone) == bool(message)
    assert not message or any(says.startswith(message) for says in undone)


@pytest.mark.slow
def test_fine_tuning_after_a_pruning_fills_the_zeros(tmp_path: Path, colours: Dataset):
    model = build(ModelConfig("cnn_se", 3, 16, 0.5), size=16)
    kernel = model.get_layer("conv3").get_weights()[0]
    model.get_layer("conv3").set_weights([np.where(kernel > 0, kernel, 0)])
    save_model(model, tmp_path / "sparse.keras")
    path = str(tmp_path / "sparse.keras")
    fit = FitConfig(epochs=1, batch=16, learning_rate=1e-3)
    prune_channels(PruneConfig(path, "slim", fit, ratio=0.9, importance="l1"), colours)
    quantize(QatConfig(path, qat_tuning(epochs=1, batch=16), "qat", per_class=4), colours)
    share = {}
    for name in (path, "slim", "qat"):
        kernel = restore(find_model(name)).get_layer("conv3").get_weights()[0]
        share[name] = float((kernel == 0).mean())
    assert share[path] == pytest.approx(0.5, abs=0.02)
    assert share["slim"] < 0.01
    assert share["qat"] == share[path]


def test_zeros_shrink_the_download_alone():
    model, plain = net(), net()
    plain.set_weights(model.get_weights())
    for layer in model.layers:
        if weights := layer.get_weights():
            weights[0] = np.where(np.abs(weights[0]) > np.median(np.abs(weights[0])), weights[0], 0)
            layer.set_weights(weights)
    for form in ("float32", "int8"):
        zeros, full = (convert(m, form, noise()) for m in (model, plain))
        # A range that the zeros change may be written in a byte more or less.
        assert abs(len(zeros) - len(full)) <= 64
        assert len(gzip.compress(zeros)) < 0.85 * len(gzip.compress(full))
        # Half of the weights are gone, and none of the time.
        fast, slow = fastest(zeros, full)
        assert fast > 0.8 * slow
    for text, says in (
        ("sparse+qat+int8", "sparse will shrink the gzipped download"),
        ("2of4+cluster", "2of4 and cluster will shrink"),
        ("slim+qat", ""),
    ):
        found = found_by(recipe_case(Recipe.parse(text), "litert")).get("download-only", "")
        assert found.startswith(says)
        assert bool(found) == bool(says)


def test_qat_helps_no_float_file():
    model = net(channels=8)
    # Logits within softmax's range: a probability of 0 has no logarithm to compare.
    model.layers[-1].kernel.assign(model.layers[-1].kernel / 32)
    twin = Simulation(fold(model))
    twin.observe(noise())
    images = noise().astype(np.float32)
    rounded = np.asarray(twin.net(images))
    content = convert(twin.model, "float32", noise())
    running = interpreter(content)
    running.set_tensor(running.get_input_details()[0]["index"], images[:1])
    running.invoke()
    p = running.get_tensor(running.get_output_details()[0]["index"])[0]
    log_p = np.log(p) - np.log(p).mean()
    logits, simulated = np.asarray(model(images))[0], rounded[0]
    # The float file answers as the float model: what was simulated is not in it.
    np.testing.assert_allclose(log_p, logits - logits.mean(), atol=1e-4 * np.ptp(logits))
    assert np.abs(simulated - logits).max() > 1e-3 * np.ptp(logits)
    for text, useless_ in (("qat+float32", True), ("qat+int8+float32", False), ("qat", False)):
        found = found_by(recipe_case(Recipe.parse(text), "litert"))
        assert ("qat-without-int8" in found) == useless_


def test_every_rule_says_what_why_and_how():
    assert len(RULES) == 12
    for name, rule in RULES.items():
        assert name == rule.name
        assert rule.why
        assert rule.fix
        assert rule.runtimes <= set(RUNTIMES)
    some = next(iter(RULES.values()))
    with pytest.raises(ConfigError, match="registered twice"):
        registered([some, some])


def test_what_matters_most_comes_first():
    found = lint([recipe_case(Recipe.parse("sparse+slim+qat+float32"), "litert")])
    severities = [finding.rule.severity for finding in found]
    assert severities == sorted(severities, reverse=True)
    assert {f.rule.severity for f in useless(found)} == {Severity.USELESS}
    assert severities[-1] is Severity.NOTE


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["lint", *words])


def test_the_command_lints_recipes_models_and_files(tmp_path: Path):
    bad = run("--recipe", "qat+float32", "--json")
    (entry,) = json.loads(bad.stdout)
    assert (bad.exit_code, entry["rule"], entry["severity"]) == (1, "qat-without-int8", "useless")
    note = run("--recipe", "sparse+int8")
    assert note.exit_code == 0
    assert "note: recipe sparse+int8: sparse will shrink" in note.stdout
    assert "[download-only]" in note.stdout
    path = tmp_path / "hard.tflite"
    path.write_bytes(convert(net(activation("hard_silu")), "int8", noise()))
    warned = run(str(path))
    assert (warned.exit_code, warned.stdout.count("warning: hard.tflite")) == (0, 1)
    save_model(net(), tmp_path / "net.keras")
    plain = run(str(tmp_path / "net.keras"), "--recipe", "qat+int8")
    assert plain.exit_code == 0, plain.output
    assert "nothing to say of recipe qat+int8, " in plain.stdout
    registered_model = run("cnn_se_is_no_model")
    assert isinstance(registered_model.exception, ModelError)


def test_a_registered_model_needs_no_run(monkeypatch: pytest.MonkeyPatch):
    got = []

    def capture(model: Any, formats: Any, size: int, runtime: str, name: str) -> list[Any]:
        got.append((model.name, formats, size, runtime, name))
        return []

    monkeypatch.setattr("bloodedge.deploy.lint.check.model_cases", capture)
    result = run("resnet18", "--size", "32", "--runtime", "tflite-micro")
    assert result.exit_code == 0, result.output
    assert got == [("resnet18", ("int8",), 32, "tflite-micro", "resnet18")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to lint"),
        (["--recipe", "slin"], "did you mean 'slim'"),
        (["--recipe", "slim", "--runtime", "onnx"], "--runtime 'onnx'"),
        (["no-such-thing.tflite"], "no run, file or zoo model"),
    ],
)
def test_what_cannot_be_linted_is_refused(words: list[str], message: str):
    with pytest.raises((ConfigError, ModelError), match=message):
        raise run(*words).exception


def test_a_size_that_nothing_takes_is_refused(tmp_path: Path):
    (tmp_path / "a.tflite").write_bytes(b"x")
    for words in (["--recipe", "qat+int8"], [str(tmp_path / "a.tflite")]):
        refused = run(*words, "--size", "28")
        assert isinstance(refused.exception, ConfigError)
        assert "--size with" in str(refused.exception)


def test_a_damaged_file_is_refused(tmp_path: Path):
    path = tmp_path / "broken.tflite"
    path.write_bytes(b"\x10\0\0\0TFL3" + b"\xff" * 40)
    with pytest.raises(ModelError, match=r"broken\.tflite: .*damaged"):
        file_case(path, "litert")
    with pytest.raises(ModelError, match="cannot be read"):
        file_case(tmp_path / "absent.tflite", "litert")


def edited(edit: Callable[[Any], None]) -> bytes:
    """Return a model whose first graph has been changed."""
    model = read_model(convert(net(), "float32", noise())).model
    edit(model.tables("subgraphs")[0])
    return write_tables(model)


def numbers(*values: int) -> Vector:
    return Vector(struct.pack(f"<{len(values)}i", *values), 4)


def test_an_operator_that_gives_nothing_has_no_work(tmp_path: Path):
    def edit(graph: Any) -> None:
        graph.tables("operators")[0].fields["outputs"] = numbers()

    content = edited(edit)
    assert read_facts("net", content).operators[0].macs == 0
    for runtime in RUNTIMES:
        path = tmp_path / "model.tflite"
        path.write_bytes(content)
        lint([file_case(path, runtime, load=False)])


def layer(kind: str, type_: str, channels: int, *kernel: int) -> Operator:
    """An operator that gives 8x8 values of some channels; a layer if it has a kernel."""
    out = Tensor(type_, (1, 8, 8, channels), False, False)
    weights = (Tensor(type_, kernel, True, False),) if kernel else ()
    return Operator(kind, 0, 1, (out, *weights), (out,))


def made(*operators: Operator, runtime: str = "litert", outside: Any = None) -> Case:
    return Case(runtime, file=FileFacts("made", operators, (), (), outside=outside))


def test_empty_lanes_are_those_of_the_worst_layers_and_of_no_depthwise_one_or_product():
    depthwise = layer("DEPTHWISE_CONV_2D", "INT8", 9, 1, 3, 3, 9)
    assert "vector-width" not in found_by(made(depthwise))
    # Attention's: its channels are the tokens.
    scores = layer("BATCH_MATMUL", "INT8", 49, 1, 8, 16, 49)
    assert scores.macs
    assert "vector-width" not in found_by(made(scores))
    narrow = [layer("CONV_2D", "INT8", count, count, 3, 3, 8) for count in (12, 11, 10, 9)]
    assert "in layers of 9, 10, 11 channels" in found_by(made(*narrow))["vector-width"]


def test_what_runs_outside_is_counted_but_for_conversions_and_16_bits():
    wide, back = layer("CONV_2D", "INT16", 8, 8, 3, 3, 8), layer("DEQUANTIZE", "FLOAT32", 8)
    gelu = layer("GELU", "INT8", 8)
    found = lint([made(wide, back, gelu, gelu, outside=frozenset(range(4)))])
    says = [finding.says for finding in found if finding.rule.name == "unaccelerated"]
    assert says == ["GELU runs outside XNNPACK, 2 times"]


def test_fall_backs_are_counted():
    elu, conv = layer("ELU", "FLOAT32", 8), layer("CONV_2D", "INT8", 8, 8, 3, 3, 8)
    assert found_by(made(conv, elu, elu))["float-fallback"] == "ELU computes in float32, 2 times"


def test_an_operator_that_tflite_runtime_never_had_is_too_new():
    never = replace(layer("NEWEST", "INT8", 8), code=999)
    says = "NEWEST has version 1, tflite-runtime 2.14 knows no version of it"
    assert found_by(made(never, runtime="tflite-runtime"))["too-new"] == says


def test_qat_helps_a_mixed_file():
    recipe = recipe_case(Recipe.parse("qat+mixed"), "litert")
    assert "qat-without-int8" not in found_by(recipe)


def test_a_model_of_no_channels_has_no_empty_lanes(tmp_path: Path):
    def edit(graph: Any) -> None:
        place = graph.tables("operators")[0].numbers("outputs")[0]
        graph.tables("tensors")[place].fields["shape"] = numbers(1, 8, 8, 0)

    path = tmp_path / "model.tflite"
    path.write_bytes(edited(edit))
    lint([file_case(path, "litert", load=False)])


def test_operators_that_share_a_long_list_are_damage():
    def edit(graph: Any) -> None:
        graph.tables("operators")[0].fields["inputs"] = numbers(*[0] * 2000)
        graph.fields["operators"] = graph.tables("operators")[:1] * 60

    with pytest.raises(ModelError, match="more than 100,000 tensors"):
        read_facts("net", edited(edit))


def test_a_keras_file_that_is_no_classifier_of_images_is_refused(tmp_path: Path):
    import keras

    image = keras.Input((28, 28, 1))
    keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(image))).save(
        tmp_path / "grey.keras"
    )
    refused = run(str(tmp_path / "grey.keras"))
    assert isinstance(refused.exception, ModelError)
    assert "expected (N, S, S, 3) images" in str(refused.exception)


def test_a_tensor_of_absurd_size_is_damage(tmp_path: Path):
    def edit(graph: Any) -> None:
        graph.tables("tensors")[0].fields["shape"] = numbers(*[2**31 - 1] * 40)

    with pytest.raises(ModelError, match="is damaged"):
        read_facts("net", edited(edit))


def test_what_a_runtime_takes_to_import_is_not_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """TensorFlow alone takes seconds of processor time, some of it when `tf.lite` is asked for."""
    done: list[str] = []

    class Lazy:
        @property
        def lite(self) -> Any:
            done.append("lite")
            return find_runtime()

    monkeypatch.setattr(isolated, "bound", lambda *args, **kwargs: done.append("bound"))
    monkeypatch.setattr(partitions.importlib, "import_module", lambda name: Lazy())
    with pytest.raises(AttributeError, match="Interpreter"):
        partitions._look(tmp_path / "model.tflite", "tf-lite")
    assert done == ["lite"]
    monkeypatch.setattr(Lazy, "lite", property(lambda self: SimpleNamespace(Interpreter=refuse)))
    assert partitions._look(tmp_path / "model.tflite", "tf-lite") == isolated.REFUSED
    assert done == ["lite", "bound"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("while True: pass", "takes too much processor time"),
        ("print('[1]'); print('delegate closed')", "the process that loaded it gave no answer"),
        ("print('5')", "the process that loaded it gave no answer"),
        ("pass", "the process that loaded it gave no answer"),
        ("os.abort()", "ended the process that loaded it (SIGABRT)"),
        ("print('no'); sys.exit(isolated.REFUSED)", "no"),
    ],
)
def test_why_a_runtime_does_not_load_a_file_is_said(
    body: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "loader.py").write_text(
        "import os, sys\nfrom pathlib import Path\nfrom bloodedge import isolated\n"
        f"isolated.bound(Path(__file__), memory=2 << 30, cpu_s=0.2)\n{body}\n"
    )
    monkeypatch.setattr(partitions, "_MODULE", "loader")
    monkeypatch.setenv("PYTHONPATH", ":".join([str(tmp_path), *sys.path]))
    refusal, outside = partitions.outside_of(tmp_path / "net.tflite", "litert")
    assert why in refusal
    assert outside is None


def refuse(path: str) -> None:
    raise ValueError(f"{path} is refused")


def converted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what will be converted: the model, its formats and the side of its images."""
    got: list[Any] = []

    def capture(model: Any, formats: Any, size: int, runtime: str, name: str) -> list[Any]:
        got.append((model.name, formats, size))
        return []

    monkeypatch.setattr("bloodedge.deploy.lint.check.model_cases", capture)
    return got


def test_with_kd_a_name_is_the_students_and_not_the_zoos(monkeypatch: pytest.MonkeyPatch):
    got = converted(monkeypatch)
    result = run("cnn_se", "--recipe", "kd+dynamic", "--size", "32")
    assert result.exit_code == 0, result.output
    assert got == [("cnn_se", ("dynamic",), 32)]
    # Without kd it is the file, as everywhere else.
    assert "nothing to say of cnn_se.tflite on litert" in run("cnn_se").stdout
    assert len(got) == 1


def test_formats_of_a_recipe_are_refused_with_a_file_that_has_one(tmp_path: Path):
    path = tmp_path / "a.tflite"
    path.write_bytes(convert(net(), "int8", noise()))
    with pytest.raises(ConfigError, match=r"the formats dynamic with .*, which is a"):
        raise run(str(path), "--recipe", "qat+dynamic").exception
    both = run(str(path), "--recipe", "slim+qat")
    assert both.stdout == "nothing to say of recipe slim+qat, a.tflite on litert\n"


def test_a_size_is_refused_with_a_model_that_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    got = converted(monkeypatch)
    path = tmp_path / "net.keras"
    save_model(net(), path)
    with pytest.raises(ConfigError, match=r"--size with .*, whose images have a size"):
        raise run(str(path), "--size", "28").exception
    assert got == []
    assert run(str(path)).exit_code == 0
    assert [size for _, _, size in got] == [SIDE]
