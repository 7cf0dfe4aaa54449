"""A Kotlin class that classifies a bitmap on Android, made for one model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from string import Template

from bloodedge.deploy.ends import End, read_ends
from bloodedge.deploy.source_code import comment, described, kotlin_string

_CLASS = Template("""\
// $title: made by bloodedge. Research use only; not a diagnostic device.
//
// build.gradle.kts:  implementation("com.google.ai.edge.litert:litert:1.4.1")  // or 2.1 and newer
//                    android { androidResources { noCompress += "tflite" } }
// Put $comment_file into src/main/assets; use one instance in one thread, and close it.

import android.content.Context
import android.graphics.Bitmap
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.tensorflow.lite.DataType
import org.tensorflow.lite.Interpreter

class $name(context: Context) : AutoCloseable {
    private val interpreter: Interpreter

    init {
        val bytes = context.assets.open(FILE).use { it.readBytes() }
        val model = ByteBuffer.allocateDirect(bytes.size).order(ByteOrder.nativeOrder())
        model.put(bytes)
        model.rewind()
        interpreter = Interpreter(model, Interpreter.Options().setNumThreads(1))
        val input = interpreter.getInputTensor(0)
        check(input.shape().contentEquals(INPUT_SHAPE))
        check(input.dataType() == DataType.$input_type)
        val output = interpreter.getOutputTensor(0)
        check(output.shape().contentEquals(OUTPUT_SHAPE))
        check(output.dataType() == DataType.$output_type)
    }

    /**
     * The class names with their probabilities, the likeliest first. The central square of the
     * image is used, as in training. Pixels stay 0..255.
     */
    fun classify(image: Bitmap): List<Pair<String, Float>> {
        val side = minOf(image.width, image.height)
        val left = (image.width - side) / 2
        val square = Bitmap.createBitmap(image, left, (image.height - side) / 2, side, side)
        val scaled = Bitmap.createScaledBitmap(square, WIDTH, HEIGHT, true)
        val pixels = IntArray(WIDTH * HEIGHT)
        scaled.getPixels(pixels, 0, WIDTH, 0, 0, WIDTH, HEIGHT)
        val input = ByteBuffer.allocateDirect(INPUT_BYTES).order(ByteOrder.nativeOrder())
        for (pixel in pixels) {
            for (shift in intArrayOf(16, 8, 0)) { // red, green, blue
                val value = (pixel shr shift) and 0xFF
                $put
            }
        }
        input.rewind()
        val output = ByteBuffer.allocateDirect(OUTPUT_BYTES).order(ByteOrder.nativeOrder())
        interpreter.run(input, output)
        output.rewind()
        return LABELS.map { it to $get }.sortedByDescending { it.second }
    }

$rounding    override fun close() = interpreter.close()

    private companion object {
        const val FILE = $file
        // Tensor $input_name
        val INPUT_SHAPE = intArrayOf($input_shape)
        const val HEIGHT = $height
        const val WIDTH = $width
        const val INPUT_BYTES = $input_bytes
        // Tensor $output_name
        val OUTPUT_SHAPE = intArrayOf($output_shape)
        const val OUTPUT_BYTES = $output_bytes
$quantization\
        val LABELS = listOf(
$labels
        )
    }
}
""")
_ROUNDING = """\
    private fun steps(value: Int) = Math.rint((value / INPUT_SCALE).toDouble()).toInt()

"""
_BYTES = {"float32": 4, "int16": 2, "uint8": 1, "int8": 1}
_PUT = {
    "float32": "input.putFloat(value.toFloat())",
    "uint8": "input.put(value.toByte())",
    "int8": "input.put((steps(value) + INPUT_ZERO_POINT).coerceIn(-128, 127).toByte())",
    "int16": "input.putShort((steps(value) + INPUT_ZERO_POINT).coerceIn(-32768, 32767).toShort())",
}
_GET = {
    "float32": "output.getFloat()",
    "uint8": "((output.get().toInt() and 0xFF) - OUTPUT_ZERO_POINT) * OUTPUT_SCALE",
    "int8": "(output.get().toInt() - OUTPUT_ZERO_POINT) * OUTPUT_SCALE",
    "int16": "(output.getShort().toInt() - OUTPUT_ZERO_POINT) * OUTPUT_SCALE",
}


def kotlin_class(name: str, content: bytes, labels: Sequence[str]) -> str:
    """Return a Kotlin file for LiteRT's Interpreter, which takes and gives every type.

    Args:
        name: the model's file name without its suffix.
        content: the .tflite.
        labels: the class names, in the order of the output.

    Raises:
        ModelError: the model is damaged, or has other than one input and one output.
    """
    taken, given = read_ends(content)
    return _CLASS.substitute(
        described(name, taken, given),
        file=kotlin_string(f"{name}.tflite"),
        comment_file=comment(f"{name}.tflite"),
        put=_PUT[taken.dtype],
        get=_GET[given.dtype],
        input_type=taken.dtype.upper(),
        input_bytes=math.prod(taken.shape) * _BYTES[taken.dtype],
        output_type=given.dtype.upper(),
        output_bytes=math.prod(given.shape) * _BYTES[given.dtype],
        rounding=_ROUNDING if "steps(" in _PUT[taken.dtype] else "",
        quantization=_quantization("INPUT", taken) + _quantization("OUTPUT", given),
        labels="\n".join(f"            {kotlin_string(label)}," for label in labels),
    )


def _quantization(side: str, end: End) -> str:
    if end.scale is None:
        return ""
    return (
        f"        const val {side}_SCALE = {end.scale:.9e}f\n"
        f"        const val {side}_ZERO_POINT = {end.zero_point}\n"
    )
