"""The accuracy of several models together."""

from __future__ import annotations

import numpy as np
import pytest

from bloodedge.benchmarks.ensemble import main, over_views, table
from bloodedge.data.sources import load_data
from bloodedge.errors import ConfigError


def test_a_mean_of_models_may_know_what_each_does_not() -> None:
    labels = np.array([0, 1, 1, 0])
    first = np.array([[0.9, 0.1], [0.6, 0.4], [0.1, 0.9], [0.2, 0.8]], np.float32)
    second = np.array([[0.6, 0.4], [0.1, 0.9], [0.6, 0.4], [0.3, 0.7]], np.float32)
    lines = table({"first": first, "second": second}, labels).splitlines()
    assert lines[2].startswith("| `first` | 50.00 [")
    assert lines[2].endswith("|  |")
    assert lines[3].startswith("| `second` | 50.00 [")
    assert lines[3].endswith("| 75.00 |")
    assert lines[-1] == "1 of 4 images are misread by all."


def test_views_are_asked_about_one_by_one_and_their_answers_averaged() -> None:
    images = np.zeros((2, 4, 4, 3), np.uint8)
    images[0, 0, 0], images[1, 1, 1] = 255, 255

    def bright_corner(images: np.ndarray) -> np.ndarray:
        first = images[:, 0, 0, 0] / 255
        return np.stack([first, 1 - first], axis=1).astype(np.float32)

    assert over_views(bright_corner, images, 1).tolist() == [[1, 0], [0, 1]]
    # The bright corner is at the start in two of the eight, as it is and mirrored along it.
    assert over_views(bright_corner, images, 8).tolist() == [[0.25, 0.75], [0, 1]]


@pytest.mark.parametrize("views", [0, 9])
def test_more_views_than_there_are_end_in_one_line(views: int) -> None:
    with pytest.raises(ConfigError, match="--views"):
        main(["cnn_se_pico", "--data", "synthetic:5", "--views", str(views)])


def test_models_of_the_zoo_can_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    main(["cnn_se_pico", "cnn_se_nano", "--data", "synthetic:5"])
    assert [line.split("`")[1] for line in capsys.readouterr().out.splitlines()[2:4]] == [
        "cnn_se_pico",
        "cnn_se_nano",
    ]


def test_test_is_read_only_where_it_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    data = load_data("synthetic:5")
    answers = {}
    for split in ("val", "test"):
        main(["cnn_se_pico", "--data", "synthetic:5", *(["--split", "test"] * (split == "test"))])
        answers[split] = capsys.readouterr()
        assert f"{len(data[split]):,} {split} images" in answers[split].err
    assert answers["val"].out != answers["test"].out
