"""Weight clustering: how many values, which zeros, and what the run can be used for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.compress.clustering import (
    ClusterConfig,
    _too_small,
    cluster,
    is_pruned,
    wrap_layer,
)
from bloodedge.compress.preserve import clusters_of, keeper
from bloodedge.compress.sparsity import SparsityConfig, sparsify
from bloodedge.compress.targets import KdConfig
from bloodedge.compress.teaching import TeachingConfig
from bloodedge.data.dataset import Dataset
from bloodedge.deploy.convert import convert
from bloodedge.deploy.interpreter import Classifier
from bloodedge.errors import ConfigError
from bloodedge.files import sha256_of
from bloodedge.metrics import softmax
from bloodedge.runs import Run
from bloodedge.train.config import FitConfig
from bloodedge.train.loop import predict_logits
from bloodedge.train.modelio import load_model

FIT = FitConfig(3, 16, 1e-3)
CHANGED = ("conv", "point", "hidden")
ALONE = ("stem", "se_a", "se_b", "logits")


@pytest.fixture(scope="module")
def pruned(
    colours: Dataset, tiny_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    """A run pruned 2:4, whose zeros have a pattern to be preserved."""
    use_backend()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BLOODEDGE_RUNS", str(tmp_path_factory.mktemp("runs")))
        taught = SparsityConfig(
            str(tiny_file),
            "pruned",
            replace(FIT, epochs=1),
            teaching=TeachingConfig((str(tiny_file),), views=1),
            pattern="2:4",
        )
        yield sparsify(taught, colours)


def kernels(path: Path) -> dict[str, np.ndarray]:
    model = load_model(path)
    return {n: model.get_layer(n).kernel.numpy() for n in (*CHANGED, *ALONE)}


def config(parent: Run, name: str, **options: Any) -> ClusterConfig:
    return ClusterConfig(str(parent.path), name, FIT, **{"clusters": 8, **options})


def fours(kernel: np.ndarray, axis: int) -> np.ndarray:
    """How many weights are left in each four along an axis."""
    return np.count_nonzero(np.moveaxis(kernel, axis, -1).reshape(-1, 4), axis=1)


def test_two_of_four_are_zero_along_the_input_channels(pruned: Run):
    found = kernels(pruned.path / "model.keras")
    for name in ("conv", "hidden"):
        np.testing.assert_array_equal(fours(found[name], -2), 2)
    # Not along the outputs, which would be another pattern.
    assert np.any(fours(found["hidden"], -1) != 2)
    # 14 input channels.
    assert np.all(found["point"] != 0)
    rows = {row["name"]: row["reason"] for row in pruned.manifest["model"]["weights"]["layers"]}
    assert rows["point"] == "14 input channels make no whole groups of four"


def test_a_model_can_be_its_own_teacher(pruned: Run, tiny_file: Path):
    digest = sha256_of(tiny_file)
    assert pruned.manifest["parents"] == {"parent": digest, "teacher": digest}
    banks = (pruned.path.parent / ".teacher-logits").glob("*.npz")
    assert [list(np.load(bank)) for bank in banks] == [["view0"]]


@pytest.fixture(scope="module")
def clustered(
    pruned: Run, colours: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BLOODEDGE_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield cluster(config(pruned, "clustered"), colours)


def test_a_kernel_has_no_more_values_than_clusters_and_keeps_its_zeros(clustered: Run, pruned: Run):
    before, after = (kernels(run.path / "model.keras") for run in (pruned, clustered))
    for name in CHANGED:
        assert 4 <= len(np.unique(after[name])) <= 8, name
    for name in ("conv", "hidden"):
        assert np.all(after[name][before[name] == 0] == 0), name
        assert fours(after[name], -2).max() <= 2
    for name in ALONE:
        assert len(np.unique(after[name])) == after[name].size, name


def test_zeros_are_kept_whatever_the_pruned_model_went_through(
    clustered: Run, pruned: Run, colours: Dataset, capsys: pytest.CaptureFixture[str]
):
    before = kernels(pruned.path / "model.keras")
    again = ClusterConfig(str(clustered.path), "again", FIT, clusters=4, layers=("conv",))
    found = kernels(cluster(again, colours).path / "model.keras")
    for name in ("conv", "hidden"):
        assert np.all(found[name][before[name] == 0] == 0), name
    # Left alone here, it keeps the values it shares, though training moves them.
    assert len(np.unique(found["conv"])) <= 4
    assert 4 < len(np.unique(found["hidden"])) <= 8
    said = capsys.readouterr().err
    assert "was pruned: the zeros of conv are preserved" in said
    assert "hidden: 8 clusters, kept" in said


def test_the_manifest_counts_the_values_and_names_the_parent(clustered: Run, pruned: Run):
    found = kernels(clustered.path / "model.keras")
    entry = clustered.manifest["model"]["weights"]
    for row in entry["layers"]:
        assert row["values"] == len(np.unique(found[row["name"]]))
        assert bool(row["reason"]) == (row["name"] in ALONE)
        # Of another method it says nothing.
        assert "prun" not in row["reason"]
    sizes = entry["sizes"]
    assert sizes["after"]["float32"]["gzip_bytes"] < sizes["before"]["float32"]["gzip_bytes"]
    assert clustered.manifest["kind"] == "cluster"
    assert clustered.manifest["parents"] == {"parent": sha256_of(pruned.path / "model.keras")}
    recorded = pruned.manifest["files"]["model.keras"]["sha256"]
    assert clustered.manifest["parents"]["parent"] == recorded


def test_training_moves_the_shared_values(clustered: Run, pruned: Run):
    import tf_keras

    kernel = kernels(pruned.path / "model.keras")["hidden"]
    layer = tf_keras.layers.Dense(16)
    layer.build((None, 12))
    layer.set_weights([kernel, np.zeros(16, np.float32)])
    wrapper = wrap_layer(config(pruned, "x", preserve_sparsity=True), layer)
    wrapper(np.zeros((1, 12), np.float32))
    start = np.unique(np.asarray(wrapper.cluster_centroids["kernel"]))
    after = np.unique(kernels(clustered.path / "model.keras")["hidden"])
    assert len(set(after) & set(start) - {0.0}) == 0


def test_a_clustered_model_converts_and_predicts_as_before(
    clustered: Run, colours: Dataset, tmp_path: Path
):
    model = load_model(clustered.path / "model.keras")
    images = colours["val"].images
    path = tmp_path / "model.tflite"
    path.write_bytes(convert(model, "float32", images[:1]))
    expected = softmax(predict_logits(model, images))
    np.testing.assert_allclose(Classifier(path).predict(images), expected, atol=1e-5)
    accuracy = (expected.argmax(axis=1) == colours["val"].labels).mean()
    assert accuracy == pytest.approx(clustered.manifest["metrics"]["val"]["accuracy"])


@pytest.mark.parametrize("init", ["linear", "density", "kmeans++"])
def test_centroids_start_as_named(init: str):
    use_backend()
    from bloodedge.compress.bridge.runtime import tf_keras

    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(30, 20)).astype(np.float32)
    layer = tf_keras().layers.Dense(20)
    layer.build((None, 30))
    layer.set_weights([kernel, np.zeros(20, np.float32)])
    wrapper = wrap_layer(ClusterConfig("m", "n", FIT, clusters=8, init=init), layer)
    x = rng.normal(size=(4, 30)).astype(np.float32)
    out = np.asarray(wrapper(x))
    found = np.sort(np.asarray(wrapper.cluster_centroids["kernel"]))
    assert found.shape == (8,)
    if init == "linear":
        np.testing.assert_allclose(found, np.linspace(kernel.min(), kernel.max(), 8), atol=1e-5)
    if init == "kmeans++":
        assert set(found) <= set(kernel.ravel())
    if init == "density":
        assert found.min() >= kernel.min() - 0.5
        assert found.max() <= kernel.max() + 0.5
    nearest = found[np.abs(kernel[..., None] - found).argmin(axis=-1)]
    np.testing.assert_allclose(out, x @ nearest, atol=1e-4)


def test_zero_is_one_of_the_values_where_zeros_are_to_be_preserved():
    use_backend()
    from bloodedge.compress.bridge.runtime import tf_keras

    kernel = np.random.default_rng(0).normal(size=(30, 20)).astype(np.float32)
    kernel[0, :3] = 0
    for preserve in (True, False):
        layer = tf_keras().layers.Dense(20)
        layer.build((None, 30))
        layer.set_weights([kernel, np.zeros(20, np.float32)])
        asked = ClusterConfig("m", "n", FIT, init="linear", preserve_sparsity=preserve)
        wrapper = wrap_layer(asked, layer)
        wrapper(np.zeros((1, 30), np.float32))
        assert (0 in np.asarray(wrapper.cluster_centroids["kernel"])) == preserve


def test_a_few_zeros_count_apart_only_where_they_are_to_be_preserved():
    kernel = np.ones(100)
    kernel[:4] = 0
    assert not is_pruned(kernel)
    for preserve, reason in ((False, ""), (True, "96 weights that are not zero are fewer")):
        asked = ClusterConfig("m", "n", FIT, clusters=50, preserve_sparsity=preserve)
        said = _too_small(asked, kernel)
        assert said.startswith(reason)
        assert bool(said) == preserve
    kernel[:6] = 0
    assert is_pruned(kernel)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"clusters": 2}, "3 to 256"),
        ({"clusters": 257}, "3 to 256"),
        ({"init": "x"}, "density"),
        ({"teaching": TeachingConfig(("x",), KdConfig(method="feature"))}, "--method feature with"),
    ],
)
def test_bad_settings_are_refused_when_built(bad: dict[str, Any], why: str):
    with pytest.raises(ConfigError, match=why):
        ClusterConfig("m", "n", FIT, **bad)


def test_a_kernel_with_fewer_weights_than_clusters_is_left_alone(colours: Dataset, tiny_file: Path):
    use_backend()
    asked = ClusterConfig(str(tiny_file), "few", FIT, clusters=250, layers=("point",))
    with pytest.raises(ConfigError, match="168 weights are fewer than two for each of 250 clus"):
        cluster(asked, colours)


def test_a_pruned_kernel_with_fewer_weights_left_than_clusters_is_left_alone(
    colours: Dataset, tiny_file: Path, tmp_path: Path
):
    use_backend()
    model = load_model(tiny_file)
    layer = model.get_layer("point")
    kernel, *rest = layer.get_weights()
    kernel.reshape(-1)[13:] = 0
    layer.set_weights([kernel, *rest])
    model.save(tmp_path / "sparse.keras")
    few = ClusterConfig(str(tmp_path / "sparse.keras"), "few", FIT, clusters=7, layers=("point",))
    with pytest.raises(ConfigError, match="13 weights that are not zero are fewer than two for"):
        cluster(few, colours)
    run = cluster(replace(few, clusters=6, fit=replace(FIT, epochs=1)), colours)
    assert len(np.unique(kernels(run.path / "model.keras")["point"])) <= 6


@pytest.mark.parametrize("clusters", [84, 85])
def test_what_is_clustered_is_kept_and_what_could_not_be_kept_is_left_alone(
    clusters: int, colours: Dataset, tiny_file: Path
):
    use_backend()
    fit = replace(FIT, epochs=1)
    asked = ClusterConfig(str(tiny_file), "half", fit, clusters=clusters, layers=("point",))
    if clusters > 84:
        with pytest.raises(ConfigError, match="168 weights are fewer than two for each of 85"):
            cluster(asked, colours)
        return
    kernel = kernels(cluster(asked, colours).path / "model.keras")["point"]
    assert keeper(kernel, (kernel.ndim - 1,))[1] == f"{len(np.unique(kernel))} clusters"


def test_clusters_are_found_behind_batch_norm_where_each_value_is_there_twice():
    rng = np.random.default_rng(0)
    gain = rng.uniform(0.5, 2, 6).astype(np.float32)
    values = rng.permutation(np.repeat(rng.normal(size=96).astype(np.float32), 2)).reshape(-1, 6)
    folded = values * gain
    # Rounding makes more values of them, which are no clusters of their own.
    assert len(np.unique(folded / gain)) > 96
    found = clusters_of(folded, gain)
    assert found is not None
    assert found[1] == 96


def test_weights_of_which_some_are_equal_by_chance_are_no_clusters():
    kernel = np.random.default_rng(0).normal(size=(8, 24)).astype(np.float32)
    kernel.ravel()[:20] = kernel.ravel()[20:40]
    assert keeper(kernel, (kernel.ndim - 1,)) == (None, "")
