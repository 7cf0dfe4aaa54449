"""A C++ class that classifies an image with the TFLite C++ API, made for one model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from string import Template

from bloodedge.deploy.ends import End, read_ends
from bloodedge.deploy.source_code import c_string, described, identifier

_FILE = Template("""\
// $title: made by bloodedge. Research use only; not a diagnostic device.
//
// C++17, with TensorFlow Lite (LiteRT). Compiled with -D${macro}_MAIN it is a program:
//   $title MODEL.tflite IMAGE.rgb     ($height x $width pixels, 3 bytes each, row by row)

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>

#include "tensorflow/lite/interpreter.h"
#include "tensorflow/lite/kernels/register.h"
#include "tensorflow/lite/model.h"

class $name {
 public:
  static constexpr int kHeight = $height, kWidth = $width, kClasses = $classes;
  static constexpr std::size_t kPixelBytes = $pixel_bytes;
  static constexpr std::array<const char*, kClasses> kLabels = {
$labels
  };

  explicit $name(const std::string& path)
      : model_(tflite::FlatBufferModel::BuildFromFile(path.c_str())) {
    if (!model_) throw std::runtime_error("cannot read " + path);
    tflite::ops::builtin::BuiltinOpResolver resolver;
    tflite::InterpreterBuilder builder(*model_, resolver);
    if (builder(&interpreter_) != kTfLiteOk) throw std::runtime_error("cannot load " + path);
    interpreter_->SetNumThreads(1);
    if (interpreter_->AllocateTensors() != kTfLiteOk) throw std::runtime_error("no memory");
    Check(interpreter_->input_tensor(0), $input_tflite, {$input_shape});    // $input_name
    Check(interpreter_->output_tensor(0), $output_tflite, {$output_shape});  // $output_name
  }

  // Probabilities in the order of kLabels, for kPixelBytes bytes of RGB, 0..255 as they are.
  std::array<float, kClasses> Classify(const std::uint8_t* rgb) {
    $input_c* input = interpreter_->typed_input_tensor<$input_c>(0);
    for (std::size_t i = 0; i < kPixelBytes; ++i) input[i] = $put;
    if (interpreter_->Invoke() != kTfLiteOk) throw std::runtime_error("inference failed");
    const $output_c* output = interpreter_->typed_output_tensor<$output_c>(0);
    std::array<float, kClasses> found{};
    for (int i = 0; i < kClasses; ++i) found[i] = $get;
    return found;
  }

 private:
$quantization\
  static void Check(const TfLiteTensor* tensor, TfLiteType type, std::initializer_list<int> shape) {
    const bool same = tensor && tensor->type == type &&
                      tensor->dims->size == static_cast<int>(shape.size()) &&
                      std::equal(shape.begin(), shape.end(), tensor->dims->data);
    if (!same) throw std::runtime_error("another model than this code was made for");
  }

  std::unique_ptr<tflite::FlatBufferModel> model_;
  std::unique_ptr<tflite::Interpreter> interpreter_;
};

#ifdef ${macro}_MAIN
#include <cstdio>
#include <fstream>
#include <vector>

int main(int count, char** words) try {
  if (count != 3) throw std::runtime_error("expected MODEL.tflite IMAGE.rgb");
  std::vector<char> rgb($name::kPixelBytes);
  std::ifstream file(words[2], std::ios::binary);
  if (!file.read(rgb.data(), rgb.size())) throw std::runtime_error("the image is too short");
  $name model(words[1]);
  const auto found = model.Classify(reinterpret_cast<const std::uint8_t*>(rgb.data()));
  for (int i = 0; i < $name::kClasses; ++i) std::printf("%.6f %s\\n", found[i], $name::kLabels[i]);
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\\n", error.what());
  return 1;
}
#endif
""")
_C = {
    "float32": "float",
    "uint8": "std::uint8_t",
    "int8": "std::int8_t",
    "int16": "std::int16_t",
}
_TFLITE = {
    "float32": "kTfLiteFloat32",
    "uint8": "kTfLiteUInt8",
    "int8": "kTfLiteInt8",
    "int16": "kTfLiteInt16",
}
_QUANTIZED = "Quantized(rgb[i])"
_PUT = {"float32": "rgb[i]", "uint8": "rgb[i]", "int8": _QUANTIZED, "int16": _QUANTIZED}
_LIMITS = {"uint8": (0, 255), "int8": (-128, 127), "int16": (-32768, 32767)}


def cpp_class(name: str, content: bytes, labels: Sequence[str]) -> str:
    """Return a C++ file for TFLite's `tflite::Interpreter`.

    Args:
        name: the model's file name without its suffix.
        content: the .tflite.
        labels: the class names, in the order of the output.

    Raises:
        ModelError: the model is damaged, or has other than one input and one output.
    """
    taken, given = read_ends(content)
    real = "output[i]" if given.scale is None else "(output[i] - kOutputZeroPoint) * kOutputScale"
    return _FILE.substitute(
        described(name, taken, given),
        macro=identifier(name).upper(),
        classes=len(labels),
        pixel_bytes=math.prod(taken.shape[1:]),
        labels="\n".join(f"      {c_string(label)}," for label in labels),
        input_tflite=_TFLITE[taken.dtype],
        input_c=_C[taken.dtype],
        put=_PUT[taken.dtype],
        output_tflite=_TFLITE[given.dtype],
        output_c=_C[given.dtype],
        get=real,
        quantization=_input_rounding(taken) + _constants("Output", given),
    )


def _constants(side: str, end: End) -> str:
    if end.scale is None:
        return ""
    return (
        f"  static constexpr float k{side}Scale = {end.scale:.9e}f;\n"
        f"  static constexpr int k{side}ZeroPoint = {end.zero_point};\n"
    )


def _input_rounding(end: End) -> str:
    """Return what turns a pixel into the input's steps, where those are not the pixels."""
    if _PUT[end.dtype] != _QUANTIZED:
        return ""
    low, high = _LIMITS[end.dtype]
    return (
        f"{_constants('Input', end)}"
        f"  static {_C[end.dtype]} Quantized(std::uint8_t pixel) {{\n"
        "    const int step = static_cast<int>(std::nearbyint(pixel / kInputScale));\n"
        f"    return static_cast<{_C[end.dtype]}>("
        f"std::clamp(step + kInputZeroPoint, {low}, {high}));\n"
        "  }\n"
    )
