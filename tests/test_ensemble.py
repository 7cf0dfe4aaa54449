"""The accuracy of several models together."""

from __future__ import annotations

import numpy as np
import pytest

from bloodedge.benchmarks.ensemble import main, table


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


def test_models_of_the_zoo_can_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    main(["cnn_se_pico", "cnn_se_nano", "--data", "synthetic:5"])
    assert [line.split("`")[1] for line in capsys.readouterr().out.splitlines()[2:4]] == [
        "cnn_se_pico",
        "cnn_se_nano",
    ]
