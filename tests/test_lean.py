"""Lean files answer bit for bit as before, and hold hardly more than weights and biases."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bloodedge.deploy.convert import VARIANTS, convert
from bloodedge.deploy.flat import bytemap
from bloodedge.deploy.flat.bytemap import map_bytes
from bloodedge.deploy.flat.lean import lean
from bloodedge.deploy.flat.reader import read_model
from bloodedge.deploy.flat.schema import LAST_OPTION, OPTION_TABLES, REFUSED_OPTIONS, TABLES
from bloodedge.deploy.flat.tree import Options, Table
from bloodedge.deploy.flat.writer import write_tables
from bloodedge.deploy.labels import append_labels
from bloodedge.deploy.metadata import About, notes, read_metadata
from bloodedge.errors import ModelError
from bloodedge.quiet import quiet
from bloodedge.references import packaged_zoo

SIDE, CLASSES = 64, 8


@pytest.fixture(scope="module")
def converted() -> dict[str, bytes]:
    """The student of 18,000 parameters in every variant, as the converter writes it."""
    import keras

    from bloodedge.train.registry import ModelConfig, build

    keras.utils.set_random_seed(1)
    model = build(ModelConfig("cnn_se_nano", CLASSES, SIDE), size=SIDE)
    rng = np.random.default_rng(0)
    model.set_weights([w + rng.normal(0, 0.02, w.shape) ** 2 for w in model.get_weights()])
    return {variant: convert(model, variant, pictures(8)) for variant in VARIANTS}


@pytest.fixture(scope="module")
def small() -> bytes:
    """The flatbuffer of the student in the package, without its metadata."""
    (path,) = (packaged_zoo() / "cnn_se").glob("*.tflite")
    model = read_model(path.read_bytes()).model
    model.drop("metadata")
    return lean(write_tables(model))


def pictures(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(2).integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.uint8)


def interpreters() -> dict[str, Any]:
    import tensorflow as tf
    from ai_edge_litert import interpreter as litert

    plain = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return {
        "litert, XNNPACK": lambda c: litert.Interpreter(model_content=c),
        "litert, built-in": lambda c: litert.Interpreter(
            model_content=c, experimental_op_resolver_type=plain
        ),
        "tf.lite": lambda c: tf.lite.Interpreter(model_content=c),
    }


def outputs(make: Any, content: bytes) -> NDArray[Any]:
    with quiet():
        interpreter = make(content)
        interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    rows = []
    for picture in pictures(12):
        interpreter.set_tensor(taken["index"], picture[None].astype(taken["dtype"]))
        interpreter.invoke()
        rows.append(interpreter.get_tensor(given["index"])[0])
    return np.stack(rows)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("variant", VARIANTS)
def test_answers_are_the_same_bits_in_every_runtime(
    converted: dict[str, bytes], variant: str
) -> None:
    before, after = converted[variant], lean(converted[variant])
    for name, make in interpreters().items():
        expected = outputs(make, before)
        assert len(np.unique(expected, axis=0)) > 1, name
        np.testing.assert_array_equal(outputs(make, after), expected, err_msg=name)


@pytest.mark.slow
def test_a_small_student_is_at_most_24_kb(converted: dict[str, bytes]) -> None:
    sizes = {variant: len(lean(content)) for variant, content in converted.items()}
    # What metadata and labels may take is left for them.
    assert sizes["int8"] <= 24_000 - 1024
    assert sizes["dynamic"] <= map_bytes(lean(converted["dynamic"])).constants + 4096
    for variant in ("float32", "float16"):
        found = map_bytes(lean(converted[variant]))
        assert found.total <= found.lean_limit, variant


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_but_overhead_goes(converted: dict[str, bytes], variant: str) -> None:
    before, after = map_bytes(converted[variant]), map_bytes(lean(converted[variant]))
    assert after.total < before.total
    # The converter repeats a few constants; sharing them is all that may happen to weights.
    lost = before.purposes["weights"] - after.purposes["weights"]
    assert 0 <= lost <= 0.01 * before.purposes["weights"]
    assert after.purposes["metadata"] <= 80
    assert after.purposes["names"] < 200
    assert after.purposes["value ranges"] == 0
    assert after.purposes["padding"] <= 4 * len(read_model(converted[variant]).spans)


def test_the_shipped_student_needs_61_kb(small: bytes) -> None:
    found = map_bytes(small)
    # Weights and biases, their scales and zero points, and 4 KB for everything else.
    needed = found.constants + found.purposes["scales"] + found.purposes["zero points"]
    assert found.total <= needed + 4096
    assert found.total <= 61_000


def test_lean_is_idempotent_and_deterministic(small: bytes) -> None:
    once = lean(small)
    assert lean(once) == once
    assert lean(small) == once


def test_inputs_and_outputs_keep_their_names_and_signature(small: bytes) -> None:
    def ends(content: bytes) -> list[object]:
        model = read_model(content).model
        (graph,) = model.tables("subgraphs")
        index = (*graph.numbers("inputs"), *graph.numbers("outputs"))
        signature = model.tables("signature_defs")[0]
        maps = signature.tables("inputs") + signature.tables("outputs")
        tensors = [graph.tables("tensors")[i] for i in index]
        return [
            [(t.text("name"), t.numbers("shape"), t.number("type")) for t in tensors],
            signature.text("signature_key"),
            [(m.text("name"), m.number("tensor_index")) for m in maps],
        ]

    assert ends(lean(small)) == ends(small)


def test_the_map_covers_every_byte(small: bytes) -> None:
    for content in (small, lean(small), append_labels(lean(small), ("a", "b"))):
        found = map_bytes(content)
        assert sum(found.purposes.values()) == found.total == len(content)
        assert min(found.purposes.values()) >= 0
    assert map_bytes(append_labels(small, ("a", "b"))).purposes["associated files"] == (
        len(append_labels(small, ("a", "b"))) - len(small)
    )


def test_data_stays_on_16_byte_boundaries(small: bytes) -> None:
    document = read_model(lean(small))
    for buffer in document.model.tables("buffers"):
        if (data := buffer.vector("data")) is not None:
            assert (document.starts[id(data)] + 4) % 16 == 0


def test_associated_files_are_not_lost_silently(small: bytes) -> None:
    with pytest.raises(ModelError, match="associated files"):
        lean(append_labels(small, ("a", "b")))


def test_the_tables_are_those_of_the_official_schema() -> None:
    """Slots, widths and defaults, read out of the generated code."""
    import inspect
    import re

    from ai_edge_litert import schema_py_generated as official

    source = inspect.getsource(official)
    found: dict[str, dict[int, tuple[str, str, str]]] = {}
    pattern = r"^def (\w+?)Add(\w+)\(builder.*?\n\s+builder\.Prepend(\w+)Slot\((\d+),.*, (.+)\)\n"
    for table, name, kind, slot, default in re.findall(pattern, source, re.MULTILINE):
        found.setdefault(table, {})[int(slot)] = (name, kind, default)
    widths = {"Bool": 1, "Int8": 1, "Uint8": 1, "Int32": 4, "Uint32": 4}
    for table, fields in TABLES.items():
        # The generated code leaves a deprecated slot out.
        gaps = {3} if table == "SignatureDef" else set()
        assert set(found[table]) == set(range(len(fields))) - gaps, table
        for slot, known in enumerate(fields):
            if known is None:
                continue
            name, kind, default = found[table][slot]
            assert name.lower() == known.name.replace("_", ""), (table, slot)
            if known.kind == "scalar":
                assert (widths[kind], default) == (known.width, str(known.default)), (table, slot)
            else:
                assert kind == "UOffsetTRelative", (table, slot)
    members = {v: k for k, v in vars(official.BuiltinOptions).items() if isinstance(v, int)}
    assert max(members) == LAST_OPTION
    for member, table in members.items():
        slots = found.get(table, {})
        plain = not any("UOffset" in kind or "64" in kind for _, kind, _ in slots.values())
        if table == "FullyConnectedOptions":
            assert [s for s, (_, kind, _) in slots.items() if "UOffset" in kind] == [5]
        else:
            assert plain or member in REFUSED_OPTIONS or member in OPTION_TABLES, table


def mutants(content: bytes, count: int) -> list[bytes]:
    """Flips, cuts, inserted bytes and wild offsets, most of them where the tables are."""
    rng = np.random.default_rng(3)
    made = []
    for i in range(count):
        data = bytearray(content)
        for _ in range(rng.integers(1, 8)):
            at = int(rng.integers(0, len(data) if i % 4 == 0 else min(len(data), 6000)))
            kind = i % 5
            if kind == 0:
                data[at] ^= 1 << int(rng.integers(0, 8))
            elif kind == 1:
                data[at : at + 4] = int(rng.integers(0, 2**32)).to_bytes(4, "little")
            elif kind == 2:
                del data[at : at + int(rng.integers(1, 64))]
            elif kind == 3:
                data[at : at + 4] = (len(data) - at).to_bytes(4, "little")
            else:
                data[at : at + 8] = b"\xff" * 8
        made.append(bytes(data[: rng.integers(8, len(data))] if i % 11 == 0 else data))
    return made


def test_mutated_files_are_refused_or_read_never_worse(small: bytes) -> None:
    read = 0
    refused = []
    whole = lean(small, notes(About("a"), {"parent": "b"}))
    for mutant in mutants(whole, 300):
        try:
            found = map_bytes(mutant)
            read_metadata(mutant)
            lean(mutant)
        except ModelError as error:
            refused.append(str(error))
            continue
        read += 1
        assert sum(found.purposes.values()) == len(mutant)
    assert min(read, len(refused)) > 20, (read, len(refused))
    assert not any("\n" in line for line in refused)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "identifier"),
        (b"\x08\0\0\0TFL3", "lie outside"),
        (b"\0\0\0\0TFL3" + bytes(64), "leads nowhere"),
        (b"\xff\xff\xff\x7fTFL3" + bytes(64), "lie outside"),
        (b"\x10\0\0\0TFL3" + bytes(64), "no valid layout"),
    ],
)
def test_damage_is_named(content: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        map_bytes(content)


def test_a_crafted_file_that_repeats_one_table_ends_soon(small: bytes) -> None:
    """A vector of a hundred million offsets is longer than the file, and refused."""
    content = bytearray(small)
    document = read_model(small)
    ((start, _),) = [(s, e) for s, (e, owner) in document.spans.items() if owner == "Model.buffers"]
    content[start : start + 4] = (100_000_000).to_bytes(4, "little")
    with pytest.raises(ModelError, match="lie outside"):
        map_bytes(bytes(content))


def test_vectors_that_overlap_are_refused(small: bytes) -> None:
    """Every shape is made to reach to the end of the file: each is inside, together they are not.

    Reading them all would take the number of tensors times the size of the file.
    """
    content = bytearray(small)
    starts = [s for s, (_, owner) in read_model(small).spans.items() if owner == "Tensor.shape"]
    assert len(starts) > 8
    for start in starts:
        struct.pack_into("<I", content, start, (len(content) - start - 4) // 4)
    with pytest.raises(ModelError, match="overlap"):
        map_bytes(bytes(content))


def test_a_graph_that_is_named_many_times_is_looked_at_once(
    small: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = read_model(small).model
    model.fields["subgraphs"] = model.tables("subgraphs") * 50
    looked = []
    monkeypatch.setattr(bytemap, "_biases", lambda model, graph: looked.append(graph) or [])
    map_bytes(write_tables(model))
    assert len(looked) == 1


def test_options_that_operators_share_are_copied_once(small: bytes) -> None:
    model = read_model(small).model
    (graph,) = model.tables("subgraphs")
    operators = graph.tables("operators")
    first = next(o for o in operators if isinstance(o.fields.get("builtin_options"), Options))
    graph.fields["operators"] = [first, Table(first.kind, dict(first.fields))]
    (graph,) = read_model(write_tables(model)).model.tables("subgraphs")
    one, other = (table.fields["builtin_options"] for table in graph.tables("operators"))
    assert one is other


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    from bloodedge.deploy.flat.bytemap import map_file

    with pytest.raises(ModelError, match="cannot be read"):
        map_file(tmp_path / "nothing.tflite")
