from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodedge.benchmarks.model_work import model_work
from bloodedge.benchmarks.profile.files import read_profiles
from bloodedge.benchmarks.result import load_result
from bloodedge.benchmarks.stage import BenchmarkStageConfig, balanced_indices, benchmark
from bloodedge.data.dataset import Dataset
from bloodedge.errors import ConfigError, ModelError
from bloodedge.files import sha256_of
from bloodedge.runs import Manifest, open_run


@given(st.lists(st.integers(0, 3), min_size=4, max_size=80), st.integers(1, 80), st.integers(0, 9))
def test_a_balanced_draw_leaves_no_class_out_while_others_have_more(labels, count, seed):
    labels = np.array(labels)
    index = balanced_indices(labels, count, seed)
    assert len(index) == min(count, len(labels))
    assert len(set(index.tolist())) == len(index)
    assert (np.diff(index) > 0).all()
    taken = np.bincount(labels[index], minlength=4)
    available = np.bincount(labels, minlength=4)
    short = taken < available
    if short.any():
        assert taken.max() - taken[short].min() <= 1


def test_the_run_holds_a_valid_result_and_the_models_digest(
    colours: Dataset, brightest_tflite: bytes, tmp_path: Path
):
    path = tmp_path / "brightest.tflite"
    path.write_bytes(brightest_tflite)
    config = BenchmarkStageConfig(
        (str(path), str(path)),
        "bench",
        images=30,
        threads=(1,),
        repeats=1,
        seconds=0.05,
        profile=True,
    )
    run, result = benchmark(config, colours)
    (row,) = result.rows
    assert row.accuracy == 1.0
    assert row.images == 30
    assert load_result(run.path / "benchmark.json").rows == result.rows
    assert run.manifest["kind"] == "benchmark"
    assert run.manifest["parents"] == {"brightest.tflite": sha256_of(path)}
    written = {"benchmark.json", "manifest.json", "profile.csv", "profile-1-brightest.png"}
    assert {p.name for p in run.path.iterdir()} == written
    (profile,) = read_profiles(run.path / "profile.csv")
    assert (profile.model, profile.threads) == ("brightest.tflite", 1)
    # What the model costs is in its row, so that any report can tell how far it is from the limit.
    assert row.work == model_work("brightest", brightest_tflite)
    assert result.peaks[0].threads == 1


def test_a_keras_run_is_refused_with_the_command_that_helps(colours: Dataset):
    with open_run("small") as run:
        (run.path / "model.keras").write_bytes(b"x")
        run.commit(Manifest("train", "small", {}, {}, {}, {}, {}, 0, 0.0))
    with pytest.raises(ModelError, match="bloodedge export small --tflite"):
        benchmark(BenchmarkStageConfig(("small",), "bench"), colours)


@pytest.mark.parametrize("bad", [{"models": ()}, {"images": -1}])
def test_bad_settings_are_refused_when_built(bad):
    with pytest.raises(ConfigError):
        BenchmarkStageConfig(**{"models": ("a",), "name": "b", **bad})
