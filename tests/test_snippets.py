"""Kotlin and C++ made for one model: they name its tensors, and the C++ answers as the model."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodedge.deploy.arena import arena_bytes
from bloodedge.deploy.c_array import c_header
from bloodedge.deploy.cpp import cpp_class
from bloodedge.deploy.ends import End, name_ends, read_ends
from bloodedge.deploy.flat.lean import lean
from bloodedge.deploy.flat.reader import read_model
from bloodedge.deploy.flat.tree import Vector
from bloodedge.deploy.flat.writer import write_tables
from bloodedge.deploy.interpreter import Classifier
from bloodedge.deploy.kotlin import kotlin_class
from bloodedge.deploy.source_code import c_string, class_name, comment, kotlin_string
from bloodedge.errors import ModelError
from bloodedge.references import packaged_zoo

LABELS = ("plain", 'quo"te \\ ${and} ??=', "größer 🩸")
TYPES = {"float32": 0, "uint8": 3, "int8": 9, "int16": 7}
# The part of the TFLite C++ API that the code uses. The "model" gives back what was fed: the i-th
# output is the i-th element of the input.
STUB = """
#pragma once
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <memory>
#include <vector>
enum TfLiteType { kTfLiteFloat32, kTfLiteUInt8, kTfLiteInt8, kTfLiteInt16 };
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
struct TfLiteIntArray { int size; int data[4]; };
struct TfLiteTensor { TfLiteType type; TfLiteIntArray* dims; };
namespace tflite {
struct FlatBufferModel {
  static std::unique_ptr<FlatBufferModel> BuildFromFile(const char* path) {
    if (!std::ifstream(path).good()) return nullptr;
    return std::make_unique<FlatBufferModel>();
  }
};
struct Interpreter {
  TfLiteIntArray in{4, {IN_SHAPE}}, out{2, {OUT_SHAPE}};
  TfLiteTensor taken{IN_TYPE, &in}, given{OUT_TYPE, &out};
  std::vector<IN> fed = std::vector<IN>(64 * 64 * 3);
  std::vector<OUT> answer = std::vector<OUT>(3);
  TfLiteStatus SetNumThreads(int) { return kTfLiteOk; }
  TfLiteStatus AllocateTensors() { return kTfLiteOk; }
  TfLiteStatus Invoke() {
    for (int i = 0; i < 3; ++i) answer[i] = static_cast<OUT>(fed[i]);
    return kTfLiteOk;
  }
  const TfLiteTensor* input_tensor(std::size_t) const { return &taken; }
  const TfLiteTensor* output_tensor(std::size_t) const { return &given; }
  template <class T> T* typed_input_tensor(int) { return fed.data(); }
  template <class T> T* typed_output_tensor(int) { return answer.data(); }
};
namespace ops { namespace builtin { struct BuiltinOpResolver {}; } }
struct InterpreterBuilder {
  InterpreterBuilder(const FlatBufferModel&, const ops::builtin::BuiltinOpResolver&) {}
  TfLiteStatus operator()(std::unique_ptr<Interpreter>* made) {
    *made = std::make_unique<Interpreter>();
    return kTfLiteOk;
  }
};
}
"""


@pytest.fixture(scope="module")
def content() -> bytes:
    (path,) = (packaged_zoo() / "cnn_se").glob("*.tflite")
    return path.read_bytes()


def with_ends(content: bytes, taken: str, given: str) -> bytes:
    """The model as if its ends had other types; only to be described, it would not load."""
    model = read_model(content).model
    (graph,) = model.tables("subgraphs")
    for side, dtype in (("inputs", taken), ("outputs", given)):
        tensor = graph.tables("tensors")[graph.numbers(side)[0]]
        tensor.fields["type"] = TYPES[dtype]
        if dtype == "float32":
            tensor.drop("quantization")
        elif side == "inputs":
            scale = np.float32(1.25).tobytes()
            tensor.table("quantization").fields["scale"] = Vector(scale, 4)  # type: ignore[union-attr]
            zero = np.int64(-128).tobytes()
            tensor.table("quantization").fields["zero_point"] = Vector(zero, 8)  # type: ignore[union-attr]
    return write_tables(model)


def with_converter_names(content: bytes) -> bytes:
    """The model, its ends called as TensorFlow's converter calls them."""
    model = read_model(content).model
    (graph,) = model.tables("subgraphs")
    names = {"inputs": "serving_default_image:0", "outputs": "StatefulPartitionedCall_1:0"}
    for side, name in names.items():
        graph.tables("tensors")[graph.numbers(side)[0]].set_text("name", name)
    return write_tables(model)


def test_the_ends_are_those_the_runtime_sees(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(content)
    model = Classifier(path)
    for end, detail in zip(read_ends(content), (model._input, model._output), strict=True):
        assert end.shape == tuple(detail["shape"])
        assert end.name == detail["name"]
        assert end.dtype == np.dtype(detail["dtype"]).name
        assert (end.scale, end.zero_point) == detail["quantization"]


def test_ends_get_plain_names_and_nothing_else_changes(content: bytes, tmp_path: Path) -> None:
    bare = with_converter_names(content[: read_model(content).end])
    named = name_ends(bare)
    assert [end.name for end in read_ends(named)] == ["image", "probabilities"]
    assert name_ends(named) == named
    assert len(lean(named)) < len(lean(bare))
    answers = []
    pixels = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3)).astype(np.uint8)
    for i, version in enumerate((bare, named)):
        path = tmp_path / f"{i}.tflite"
        path.write_bytes(version)
        model = Classifier(path)
        answers.append(model.predict(pixels))
    np.testing.assert_array_equal(*answers)
    runner = model._interpreter.get_signature_runner("serving_default")
    assert list(runner.get_input_details()) == ["image"]
    assert list(runner.get_output_details()) == ["probabilities"]


def constants(code: str) -> dict[str, str]:
    return dict(re.findall(r"(?:const val|val) (\w+) = (.*)", code))


def test_the_kotlin_class_names_the_models_tensors(content: bytes) -> None:
    code = kotlin_class("cnn_se-int8", content, LABELS)
    taken, given = read_ends(content)
    found = constants(code)
    assert "class CnnSeInt8(context: Context) : AutoCloseable {" in code
    assert found["FILE"] == '"cnn_se-int8.tflite"'
    assert found["INPUT_SHAPE"] == "intArrayOf(1, 64, 64, 3)"
    assert (found["HEIGHT"], found["WIDTH"], found["INPUT_BYTES"]) == ("64", "64", "12288")
    assert found["OUTPUT_SHAPE"] == "intArrayOf(1, 8)"
    assert found["OUTPUT_BYTES"] == "8"
    assert float(found["OUTPUT_SCALE"].rstrip("f")) == given.scale == 1 / 256
    assert found["OUTPUT_ZERO_POINT"] == "0"
    for end in (taken, given):
        assert f"// Tensor {end.name}\n" in code
    assert code.count("DataType.UINT8") == 2
    assert "input.put(value.toByte())" in code
    assert "to ((output.get().toInt() and 0xFF) - OUTPUT_ZERO_POINT) * OUTPUT_SCALE }" in code
    # As in training: a bitmap that is not square is not squeezed.
    assert "createScaledBitmap(square, WIDTH, HEIGHT, true)" in code
    assert code.isascii()
    assert balanced(code)


def balanced(code: str) -> bool:
    """Whether brackets close in order, outside of strings and comments."""
    plain = re.sub(r'"(?:\\.|[^"\\])*"|//.*|/\*.*?\*/', "", code)
    open_brackets: list[str] = []
    for c in plain:
        if c in "([{":
            open_brackets.append(c)
        elif c in ")]}" and (not open_brackets or open_brackets.pop() + c not in "()[]{}"):
            return False
    return not open_brackets


@pytest.mark.parametrize(
    ("dtype", "put", "get"),
    [
        ("float32", "input.putFloat(value.toFloat())", "to output.getFloat()"),
        ("int8", "input.put((steps(value) + INPUT_ZERO_POINT)", "to (output.get().toInt() -"),
        ("int16", "input.putShort((steps(value)", "to (output.getShort().toInt() -"),
    ],
)
def test_kotlin_speaks_every_type(content: bytes, dtype: str, put: str, get: str) -> None:
    code = kotlin_class("m", with_ends(content, dtype, dtype), LABELS)
    assert put in code
    assert get in code
    assert ("fun steps" in code) == (dtype != "float32")
    assert ("INPUT_SCALE" in constants(code)) == (dtype != "float32")
    assert balanced(code)


def test_kotlin_strings_come_back() -> None:
    for label in LABELS:
        inside = kotlin_string(label)[1:-1]
        units = re.sub(r"\\u(....)", lambda m: chr(int(m[1], 16)), inside)
        assert units.encode("utf-16-le", "surrogatepass").decode("utf-16-le") == label
        assert not set('"$') & set(inside)


def test_names_become_identifiers_and_stay_in_their_comment() -> None:
    assert class_name("cnn_se-w0.5-int8") == "CnnSeW05Int8"
    assert class_name("8") == "Model8"
    assert comment("a\nb\\") == "a?b?"
    assert c_string('"') == '"\\042"'


def compiled(folder: Path, code: str, taken: End, given: End) -> Path:
    """Compile the program against headers that hold just what it uses."""
    c_types = {"float32": "float", "uint8": "uint8_t", "int8": "int8_t", "int16": "int16_t"}
    kinds = {"float32": "Float32", "uint8": "UInt8", "int8": "Int8", "int16": "Int16"}
    defines = {
        "IN": c_types[taken.dtype],
        "OUT": c_types[given.dtype],
        "IN_TYPE": f"kTfLite{kinds[taken.dtype]}",
        "OUT_TYPE": f"kTfLite{kinds[given.dtype]}",
        "IN_SHAPE": ",".join(map(str, taken.shape)),
        "OUT_SHAPE": ",".join(map(str, given.shape)),
    }
    for name in ("interpreter.h", "kernels/register.h", "model.h"):
        header = folder / "tensorflow/lite" / name
        header.parent.mkdir(parents=True, exist_ok=True)
        header.write_text('#pragma once\n#include "stub.h"\n')
    (folder / "stub.h").write_text(STUB)
    (folder / "main.cc").write_text(code)
    options = [f"-D{key}={value}" for key, value in defines.items()]
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-I.", "-DCNN_SE_INT8_MAIN"]
    command = ["c++", *flags, *options, "main.cc", "-o", "main"]
    subprocess.run(command, cwd=folder, check=True, timeout=300)
    return folder / "main"


def run(program: Path, *words: Path) -> Any:
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
@pytest.mark.parametrize(
    "dtype",
    ["uint8", *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in ("float32", "int8"))],
)
def test_the_cpp_class_compiles_feeds_and_reads_as_the_model_does(
    content: bytes, tmp_path: Path, dtype: str
) -> None:
    code = cpp_class("cnn_se-int8", with_ends(content, dtype, dtype), LABELS)
    taken, given = read_ends(with_ends(content, dtype, dtype))
    program = compiled(tmp_path, code, taken, given)
    model, image = tmp_path / "any.tflite", tmp_path / "image.rgb"
    model.write_bytes(content)
    pixels = np.full(64 * 64 * 3, 7, np.uint8)
    pixels[:3] = (0, 5, 255)
    image.write_bytes(pixels.tobytes())
    done = run(program, model, image)
    assert done.returncode == 0, done.stderr
    fed = pixels[:3].astype(np.float64)
    if dtype == "int8":
        fed = np.clip(np.rint(fed / 1.25) - 128, -128, 127)
    scale, zero = given.scale or 1.0, given.zero_point
    lines = [
        f"{value:.6f} {label}" for value, label in zip((fed - zero) * scale, LABELS, strict=True)
    ]
    assert done.stdout.splitlines() == lines
    assert "cannot read" in run(program, tmp_path / "none", image).stderr
    image.write_bytes(b"short")
    assert "too short" in run(program, model, image).stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_the_cpp_class_refuses_another_model(content: bytes, tmp_path: Path) -> None:
    taken, given = read_ends(content)
    code = cpp_class("cnn_se-int8", content, LABELS)
    other = End(taken.name, taken.dtype, (1, 32, 32, 3))
    program = compiled(tmp_path, code, other, given)
    (tmp_path / "image.rgb").write_bytes(bytes(64 * 64 * 3))
    done = run(program, tmp_path / "main.cc", tmp_path / "image.rgb")
    assert done.returncode == 1
    assert "another model" in done.stderr


@pytest.mark.parametrize("write", [kotlin_class, cpp_class])
def test_two_inputs_are_refused(content: bytes, write: Any) -> None:
    model = read_model(content).model
    (graph,) = model.tables("subgraphs")
    graph.fields["inputs"] = Vector(np.array([0, 1], np.int32).tobytes(), 4)
    with pytest.raises(ModelError, match="2 inputs"):
        write("m", write_tables(model), LABELS)


def test_the_header_holds_the_arena_that_tflite_micro_reports(content: bytes) -> None:
    pytest.importorskip("tflite_micro")
    from tflite_micro import runtime

    bare = content[: read_model(content).end]
    arena = arena_bytes(bare)
    assert arena is not None
    assert f"#define M_8_ARENA_BYTES {arena}\n" in c_header("8", bare, LABELS, arena)
    # The largest two tensors alive together are a floor; with that many bytes it runs, with a
    # fraction of them it does not.
    assert arena > 64 * 64 * 3
    model = runtime.Interpreter.from_bytes(bare, arena_size=arena + 4096)
    model.set_input(np.zeros((1, 64, 64, 3), np.uint8), 0)
    model.invoke()
    with pytest.raises(RuntimeError):
        runtime.Interpreter.from_bytes(bare, arena_size=arena // 2)


def test_a_model_that_tflite_micro_refuses_has_no_arena(content: bytes) -> None:
    assert arena_bytes(b"no model at all") is None
    assert "Arena: not known" in c_header("m", content, LABELS)
