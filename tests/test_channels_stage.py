"""`bloodedge prune --channels` from a trained run to a run that works wherever a run does."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bloodedge.backend import use_backend
from bloodedge.cli.app import app
from bloodedge.compress.channels.importance import criterion
from bloodedge.compress.channels.stage import PruneConfig, plan_channels, prune_channels
from bloodedge.compress.distill import DistillConfig, distill
from bloodedge.compress.teaching import TeachingConfig
from bloodedge.data.dataset import Dataset, Split
from bloodedge.deploy.evaluate import EvaluateConfig, evaluate
from bloodedge.deploy.export import ExportConfig, export
from bloodedge.errors import ConfigError, ModelError, RunError
from bloodedge.files import sha256_of
from bloodedge.references import find_model
from bloodedge.runs import runs_root
from bloodedge.train.architecture import Ready
from bloodedge.train.checkpoint import FILES, Checkpoints
from bloodedge.train.config import FitConfig
from bloodedge.train.cost import count_macs
from bloodedge.train.device import precision
from bloodedge.train.loop import predict_logits
from bloodedge.train.registry import ModelConfig, build
from bloodedge.train.restore import restore

FIT = FitConfig(epochs=2, batch=16, learning_rate=3e-3)


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


@pytest.fixture
def parent(student_named: Callable[[str], Path]) -> Path:
    return student_named("parent")


def pruned(data: Dataset, name: str = "small", **options: Any) -> Any:
    budget = options.keys() & {"macs", "kb", "ratio"}
    options = options if budget else {"ratio": 0.7, **options}
    options = {"model": "parent", "fit": FIT, **options}
    return prune_channels(PruneConfig(name=name, **options), data)


def test_a_pruned_run_is_a_run_like_any_other(parent: Path, colours: Dataset):
    before = sha256_of(parent / "model.keras")
    run = pruned(colours, macs=0.6, teaching=TeachingConfig(("parent",), views=1))
    assert sha256_of(parent / "model.keras") == before
    assert run.manifest["kind"] == "prune"
    assert run.manifest["parents"] == {"parent": before, "teacher": before}
    plan = run.manifest["config"]["plan"]
    assert plan["macs_left"] <= 0.6 * plan["macs"]
    model = restore(find_model("small"))
    assert count_macs(model) == plan["macs_left"]
    assert run.manifest["model"]["parameters"] == model.count_params()
    assert run.manifest["metrics"]["best_epoch"] in (1, 2)
    logits = predict_logits(model, colours["val"].images)
    accuracy = (logits.argmax(axis=1) == colours["val"].labels).mean()
    assert run.manifest["metrics"]["val"]["accuracy"] == pytest.approx(accuracy)
    assert accuracy > 0.6
    assert {"plan.json", "history.csv", "model.keras"} <= set(run.manifest["files"])

    evaluated = evaluate(EvaluateConfig(find_model("small"), "val", "small-val"), colours)
    assert evaluated.manifest["metrics"]["val"]["accuracy"] == pytest.approx(accuracy)
    exported = export(ExportConfig("small", "small-tflite", ("float32",)), colours)
    assert exported.manifest["metrics"]["variants"]["float32"]["agreement"] == 1
    teaching = TeachingConfig(("small",), views=1)
    student = DistillConfig(teaching, "cnn_se", FIT, "student", width=0.25)
    assert distill(student, colours).manifest["parents"] == {"teacher": find_model("small").sha256}
    again = pruned(colours, "smaller", model="small", ratio=0.95, fine_tune=False)
    assert again.manifest["config"]["plan"]["macs"] == plan["macs_left"]
    assert again.manifest["parents"] == {"parent": find_model("small").sha256}


def test_a_ready_model_is_trained_in_half_precision_and_kept_in_single():
    model = build(ModelConfig("cnn_se", 3, 16, 0.25, "cbam"), size=16)
    ready = Ready(model, {})
    with precision("bfloat16"):
        half = ready.build()
    assert half.get_layer("conv1").compute_dtype == "bfloat16"
    single = ready.fixed(half)
    assert {layer.compute_dtype for layer in single.layers} == {"float32"}
    for copy in (half, single):
        for a, b in zip(copy.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    assert single.get_layer("conv1") is not model.get_layer("conv1")


def test_without_fine_tuning_the_cut_is_all(parent: Path, colours: Dataset):
    run = pruned(colours, fine_tune=False, importance="l1", renorm=False)
    plan = json.loads((run.path / "plan.json").read_text())
    assert run.manifest["metrics"]["val"]["accuracy"] == plan["val_accuracy_after_cut"]
    assert run.manifest["metrics"]["best_epoch"] == 0
    assert not (run.path / "history.csv").exists()
    source, cut = restore(find_model("parent")), restore(find_model("small"))
    kernel, bias = source.get_layer("conv3").get_weights()[0], cut.get_layer("conv3")
    kept = np.ix_(*(range(3),) * 2, plan["kept"].get("conv2", range(32)), plan["kept"]["conv3"])
    np.testing.assert_array_equal(bias.get_weights()[0], kernel[kept])


def test_an_interrupted_pruning_resumes_to_the_same_weights(
    parent: Path, colours: Dataset, monkeypatch: pytest.MonkeyPatch
):
    pruned(colours, "whole")
    save = Checkpoints.save

    def stop(self: Checkpoints, progress: Any) -> None:
        save(self, progress)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save_if_due", stop)
        with pytest.raises(KeyboardInterrupt):
            pruned(colours, "broken")
    with pytest.raises(RunError, match="--resume"):
        pruned(colours, "broken")
    with pytest.raises(RunError, match="another ratio"):
        pruned(colours, "broken", ratio=0.9, resume=True)
    # The plan is that of the first start, whatever this machine would choose now.
    monkeypatch.setattr("bloodedge.compress.channels.stage.make_plan", None)
    assert pruned(colours, "broken", resume=True).manifest["resumed"] == 1
    first, second = (restore(find_model(name)).get_weights() for name in ("whole", "broken"))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def stopped_after_the_plan(data: Dataset, name: str, **options: Any) -> Path:
    """Leave a run as one that is killed between its plan and its first checkpoint."""

    def stop(*given: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bloodedge.compress.channels.stage.fit_run", stop)
        with pytest.raises(KeyboardInterrupt):
            pruned(data, name, **options)
    return runs_root() / f".{name}.partial" / "plan.json"


def test_a_plan_of_other_settings_is_not_continued(
    parent: Path, tiny_file: Path, colours: Dataset, monkeypatch: pytest.MonkeyPatch
):
    path = stopped_after_the_plan(colours, "broken", macs=0.7, importance="l1")
    written = path.read_bytes()
    for changed, options in (
        ("importance, macs", {"macs": 0.4, "importance": "bn"}),
        ("macs, ratio", {"ratio": 0.7, "importance": "l1"}),
        ("floor", {"macs": 0.7, "importance": "l1", "floor": 0.3}),
        ("renorm", {"macs": 0.7, "importance": "l1", "renorm": False}),
        ("importance", {"macs": 0.7, "importance": "bn", "fine_tune": False}),
        ("seed", {"macs": 0.7, "importance": "l1", "fit": replace(FIT, seed=1)}),
        ("parent", {"macs": 0.7, "importance": "l1", "model": str(tiny_file)}),
    ):
        with pytest.raises(RunError, match=f"started with another {changed};.*--force"):
            pruned(colours, "broken", resume=True, **options)
    other = replace(colours, splits={**colours.splits, "val": colours["test"]})
    with pytest.raises(RunError, match="started with another data;"):
        pruned(other, "broken", macs=0.7, importance="l1", resume=True)
    assert path.read_bytes() == written
    # The same settings take the plan as it is.
    monkeypatch.setattr("bloodedge.compress.channels.stage.make_plan", None)
    run = pruned(colours, "broken", macs=0.7, importance="l1", resume=True)
    assert (run.path / "plan.json").read_bytes() == written
    # The manifest has the settings once, beside the plan.
    assert not {"kept", "settings"} & run.manifest["config"]["plan"].keys()


def test_a_plan_that_is_continued_is_cut_as_it_would_have_been(parent: Path, colours: Dataset):
    stopped_after_the_plan(colours, "broken", importance="l1")
    # The plan holds no statistics of batch norm: they are taken anew here as well.
    pruned(colours, "broken", importance="l1", fine_tune=False, resume=True)
    pruned(colours, "whole", importance="l1", fine_tune=False)
    first, second = (restore(find_model(name)).get_weights() for name in ("whole", "broken"))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def without_settings(path: Path) -> None:
    """Make a plan what an earlier version wrote."""
    plan = json.loads(path.read_text())
    del plan["settings"]
    path.write_text(json.dumps(plan))


def test_a_plan_that_does_not_say_what_shaped_it_is_made_anew(parent: Path, colours: Dataset):
    without_settings(stopped_after_the_plan(colours, "broken", macs=0.9, importance="l1"))
    run = pruned(colours, "broken", macs=0.6, importance="l1", resume=True, fine_tune=False)
    plan = run.manifest["config"]["plan"]
    assert plan["macs_left"] <= 0.6 * plan["macs"]


def test_a_plan_of_an_earlier_version_is_continued_with_its_checkpoint(
    parent: Path,
    colours: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    interrupted: Callable[[], AbstractContextManager[None]],
):
    with interrupted():
        pruned(colours, "broken", importance="l1")
    without_settings(runs_root() / ".broken.partial" / "plan.json")
    monkeypatch.setattr("bloodedge.compress.channels.stage.make_plan", None)
    # The checkpoint's settings tell the two apart.
    with pytest.raises(RunError, match="another importance"):
        pruned(colours, "broken", importance="bn", resume=True)
    assert pruned(colours, "broken", importance="l1", resume=True).manifest["resumed"] == 1


def test_new_statistics_are_part_of_the_cut(parent: Path, colours: Dataset):
    old = pruned(colours, "old", fine_tune=False, importance="l1", renorm=False)
    new = pruned(colours, "new", fine_tune=False, importance="l1")
    plans = [json.loads((run.path / "plan.json").read_text()) for run in (old, new)]
    assert plans[0]["kept"] == plans[1]["kept"]
    assert plans[0]["val_accuracy_after_cut"] == plans[1]["val_accuracy_after_cut"]
    assert "val_accuracy_after_renorm" not in plans[0]
    reached = plans[1]["val_accuracy_after_renorm"]
    assert new.manifest["metrics"]["val"]["accuracy"] == reached
    assert reached >= plans[0]["val_accuracy_after_cut"]
    first, second = (restore(find_model(name)) for name in ("old", "new"))
    for a, b in zip(first.trainable_variables, second.trainable_variables, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    kept = [np.asarray(m.get_layer("conv3_bn").moving_mean) for m in (first, second)]
    assert np.abs(kept[0] - kept[1]).max() > 0


def test_new_statistics_are_of_mixed_batches_where_train_is_sorted_by_class(
    parent: Path, colours: Dataset, monkeypatch: pytest.MonkeyPatch
):
    train = colours["train"]
    order = np.argsort(train.labels, kind="stable")
    ordered = Split(train.images[order], train.labels[order])
    label_of = dict(zip(map(bytes, ordered.images), ordered.labels.tolist(), strict=True))
    given: list[Any] = []
    monkeypatch.setattr(
        "bloodedge.compress.channels.stage.renorm", lambda net, images: given.extend(images)
    )
    data = replace(colours, splits={**colours.splits, "train": ordered})
    pruned(data, fine_tune=False, importance="l1")
    assert len(given) == len(train)
    assert {label_of[bytes(image)] for image in given[:32]} == {0, 1, 2}


@pytest.mark.parametrize("content", ['{"kept": {"stem": [99]}}', '{"kept": 3}', "{}"])
def test_a_damaged_plan_is_not_continued(parent: Path, colours: Dataset, content: str):
    folder = runs_root() / ".small.partial"
    folder.mkdir()
    (folder / "plan.json").write_text(content)
    (folder / FILES[0]).touch()
    with pytest.raises(RunError, match=r"plan\.json does not fit.*--force"):
        pruned(colours, resume=True)


def test_channels_are_ranked_on_train_drawn_by_the_fits_seed(
    parent: Path, colours: Dataset, monkeypatch: pytest.MonkeyPatch
):
    ranked: list[Any] = []

    def rank(graph: Any, *given: Any) -> Any:
        ranked.append(given)
        return criterion("l1")(graph, *given)

    monkeypatch.setattr("bloodedge.compress.channels.stage.criterion", lambda name: rank)
    plan_channels(PruneConfig("parent", "small", replace(FIT, seed=7), ratio=0.7), colours)
    ((train, seed),) = ranked
    assert train is colours["train"]
    assert seed == 7


def test_planning_writes_nothing(parent: Path, colours: Dataset):
    before = sorted(runs_root().rglob("*"))
    plan = plan_channels(PruneConfig("parent", "small", FIT, kb=4.0), colours)
    assert plan.totals()["bytes_left"] <= 4000
    assert sorted(runs_root().rglob("*")) == before


def test_a_budget_out_of_reach_leaves_no_run(parent: Path, colours: Dataset):
    with pytest.raises(ConfigError, match="smallest reachable"):
        pruned(colours, macs=0.001)
    assert [path.name for path in runs_root().iterdir()] == ["parent"]


def test_a_model_of_other_classes_is_refused(parent: Path, colours: Dataset):
    two = {name: type(s)(s.images, s.labels % 2) for name, s in colours.splits.items()}
    with pytest.raises(ModelError, match="parent has 3 classes, the data 2"):
        pruned(Dataset("two", "npz", "two", ("a", "b"), two, {}))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "0 budgets"),
        ({"macs": 0.5, "kb": 3.0}, "2 budgets"),
        ({"macs": 2.0}, "--macs 2.0"),
        ({"macs": 0.5, "importance": "luck"}, "--importance 'luck'"),
        ({"macs": 0.5, "floor": 1.5}, "--floor 1.5"),
        (
            {"macs": 0.5, "teaching": TeachingConfig(("t",)), "fine_tune": False},
            "teacher without fine-tuning",
        ),
        ({"macs": 0.5, "fit": FitConfig(3, progressive=((1, 8),))}, "--progressive"),
    ],
)
def test_bad_settings_are_refused_when_built(options: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        PruneConfig("parent", "small", **{"fit": FIT, **options})


def test_the_command_prints_the_plan(parent: Path, colours: Dataset, tmp_path: Path):
    arrays = {f"{name}_images": split.images for name, split in colours.splits.items()}
    arrays |= {f"{name}_labels": split.labels[:, None] for name, split in colours.splits.items()}
    np.savez(tmp_path / "colours.npz", **arrays)  # type: ignore[arg-type]
    command = ["prune", "parent", "--channels", "--importance", "l1"]
    command += ["--data", str(tmp_path / "colours.npz")]
    done = CliRunner().invoke(app, [*command, "--ratio", "0.8", "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "20 -> 16" in done.stdout
    assert "the logits" in done.stdout
    assert not (runs_root() / "parent-pruned").exists()
    done = CliRunner().invoke(app, [*command, "--ratio", "0.8", "--epochs", "0"])
    assert done.exit_code == 0, done.output
    assert find_model("parent-pruned").manifest["kind"] == "prune"
    refused = CliRunner().invoke(app, [*command, "--ratio", "0.01", "--dry-run"])
    assert refused.exit_code != 0
    assert "smallest reachable" in str(refused.exception)
    nothing = CliRunner().invoke(app, ["prune", "parent", "--ratio", "0.5"])
    assert "--channels" in str(nothing.exception)
