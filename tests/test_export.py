"""Keras == TFLite at each step, on a small model that has really learnt something."""

from __future__ import annotations

import csv
import errno
import json
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bloodedge.data.calibration import calibration_indices
from bloodedge.data.dataset import Dataset, Split
from bloodedge.deploy import verify
from bloodedge.deploy.agreement import compare
from bloodedge.deploy.card import CARD, write_card
from bloodedge.deploy.compat import check_compatible
from bloodedge.deploy.convert import VARIANTS, convert
from bloodedge.deploy.export import ExportConfig, _check_fit, _figures, export
from bloodedge.deploy.flat.bytemap import map_bytes
from bloodedge.deploy.flat.lean import lean
from bloodedge.deploy.interpreter import Classifier, find_runtime, predict_parallel, probe
from bloodedge.deploy.labels import read_labels
from bloodedge.deploy.metadata import read_metadata
from bloodedge.deploy.runtime_trials import try_runtimes
from bloodedge.deploy.runtimes import Runtime, installed_runtimes
from bloodedge.deploy.seal import BUDGET
from bloodedge.errors import ConfigError, ModelError, RunError, VerificationError
from bloodedge.files import gzip_size, sha256_of, write_json
from bloodedge.metrics import softmax
from bloodedge.quiet import quiet
from bloodedge.references import ModelReference, find_model
from bloodedge.runs import MANIFEST, Manifest, Run, load_run, open_run
from bloodedge.train.loop import predict_logits
from bloodedge.train.modelio import fixed_size, model_entry, save_model
from bloodedge.train.registry import ModelConfig, build

SIDE = 32
NAMES = ("red cell", "green cell", "blue cell", "grey cell")
CONFIG = ModelConfig("cnn_se", len(NAMES), SIDE, 0.25)
COLOURS = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [60, 60, 60]])


def blobs(per_class: int, seed: int) -> Split:
    """A disc of its class's colour somewhere on a pale, noisy ground."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(NAMES)), per_class)).astype(np.int64)
    images = rng.integers(190, 240, (len(labels), SIDE, SIDE, 3))
    grid = np.arange(SIDE)
    for image, label in zip(images, labels, strict=True):
        y, x = rng.integers(10, SIDE - 10, 2)
        disc = (grid[:, None] - y) ** 2 + (grid[None, :] - x) ** 2 < rng.integers(30, 90)
        image[disc] = COLOURS[label] + rng.integers(-25, 26, (int(disc.sum()), 3))
    return Split(images.astype(np.uint8), labels)


@pytest.fixture(scope="session")
def cells() -> Dataset:
    splits = {"train": blobs(64, 1), "val": blobs(50, 2), "test": blobs(8, 3)}
    return Dataset("blobs", "synthetic", "synthetic blobs", NAMES, splits, {})


def fit_quickly(model: Any, split: Split) -> None:
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.8  # its averages must settle within a few dozen steps
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(5e-3), loss=loss)
    model.fit(split.images.astype("float32"), split.labels, batch_size=32, epochs=10, verbose=0)


@dataclass(frozen=True)
class Exported:
    model: Any
    parent: Run
    run: Run
    root: Path

    def file(self, variant: str) -> Path:
        return self.run.path / str(self.run.manifest["metrics"]["variants"][variant]["file"])


def save_parent(model: Any, data: Dataset, root: Path, name: str = "small") -> Run:
    with open_run(name, root=root) as folder:
        save_model(model, folder.path / "model.keras")
        entry = model_entry(CONFIG, model, data.class_names)
        return folder.commit(Manifest("train", name, {}, data.describe(), {}, entry, {}, 0, 0.0))


@pytest.fixture(scope="session")
def exported(cells: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    import keras

    keras.utils.set_random_seed(0)
    model = build(CONFIG, size=SIDE)
    fit_quickly(model, cells["train"])
    model = fixed_size(model, CONFIG)
    root = tmp_path_factory.mktemp("exported")
    parent = save_parent(model, cells, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BLOODEDGE_RUNS", str(root))
        run = export(ExportConfig("small", "small-tflite", per_class=8), cells)
    return Exported(model, parent, run, root)


@pytest.fixture
def in_runs(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> Exported:
    monkeypatch.setenv("BLOODEDGE_RUNS", str(exported.root))
    return exported


def parent_probabilities(exported: Exported, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    return softmax(predict_logits(exported.model, images))


@pytest.mark.slow
def test_the_parent_has_learnt(exported: Exported, cells: Dataset) -> None:
    p = parent_probabilities(exported, cells["val"].images)
    assert (p.argmax(axis=1) == cells["val"].labels).mean() > 0.95


@pytest.mark.slow
def test_float32_equals_keras(exported: Exported, cells: Dataset) -> None:
    p = predict_parallel(exported.file("float32"), cells["val"].images)
    parent = parent_probabilities(exported, cells["val"].images)
    np.testing.assert_allclose(p, parent, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "least"), [("float16", 0.995), ("dynamic", 0.99), ("int8", 0.99)]
)
def test_smaller_variants_choose_the_same(
    exported: Exported, cells: Dataset, variant: str, least: float
) -> None:
    p = predict_parallel(exported.file(variant), cells["val"].images)
    parent = parent_probabilities(exported, cells["val"].images)
    assert (p.argmax(axis=1) == parent.argmax(axis=1)).mean() >= least


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_file_has_batch_1_labels_and_softmax(
    exported: Exported, cells: Dataset, variant: str
) -> None:
    path = exported.file(variant)
    probe(path)
    model = Classifier(path)
    assert (model.batch, model.input_size, model.classes) == (1, SIDE, len(NAMES))
    expected = np.uint8 if variant == "int8" else np.float32
    assert model.input_dtype == model.output_dtype == expected
    sums = model.predict(cells["val"].images[:32]).sum(axis=1)
    # An int8 probability is a multiple of 1/256, each off by half a step at most.
    np.testing.assert_allclose(sums, 1, atol=len(NAMES) / 512 if variant == "int8" else 1e-5)
    assert read_labels(path) == NAMES


@pytest.mark.slow
def test_int8_takes_bytes_as_they_are_and_scaling_costs_nothing(exported: Exported) -> None:
    interpreter = Classifier(exported.file("int8"))._interpreter
    assert interpreter.get_input_details()[0]["quantization"] == (1.0, 0)
    plain = Classifier(exported.file("float32"))._interpreter
    assert "ADD" not in {op["op_name"] for op in plain._get_ops_details()}


@pytest.mark.slow
def test_manifest_says_what_was_made_and_of_what(exported: Exported, cells: Dataset) -> None:
    manifest = load_run(exported.run.path).manifest
    assert manifest["kind"] == "export"
    assert manifest["parents"] == {"parent": sha256_of(exported.parent.path / "model.keras")}
    assert manifest["model"]["config"] == exported.parent.manifest["model"]["config"]
    variants = manifest["metrics"]["variants"]
    assert list(variants) == list(VARIANTS)
    for variant, found in variants.items():
        path = exported.run.path / f"small-{variant}.tflite"
        assert found["file"] == path.name
        assert found["bytes"] == path.stat().st_size
        assert found["gzip_bytes"] == gzip_size(path)
        assert found["saved_bytes"] > 1000
        assert found["images"] == len(cells["val"])
    index = np.array(manifest["config"]["calibration"]["indices"])
    assert (np.bincount(cells["train"].labels[index]) == 8).all()
    assert variants["int8"]["bytes"] < variants["float32"]["bytes"]


@pytest.mark.slow
def test_the_same_inputs_give_the_same_bytes(exported: Exported, cells: Dataset) -> None:
    images = cells["train"].images[:8]
    assert convert(exported.model, "int8", images) == convert(exported.model, "int8", images)


@pytest.mark.slow
def test_a_failed_gate_writes_nothing(
    in_runs: Exported, cells: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = {**verify.GATES, "float32": replace(verify.GATES["float32"], max_difference=-1.0)}
    monkeypatch.setattr(verify, "GATES", strict)
    before = sorted(in_runs.root.rglob("*"))
    config = ExportConfig("small", "refused", ("float16", "float32"))
    with pytest.raises(VerificationError, match=r"float32: the largest difference.*at most -1"):
        export(config, cells)
    assert [p.name for p in sorted(in_runs.root.rglob("*")) if p not in before] == []


def test_a_conversion_says_how_to_get_the_backend_that_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import keras

    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    said = "Keras runs on jax; to mend it: start a new process with KERAS_BACKEND=tensorflow"
    with pytest.raises(ConfigError, match=said):
        convert(None, "int8", np.zeros((1, 8, 8, 3), np.uint8))


def test_int16x8_takes_batches_and_its_input_covers_every_pixel_value() -> None:
    dim = np.random.default_rng(0).integers(0, 100, (4, SIDE, SIDE, 3), dtype=np.uint8)
    content = convert(build(CONFIG), "int16x8", dim, batch=2)
    with quiet():
        running = find_runtime().interpreter(model_content=content, num_threads=1)
    images = [d for d in running.get_tensor_details() if d["shape"].tolist() == [2, SIDE, SIDE, 3]]
    scales = [d["quantization"][0] for d in images if d["dtype"] == np.int16]
    assert max(scales) * 32767 == pytest.approx(255, rel=1e-3)


def test_what_the_converter_says_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("x" * 1000 + "\nand more")

    monkeypatch.setattr("bloodedge.deploy.convert._converter", fail)
    images = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    with pytest.raises(ModelError, match=r"float16 failed: x{300}[^x].*leave float16 out"):
        convert(build(CONFIG), "float16", images)


@pytest.mark.slow
def test_a_damaged_conversion_is_caught(
    in_runs: Exported, cells: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def untrained(model: Any, variant: str, images: NDArray[np.uint8], **how: Any) -> bytes:
        return convert(build(CONFIG, size=SIDE), variant, images, **how)

    monkeypatch.setattr("bloodedge.deploy.variant.convert", untrained)
    with pytest.raises(VerificationError, match="int8: the agreement"):
        export(ExportConfig("small", "damaged", ("int8",)), cells)
    assert not (in_runs.root / "damaged").exists()
    config = ExportConfig(
        "small",
        "damaged",
        ("int8",),
        allow_failing=True,
        max_ece=1.0,
        c_array=True,
        snippets=True,
    )
    run = export(config, cells)
    found = run.manifest["metrics"]["variants"]["int8"]
    assert any("agreement" in line for line in found["failed"])
    content = (run.path / found["file"]).read_bytes()
    own = read_metadata(content).provenance
    assert own["limits"] == {"max_ece": 1.0}
    assert map_bytes(content).added <= BUDGET
    *told, last = own["failed"]
    # All reasons, or as many as fit.
    assert told == found["failed"][: len(told)] != []
    assert last in (found["failed"][-1], f"and {len(found['failed']) - len(told)} more")
    card = (run.path / CARD).read_text()
    assert "failed their gate" in card
    assert found["failed"][0] in card
    assert "small_int8_input_shape[] = {1, 32, 32, 3}" in (run.path / "small-int8.h").read_text()
    assert 'FILE = "small-int8.tflite"' in (run.path / "small-int8.kt").read_text()
    assert "// probabilities" in (run.path / "small-int8.cc").read_text()
    with (run.path / "changed-int8.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == round((1 - found["agreement"]) * found["images"]) > 0
    for row in rows:
        assert row["truth"] == NAMES[cells["val"].labels[int(row["index"])]]
        assert row["parent"] != row["child"]
    assert (run.path / "changed-int8.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_file_says_where_it_came_from(exported: Exported, cells: Dataset) -> None:
    for variant in VARIANTS:
        content = exported.file(variant).read_bytes()
        found = read_metadata(content)
        assert found.about is not None
        assert found.about.name == f"small-{variant}"
        parent = sha256_of(exported.parent.path / "model.keras")
        assert found.provenance["parent"] == parent[:32]
        assert found.provenance["data"] == cells.fingerprint[:32]
        assert found.provenance["failed"] == []
        assert "limits" not in found.provenance
        assert map_bytes(content).added <= BUDGET


@pytest.mark.slow
def test_the_card_tells_use_limits_data_and_figures(exported: Exported, cells: Dataset) -> None:
    card = (exported.run.path / CARD).read_text()
    for words in (
        "## Intended use and limits",
        "Not a diagnostic device",
        "one laboratory's stain",
        "split by person",
        "Synthetic",
        cells.fingerprint,
        "Licence of the images: nobody's",
        "Licence of the model: not given",
    ):
        assert words in card, words
    assert "`small` (train)" in card
    found = exported.run.manifest["metrics"]["variants"]["int8"]
    assert f"{found['bytes'] / 1000:.1f}" in card
    for name, recall in zip(NAMES, found["recall"], strict=True):
        row = next(line for line in card.splitlines() if line.startswith(f"| {name} (50)"))
        assert f"{100 * recall:.1f} [" in row


def recorded() -> Manifest:
    """An export that this repository holds."""
    path = Path(__file__).parent.parent / "benchmarks/results/manifests/cnn_se-s0-tflite.json"
    value = json.loads(path.read_text())
    return Manifest(**{field.name: value[field.name] for field in fields(Manifest)})


def test_the_card_tells_the_latest_evaluation_on_the_same_data(
    isolated_runs: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.tflite").write_bytes(b"x")
    parent, manifest = find_model(str(tmp_path / "own.tflite")), recorded()
    own = manifest.data["fingerprint"]
    for name, data, created, accuracy in (
        ("a-other-site", "0" * 64, "2026-03-01", 0.41),
        ("b-first", own, "2026-01-01", 0.97),
        ("c-latest", own, "2026-02-01", 0.98),
    ):
        test = {"accuracy": accuracy, "accuracy_95ci": [0.9, 0.99], "images": 100}
        write_json(
            isolated_runs / name / MANIFEST,
            {
                "schema_version": 1,
                "kind": "evaluate",
                "name": name,
                "model": {},
                "files": {},
                "data": {"fingerprint": data},
                "parents": {"model": parent.sha256},
                "created": created,
                "metrics": {"test": test},
            },
        )
    write_card(tmp_path, manifest, parent)
    card = (tmp_path / CARD).read_text()
    assert "The parent: 98.00 % [90.00, 99.00] on 100 images (run `c-latest`)." in card
    assert "41.00" not in card


def test_a_full_temporary_folder_is_not_blamed_on_the_format(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import keras

    def fails(*_: object) -> None:
        raise TypeError("'NoneType' object is not callable")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp")

    model, image = keras.Sequential([keras.Input((8, 8, 3))]), np.zeros((1, 8, 8, 3), np.uint8)
    monkeypatch.setattr("bloodedge.deploy.convert.export_twin", fails)
    with pytest.raises(ModelError, match="leave float32 out of --variants"):
        convert(model, "float32", image)
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(ConfigError, match=r"No space left on device.*set TMPDIR"):
        convert(model, "float32", image)


def test_a_card_of_other_images_says_nothing_of_blood(tmp_path: Path) -> None:
    (tmp_path / "own.tflite").write_bytes(b"x")
    parent, manifest = find_model(str(tmp_path / "own.tflite")), recorded()
    cards = []
    for names in (manifest.model["class_names"], [f"type {i}" for i in range(8)]):
        data = {**manifest.data, "class_names": names, "title": "set"}
        write_card(tmp_path, replace(manifest, data=data), parent)
        cards.append((tmp_path / CARD).read_text().partition("## Data")[0])
    blood, other = cards
    assert "white blood cells" in blood
    assert "--crop 200" in blood
    assert not {"blood", "cell", "BloodMNIST"} & set(re.findall(r"\w+", other.partition("## ")[2]))
    for words in ("Not a diagnostic device", "images of one may lie on both sides"):
        assert words in " ".join(other.split()), words


@pytest.mark.parametrize("files", [{"a": 5}, {"a": {"sha256": []}}])
def test_a_damaged_run_elsewhere_does_not_keep_a_card_from_being_written(
    files: dict[str, object], isolated_runs: Path, tmp_path: Path
) -> None:
    manifest = recorded()
    (isolated_runs / "other").mkdir(parents=True)
    other = {"schema_version": 1, "kind": "train", "name": "other", "files": files}
    text = json.dumps({**other, "model": {}, "data": {}, "metrics": {}})
    (isolated_runs / "other" / "manifest.json").write_text(text)
    (tmp_path / "own.tflite").write_bytes(b"x")
    write_card(tmp_path, manifest, find_model(str(tmp_path / "own.tflite")))
    assert "whose run is not at hand" in (tmp_path / CARD).read_text()


@pytest.mark.slow
def test_the_card_tells_the_bytes_and_the_runtimes_that_were_tried(exported: Exported) -> None:
    card = (exported.run.path / CARD).read_text()
    _, files, runtimes = re.split("\n## (?:Files|Runtimes tried)\n", card)
    for variant in VARIANTS:
        found = exported.run.manifest["metrics"]["variants"][variant]
        split = map_bytes(exported.file(variant).read_bytes())
        (row,) = (line for line in files.splitlines() if f"`{found['file']}`" in line)
        assert f"| {split.constants:,} |" in row
        assert f"| {split.above_floor:+,} (" in row
        tried = {title.split()[0]: said for title, said in found["runtimes"].items()}
        assert tried["ai-edge-litert"] == "runs"
        assert tried["tensorflow"].startswith("runs")
        if variant != "dynamic" and (micro := tried.get("tflite-micro")):
            expected = "refused" if variant == "float16" else r"loads, arena [\d,]+ bytes"
            assert re.fullmatch(expected, micro), (variant, micro)
        (row,) = (line for line in runtimes.splitlines() if line.startswith(f"| {variant} |"))
        assert all(said in row for said in found["runtimes"].values())


@pytest.mark.slow
def test_a_runtime_that_refuses_or_answers_otherwise_is_told(
    exported: Exported, cells: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: object, **__: object) -> None:
        raise ValueError("no such\noperator")

    images = cells["val"].images[:3]
    answers = predict_parallel(exported.file("int8"), images).astype(np.float64)
    here = installed_runtimes()[0]
    runtimes = (here, Runtime("other", "1", refusing))
    monkeypatch.setattr("bloodedge.deploy.runtime_trials.installed_runtimes", lambda: runtimes)
    found = try_runtimes(exported.file("int8"), images, answers)
    assert found[f"{here.name} {here.version}"] == "runs"
    assert found["other 1"].startswith("refused: ")
    assert found["other 1"].endswith("no such operator")
    assert found["tflite-runtime 2.14"] == "not tried; knows its operators"
    off = try_runtimes(exported.file("int8"), images, answers + 0.25)
    assert off[f"{here.name} {here.version}"] == "runs, up to 0.2 apart"


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "io"), [(4, "uint8"), (1, "int8"), (3, "float32")])
def test_batches_and_types_of_int8_answer_alike(
    exported: Exported, cells: Dataset, tmp_path: Path, batch: int, io: str
) -> None:
    images = cells["train"].images[:16]
    path = tmp_path / "model.tflite"
    path.write_bytes(lean(convert(exported.model, "int8", images, batch=batch, io=io)))
    model = Classifier(path)
    assert (model.batch, model.input_dtype, model.output_dtype) == (batch, io, io)
    parent = parent_probabilities(exported, cells["val"].images[:40])
    p = model.predict(cells["val"].images[:40])
    assert (p.argmax(axis=1) == parent.argmax(axis=1)).mean() >= 0.95


@pytest.mark.slow
def test_every_variant_loads_in_tflite_runtime(exported: Exported) -> None:
    for variant in VARIANTS:
        check_compatible(exported.file(variant).read_bytes(), "tflite-runtime")


@pytest.mark.slow
def test_a_run_is_not_overwritten_unless_asked(in_runs: Exported, cells: Dataset) -> None:
    with pytest.raises(RunError, match="exists"):
        export(ExportConfig("small", "small-tflite", ("float32",)), cells)


@pytest.mark.slow
def test_data_with_other_classes_or_sizes_is_refused(in_runs: Exported, cells: Dataset) -> None:
    with pytest.raises(ModelError, match="small has 4 classes, the data 5"):
        export(ExportConfig("small", "x"), replace(cells, class_names=(*NAMES, "other")))
    turned = replace(cells, class_names=NAMES[::-1])
    with pytest.raises(ModelError, match="the data's classes in another order"):
        export(ExportConfig("small", "x"), turned)
    half = {n: Split(s.images[:, ::2, ::2].copy(), s.labels) for n, s in cells.splits.items()}
    with pytest.raises(ModelError, match=f"takes {SIDE}x{SIDE} images, the data has"):
        export(ExportConfig("small", "x"), replace(cells, splits=half))


def test_a_manifest_that_names_other_classes_than_the_model_has_is_refused(cells: Dataset) -> None:
    model = SimpleNamespace(input_shape=(None, SIDE, SIDE, 3), output_shape=(None, len(NAMES)))
    reference = ModelReference("odd", Path("odd.keras"), {"model": {"class_names": ["a"]}})
    with pytest.raises(ModelError, match="has 4 classes, and names 1 in its manifest"):
        _check_fit(reference, model, cells)


@pytest.mark.slow
def test_the_scaling_is_left_alone_where_padding_matters() -> None:
    from bloodedge.compress.graph import without_idle_padding

    model = build(CONFIG, size=31)  # 31 is no multiple of the stem's stride: it pads a pixel
    assert without_idle_padding(model) is model
    assert without_idle_padding(build(CONFIG, size=SIDE)).get_layer("stem").padding == "valid"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": ("int9",)}, "did you mean 'int8'"),
        ({"variants": ()}, "one at least"),
        ({"variants": ("int8", "int8")}, "each variant once"),
        ({"per_class": 0}, "--calibration-per-class"),
        ({"verify_images": -1}, "verify"),
        ({"seed": -1}, "--seed"),
        ({"batch": 0}, "--batch"),
        ({"io": "int4"}, "--io"),
        ({"io": "int8", "variants": ("float32", "int16x8")}, "--io int8 is for int8 and mixed"),
        ({"compat": "tflite"}, "--compat"),
        ({"max_drop": 1.5}, "--max-drop"),
        ({"max_class_drop": -0.1}, "--max-class-drop"),
        ({"max_ece": float("nan")}, "--max-ece"),
        ({"author": "a\nb"}, "--author"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ExportConfig("model", "name", **changes)


@pytest.mark.parametrize("batch", [1, 3])
def test_files_that_cannot_be_measured_are_told_of(
    batch: int, cells: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise ModelError("enough")

    # Any model will do, as none is loaded.
    monkeypatch.setattr("bloodedge.deploy.export.find_keras", find_model)
    monkeypatch.setattr("bloodedge.deploy.export._load_parent", stop)
    with pytest.raises(ModelError, match="enough"):
        export(ExportConfig("cnn_se_pico", "x", batch=batch), cells)
    assert ("so benchmark cannot measure them" in capsys.readouterr().err) == (batch > 1)


def test_calibration_is_balanced_seeded_and_sorted() -> None:
    labels = np.repeat([0, 1, 2], [100, 30, 3]).astype(np.int64)
    index = calibration_indices(labels, 5, seed=7)
    assert np.bincount(labels[index]).tolist() == [5, 5, 3]
    assert (np.diff(index) > 0).all()
    assert (index == calibration_indices(labels, 5, seed=7)).all()
    assert (index != calibration_indices(labels, 5, seed=8)).any()
    with pytest.raises(ConfigError):
        calibration_indices(labels, 0, seed=7)


def test_compare_counts_agreement_differences_and_ties() -> None:
    parent = np.array([[0.7, 0.3], [0.50001, 0.49999], [0.2, 0.8], [0.9, 0.1]])
    child = np.array([[0.6, 0.4], [0.4, 0.6], [0.2, 0.8], [0.8, 0.2]], np.float32)
    labels = np.array([0, 0, 1, 1])
    found = compare(parent, child, labels)
    assert found.agreement == 0.75
    assert found.max_difference == pytest.approx(0.1, abs=1e-4)
    assert (found.accuracy, found.parent_accuracy) == (0.5, 0.75)
    assert compare(parent, child, labels, tie=1e-4).agreement == 1
    # The largest may be what the child gives more.
    surer = np.array([[0.6, 0.2, 0.2]], np.float32)
    found_more = compare(np.array([[0.4, 0.3, 0.3]]), surer, np.array([0]))
    assert found_more.max_difference == pytest.approx(0.2)
    # What `verify` records for any split.
    assert not [name for name in found.figures() if name.endswith("_val")]


def test_an_export_names_its_figures_as_recorded_ones_do() -> None:
    recorded = find_model("cnn_se").manifest["metrics"]["variants"]["int8"]
    found = _figures(compare(np.eye(2), np.eye(2, dtype=np.float32), np.array([0, 1])))
    assert found["accuracy_val"] == found["parent_accuracy_val"] == 1
    assert found.keys() - {"ece_rise"} <= recorded.keys()


def test_slow_parents_are_checked_on_a_balanced_sample() -> None:
    labels = np.repeat([0, 1], [3000, 600]).astype(np.int64)
    assert len(verify.verification_indices(labels, None, 60_000, 0)) == 3600
    assert len(verify.verification_indices(labels, 0, 40_000_000, 0)) == 3600
    sample = verify.verification_indices(labels, None, 40_000_000, 0)
    assert np.bincount(labels[sample]).tolist() == [256, 256]


def test_a_balanced_sample_has_at_least_as_many_images_as_asked() -> None:
    labels = np.repeat([0, 1, 2], 100).astype(np.int64)
    sample = verify.verification_indices(labels, 10, 0, 0)
    assert np.bincount(labels[sample]).tolist() == [4, 4, 4]
