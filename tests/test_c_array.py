"""The C header holds the model's bytes, tensors and names, and a compiler takes it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bloodedge.deploy import c_array
from bloodedge.deploy.c_array import c_header
from bloodedge.deploy.flat.reader import read_model
from bloodedge.deploy.flat.writer import write_tables
from bloodedge.errors import ModelError
from bloodedge.references import packaged_zoo

LABELS = ("plain", 'quo"te \\ and ??=', "größer")
PROGRAM = """
#include <stdio.h>
#include "model.h"
int main(void) {
    fwrite(my_model_8, 1, my_model_8_length, stdout);
    for (int i = 0; i < MY_MODEL_8_CLASSES; i++) fprintf(stderr, "%s\\n", my_model_8_labels[i]);
    fprintf(stderr, "%d %d %g %d", my_model_8_input_shape[1], (int)sizeof(my_model_8_input_t),
            MY_MODEL_8_INPUT_SCALE, MY_MODEL_8_OUTPUT_ZERO_POINT);
    return 0;
}
"""


@pytest.fixture(scope="module")
def content() -> bytes:
    (path,) = (packaged_zoo() / "cnn_se").glob("*.tflite")
    return path.read_bytes()


def test_the_bytes_are_the_models(content: bytes) -> None:
    text = c_header("my-model.8", content, LABELS)
    (array,) = re.findall(r"my_model_8\[\] = \{\n(.*?)\n\};", text, re.DOTALL)
    assert bytes(int(b, 16) for b in re.findall("0x..", array)) == content
    assert "typedef uint8_t my_model_8_input_t;" in text
    assert "my_model_8_input_shape[] = {1, 64, 64, 3};" in text
    assert text.isascii()


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_compiler_takes_it(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.h").write_text(c_header("my-model.8", content, LABELS))
    (tmp_path / "main.c").write_text(PROGRAM)
    command = ["cc", "-std=c11", "-Wall", "-Wno-unused", "-Werror", "main.c", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=120)
    done = subprocess.run([tmp_path / "main"], capture_output=True, check=True, timeout=60)
    assert done.stdout == content
    assert done.stderr.decode().splitlines() == [*LABELS, "64 1 1 0"]


def test_names_cannot_leave_their_comment_or_string(content: bytes) -> None:
    model = read_model(content).model
    (graph,) = model.tables("subgraphs")
    tensor = graph.tables("tensors")[graph.numbers("inputs")[0]]
    tensor.set_text("name", "a\nint x = 1;\\")
    text = c_header("8", write_tables(model), ["a\nb"])
    assert "// input: a?int x = 1;?, 1x64x64x3" in text
    assert 'm_8_labels[] = {\n    "a\\012b",\n};' in text
    assert c_header("8\nint y;", content, ["a"]).startswith("// 8?int y;: made by")


def test_what_no_microcontroller_could_hold_is_refused(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(c_array, "MAX_BYTES", 1000)
    with pytest.raises(ModelError, match="too many for a C array"):
        c_header("m", content, LABELS)


def test_two_outputs_are_refused(content: bytes) -> None:
    model = read_model(content).model
    model.tables("subgraphs")[0].drop("outputs")
    with pytest.raises(ModelError, match="0 outputs"):
        c_header("m", write_tables(model), LABELS)
