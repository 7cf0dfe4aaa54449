"""Images and labels for models that the runner has never seen."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from bloodedge.benchmarks import runner
from bloodedge.deploy.flat.reader import read_model
from bloodedge.deploy.flat.tree import Vector
from bloodedge.deploy.flat.writer import write_tables

RUNNER = Path(runner.__file__)


def picture(height: int = 16, width: int = 16, seed: int = 0) -> NDArray[np.uint8]:
    """A smooth image `(1, height, width, 3)`."""
    rng = np.random.default_rng(seed)
    rough = rng.integers(0, 256, (4, 4, 3)).astype(np.float32)
    return (
        cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
        .clip(0, 255)
        .astype(np.uint8)[None]
    )


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_streamed_images_are_those_of_the_file(save: Any, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 5, 3), dtype=np.uint8)
    names = np.array(["red", "green"])
    save(tmp_path / "s.npz", images=images, labels=np.arange(7) % 2, class_names=names)
    sample = runner.open_sample(tmp_path / "s.npz", whole=True)
    assert sample.shape == (7, 3, 5, 3)
    assert sample.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert sample.class_names == ["red", "green"]
    assert np.array_equal(np.concatenate(list(runner.stream(sample))), images)


def test_damage_in_the_middle_of_the_images_is_found(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    np.savez(path, images=np.zeros((9, 8, 8, 3), dtype=np.uint8), labels=np.zeros(9, dtype=int))
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    with pytest.raises(runner.RunnerError, match=r"images\.npy in it is damaged"):
        runner.open_sample(path, whole=True)


def test_fewer_bytes_than_the_header_promises_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    images, labels = tmp_path / "images.npy", tmp_path / "labels.npy"
    np.save(images, np.zeros((9, 8, 8, 3), dtype=np.uint8))
    np.save(labels, np.zeros(9, dtype=int))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", images.read_bytes()[:-1])
        archive.write(labels, "labels.npy")
    with pytest.raises(runner.RunnerError, match=r"expected uint8 \(N, H, W, 3\)"):
        runner.open_sample(path)


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (31, 17), (16, 16)])
def test_resizing_is_bilinear_as_opencvs(size: tuple[int, int]) -> None:
    image = picture()
    ours = runner.resize(image, *size)
    theirs = cv2.resize(image[0], size[::-1], interpolation=cv2.INTER_LINEAR)
    assert ours.shape == (1, *size, 3)
    # OpenCV rounds its weights to 11 bits.
    assert np.abs(ours[0].astype(int) - theirs.astype(int)).max() <= 1


def test_grey_models_get_the_luma_and_planar_ones_planes() -> None:
    image = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    image[..., 1] = 200
    grey = runner.fit(image, (1, 4, 4, 1))
    assert grey.shape == (1, 4, 4, 1)
    assert np.unique(grey).tolist() == [117]  # 0.587 * 200 = 117.4
    planes = runner.fit(image, (1, 3, 8, 8))
    assert planes.shape == (1, 3, 8, 8)
    assert planes[0, :, 0, 0].tolist() == [0, 200, 0]


@pytest.mark.parametrize("shape", [(1, 4, 4, 4), (1, 48), (1, 4, 4, 3, 1)])
def test_a_model_that_takes_no_single_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(runner.RunnerError, match="no single image"):
        runner.fit(picture(), shape)


@pytest.mark.parametrize("shape", [(8, 16, 16, 3), (8, 3, 4, 4)])
def test_a_batch_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        runner.RunnerError, match="a batch of 8 images; export it with a batch of 1"
    ):
        runner.fit(picture(), shape)


def sample_of(labels: list[int], names: list[str]) -> runner.Sample:
    return runner.Sample(Path("s.npz"), (len(labels), 1, 1, 3), np.array(labels), names)


def test_classes_are_matched_by_name_where_both_have_names() -> None:
    sample = sample_of([0, 1], ["Basophil", "eosinophil"])
    found, why = runner.class_map(3, ["eosinophil", "background", "basophil"], sample)
    assert found is not None
    assert (found.tolist(), why) == ([1, -1, 0], "")


@pytest.mark.parametrize(
    ("outputs", "names", "classes", "said"),
    [
        (2, ["cat", "dog"], ["a", "b"], "labels are not the sample's"),
        (3, [], ["a", "b"], "3 outputs, 2 classes"),
        (1, [], [], "1 outputs, 2 classes"),
    ],
)
def test_classes_that_cannot_be_matched_give_no_accuracy(
    outputs: int, names: list[str], classes: list[str], said: str
) -> None:
    found, why = runner.class_map(outputs, names, sample_of([0, 1], classes))
    assert found is None
    assert said in why


def test_a_class_that_the_model_does_not_know_is_told() -> None:
    sample = sample_of([0, 1], ["basophil ", "eosinophil", "mast cell"])
    found, why = runner.class_map(2, ["eosinophil", "basophil"], sample)
    assert found is not None
    assert (found.tolist(), why) == ([1, 0], "the model does not know mast cell")


def test_names_that_differ_by_case_alone_stay_apart() -> None:
    found, why = runner.class_map(2, ["b", "B"], sample_of([0, 1], ["B", "b"]))
    assert found is not None
    assert (found.tolist(), why) == ([1, 0], "")


def test_without_names_classes_are_matched_by_number() -> None:
    for names, classes in (([], []), (["x", "y"], []), ([], ["a", "b"])):
        found, _ = runner.class_map(2, names, sample_of([0, 1], classes))
        assert found is not None
        assert found.tolist() == [0, 1]


def test_labels_are_read_from_a_models_metadata(brightest_tflite: bytes, tmp_path: Path) -> None:
    from bloodedge.deploy.labels import append_labels

    path = tmp_path / "m.tflite"
    path.write_bytes(append_labels(brightest_tflite, ("red", "green", "blue")))
    assert runner.model_labels(path) == ["red", "green", "blue"]
    path.write_bytes(brightest_tflite)
    assert runner.model_labels(path) == []
    path.write_bytes(append_labels(brightest_tflite, ("red", "green"))[:-8])
    assert runner.model_labels(path) == []


def with_two_outputs(content: bytes) -> bytes:
    """A model that also gives what its last operator takes, and that first."""
    model = read_model(content).model
    (graph,) = model.tables("subgraphs")
    last = graph.tables("operators")[-1].numbers("inputs")[0]
    both = struct.pack("<2i", last, graph.numbers("outputs")[0])
    graph.fields["outputs"] = Vector(both, 4)
    # Signatures, which runtimes check, know of one alone.
    model.fields.pop("signature_defs", None)
    return write_tables(model)


@pytest.fixture(scope="module")
def foreign(brightest_tflite: bytes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the runner makes of models with other labels, sizes and outputs, by file name.

    The model answers with the brightest channel; the sample's classes are in another order, its
    images are larger, and each is bright in the channel of its class.
    """
    from bloodedge.deploy.labels import append_labels

    folder = tmp_path_factory.mktemp("foreign")
    labels = np.arange(30) % 3
    images = np.full((30, 32, 32, 3), 20, dtype=np.uint8)
    order = np.array([2, 0, 1])  # class 0 is blue, 1 red, 2 green
    images[np.arange(30), :, :, order[labels]] = 200
    names = np.array(["blue", "red", "green"])
    np.savez(folder / "s.npz", images=images, labels=labels, class_names=names)
    files = {
        "same.tflite": append_labels(brightest_tflite, ("red", "green", "blue")),
        "none.tflite": brightest_tflite,
        "other.tflite": append_labels(brightest_tflite, ("cat", "dog", "cow")),
        "two.tflite": with_two_outputs(brightest_tflite),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    command = [sys.executable, RUNNER, *(folder / name for name in files)]
    command += ["--sample", folder / "s.npz", "--out", folder / "r.json", "--quick"]
    subprocess.run([*map(str, command), "--repeats", "1"], check=True, capture_output=True)
    rows = json.loads((folder / "r.json").read_text())["rows"]
    return {row["model"]: row for row in rows}


def test_an_unknown_model_is_scored_by_its_own_labels_on_fitted_images(
    foreign: dict[str, Any],
) -> None:
    row = foreign["same.tflite"]
    assert (row["accuracy"], row["images"]) == (1.0, 30)
    assert row["note"] == "images of (32, 32, 3) are fitted to (16, 16, 3)"


def test_an_unknown_model_without_labels_is_scored_by_number(foreign: dict[str, Any]) -> None:
    # Its outputs are red, green, blue: none of them is where the sample has it.
    assert foreign["none.tflite"]["accuracy"] == 0.0


def test_an_unknown_model_of_other_classes_is_timed_and_not_scored(foreign: dict[str, Any]) -> None:
    row = foreign["other.tflite"]
    assert row["error"] is None
    assert row["median_us"] > 0
    assert (row["accuracy"], row["images"]) == (None, 0)
    assert row["note"].endswith("no accuracy: the model's labels are not the sample's")


def test_of_several_outputs_none_is_scored(foreign: dict[str, Any]) -> None:
    row = foreign["two.tflite"]
    assert row["error"] is None
    assert row["median_us"] > 0
    assert (row["accuracy"], row["images"], row["predictions_sha256"]) == (None, 0, None)
    assert row["note"].endswith("; no accuracy: 2 outputs, expected one")


def test_names_from_a_mac_are_the_samples(tmp_path: Path) -> None:
    apart = unicodedata.normalize("NFD", "Fünfer")
    labels = np.zeros(2, np.int64)
    sample = runner.Sample(tmp_path, (2, 4, 4, 3), labels, ["Fünfer", "Achter"])
    classes, why = runner.class_map(2, ["Achter", apart], sample)
    assert (np.asarray(classes).tolist(), why) == ([1, 0], "")


def test_of_many_images_those_at_equal_distances_are_scored(tmp_path: Path) -> None:
    images = np.zeros((10, 4, 4, 3), np.uint8) + np.arange(10, dtype=np.uint8)[:, None, None, None]
    np.savez(tmp_path / "s.npz", images=images, labels=np.arange(10) // 5)
    seen: list[int] = []

    class Interpreter:
        """Answers rightly; the classes lie one behind the other, as in a sorted sample."""

        def get_input_details(self) -> list[dict[str, Any]]:
            return [{"index": 0, "shape": np.array([1, 4, 4, 3]), "dtype": np.float32}]

        def get_output_details(self) -> list[dict[str, Any]]:
            return [{"index": 1, "shape": np.array([1, 2])}]

        def set_tensor(self, index: int, values: Any) -> None:
            seen.append(int(values[0, 0, 0, 0]))

        def invoke(self) -> None: ...

        def get_tensor(self, index: int) -> Any:
            return np.eye(2)[[seen[-1] // 5]]

    sample = runner.open_sample(tmp_path / "s.npz")
    spec = {"model": "m", "score": 5, "score_seconds": None, "scaling": (0.0, 1.0)}
    found = runner.score(Interpreter(), sample, spec, 0.001)
    assert seen == [0, 2, 4, 6, 8]
    assert (found["images"], found["accuracy"]) == (5, 1.0)
