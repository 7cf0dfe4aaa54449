"""What int8 brought, and why it was slower: only what files, runtimes and results show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.benchmarks import runner
from bloodedge.benchmarks.machine import Noise
from bloodedge.benchmarks.report.data import Latency, Row, Section
from bloodedge.benchmarks.report.int8 import find_pairs, int8_part
from bloodedge.benchmarks.report.reasons import ModelFiles, reasons
from bloodedge.benchmarks.report.results import Result, newest, read_result
from bloodedge.benchmarks.result import BenchmarkRow
from bloodedge.deploy.convert import convert
from bloodedge.deploy.lint.facts import FileFacts, Operator, Tensor
from bloodedge.deploy.lint.rule import Case
from bloodedge.errors import DataError
from bloodedge.files import sha256_of, write_json

SIDE = 32


def timing(us: float, **more: Any) -> BenchmarkRow:
    values: dict[str, Any] = {"model": "m", "bytes": 1, "gzip_bytes": 1, "threads": 1}
    values |= dict.fromkeys(("p90_us", "p99_us", "min_us"), us)
    values |= {"load_ms": 1.0, "first_ms": 1.0, "peak_rss_kib": 1, "accuracy": 0.9, "images": 9}
    values |= {"spread": 0.02, "drift": False, "error": None, "repeats": 5}
    return BenchmarkRow(median_us=us, **(values | more))


def place(us: float, runtime: str = "ai_edge_litert 2.3.0", **more: Any) -> Latency:
    one = timing(
        us, **{key: more.pop(key) for key in ("spread", "xnnpack", "repeats") if key in more}
    )
    return Latency("Pi 4 (aarch64)", runtime, one, None, source="pi.json", **more)


def row(variant: str, latency: Latency, **more: Any) -> Row:
    values = {"model": "net", "family": "net", "sha256": variant, "bytes": 9, "gzip_bytes": 9}
    return Row(variant=variant, file=f"net-{variant}.tflite", latency=latency, **(values | more))


def section(*rows: Row) -> Section:
    return Section("f" * 64, "Cells", False, ("a", "b"), rows, (), ())


def pair(slow: float = 150.0, fast: float = 100.0, **more: Any) -> Section:
    return section(row("float32", place(fast, **more)), row("int8", place(slow, **more)))


def written(folder: Path, row: dict[str, Any], **environment: Any) -> Result:
    """Return what is read of a result that says this of its one row and of the machine."""
    measured = {"model": "m-int8.tflite", "threads": 1, "sha256": "a" * 64, "bytes": 1}
    measured |= {"gzip_bytes": 1, "accuracy": None, "drift": False, "error": None}
    measured |= dict.fromkeys(("median_us", "p90_us", "p99_us", "min_us", "load_ms"), 1.0)
    measured |= {"first_ms": 1.0, "spread": 0.0, "peak_rss_kib": 1, **row}
    environment |= {"runtime": "r", "runtime_version": "1", "machine": "m", "cpu_model": "c"}
    value = {"schema": "bloodedge-benchmark/1", "complete": True, "rows": [measured]}
    write_json(folder / "r.json", {**value, "environment": environment})
    return read_result(folder / "r.json", "r.json")


class Known(ModelFiles):
    """Files whose cases are given."""

    def __init__(self, **cases: Case | str) -> None:
        super().__init__()
        self.given = cases

    def case(self, row: Row, latency: Latency) -> Case | str:
        return self.given[row.variant]


def tensor(kind: str, *shape: int) -> Tensor:
    return Tensor(kind, (1, *shape), False, False)


def operator(kind: str, out: Tensor, *, taken: Tensor | None = None) -> Operator:
    return Operator(kind, 0, 1, (taken or out,), (out,))


def conv(kind: str, channels: int = 8) -> Operator:
    kernel = Tensor(kind, (channels, 3, 3, 8), True, False)
    return Operator(
        "CONV_2D", 0, 1, (tensor(kind, 8, 8, 8), kernel), (tensor(kind, 8, 8, channels),)
    )


def case(*operators: Operator, outside: frozenset[int] | None = frozenset()) -> Case:
    return Case("litert", file=FileFacts("net", operators, (), (), outside=outside))


FLOAT = case(conv("FLOAT32"), conv("FLOAT32"))
INT8 = case(conv("INT8"), conv("INT8"))


def why(int8: Case | str, float32: Case | str = FLOAT, **more: Any) -> list[str]:
    at = place(1.0, **more)
    rows = row("float32", at), row("int8", at)
    return reasons(*rows, at, (None, None), Known(float32=float32, int8=int8))


# ---- pairs ----


def test_the_ratio_is_that_of_two_medians_of_one_place() -> None:
    part = int8_part(pair(150.0, 100.0), ModelFiles())
    assert part
    assert part.table[1] == (
        "net", "Pi 4 (aarch64), ai_edge_litert 2.3.0", "1", "100", "150", "1.50, slower",
    )  # fmt: skip
    assert part.raw[1][3:7] == (100.0, 150.0, 1.5, "slower")
    faster = int8_part(pair(50.0, 100.0), ModelFiles())
    assert faster
    assert faster.table[1][-1] == "0.50, faster"
    assert len(faster.notes) == 1  # nothing is said of why it is faster
    assert faster.raw[1][-1] == ""


def test_a_difference_within_the_processes_own_is_none() -> None:
    part = int8_part(pair(108.0, 100.0, spread=0.1), ModelFiles())
    assert part
    assert part.table[1][-1] == "1.08, no difference: processes differ by 10 %"
    assert len(part.notes) == 1


@pytest.mark.parametrize(("before", "after"), [(0.02, 0.1), (0.1, 0.02)])
def test_the_noisier_of_the_two_files_decides(before: float, after: float) -> None:
    float32, int8 = (
        row("float32", place(100.0, spread=before)),
        row("int8", place(108.0, spread=after)),
    )
    (found,) = find_pairs(section(float32, int8))
    assert (found.noise, found.verdict) == (0.1, "no difference")


@pytest.mark.parametrize("repeats", [0, 1, 2])
def test_too_few_processes_tell_neither_which_is_faster_nor_why(repeats: int) -> None:
    few = row("float32", place(100.0, spread=0.0, repeats=repeats))
    part = int8_part(section(few, row("int8", place(150.0, spread=0.0))), ModelFiles())
    assert part
    assert part.table[1][-1] == "1.50, unknown: too few processes"
    assert part.raw[1][-2:] == ("unknown", "")
    assert len(part.notes) == 1
    enough = row("float32", place(100.0, spread=0.0, repeats=3))
    (found,) = find_pairs(section(enough, row("int8", place(150.0, repeats=3))))
    assert found.verdict == "slower"


@pytest.mark.parametrize(
    ("recorded", "repeats"), [({"repeats": 5}, 5), ({"runs": [{}] * 4}, 4), ({}, 0)]
)
def test_how_many_processes_a_row_is_over_is_read_from_it(
    recorded: dict[str, Any], repeats: int, tmp_path: Path
) -> None:
    (found,) = written(tmp_path, recorded).measured
    assert found.latency.single
    assert found.latency.single.repeats == repeats


@pytest.mark.parametrize("damaged", [0, -1, 10**9, "5", 2.5, True])
def test_a_damaged_number_of_processes_is_refused(damaged: object, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="repeats"):
        written(tmp_path, {"repeats": damaged})


@pytest.mark.parametrize(
    "other",
    [
        {"runtime": "tflite_runtime 2.14.0"},
        {"protocol": "android"},
        {"quick": True},
        {"emulated": True},
    ],
)
def test_other_places_make_no_pair(other: dict[str, Any]) -> None:
    apart = section(row("float32", place(1.0)), row("int8", place(2.0, **other)))
    assert find_pairs(apart) == []
    assert int8_part(apart, ModelFiles()) is None


def test_other_models_threads_and_parents_make_no_pair() -> None:
    float32, int8 = row("float32", place(1.0), parent="a"), row("int8", place(2.0), parent="a")
    assert len(find_pairs(section(float32, int8))) == 1
    assert find_pairs(section(float32, replace(int8, model="other"))) == []
    assert find_pairs(section(float32, replace(int8, parent="b"))) == []
    many = Latency("Pi 4 (aarch64)", "ai_edge_litert 2.3.0", None, timing(1.0, threads=4))
    assert find_pairs(section(float32, replace(int8, latency=many))) == []
    four = find_pairs(section(replace(float32, latency=many), replace(int8, latency=many)))
    assert [one.after.threads for one in four] == [4]


def test_files_that_were_measured_together_once_are_compared_by_that_run() -> None:
    both = replace(place(4.0), source="both.json")
    newer = replace(place(1.0), source="newer.json", superseded=(both,))
    float32 = replace(place(8.0), source="both.json")
    (found,) = find_pairs(section(row("float32", float32), row("int8", newer)))
    assert (found.ratio, found.place.source, found.doubt) == (0.5, "both.json", "")
    # Also where a figure of that run is shown beside a later one with one thread.
    whole = replace(both, all_cores=timing(2.0, threads=4))
    shown = replace(newer, superseded=())
    merged = newest([whole, shown])
    assert merged.merged == (shown, whole)
    (found,) = find_pairs(section(row("float32", float32), row("int8", merged)))
    assert (found.ratio, found.place.source, found.doubt) == (0.5, "both.json", "")


def test_of_several_float32_files_that_of_the_same_parent_and_run_counts() -> None:
    int8 = row("int8", place(9.0), parent="a")
    apart = replace(place(1.0), source="another.json")
    rows = [
        row("float32", place(2.0), sha256="unknown"),
        row("float32", apart, sha256="apart", parent="a"),
        row("float32", place(3.0), sha256="right", parent="a"),
    ]
    for order in (rows, rows[::-1]):
        (found,) = find_pairs(section(*order, int8))
        assert found.float32.sha256 == "right"
    part = int8_part(section(rows[1], int8), ModelFiles())
    assert part
    assert part.table[1][-1] == "9.00, unknown: from different runs"
    assert part.raw[1][-2:] == ("unknown", "")
    assert len(part.notes) == 1


def test_figures_with_all_cores_are_of_the_run_that_they_come_from() -> None:
    def at(source: str, when: str, **rows: BenchmarkRow) -> Latency:
        one, many = rows.get("one"), rows.get("many")
        return replace(place(1.0), single=one, all_cores=many, source=source, when=when)

    ones, many = timing(8.0), timing(4.0, threads=4)
    float32 = newest([at("a.json", "2026", one=ones), at("b.json", "2027", many=many)])
    for source, doubt in (("b.json", ""), ("a.json", "from different runs")):
        int8 = at(source, "2026", many=timing(2.0, threads=4))
        (found,) = find_pairs(section(row("float32", float32), row("int8", int8)))
        assert (found.ratio, found.doubt) == (0.5, doubt)
    # An earlier pair of one run counts before a later one of two.
    whole = at("a.json", "2026", one=ones, many=timing(6.0, threads=4))
    float32 = newest([whole, at("b.json", "2027", many=many)])
    (found,) = find_pairs(section(row("float32", float32), row("int8", int8)))
    assert (found.before.median_us, found.doubt) == (6.0, "")


@pytest.mark.parametrize(
    ("more", "doubt"),
    [
        ({"quick": True}, "a quick look"),
        ({"quick": True, "repeats": 2}, "a quick look"),
        ({"noise": Noise("noisy", ("a loop varies",))}, "too noisy to conclude"),
        ({"noise": Noise("unknown", ())}, ""),
        ({"noise": Noise("quiet", ())}, ""),
    ],
)
def test_no_verdict_where_the_runner_gives_none(more: dict[str, Any], doubt: str) -> None:
    for slow, said in ((150.0, "slower"), (50.0, "faster")):
        part = int8_part(pair(slow, 100.0, **more), ModelFiles())
        assert part
        assert part.table[1][-1] == f"{slow / 100:.2f}, {f'unknown: {doubt}' if doubt else said}"
        assert part.raw[1][-2] == ("unknown" if doubt else said)
        assert len(part.notes) == 1 + (said == "slower" and not doubt)


def test_a_file_of_the_same_parent_counts_before_one_in_the_same_folder() -> None:
    int8 = row("int8", place(9.0), parent="a", home="here")
    rows = [
        row("float32", place(2.0), sha256="beside", home="here"),
        row("float32", place(3.0), sha256="own", parent="a", home="elsewhere"),
    ]
    for order in (rows, rows[::-1]):
        (found,) = find_pairs(section(*order, int8))
        assert found.float32.sha256 == "own"


def test_of_several_pairs_of_one_name_each_is_compared_with_its_own() -> None:
    rows = [
        row(variant, place(us), sha256=f"{home}{variant}", home=home, mark=home)
        for home, variant, us in (
            ("a", "float32", 100.0), ("b", "float32", 10.0),
            ("a", "int8", 50.0), ("b", "int8", 20.0),
        )
    ]  # fmt: skip
    for order in (rows, rows[::-1]):
        found = {pair.int8.home: pair for pair in find_pairs(section(*order))}
        assert {home: (pair.float32.home, pair.ratio) for home, pair in found.items()} == {
            "a": ("a", 0.5),
            "b": ("b", 2.0),
        }
    part = int8_part(section(*rows), ModelFiles())
    assert part
    assert [line[0] for line in part.table[1:]] == ["net (b)", "net (a)"]
    assert part.notes[-1].startswith("net (b) is slower in int8")


# ---- reasons ----


def test_without_the_file_it_says_so() -> None:
    part = int8_part(pair(), ModelFiles())
    assert part
    assert part.notes[-1] == (
        "net is slower in int8 on Pi 4 (aarch64), ai_edge_litert 2.3.0: nothing is known of the "
        "files: the float32 file float32 is in no run here, the int8 file int8 is in no run here."
    )


def test_a_file_that_is_not_the_measured_one_is_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "net-int8.tflite"
    path.write_bytes(b"changed since")
    said = ModelFiles({"int8": path}).case(row("int8", place(1.0)), place(1.0))
    assert said == "the int8 file int8 was changed in the run that held it"
    damaged = row("int8", place(1.0), sha256=sha256_of(path))
    said = ModelFiles({damaged.sha256: path}).case(damaged, place(1.0))
    assert said == (
        f"the int8 file {damaged.sha256[:12]}: net-int8.tflite: no TFLite model; expected the "
        "identifier TFL3 at byte 4"
    )
    unnameable = ModelFiles({"int8": tmp_path / ("x" * 5000)})
    assert "too long" in str(unnameable.case(row("int8", place(1.0)), place(1.0)))


def test_where_nothing_is_known_that_is_said_with_what_was_looked_at() -> None:
    assert why(INT8) == [
        "nothing is known: no float fall-back, no empty lanes and no added operators in the file, "
        "no operator outside XNNPACK (asked of the runtime here), the result does not name the "
        "processor's flags"
    ]
    (said,) = why(replace(INT8, file=replace(INT8.file, outside=None)), int8_dot=True)
    assert "not known of that program" in said
    assert "flags" not in said


def test_the_processors_flags_count_only_where_the_result_names_them() -> None:
    assert why(INT8, int8_dot=False) == ["the processor's flags name no int8 dot product"]
    assert "nothing is known" in why(INT8, int8_dot=True)[0]
    assert "nothing is known" in why(INT8, int8_dot=None)[0]


@pytest.mark.parametrize(
    ("flags", "known"),
    [
        (["asimd", "asimddp"], True), (["avx2", "avx512_vnni"], True), (["avx2"], False),
        ([], False), (None, None), ("asimddp", None), ([["x"]], False), (["a"] * 5000, None),
    ],
)  # fmt: skip
def test_flags_are_read_from_the_environment(
    flags: object, known: bool | None, tmp_path: Path
) -> None:
    (found,) = written(tmp_path, {}, cpu_flags=flags).measured
    assert found.latency.int8_dot is known


@pytest.mark.parametrize(
    ("cpuinfo", "flags"),
    [
        ("processor: 0\nflags\t\t: fpu sse4_1 avx512_vnni\n", ["avx512_vnni", "sse4_1"]),
        ("processor: 0\nFeatures\t: fp asimd crc32 asimddp\n", ["asimd", "asimddp"]),
        ("flags : fpu\n", []),
        ("processor: 0\n", None),
        ("", None),
    ],
)  # fmt: skip
def test_the_runner_records_the_processors_vector_flags(
    cpuinfo: str, flags: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "read_text", lambda path: cpuinfo)
    assert runner.cpu_flags() == flags


def test_added_conversions_are_counted_with_their_share() -> None:
    image, small = tensor("INT8", 8, 8, 8), tensor("INT8", 1, 1, 8)
    int8 = case(
        operator("QUANTIZE", image), conv("INT8"), conv("INT8"), operator("QUANTIZE", small)
    )
    # 512 + 8 of 3 * 512 + 8 values.
    assert why(int8) == ["2 QUANTIZE more than in float32, 34 % of the values computed"]
    tiny = case(conv("INT8", 800), operator("QUANTIZE", tensor("INT8", 1)))
    assert "nothing is known" in why(tiny, case(conv("FLOAT32", 800)))[0]


def test_what_is_true_of_both_is_no_reason_of_int8_alone() -> None:
    narrow = case(conv("INT8", 9)), case(conv("FLOAT32", 9))
    (said,) = why(*narrow)
    assert said.startswith("true of both: ")
    assert "layers of 9 channels [vector-width]" in said
    (alone,) = why(narrow[0], FLOAT)
    assert not alone.startswith("true of both")


def test_float_fall_backs_and_operators_without_a_kernel_are_named() -> None:
    gelu = operator("GELU", tensor("FLOAT32", 8, 8, 8))
    int8 = case(conv("INT8"), gelu, conv("INT8"), outside=frozenset({1}))
    float32 = case(conv("FLOAT32"), gelu, conv("FLOAT32"))
    assert why(int8, float32) == [
        "GELU computes in float32 [float-fallback]",
        "GELU runs outside XNNPACK [unaccelerated]",
    ]


def test_what_the_device_said_of_xnnpack_is_told() -> None:
    at = place(1.0)
    rows = row("float32", at), row("int8", at)
    files = Known(float32=FLOAT, int8=INT8)
    assert reasons(*rows, at, (True, False), files) == [
        "the runtime used XNNPACK for float32 and not for int8"
    ]
    for known, delegate in (((False, False), ""), ((None, None), "cpu")):
        (said,) = reasons(*rows, replace(at, delegate=delegate), known, files)
        assert said == "true of both: without XNNPACK, on the runtime's built-in kernels"
    (said,) = reasons(*rows, at, (True, True), files)
    assert said.startswith("nothing is known")


# ---- real files ----


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A net with an ELU, which has no int8 form, as float32 and int8."""
    use_backend().utils.set_random_seed(0)
    import keras

    image = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(image)
    x = keras.layers.Activation("elu")(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3)(x))
    net = keras.Model(image, keras.layers.Dense(4)(x))
    noise = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3)).astype(np.uint8)
    folder = tmp_path_factory.mktemp("files")
    for form in ("float32", "int8"):
        (folder / f"net-{form}.tflite").write_bytes(convert(net, form, noise))
    return {form: folder / f"net-{form}.tflite" for form in ("float32", "int8")}


def test_reasons_of_real_files(files: dict[str, Path]) -> None:
    digests = {form: sha256_of(path) for form, path in files.items()}
    known = ModelFiles({digests[form]: path for form, path in files.items()})
    rows = [row(form, place(us), sha256=digests[form])
            for form, us in (("float32", 50.0), ("int8", 90.0))]  # fmt: skip
    part = int8_part(section(*rows), known)
    assert part
    said = part.notes[-1]
    assert "ELU computes in float32 [float-fallback]" in said
    assert "DEQUANTIZE more than in float32" in said
    # Another program's XNNPACK was not asked, only the files.
    other = {"runtime": "benchmark_model 2.19", "protocol": "android", "delegate": "xnnpack"}
    phone = [replace(r, latency=replace(r.latency, **other)) for r in rows if r.latency]
    on_phone = int8_part(section(*phone), known)
    assert on_phone
    assert "[float-fallback]" in on_phone.notes[-1]
    assert "unaccelerated" not in on_phone.notes[-1]
