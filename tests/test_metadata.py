"""The metadata block, read back by a reader that knows only the binary layout."""

from __future__ import annotations

import io
import struct
import zipfile

import flatbuffers.number_types as types
import pytest
from flatbuffers.table import Table as Raw

from bloodedge._version import __version__
from bloodedge.cli.inspecting import describe
from bloodedge.data.npz import BLOODMNIST_CLASSES
from bloodedge.deploy.convert import ALL_VARIANTS
from bloodedge.deploy.flat.bytemap import map_bytes
from bloodedge.deploy.flat.lean import lean
from bloodedge.deploy.flat.reader import read_model
from bloodedge.deploy.flat.tree import Table, Vector
from bloodedge.deploy.flat.writer import write_tables
from bloodedge.deploy.labels import append_labels
from bloodedge.deploy.metadata import (
    STANDARD,
    About,
    describe_use,
    notes,
    provenance,
    read_metadata,
    standard_metadata,
)
from bloodedge.deploy.seal import BUDGET, seal
from bloodedge.errors import ModelError
from bloodedge.references import packaged_zoo
from bloodedge.train.models.cnn_se import PLANS

ABOUT = About("cnn_se-int8", "Größe 64", "bloodedge 1", "A. Uthor", "Apache-2.0")
FIGURES = {"images": 1712, "accuracy": 0.9831, "parent": 0.9848, "agreement": 0.9959}
PROVENANCE = provenance(parent="a" * 64, data="b" * 64, synthetic=False, val=FIGURES, failed=())


@pytest.fixture(scope="module")
def bare() -> bytes:
    (path,) = (packaged_zoo() / "cnn_se").glob("*.tflite")
    content = path.read_bytes()
    tree = read_model(content).model
    tree.drop("metadata")
    return write_tables(tree)


class Reader:
    """A table at a position, by the flatbuffers runtime alone."""

    def __init__(self, data: bytes, at: int | None = None) -> None:
        self.raw = Raw(data, struct.unpack_from("<I", data)[0] if at is None else at)

    def offset(self, slot: int) -> int:
        return int(self.raw.Offset(4 + 2 * slot))

    def text(self, slot: int) -> str:
        return bytes(self.raw.String(self.offset(slot) + self.raw.Pos)).decode()

    def byte(self, slot: int) -> int:
        return int(self.raw.Get(types.Uint8Flags, self.offset(slot) + self.raw.Pos))

    def table(self, slot: int) -> Reader:
        at = self.raw.Indirect(self.offset(slot) + self.raw.Pos)
        return Reader(self.raw.Bytes, at)

    def tables(self, slot: int) -> list[Reader]:
        start, count = self.raw.Vector(self.offset(slot)), self.raw.VectorLen(self.offset(slot))
        return [Reader(self.raw.Bytes, self.raw.Indirect(start + 4 * i)) for i in range(count)]

    def floats(self, slot: int) -> list[float]:
        start, count = self.raw.Vector(self.offset(slot)), self.raw.VectorLen(self.offset(slot))
        return list(struct.unpack_from(f"<{count}f", self.raw.Bytes, start))


def test_the_block_says_what_the_tools_need() -> None:
    content = standard_metadata(ABOUT)
    assert content[4:8] == b"M001"
    root = Reader(content)
    texts = [root.text(slot) for slot in (0, 1, 2, 4, 5)]
    expected = ["cnn_se-int8", "Größe 64", "bloodedge 1", "A. Uthor", "Apache-2.0"]
    assert texts == expected
    (graph,) = root.tables(3)
    (image,), (scores,) = graph.tables(2), graph.tables(3)
    content_of_image = image.table(3)
    assert (content_of_image.byte(0), content_of_image.table(1).byte(0)) == (2, 1)  # image, RGB
    (unit,) = image.tables(4)
    assert unit.byte(0) == 1
    assert (unit.table(1).floats(0), unit.table(1).floats(1)) == ([0.0], [1.0])
    assert scores.table(3).byte(0) == 1
    (labels,) = scores.tables(6)
    assert (labels.text(0), labels.byte(2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS


def test_empty_texts_are_left_out() -> None:
    root = Reader(standard_metadata(About("x")))
    assert [root.offset(slot) for slot in (1, 2, 4, 5)] == [0, 0, 0, 0]


def test_both_blocks_come_back(bare: bytes) -> None:
    content = append_labels(lean(bare, notes(ABOUT, PROVENANCE)), ("a", "b"))
    found = read_metadata(content)
    assert found.about == ABOUT
    assert found.provenance == PROVENANCE
    assert not found.foreign
    assert describe(found)[0].startswith("metadata, by bloodedge: cnn_se-int8; ")
    assert "gate passed" in describe(found)[1]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("labels.txt") == b"a\nb\n"


# The longest of what a student's export can say of itself in ordinary use.
LONGEST = provenance(
    parent="a" * 64, data="b" * 64, synthetic=True, val=FIGURES | {"accuracy": 0.1234}, failed=()
)
MAKER = ("A. N. Author", "CC BY 4.0")


@pytest.mark.parametrize("student", sorted(PLANS))
@pytest.mark.parametrize("variant", ALL_VARIANTS)
def test_all_that_an_export_adds_is_a_kilobyte_at_most(
    bare: bytes, student: str, variant: str
) -> None:
    text = describe_use("synthetic blood cells, drawn with seed 0: no real patients' images")
    about = About(f"{student}-s0-{variant}", text, f"bloodedge {__version__}", *MAKER)
    whole = seal(bare, about, LONGEST, BLOODMNIST_CLASSES)
    assert len(whole) - len(lean(bare)) <= BUDGET == 1024
    assert map_bytes(whole).added <= BUDGET
    assert read_metadata(whole).about == about
    assert read_metadata(whole).provenance == LONGEST


def test_the_description_says_on_what_it_was_trained_and_for_what() -> None:
    text = describe_use("PBC re-split (BloodMNIST protocol)")
    assert text == "Trained on PBC re-split (BloodMNIST protocol); research use only."
    assert describe_use("drawn cells: no patients") == "Trained on drawn cells; research use only."
    assert len(describe_use("x" * 500)) < 90


def test_what_a_gate_says_is_cut_to_the_budget(bare: bytes) -> None:
    lines = [f"the loss of recall of type {i} is 0.25, expected at most 0.05" for i in range(12)]
    whole = seal(bare, ABOUT, {**PROVENANCE, "failed": lines}, BLOODMNIST_CLASSES)
    assert len(whole) - len(lean(bare)) <= BUDGET
    *told, last = read_metadata(whole).provenance["failed"]
    assert told == lines[: len(told)]
    assert 1 <= len(told) < 12
    assert last == f"and {12 - len(told)} more"
    assert "gate failed" in describe(read_metadata(whole))[1]
    short = seal(bare, ABOUT, {**PROVENANCE, "failed": lines[:2]}, ("a", "b"))
    assert read_metadata(short).provenance["failed"] == lines[:2]


def test_metadata_beyond_the_budget_is_refused_and_many_labels_are_not(bare: bytes) -> None:
    wordy = About("x", "", "", "a" * 200, "b" * 200)
    with pytest.raises(ModelError, match=r"takes 1,\d\d\d bytes; expected at most 1,024.*--author"):
        seal(bare, wordy, PROVENANCE | {"val": FIGURES, "more": "c" * 200}, ("a", "b"))
    names = [f"class number {i}" for i in range(500)]
    content = seal(bare, ABOUT, PROVENANCE, names)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("labels.txt").decode().splitlines() == names


def test_where_a_file_comes_from_says_what_is_not_usual() -> None:
    assert PROVENANCE == {"parent": "a" * 32, "data": "b" * 32, "val": FIGURES, "failed": []}
    odd = provenance(
        parent="", data="", synthetic=True, val={}, failed=["lost 2 points"], limits={"max_ece": 1}
    )
    assert (odd["synthetic"], odd["failed"]) == (True, ["lost 2 points"])
    assert odd["limits"] == {"max_ece": 1}
    usual = provenance(parent="", data="", synthetic=False, val={}, failed=(), limits={})
    assert "limits" not in usual


def test_limits_of_its_own_are_told(bare: bytes) -> None:
    own = {**PROVENANCE, "limits": {"max_drop": 0.5}}
    line = describe(read_metadata(seal(bare, ABOUT, own, ("a", "b"))))[1]
    assert line.endswith("gate passed, with limits of its own: max_drop 0.5")


def test_weights_and_graph_do_not_move(bare: bytes) -> None:
    def constants(content: bytes) -> list[bytes]:
        model = read_model(content).model
        buffers = model.tables("buffers")
        (graph,) = model.tables("subgraphs")
        vectors = [buffers[t.number("buffer")].vector("data") for t in graph.tables("tensors")]
        return [bytes(v.data) if v else b"" for v in vectors]

    assert constants(lean(bare, notes(ABOUT, PROVENANCE))) == constants(lean(bare))


def test_another_tools_block_is_kept_and_never_replaced(bare: bytes) -> None:
    added = {"other": b"\1\2", "reduced_precision_support": b"fp16accfp32"}
    foreign = lean(bare, {STANDARD: standard_metadata(ABOUT), **added})
    found = read_metadata(foreign)
    assert found.foreign
    assert found.others == tuple(added)
    assert map_bytes(foreign).purposes["runtime hints"] == 4 + 11 + 4 + 25 + 1
    assert read_metadata(lean(foreign)).about == ABOUT
    lines = describe(found)
    assert "written by another tool" in lines[0]
    assert lines[1:] == [
        "hints for runtimes: reduced_precision_support",
        "further metadata, not known here: other",
    ]
    with pytest.raises(ModelError, match="TFLITE_METADATA"):
        lean(foreign, notes(ABOUT, PROVENANCE))


@pytest.mark.parametrize("cut", [0, 7, 20, 60])
def test_a_damaged_block_is_refused(bare: bytes, cut: int) -> None:
    content = lean(bare, {STANDARD: standard_metadata(ABOUT)[:cut]})
    with pytest.raises(ModelError):
        read_metadata(content)


@pytest.mark.parametrize("data", [b"\xff", b"[1]", b"{", b"[" * 100_000, b'{"a":NaN}'])
def test_damaged_provenance_is_refused(bare: bytes, data: bytes) -> None:
    with pytest.raises(ModelError, match="bloodedge"):
        read_metadata(lean(bare, {"bloodedge": data}))


def test_provenance_of_more_than_a_mebibyte_is_refused(bare: bytes) -> None:
    with pytest.raises(ModelError, match="it is larger than 1 MiB"):
        read_metadata(lean(bare, {"bloodedge": b'{"a":"' + bytes([120]) * (1 << 20) + b'"}'}))


def test_metadata_outside_the_file_is_damage(bare: bytes) -> None:
    model = read_model(lean(bare, notes(ABOUT, PROVENANCE))).model
    for note in model.tables("metadata"):
        note.fields["buffer"] = len(model.tables("buffers"))
    with pytest.raises(ModelError):
        read_metadata(write_tables(model))


def test_what_says_nothing_of_itself_is_not_another_tools(bare: bytes) -> None:
    found = read_metadata(bare)
    assert (found.about, found.provenance, found.foreign) == (None, {}, False)


def test_texts_from_elsewhere_cannot_act_on_a_terminal(bare: bytes) -> None:
    root = Table("ModelMetadata", {"name": Vector(b"a\x1b[31mb\nc", 1, text=True)})
    found = read_metadata(lean(bare, {STANDARD: write_tables(root, b"M001")}))
    assert found.about is not None
    assert found.about.name == "a?[31mb c"
    hostile = {"parent": "\x1b[31m", "data": "x\ny", "limits": {"\x1b[0m": "\r"}}
    for line in describe(read_metadata(seal(bare, ABOUT, hostile, ("a", "b")))):
        assert line.isprintable()


def test_texts_and_names_from_elsewhere_are_short_and_one_line(bare: bytes) -> None:
    root = Table("ModelMetadata", {"name": Vector(b"a" * 9999, 1, text=True)})
    entries = {STANDARD: write_tables(root, b"M001"), "b\x1b[31m\nc": b"x"}
    found = read_metadata(lean(bare, entries))
    assert found.about is not None
    assert len(found.about.name) == 500
    assert found.others == ("b?[31m c",)
