"""What spoils test images, and what is made of the answers to them."""

from __future__ import annotations

import colorsys
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from bloodedge.benchmarks.comparison import exit_code
from bloodedge.benchmarks.open_models import open_models
from bloodedge.benchmarks.robustness import COMMAND
from bloodedge.benchmarks.robustness.__main__ import main
from bloodedge.benchmarks.robustness.corruptions import (
    CORRUPTIONS,
    STRENGTHS,
    Corruption,
    corrupted,
    disc,
    without_effect,
)
from bloodedge.benchmarks.robustness.stage import RobustnessConfig
from bloodedge.benchmarks.robustness.summary import ALL, accuracies, summary
from bloodedge.benchmarks.robustness.text import render, table_rows
from bloodedge.benchmarks.robustness.unseen import UNSEEN
from bloodedge.benchmarks.robustness.unseen import path as motion_path
from bloodedge.data.dataset import Dataset
from bloodedge.data.synthetic_set import load_synthetic
from bloodedge.deploy import interpreter
from bloodedge.deploy.predict import LoadedModel
from bloodedge.errors import ConfigError, ModelError
from bloodedge.files import sha256_of

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
BY_NAME = {c.name: c for c in (*CORRUPTIONS, *UNSEEN)}
RANDOM = ("stain", "noise", "shift", "motion")
each = pytest.mark.parametrize("corruption", BY_NAME.values(), ids=lambda c: c.name)


@pytest.fixture(scope="module")
def cells() -> np.ndarray:
    """Drawn cells of 64 pixels."""
    return load_synthetic(2, 64)["train"].images


def flat(value: int, count: int = 1) -> np.ndarray:
    return np.full((count, 64, 64, 3), value, np.uint8)


# ---- corruptions ----


def test_names_are_unique_and_every_corruption_has_five_strengths() -> None:
    assert len(BY_NAME) == len(CORRUPTIONS) + len(UNSEEN)
    assert {len(c.values) for c in BY_NAME.values()} == {STRENGTHS}
    assert all(c.parameter and c.source for c in BY_NAME.values())


@each
def test_the_distance_grows_with_the_strength(corruption: Corruption, cells: np.ndarray) -> None:
    before = cells.copy()
    spoilt = [corrupted(cells, corruption, strength) for strength in range(1, STRENGTHS + 1)]
    assert all(x.shape == cells.shape and x.dtype == np.uint8 for x in spoilt)
    distances = [float(np.abs(x.astype(int) - cells).mean()) for x in spoilt]
    assert distances[0] > 0
    assert distances == sorted(set(distances))
    # The images that were given are left alone.
    np.testing.assert_array_equal(cells, before)


@each
def test_an_image_depends_on_its_place_and_the_seed_alone(
    corruption: Corruption, cells: np.ndarray
) -> None:
    spoilt = corrupted(cells, corruption, 3, seed=1)
    np.testing.assert_array_equal(corrupted(cells, corruption, 3, seed=1), spoilt)
    np.testing.assert_array_equal(corrupted(cells[:3], corruption, 3, seed=1), spoilt[:3])
    other = corrupted(cells, corruption, 3, seed=2)
    assert np.array_equal(other, spoilt) == (corruption.name not in RANDOM)


def test_a_corruption_has_draws_of_its_own_which_all_its_strengths_share() -> None:
    def random(image: Any, value: float, rng: np.random.Generator) -> Any:
        return rng.integers(0, 256, image.shape, np.uint8)

    one, other = (Corruption(name, "", (1, 2), "", random) for name in ("one", "other"))
    drawn = corrupted(flat(0), one, 1)
    np.testing.assert_array_equal(corrupted(flat(0), one, 2), drawn)
    assert (corrupted(flat(0), other, 1) != drawn).any()


@each
@pytest.mark.parametrize("strength", [0, STRENGTHS + 1])
def test_there_are_strengths_one_to_five_only(corruption: Corruption, strength: int) -> None:
    with pytest.raises(ConfigError, match="1 to 5"):
        corrupted(flat(0), corruption, strength)


def test_the_values_are_those_of_medmnist_c() -> None:
    """As `medmnistc/corruptions/registry.py` lists them for bloodmnist; noise for dermamnist."""
    assert BY_NAME["blur"].values == (2, 3, 4, 5, 6)
    assert BY_NAME["jpeg"].values == (50, 30, 15, 10, 7)
    assert BY_NAME["brighter"].values == (1.1, 1.2, 1.3, 1.35, 1.4)
    assert BY_NAME["darker"].values == (0.9, 0.8, 0.7, 0.6, 0.5)
    assert BY_NAME["noise"].values == (0.04, 0.08, 0.12, 0.18, 0.26)


def test_brightness_multiplies_and_ends_at_white() -> None:
    assert set(corrupted(flat(100), BY_NAME["brighter"], 5).flat) == {140}
    assert set(corrupted(flat(200), BY_NAME["brighter"], 5).flat) == {255}
    assert set(corrupted(flat(101), BY_NAME["darker"], 5).flat) == {50}


def test_noise_has_the_deviation_it_says() -> None:
    noise = corrupted(flat(128, 8), BY_NAME["noise"], 2).astype(float) - 128
    # 98,304 values: the deviation is known to 0.25 % of itself.
    assert noise.std() == pytest.approx(0.08 * 255, rel=0.02)
    assert abs(noise.mean()) < 0.3


def test_a_disc_covers_its_pixels_by_their_share() -> None:
    np.testing.assert_array_equal(disc(0.4), [[1.0]])
    for radius in (0.57, 1.14, 1.71, 5.0):
        kernel = disc(radius)
        np.testing.assert_array_equal(kernel, kernel[::-1, ::-1].T)
        assert kernel.sum() == pytest.approx(1)
        # The middle is covered whole: its share is 1 over the disc's area.
        if radius > np.sqrt(0.5):
            assert kernel.max() == pytest.approx(1 / (np.pi * radius**2), rel=0.02)


def test_blur_and_shift_leave_a_flat_image_flat() -> None:
    for name in ("blur", "shift"):
        np.testing.assert_array_equal(corrupted(flat(77), BY_NAME[name], 5), flat(77))


def test_blur_shrinks_with_the_side_of_the_image() -> None:
    point = flat(0)
    point[0, 32, 32] = 255
    expected = np.pad(255 * disc(6 * 64 / 224), (30, 29))[..., None].repeat(3, axis=-1)
    np.testing.assert_allclose(corrupted(point, BY_NAME["blur"], 5)[0], expected, atol=0.5 + 1e-6)


@pytest.mark.parametrize(
    ("size", "idle"),
    [(64, {}), (28, {"blur": [1, 2, 3]}), (16, {"blur": [1, 2, 3, 4, 5], "shift": [1]})],
)
def test_strengths_that_change_nothing_of_a_small_image_are_known(
    size: int, idle: dict[str, list[int]]
) -> None:
    found = {c.name: without_effect(c, 5, size) for c in CORRUPTIONS}
    assert {name: strengths for name, strengths in found.items() if strengths} == idle


def test_jpeg_leaves_colours_where_they_are() -> None:
    image = flat(0) + np.array([200, 90, 30], np.uint8)
    assert np.abs(corrupted(image, BY_NAME["jpeg"], 1).astype(int) - image).max() < 6


def test_a_path_spreads_by_as_much_whatever_its_direction() -> None:
    for angle in (0, 0.3, np.pi / 4, np.pi / 2, 2.8):
        kernel = motion_path(6.5, angle)
        assert kernel.shape == (9, 9)
        assert kernel.sum() == pytest.approx(1)
        y, x = (np.indices(kernel.shape) - 4).reshape(2, -1)
        shares = kernel.ravel()
        assert (y @ shares, x @ shares) == pytest.approx((0, 0), abs=1e-9)
        along, aside = y * np.sin(angle) + x * np.cos(angle), y * np.cos(angle) - x * np.sin(angle)
        # A uniform line has a twelfth of its squared length; pixels add up to a sixth of one.
        assert 6.5**2 / 12 <= along**2 @ shares <= 6.5**2 / 12 + 0.26
        assert aside**2 @ shares < 0.26


def test_motion_leaves_a_flat_image_flat_and_blurs_along_its_path(cells: np.ndarray) -> None:
    np.testing.assert_array_equal(corrupted(flat(90), BY_NAME["motion"], 5), flat(90))
    rows = motion_path(5, 0)
    assert (rows.sum(axis=1) > 0).sum() == 1


@pytest.mark.parametrize("name", ["contrast-up", "contrast-down"])
def test_contrast_is_that_of_pillow(name: str, cells: np.ndarray) -> None:
    ours = corrupted(cells[:4], BY_NAME[name], 4)
    factor = BY_NAME[name].value(4)
    for image, changed in zip(cells[:4], ours, strict=True):
        theirs = np.asarray(ImageEnhance.Contrast(Image.fromarray(image)).enhance(factor))
        # Theirs cuts fractions off, and its grey has them rounded before the mean.
        assert np.abs(theirs.astype(int) - changed).max() <= 1


def test_saturation_is_added_and_grey_stays_as_bright() -> None:
    pink = np.broadcast_to(np.uint8([200, 150, 160]), (1, 8, 8, 3))
    changed = corrupted(pink, BY_NAME["saturate"], 5)[0, 0, 0]
    before, after = (colorsys.rgb_to_hsv(*(rgb / 255)) for rgb in (pink[0, 0, 0], changed))
    assert after[1] - before[1] == pytest.approx(0.2, abs=0.005)
    assert (after[0], after[2]) == pytest.approx((before[0], before[2]), abs=0.01)
    assert corrupted(flat(120), BY_NAME["saturate"], 5).max() == 120


def test_what_a_shift_brings_in_is_mirrored(cells: np.ndarray) -> None:
    wide = np.pad(cells[0], ((2, 2), (2, 2), (0, 0)), mode="reflect")
    (moved,) = corrupted(cells[:1], BY_NAME["shift"], 1)
    moves = [(y, x) for y in (0, 2, 4) for x in (0, 2, 4)]
    assert any(np.array_equal(wide[y : y + 64, x : x + 64], moved) for y, x in moves)


def test_a_shift_moves_every_pixel_by_as_much(cells: np.ndarray) -> None:
    shift, inside = BY_NAME["shift"], slice(10, -10)
    moved = corrupted(cells, shift, 3)
    seen = set()
    for image, new in zip(cells, moved, strict=True):
        moves = [(y, x) for y in (-6, 0, 6) for x in (-6, 0, 6) if y or x]
        matching = [
            move
            for move in moves
            if np.array_equal(
                np.roll(image, move, axis=(0, 1))[inside, inside], new[inside, inside]
            )
        ]
        assert len(matching) == 1
        seen.update(matching)
    assert len(seen) > 3


def test_stain_is_the_augmentation_of_training(cells: np.ndarray) -> None:
    from bloodedge.backend import use_backend

    use_backend()
    from keras import ops

    from bloodedge.train.augment_ops import _restained

    image, value = cells[0], 0.4
    changes = 1 + value * np.random.default_rng(5).uniform(-1, 1, 3)
    expected = ops.convert_to_numpy(
        _restained(image[None].astype(np.float32), changes[None].astype(np.float32))
    )[0]
    found = BY_NAME["stain"].apply(image, value, np.random.default_rng(5))
    np.testing.assert_allclose(found, expected, atol=0.05)
    white = corrupted(flat(255), BY_NAME["stain"], 5)
    np.testing.assert_array_equal(white, flat(255))


# ---- figures ----


def test_a_summary_is_what_one_reckons_by_hand() -> None:
    right = {"clean": [1, 1, 1, 0], "a-1": [1, 1, 0, 0], "a-2": [1, 0, 0, 0]}
    other = {"clean": [1, 1, 0, 0], "a-1": [1, 1, 0, 1], "a-2": [1, 1, 1, 1]}
    hits = {
        "first": {name: np.array(x, bool) for name, x in right.items()},
        "second": {name: np.array(x, bool) for name, x in other.items()},
    }
    assert accuracies(hits, ["a"], 2)["second"] == {"clean": [2], "a": [3, 4]}
    rows = {(r["model"], r["corruption"]): r for r in summary(hits, ["a"], 2)}
    first, second = rows["first", "a"], rows["second", "a"]
    assert (first["clean"], first["mean"], first["drop"]) == (0.75, 0.375, 0.375)
    assert (first["worst"], first["worst_condition"]) == (0.25, "a-2")
    assert first["accuracy_difference_95ci"] == first["drop_difference_95ci"] == [0, 0]
    assert second["accuracy_difference"] == 0.5
    # It loses -0.375 of its 0.5, the first 0.375 of its 0.75.
    assert second["drop_difference"] == second["drop"] - first["drop"] == -0.75
    low, high = second["accuracy_difference_95ci"]
    assert 0 <= low <= 0.5 <= high <= 1
    low, high = second["drop_difference_95ci"]
    assert -1.5 <= low <= -0.75 <= high <= 0
    assert {**rows["second", ALL], "corruption": "a"} == second


# ---- the script ----


@pytest.fixture
def files(
    brightest_tflite: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path]:
    """Two files of one content, which need no probe."""
    monkeypatch.setattr(interpreter, "probe", interpreter.check_file)
    paths = tmp_path / "one.tflite", tmp_path / "two.tflite"
    for path in paths:
        path.write_bytes(brightest_tflite)
    return paths


@pytest.fixture
def words(files: tuple[Path, Path], colours: Dataset, tmp_path: Path) -> list[str]:
    arrays = {f"{s}_images": colours[s].images for s in colours.splits}
    arrays |= {f"{s}_labels": colours[s].labels[:, None] for s in colours.splits}
    data = tmp_path / "colours.npz"
    np.savez(data, class_names=np.array(colours.class_names), **arrays)
    return [*map(str, files), "--data", str(data), "--strengths", "2"]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the figure, which takes longest."""
    monkeypatch.setattr("bloodedge.benchmarks.robustness.stage.draw", lambda found, path: None)


class Asked:
    """Counts what models are asked, and interrupts after a while."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.limit = 0, 10_000
        ask = LoadedModel.probabilities

        def counting(model: LoadedModel, *args: Any) -> Any:
            if self.count == self.limit:
                raise KeyboardInterrupt
            self.count += 1
            return ask(model, *args)

        monkeypatch.setattr(LoadedModel, "probabilities", counting)


def test_every_file_is_written_and_says_what_it_is(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main([*words, "--out", str(out)])
    said = capsys.readouterr()
    found = json.loads((out / "robustness.json").read_text())
    assert found["command"] == f"{COMMAND} {' '.join(words)}"
    assert (out / "robustness.md").read_text() == render(found) == said.out.rstrip("\n") + "\n"
    assert (found["images"], found["split"]) == (60, "test")
    assert (out / "robustness.png").read_bytes().startswith(b"\x89PNG")
    # The brightest channel stays the brightest in the dark.
    assert found["correct"]["one"]["clean"] == [60]
    assert found["correct"]["one"]["darker"] == [60, 60]
    assert found["correct"]["one"] == found["correct"]["two"]
    rows = list(csv.reader((out / "robustness.csv").open()))
    assert rows[1:] == [[str(cell) for cell in row] for row in table_rows(found)]
    assert len(rows) == 1 + 2 * (1 + 2 * len(CORRUPTIONS))
    assert f"{1 + 2 * len(CORRUPTIONS)}/{1 + 2 * len(CORRUPTIONS)} shift-2: one " in said.err
    # The images are small.
    idle = "mages of 16 pixels a side are as they were at strength 1, 2, and in the means"
    assert f"blur: i{idle}\n" in said.err
    assert f"\nI{idle}.\n" in said.out


@pytest.mark.usefixtures("undrawn")
def test_what_no_recipe_trains_with_is_measured_instead(words: list[str], tmp_path: Path) -> None:
    main([*words, "--unseen", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "robustness-unseen.json").read_text())
    assert found["command"] == f"{COMMAND} {' '.join(words)} --unseen"
    assert "`robustness-unseen.csv`" in (tmp_path / "robustness-unseen.md").read_text()
    assert [c["name"] for c in found["corruptions"]] == [c.name for c in UNSEEN]
    assert set(found["correct"]["one"]) == {"clean", *(c.name for c in UNSEEN)}


@pytest.mark.usefixtures("undrawn")
def test_it_goes_on_where_it_was_stopped(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    # Both files have one digest, so that what the first answered is the second's.
    asked = Asked(monkeypatch)
    main([*words, "--out", str(whole)])
    every = asked.count
    assert every == 1 + 2 * len(CORRUPTIONS)
    asked.count, asked.limit = 0, 4
    assert exit_code(lambda: main([*words, "--out", str(out)])) == 130
    assert "the same command continues" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["cells"]
    asked.count, asked.limit = 0, 10_000
    main([*words, "--out", str(out)])
    assert asked.count == every - 4
    for name in ("robustness.json", "robustness.csv", "robustness.md"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


DAMAGES = {
    "blur-1": lambda cell: "{",
    "blur-2": lambda cell: json.dumps({**cell, "predicted": cell["predicted"][1:]}),
    "jpeg-1": lambda cell: json.dumps({**cell, "predicted": [9, *cell["predicted"][1:]]}),
    "jpeg-2": lambda cell: json.dumps({**cell, "predicted": [True, *cell["predicted"][1:]]}),
    "shift-1": lambda cell: json.dumps({**cell, "key": {**cell["key"], "seed": 1}}),
}


@pytest.mark.usefixtures("undrawn")
def test_a_cell_that_is_damaged_or_of_something_else_is_asked_again(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, asked = tmp_path / "out", Asked(monkeypatch)
    main([*words, "--out", str(out)])
    (folder,) = (out / "cells" / "test").iterdir()
    before = {name: (folder / f"{name}.json").read_bytes() for name in DAMAGES}
    asked.count = 0
    for name, damage in DAMAGES.items():
        (folder / f"{name}.json").write_text(damage(json.loads(before[name])))
    main([*words, "--out", str(out)])
    assert asked.count == len(DAMAGES)
    assert {name: (folder / f"{name}.json").read_bytes() for name in DAMAGES} == before


@pytest.mark.usefixtures("undrawn")
def test_a_cell_says_all_that_its_answers_depend_on(
    words: list[str], files: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    main([*words, "--seed", "3", "--out", str(out)])
    found = json.loads((out / "robustness.json").read_text())
    assert found["command"].endswith(" --strengths 2 --seed 3")
    (cell,) = (out / "cells" / "test").glob("*/darker-2.json")
    key = json.loads(cell.read_text())["key"]
    assert (key["model"], key["data"]) == (sha256_of(files[0]), found["data"]["fingerprint"])
    assert (key["condition"], key["value"], key["seed"]) == ("darker-2", 0.8, 3)


@pytest.mark.usefixtures("undrawn")
def test_the_size_is_heeded_and_recorded(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main([*words, "--size", "16", "--out", str(out)])
    found = json.loads((out / "robustness.json").read_text())
    assert found["command"] == f"{COMMAND} {' '.join([*words[:4], '--size', '16', *words[4:]])}"
    assert exit_code(lambda: main([*words, "--size", "8", "--out", str(out)])) == 2
    assert "holds images of 16x16 pixels, not 8x8" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_val_is_spoilt_to_choose_between_models(
    words: list[str], colours: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    main([*words, "--out", str(out)])
    main([*words, "--split", "val", "--out", str(out)])
    found = json.loads((out / "robustness.json").read_text())
    assert (found["split"], found["images"]) == ("val", 60)
    assert found["command"] == f"{COMMAND} {' '.join([*words[:4], '--split', 'val', *words[4:]])}"
    for split in ("test", "val"):
        (clean,) = (out / "cells" / split).glob("*/clean.json")
        assert json.loads(clean.read_text())["predicted"] == colours[split].labels.tolist()


def test_settings_are_checked_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for bad, why in (
        ({"strengths": 6}, "1 to 5"),
        ({"strengths": 0}, "1 to 5"),
        ({"workers": 0}, "at least 1"),
        ({"seed": -1}, "0 or more"),
        ({"models": ()}, "no model"),
    ):
        with pytest.raises(ConfigError, match=why):
            RobustnessConfig(**{"models": ("a",), "data": "x", "out": tmp_path, **bad})
    words = ["nothing-of-that-name", "--data", "synthetic:2", "--out", str(tmp_path / "out")]
    assert exit_code(lambda: main(words)) == 2
    assert "no run, file or zoo model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_every_word_of_the_command_is_heeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[RobustnessConfig] = []
    monkeypatch.setattr("bloodedge.benchmarks.robustness.stage.robustness", asked.append)
    words = ["a", "b", "--data", "d", "--size", "32", "--split", "val", "--strengths", "3"]
    main([*words, "--seed", "4", "--workers", "2", "--out", str(tmp_path)])
    assert asked == [RobustnessConfig(("a", "b"), "d", tmp_path, 3, 4, 2, 32, "val")]


def test_models_are_opened_as_evaluate_does(
    files: tuple[Path, Path], tiny_file: Path, colours: Dataset, tmp_path: Path
) -> None:
    twin = tmp_path / "elsewhere" / files[0].name
    twin.parent.mkdir()
    twin.write_bytes(files[1].read_bytes())
    # A file that is named twice is asked once.
    names = [str(path) for path in (tiny_file, files[0], twin, files[0])]
    found = open_models(names, colours)
    assert [(name, model.keras is None) for name, model in found.items()] == [
        ("tiny", False),
        ("one", True),
        ("one (2)", True),
    ]
    assert found["tiny"].probabilities(colours["test"].images).shape == (60, 3)
    # A model of the zoo is known by its name, and has other classes than these.
    with pytest.raises(ModelError, match="has 8 classes, the data 3"):
        open_models(["cnn_se"], colours)


# ---- what is recorded ----


RECORDED = {"robustness": CORRUPTIONS, "robustness-unseen": UNSEEN}


@pytest.fixture(scope="module", params=RECORDED)
def recorded(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """What the recorded files are called, and the JSON among them."""
    return request.param, json.loads((RESULTS / f"{request.param}.json").read_text())


def test_the_recorded_text_and_table_are_those_of_the_json(
    recorded: tuple[str, dict[str, Any]],
) -> None:
    stem, found = recorded
    assert (RESULTS / f"{stem}.md").read_text().startswith(render(found, stem))
    with (RESULTS / f"{stem}.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[1:] == [[str(cell) for cell in row] for row in table_rows(found)]


def test_recorded_figures_agree_with_each_other(recorded: tuple[str, dict[str, Any]]) -> None:
    stem, found = recorded
    names = [c["name"] for c in found["corruptions"]]
    assert names == [c.name for c in RECORDED[stem]]
    assert all(c["values"] == list(BY_NAME[c["name"]].values) for c in found["corruptions"])
    total = found["images"]
    for row in found["summary"]:
        counts = found["correct"][row["model"]]
        group = names if row["corruption"] == ALL else [row["corruption"]]
        shares = [count / total for name in group for count in counts[name]]
        assert row["clean"] == counts["clean"][0] / total
        assert row["mean"] == pytest.approx(np.mean(shares))
        assert row["worst"] == min(shares)
        assert row["drop"] == pytest.approx(row["clean"] - row["mean"])
        low, high = row["accuracy_difference_95ci"]
        assert low <= row["accuracy_difference"] <= high
