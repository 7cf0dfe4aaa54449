from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bloodedge.benchmarks import recipe_ablation, study
from bloodedge.benchmarks.comparison import evaluated_otherwise
from bloodedge.benchmarks.recorded import RESULTS
from bloodedge.cli.app import app
from bloodedge.data.dataset import Dataset, Split
from bloodedge.deploy.evaluate import EvaluateConfig, evaluate
from bloodedge.errors import ConfigError, ModelError, RunError, TrainingError
from bloodedge.train.augment import NO_AUGMENTATION, draw
from bloodedge.train.config import FitConfig, switched_on
from bloodedge.train.feed import Feed
from bloodedge.train.recipes import RECIPES, cluster_tuning, fine_tuning, fit_config
from bloodedge.train.registry import models
from bloodedge.train.targets import HardLabels


@pytest.mark.parametrize("recipe", sorted(RECIPES))
@pytest.mark.parametrize("model", sorted(models()))
def test_every_recipe_fits_every_model(recipe: str, model: str):
    assert fit_config(recipe, model).epochs >= 20


def test_the_study_recipe_is_what_the_study_says():
    fit = fit_config("study", "study_vgg16")
    assert (fit.epochs, fit.learning_rate, fit.weight_decay) == (20, 1e-3, 0.0)
    assert fit.augment == NO_AUGMENTATION
    assert fit.clip is None
    resnet = fit_config("study", "study_resnet")
    assert (resnet.optimizer, resnet.learning_rate) == ("sgd", 0.1)
    assert (fit.batch, fit_config("study", "study_vgg16_cbam").batch) == (128, 128)
    assert fit_config("study", "study_cnn_se").batch == 32


def test_weights_that_share_values_are_tuned_at_a_smaller_rate():
    assert cluster_tuning().learning_rate == 3e-4 < fine_tuning().learning_rate
    assert cluster_tuning(learning_rate=1e-2).learning_rate == 1e-2


def test_only_what_is_given_changes_a_recipe():
    base = fit_config("strong", "cnn_se")
    assert fit_config("strong", "cnn_se", epochs=None, seed=3).epochs == base.epochs
    assert fit_config("strong", "cnn_se", epochs=2).epochs == 2


def test_unknown_recipes_and_models_are_refused():
    with pytest.raises(ConfigError, match="strong or robust or study"):
        fit_config("weak", "cnn_se")
    with pytest.raises(ModelError, match="did you mean"):
        fit_config("strong", "cnn_see")


def test_the_robust_recipe_is_that_of_the_recorded_run():
    path = Path(__file__).parent.parent / RESULTS / "manifests" / "cnn_se-robust-s0.json"
    recorded = json.loads(path.read_text())["config"]["fit"]
    ours = json.loads(json.dumps(asdict(fit_config("robust", "cnn_se"))))
    assert switched_on(ours) == switched_on(recorded)


def feed(balance: float) -> np.ndarray:
    """Return the classes drawn in an epoch from 90 images of class 0 and 10 of class 1."""
    labels = np.repeat([0, 1], [900, 100])
    split = Split(np.zeros((1000, 4, 4, 3), np.uint8), labels)
    config = FitConfig(1, 50, balance=balance)
    batches = Feed(split, HardLabels(labels, 2), config, by_index=True).epoch(0)
    return labels[np.concatenate([inputs["index"] for inputs, _ in batches])]


def test_without_balance_every_image_is_seen_once():
    drawn = feed(0.0)
    assert np.bincount(drawn).tolist() == [900, 100]


def test_full_balance_draws_classes_alike():
    assert abs(feed(1.0).mean() - 0.5) < 0.06
    # Half a balance: odds as the square roots, 30 to 10.
    assert abs(feed(0.5).mean() - 0.25) < 0.06


def test_what_is_drawn_by_odds_does_not_decide_how_the_images_vary():
    labels = np.repeat([0, 1], [900, 100])
    split = Split(np.zeros((1000, 4, 4, 3), np.uint8), labels)
    config = FitConfig(1, 1000, balance=1.0)
    ((inputs, _),) = Feed(split, HardLabels(labels, 2), config, by_index=True).epoch(0)
    # Of one stream, a choice's bits are two views', and its highest ones the second's.
    same = labels[inputs["index"][:500]] == (inputs["view"][1::2] >= 4)
    assert abs(same.mean() - 0.5) < 0.1


def test_order_and_draws_without_balance_are_those_of_the_recorded_runs():
    labels = np.repeat([0, 1], [70, 30])
    split = Split(np.zeros((100, 4, 4, 3), np.uint8), labels)
    config = FitConfig(1, 25, seed=5)
    batches = list(Feed(split, HardLabels(labels, 2), config, by_index=True).epoch(3))
    order = np.concatenate([inputs.pop("index") for inputs, _ in batches])
    np.testing.assert_array_equal(order, np.random.default_rng([5, 3]).permutation(100))
    for step, (inputs, _) in enumerate(batches):
        expected = draw(config.augment, 25, 4, np.random.default_rng([5, 3, step]))
        assert inputs.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_array_equal(inputs[name], values, err_msg=name)


def test_every_ablation_variant_changes_the_recipe():
    base = recipe_ablation.variant_fit("cnn_se", "strong", 12, 0)
    for variant in recipe_ablation.VARIANTS:
        changed = recipe_ablation.variant_fit("cnn_se", variant, 12, 0) != base
        assert changed == (variant != "strong")


def test_the_studys_rows_are_registered():
    assert set(study.PUBLISHED) == {name for name, e in models().items() if e.role == "study"}


@pytest.mark.parametrize("bad", [{"models": ("vgg",)}, {"recipes": ("weak",)}, {"seeds": ()}])
def test_unknown_rows_of_the_study_are_refused(bad: dict):
    with pytest.raises(ConfigError):
        study.StudyConfig(**bad)


@pytest.mark.slow
def test_reproducing_trains_what_is_missing_and_keeps_the_rest(colours: Dataset, isolated_runs):
    from bloodedge.backend import use_backend

    use_backend()
    config = study.StudyConfig(("study_cnn_bn",), ("study",), (0,), epochs=1)
    assert "not run yet" in study.table(config)
    study.reproduce(config, colours)
    manifest = isolated_runs / "study_cnn_bn-study" / "manifest.json"
    before = manifest.stat().st_mtime_ns
    study.reproduce(config, colours)
    assert manifest.stat().st_mtime_ns == before
    row = next(line for line in study.table(config).splitlines() if "study_cnn_bn" in line)
    assert "95.59" in row
    assert "not run yet" not in row
    assert "synthetic colours" in study.table(config)
    with pytest.raises(RunError, match=r"fit\.epochs is 1, not 2"):
        study.reproduce(replace(config, epochs=2), colours)
    other = replace(colours, splits={**colours.splits, "train": colours["val"]})
    with pytest.raises(RunError, match="its data is other images of synthetic colours"):
        study.reproduce(config, other)
    study.reproduce(replace(config, precision="float32"), colours)
    tested = isolated_runs / "study_cnn_bn-study-test" / "manifest.json"
    tested.write_text(
        json.dumps({**json.loads(tested.read_text()), "parents": {"model": "0" * 64}})
    )
    with pytest.raises(RunError, match="of another training or file"):
        study.reproduce(config, colours)


def test_a_row_that_was_interrupted_with_other_settings_names_the_folder_to_remove(
    colours: Dataset, interrupted, isolated_runs: Path
):
    from bloodedge.backend import use_backend

    use_backend()
    config = study.StudyConfig(("study_cnn_bn",), ("study",), epochs=3)
    with interrupted():
        study.reproduce(config, colours)
    wanted = "another epochs; to mend it: ask for what it was started with"
    with pytest.raises(RunError, match=wanted) as refusal:
        study.reproduce(replace(config, epochs=2), colours)
    assert str(isolated_runs / ".study_cnn_bn-study.partial") in str(refusal.value)
    assert "--" not in str(refusal.value)


def test_a_row_that_fails_keeps_no_other_from_being_made(
    colours: Dataset, monkeypatch: pytest.MonkeyPatch
):
    made = []

    def one(model: str, recipe: str, seed: int, config: study.StudyConfig, data: Dataset):
        made.append(study.run_name(model, recipe, seed))
        if model == "study_cnn4":
            raise TrainingError("the loss is NaN")

    monkeypatch.setattr(study, "_one", one)
    config = study.StudyConfig(("study_cnn4", "study_cnn_bn"))
    failed = r"2 of 4 rows failed, as said above: study_cnn4-study, study_cnn4-strong; "
    with pytest.raises(RunError, match=failed):
        study.reproduce(config, colours)
    assert len(made) == 4
    with pytest.raises(TrainingError, match="NaN"):
        study.reproduce(study.StudyConfig(("study_cnn4",), ("study",)), colours)


def test_the_table_is_printed_where_rows_failed(monkeypatch: pytest.MonkeyPatch):
    def fails(config: study.StudyConfig, data: Dataset):
        raise TrainingError("the loss is NaN")

    monkeypatch.setattr(study, "reproduce", fails)
    command = ["reproduce", "study", "--data", "synthetic:5", "--model", "study_cnn4"]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, TrainingError)
    assert "| study_cnn4 |" in done.stdout


def evaluation(**changes: object) -> dict:
    """What the manifest of an evaluation on test tells."""
    usual = {"parents": {"model": "a"}, "data": {"fingerprint": "f"}, "metrics": {"test": {}}}
    return {**usual, **changes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"parents": {"model": "b"}}, ["of another training or file"]),
        ({"data": {"fingerprint": "e"}}, ["of other images"]),
        ({"metrics": {"val": {}}}, ["not on test"]),
    ],
)
def test_an_evaluation_is_of_one_file_on_test_of_one_data_set(changes: dict, words: list[str]):
    assert evaluated_otherwise(evaluation(**changes), "a", "f") == words


def test_an_evaluation_of_other_images_is_not_a_rows(
    student_named: Callable[[str], Path], colours: Dataset, monkeypatch: pytest.MonkeyPatch
):
    name = study.run_name("study_cnn_bn", "study", 0)
    student_named(name)
    monkeypatch.setattr(study, "_check_same", lambda wanted, data: None)
    other = replace(colours, splits={**colours.splits, "test": colours["val"]})
    evaluate(EvaluateConfig(name), other)
    config = study.StudyConfig(("study_cnn_bn",), ("study",))
    study.reproduce(config, other)
    with pytest.raises(RunError, match=r"study-test does not tell .*: it is of other images; "):
        study.reproduce(config, colours)
