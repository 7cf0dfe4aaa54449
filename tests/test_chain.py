"""`bloodedge compress`: a chain is its steps, and goes on where it stopped."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from typer.testing import CliRunner

from bloodedge.backend import use_backend
from bloodedge.cli.app import app
from bloodedge.cli.chain_figures import print_rows
from bloodedge.compress.chain.recipe import RecipeConfig
from bloodedge.compress.chain.run import State, run_chain
from bloodedge.compress.chain.steps import training_links
from bloodedge.compress.channels.stage import PruneConfig, prune_channels
from bloodedge.compress.clustering import ClusterConfig
from bloodedge.compress.distill import DistillConfig
from bloodedge.compress.quantize import QatConfig
from bloodedge.compress.sparsity import SparsityConfig
from bloodedge.compress.targets import KdConfig
from bloodedge.compress.teaching import TeachingConfig
from bloodedge.data.dataset import Dataset
from bloodedge.deploy import variant
from bloodedge.deploy.lint.rule import Severity
from bloodedge.deploy.recipe.rows import Row
from bloodedge.deploy.recipe.stage import compress, links, lint_recipe, lint_result, plan
from bloodedge.errors import ConfigError, DataError, ModelError, RunError
from bloodedge.files import sha256_of
from bloodedge.references import find_model
from bloodedge.runs import runs_root
from bloodedge.train.checkpoint import Checkpoints
from bloodedge.train.cost import count_macs
from bloodedge.train.modelio import save_model
from bloodedge.train.recipes import cluster_tuning, fine_tuning, fit_config, qat_tuning
from bloodedge.train.restore import restore
from bloodedge.variants import FORMATS, Recipe, Step

SHORT = {"": 1, "qat": 2}


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


@pytest.fixture
def source(student_named: Callable[[str], Path]) -> Path:
    return student_named("big")


def asked(recipe: str, **options: Any) -> RecipeConfig:
    settings = {"epochs": SHORT, "batch": 16, "per_class": 8, "importance": "l1", **options}
    if "qat" not in recipe and settings["epochs"] is SHORT:
        settings["epochs"] = {"": 1}
    return RecipeConfig("big", Recipe.parse(recipe), **settings)


def digests(root: Path) -> dict[str, str]:
    files = [p for p in root.rglob("*") if p.is_file()]
    return {p.relative_to(root).as_posix(): sha256_of(p) for p in files}


@pytest.mark.slow
def test_a_recipe_is_a_row_of_runs_each_made_from_the_one_before(source: Path, colours: Dataset):
    before = digests(source)
    config = asked("kd+slim75+sparse+cluster8+qat+int8+float32", width=0.5, sparsity=0.6, views=1)
    runs, rows = compress(config, colours, allow_failing=True)
    assert digests(source) == before
    names = [
        "cnn_se-w0.5-kd",
        "cnn_se-w0.5-kd-slim75",
        "cnn_se-w0.5-kd-slim75-sparse60",
        "cnn_se-w0.5-kd-slim75-sparse60-cluster8",
        "cnn_se-w0.5-kd-slim75-sparse60-cluster8-qat",
    ]
    files = [f"{names[-1]}-int8", f"{names[-1]}-float32"]
    assert [run.name for run in runs] == names + files
    teacher = before["model.keras"]
    assert runs[0].manifest["parents"] == {"teacher": teacher}
    for parent, run in zip(names, runs[1:5], strict=False):
        sha = sha256_of(runs_root() / parent / "model.keras")
        assert run.manifest["parents"] == {"parent": sha, "teacher": teacher}
    for run in runs[5:]:
        assert run.manifest["parents"] == {"parent": find_model(names[-1]).sha256}
        assert (run.path / f"{run.name}.tflite").is_file()
    epochs = [run.manifest["config"]["fit"]["epochs"] for run in runs[:5]]
    assert epochs == [1, 1, 1, 1, 2]

    # What each step promised is in the last model: fewer channels, zeros, few values.
    last, first = (restore(find_model(name)) for name in (names[-1], names[0]))
    sizes = [
        sum(net.get_layer(f"conv{i}").get_weights()[0].size for i in range(1, 6))
        for net in (last, first)
    ]
    assert sizes[0] < sizes[1]
    kernel = last.get_layer("conv3").get_weights()[0]
    assert (kernel == 0).mean() > 0.55
    clustered = restore(find_model(names[3])).get_layer("conv3").get_weights()[0]
    assert len(np.unique(clustered)) <= 8

    assert [row.name for row in rows] == ["big", *names, *files]
    assert [row.step for row in rows][-3:] == ["qat", "int8", "float32"]
    macs = count_macs(restore(find_model(names[1])))
    assert [row.macs for row in rows[2:]] == [macs] * 6
    assert macs <= 0.75 * (rows[1].macs or 0)
    for row, run in zip(rows[6:], runs[5:], strict=True):
        assert row.bytes == (run.path / f"{run.name}.tflite").stat().st_size
    assert rows[5].accuracy == runs[4].manifest["metrics"]["val_int8"]["accuracy"]
    assert all(row.interval[0] <= row.accuracy <= row.interval[1] for row in rows)
    assert rows[4].gzip_bytes < rows[3].gzip_bytes < rows[2].gzip_bytes

    made = digests(runs_root())
    again, same_rows = compress(config, colours, allow_failing=True)
    assert same_rows == rows
    assert digests(runs_root()) == made
    # Another format is one more run, and nothing else.
    more = replace(config, recipe=Recipe.parse(config.recipe.text + "+float16"))
    assert len(compress(more, colours, allow_failing=True)[0]) == len(again) + 1
    assert {p: s for p, s in digests(runs_root()).items() if p in made} == made


def test_every_setting_reaches_the_steps_it_is_for():
    """Each setting is another than the default of its step."""
    config = asked(
        "kd+slim75+sparse60+2of4+cluster8+qat",
        width=0.5,
        epochs={"": 5, "2of4": 6, "qat": 7},
        rates={"": 1e-4, "sparse": 2e-4, "kd": 3e-4},
        batch=8,
        views=2,
        importance="bn",
        floor=0.3,
        per_class=5,
        seed=4,
    )
    names = [link.name for link in training_links(config)]
    teaching = TeachingConfig(("big",), views=2)
    given: dict[str, Any] = {"batch": 8, "seed": 4}
    usual = {"epochs": 5, "learning_rate": 1e-4, **given}
    kd = fit_config("strong", "cnn_se", epochs=5, learning_rate=3e-4, **given)
    sparse = fine_tuning(epochs=5, learning_rate=2e-4, **given)
    fours = fine_tuning(epochs=6, learning_rate=1e-4, **given)
    qat = qat_tuning(epochs=7, learning_rate=1e-4, **given)
    slim: dict[str, Any] = {"macs": 0.75, "importance": "bn", "floor": 0.3}
    pattern: dict[str, Any] = {"pattern": "2:4", "sparsity": 0.5}
    assert [link.config for link in training_links(config)] == [
        DistillConfig(teaching, "cnn_se", kd, names[0], 0.5),
        PruneConfig(names[0], names[1], fine_tuning(**usual), teaching=teaching, **slim),
        SparsityConfig(names[1], names[2], sparse, teaching, sparsity=0.6),
        SparsityConfig(names[2], names[3], fours, teaching, **pattern),
        ClusterConfig(names[3], names[4], cluster_tuning(**usual), teaching, clusters=8),
        QatConfig(names[4], qat, names[5], teaching, per_class=5),
    ]
    assert [link.parent for link in training_links(config)] == ["", *names[:-1]]


TAKEN = ("slim0.5", "slim99.9", "slim0.5kb", "slim0.5ch", "slim99.9ch", "sparse1", "sparse99")
TAKEN += ("cluster3", "cluster256")
REFUSED = ("slim0", "slim100", "slim0kb", "slim0ch", "slim100ch", "sparse0.99", "sparse99.5")
REFUSED += ("cluster2", "cluster257")


@pytest.mark.parametrize("text", TAKEN)
def test_a_recipe_takes_the_numbers_that_its_step_does(text: str):
    assert training_links(RecipeConfig("teacher", Recipe.parse(f"kd+{text}")))[1].step == text


@pytest.mark.parametrize("text", REFUSED)
def test_a_recipe_refuses_the_numbers_that_its_step_would(text: str):
    """One that was not parsed reaches the step itself, which speaks of an option."""
    with pytest.raises(ConfigError, match=r"^--"):
        training_links(RecipeConfig("teacher", Recipe((Step("kd"), Step.parse(text)))))
    with pytest.raises(ConfigError, match=f"the step '{text}'; expected"):
        Recipe.parse(f"kd+{text}")


@pytest.mark.slow
def test_a_step_is_what_its_own_command_makes(source: Path, colours: Dataset):
    runs, _ = compress(asked("slim75+float32"), colours)
    assert [run.name for run in runs] == ["big-slim75", "big-slim75-float32"]
    fit = fine_tuning(epochs=1, batch=16, seed=0)
    alone = prune_channels(PruneConfig("big", "alone", fit, macs=0.75, importance="l1"), colours)
    first, second = (restore(find_model(run.name)).get_weights() for run in (runs[0], alone))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert runs[0].manifest["config"]["plan"] == alone.manifest["config"]["plan"]


@pytest.mark.slow
def test_an_interrupted_chain_goes_on_where_it_stopped(
    source: Path, colours: Dataset, monkeypatch: pytest.MonkeyPatch
):
    config = asked("slim75+slim90", epochs={"slim": 2})
    steps = links(config)[:2]
    save = Checkpoints.save

    def stop(self: Checkpoints, progress: Any) -> None:
        save(self, progress)
        stops.append(progress.epoch)
        # In the first epoch of the second step.
        if len(stops) == 3:
            raise KeyboardInterrupt

    stops: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save_if_due", stop)
        with pytest.raises(KeyboardInterrupt):
            run_chain(steps, colours)
    first = digests(runs_root() / "big-slim75")
    found = [step.state for step in plan(config, colours)]
    assert found == [State.FINISHED, State.INTERRUPTED, State.TO_DO]
    runs = run_chain(steps, colours)
    assert digests(runs_root() / "big-slim75") == first
    assert [run.manifest["resumed"] for run in runs] == [0, 1]
    assert len((runs[1].path / "history.csv").read_text().splitlines()) == 3
    assert runs[1].manifest["parents"]["parent"] == first["model.keras"]


@pytest.mark.slow
def test_a_chain_interrupted_in_every_step_goes_on_to_its_end(
    source: Path, colours: Dataset, monkeypatch: pytest.MonkeyPatch
):
    """That each step then ends in the same weights is tested with the stages themselves."""
    recipe = "kd+slim75+sparse+cluster8+qat+int8"
    config = asked(recipe, width=0.5, views=1, epochs={"": 2}, teachers=("big",))
    stopped: list[str] = []

    def stop_once(name: str) -> None:
        if name not in stopped:
            stopped.append(name)
            raise KeyboardInterrupt

    save, convert = Checkpoints.save, variant.convert

    def stop_after_an_epoch(self: Checkpoints, progress: Any) -> None:
        save(self, progress)
        stop_once(self._folder.name)

    def stop_in_the_conversion(*given: Any, **options: Any) -> bytes:
        stop_once("int8")
        return convert(*given, **options)

    monkeypatch.setattr(Checkpoints, "save_if_due", stop_after_an_epoch)
    monkeypatch.setattr(variant, "convert", stop_in_the_conversion)
    for _ in range(6):
        with pytest.raises(KeyboardInterrupt):
            compress(config, colours, allow_failing=True)
    runs, _ = compress(config, colours, allow_failing=True)
    assert len(set(stopped)) == 6
    assert [run.manifest.get("resumed") for run in runs] == [1, 1, 1, 1, 1, 0]
    for parent, run in itertools.pairwise(runs):
        assert run.manifest["parents"]["parent"] == sha256_of(parent.path / "model.keras")


def test_a_step_is_continued_unless_it_is_to_be_made_anew(source: Path, colours: Dataset):
    (link,) = training_links(asked("slim75"))
    made: list[PruneConfig] = []
    tried = replace(link, stage=lambda config, data: made.append(config))
    for force in (False, True):
        tried.made(colours, force=force)
    assert [(config.resume, config.force) for config in made] == [(True, False), (False, True)]
    assert replace(made[0], resume=False) == link.config


def test_a_finished_step_that_had_a_teacher_is_another(source: Path):
    (link,) = training_links(asked("slim75"))
    before = {"parents": {"parent": sha256_of(source / "model.keras")}}
    assert link.parents_that_differ(before) == []
    before["parents"]["teacher"] = "0" * 64
    assert link.parents_that_differ(before) == ["it had a teacher"]


def test_a_fit_of_batches_in_parts_is_another(
    source: Path, colours: Dataset, monkeypatch: pytest.MonkeyPatch
):
    link, export = links(asked("qat"))
    fitted = {"data": colours.describe(), "config": json.loads(json.dumps(asdict(link.config)))}
    exported = {"data": colours.describe(), "config": json.loads(json.dumps(asdict(export.config)))}
    assert link.settings_that_differ(fitted, colours) == []
    monkeypatch.setattr("bloodedge.train.finished.batch_parts", lambda: 2)
    assert link.settings_that_differ(fitted, colours) == ["devices is 1, not 2"]
    # A file is the same however many devices are there.
    assert export.settings_that_differ(exported, colours) == []
    fitted["config"]["devices"] = 2
    assert link.settings_that_differ(fitted, colours) == []
    monkeypatch.undo()
    assert link.settings_that_differ(fitted, colours) == ["devices is 2, not 1"]


@pytest.mark.slow
def test_a_finished_step_that_was_made_otherwise_is_an_error_that_says_how(
    source: Path, colours: Dataset
):
    config = asked("slim75+float32", epochs={"slim": 0})
    runs, _ = compress(config, colours)
    before = digests(runs_root())
    for other, message in (
        (replace(config, importance="bn"), "importance is l1, not bn"),
        (replace(config, seed=1), r"fit\.seed is 0, not 1"),
        (replace(config, epochs={"slim": 1}), "fine_tune is False, not True"),
        (replace(config, epochs={"slim": 1}, teachers=("big",)), "its teacher is missing"),
    ):
        with pytest.raises(RunError, match=rf"slim75 is finished as big-slim75, .*{message}"):
            compress(other, colours)
        assert plan(other, colours)[0].state is State.DIFFERS
    others = {**colours.splits, "val": colours["test"]}
    recoloured = replace(colours, title="other cells", splits=others)
    with pytest.raises(RunError, match="its data is synthetic colours, not other cells"):
        compress(config, recoloured)
    assert digests(runs_root()) == before

    # Another parent of the same name: what was made from the one before does not belong to it.
    model = restore(find_model("big"))
    model.set_weights([2 * w for w in model.get_weights()])
    save_model(model, source / "model.keras")
    with pytest.raises(RunError, match=r"its parent was another; .*--force"):
        compress(config, colours)
    forced, _ = compress(config, colours, force=True, allow_failing=True)
    assert forced[0].manifest["parents"] == {"parent": sha256_of(source / "model.keras")}
    assert forced[1].manifest["parents"] != runs[1].manifest["parents"]
    assert json.loads((forced[0].path / "manifest.json").read_text())["name"] == "big-slim75"
    compress(config, colours, allow_failing=True)


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("slim+qat", {"macs": 0.001}, r"step slim0\.1: --macs .* smallest reachable is [0-9.]+ of"),
        ("kd+slim+qat", {"kb": 1.0, "width": 0.5}, r"step slim1kb: .*smallest reachable .* KB"),
        ("kd+slim20+qat", {"floor": 0.6}, r"step slim20: --macs .*smallest reachable"),
        ("slim30+slim30", {}, r"step slim30: --macs .*smallest reachable"),
        ("slim900kb+qat", {}, "already; expected --kb below"),
    ],
)
def test_a_budget_out_of_reach_is_refused_before_anything_is_trained(
    recipe: str, options: Any, message: str, source: Path, colours: Dataset, monkeypatch: Any
):
    monkeypatch.setattr("bloodedge.train.stage.fit", None)
    before = digests(runs_root())
    with pytest.raises(ConfigError, match=message):
        compress(asked(recipe, **options), colours)
    assert digests(runs_root()) == before


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("qat", {"macs": 0.5}, "no step to go to in qat; .*write slim50"),
        ("slim25", {"macs": 0.5}, "write slim50 in the recipe"),
        ("slim", {"macs": 0.5, "kb": 9.0}, "2 budgets"),
        ("qat", {"epochs": {"slim": 3}}, "the recipe has no step slim"),
        ("qat", {"width": 0.5}, "are for kd"),
        ("int8", {"teachers": ("big",)}, "no step that trains"),
        ("kd", {"student": "cnn_see"}, "did you mean 'cnn_se'"),
        ("cluster", {"clusters": 2}, "--clusters 2 is out of range"),
        ("sparse", {"sparsity": 1.5}, "--sparsity 1.5 is out of range"),
        ("qat", {"name": "a/b"}, "cannot be a run's name"),
        ("kd+qat", {"kd": KdConfig(method="feature")}, "--method feature with qat"),
        ("qat", {"epochs": {"qat": 0}}, "--epochs 0 is out of range"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    recipe: str, options: Any, message: str, source: Path
):
    with pytest.raises((ConfigError, ModelError, RunError), match=message):
        links(asked(recipe, **options))


def test_numbers_go_into_the_names_and_defaults_are_said(source: Path):
    names = [link.name for link in links(asked("slim+sparse+cluster+qat", macs=0.07))]
    assert names[0] == "big-slim7"
    assert names[-1] == "big-slim7-sparse50-cluster16-qat-int8"
    config = links(asked("slim", ratio=0.125))[0].config
    assert (config.name, config.ratio, config.macs) == ("big-slim12.5ch", 0.125, None)
    # A source that is a step's result already is named on.
    again = replace(asked("qat+float16"), name="net-w0.5-kd")
    assert [link.name for link in links(again)] == ["net-w0.5-kd-qat", "net-w0.5-kd-qat-float16"]


def test_what_was_done_to_the_source_can_be_undone_too(
    source: Path, student_named: Callable[[str], Path]
):
    student_named("big-sparse80")
    found = lint_recipe(replace(asked("slim+int8"), source="big-sparse80"), "litert")
    assert [f.rule.name for f in found if f.rule.severity is Severity.USELESS] == ["undone"]
    assert lint_recipe(asked("slim"), "litert") == []


def test_a_result_that_cannot_be_converted_is_known_before_training(
    source: Path, colours: Dataset, monkeypatch: pytest.MonkeyPatch
):
    def refuse(model: Any, form: str, images: Any) -> bytes:
        raise ModelError(f"no {form} of {count_macs(model)} MACs")

    monkeypatch.setattr("bloodedge.deploy.lint.check.convert", refuse)
    (found,) = lint_result(asked("slim75+float16"), colours, "litert")
    assert found.where == "big-slim75-float16"
    (kept,) = (int(word) for word in found.says.split() if word.isdecimal())
    assert kept <= 0.75 * count_macs(restore(find_model("big")))


def run(*words: str) -> Any:
    return CliRunner(env={"BLOODEDGE_DATA": "synthetic"}).invoke(app, ["compress", *words])


def test_a_useless_recipe_asks_for_yes_really(source: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bloodedge.data.sources.load_data", None)
    stopped = run("big", "--recipe", "qat+float32")
    with pytest.raises(ConfigError, match=r"only float32 is written; .* or add --yes-really"):
        raise stopped.exception
    # With it, the command goes on to load the data.
    assert isinstance(run("big", "--recipe", "qat+float32", "--yes-really").exception, TypeError)
    with pytest.raises(ConfigError, match="many times slower than float32 on tf-lite"):
        raise run("big", "--recipe", "int16x8", "--runtime", "tf-lite").exception
    micro = run("big", "--recipe", "int16x8", "--runtime", "tflite-micro")
    assert isinstance(micro.exception, TypeError)


def test_the_command_hands_over_every_option(source: Path, monkeypatch: pytest.MonkeyPatch):
    got: list[Any] = []

    def capture(config: Any, data: Any, **options: Any) -> Any:
        got.append((config, data.asked, options))
        row = Row("int8", "a-int8", 1500, 1000, True, 3_000_000, 0.9, (0.85, 0.95), True)
        return [], [replace(row, step="source", is_file=False, failed=False), row]

    monkeypatch.setattr("bloodedge.deploy.recipe.stage.compress", capture)
    monkeypatch.setattr("bloodedge.deploy.recipe.stage.lint_result", lambda *a: [])
    monkeypatch.setattr(
        "bloodedge.data.sources.load_data", lambda *a, **size: Mock(asked=(*a, size), title="cells")
    )
    words = (
        "big --recipe kd+slim+sparse+cluster+qat+int8 --student cnn_se --width 0.5 --teacher big "
        "--method dkd --temperature 2 --alpha 0.3 --teacher-views 2 --kb 9 --importance bn "
        "--floor 0.2 --sparsity 0.7 --clusters 8 --epochs 3,qat=2 --lr kd=0.01 --batch 8 "
        "--calibration-per-class 5 --data cells --size 32 --name mine --seed 4 --force "
        "--allow-failing"
    )
    result = run(*words.split())
    assert result.exit_code == 0, result.output
    config = RecipeConfig(
        "big",
        Recipe.parse("kd+slim+sparse+cluster+qat+int8"),
        name="mine",
        student="cnn_se",
        width=0.5,
        teachers=("big",),
        kd=KdConfig(2, 0.3, "dkd"),
        views=2,
        kb=9,
        importance="bn",
        floor=0.2,
        sparsity=0.7,
        clusters=8,
        epochs={"": 3, "qat": 2},
        rates={"kd": 0.01},
        batch=8,
        per_class=5,
        seed=4,
    )
    asked = ("cells", {"size": 32})
    assert got == [(config, asked, {"force": True, "allow_failing": True})]
    printed = " ".join(result.stdout.split())
    assert "source * a-int8 1.5 1.0 3,000 90.00 [85.00, 95.00]" in printed
    assert "int8 a-int8, failed its gate 1.5 1.0 3,000 90.00 [85.00, 95.00]" in printed


def test_a_dry_run_shows_the_steps_and_writes_nothing(
    source: Path, colours: Dataset, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("bloodedge.data.sources.load_data", lambda data, size: colours)
    before = digests(runs_root())
    result = run("--recipe", "slim75+qat", "--dry-run", "--importance", "l1")
    assert result.exit_code == 0, result.output
    assert "slim75 big-slim75 to do" in " ".join(result.stdout.split())
    assert "int8 big-slim75-qat-int8 to do" in " ".join(result.stdout.split())
    assert digests(runs_root()) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("float16 --epochs 5 --batch 3", "--epochs, --batch without a step that trains"),
        ("qat --importance bn --floor 0.2", "--importance, --floor without slim"),
        ("slim+float32 --calibration-per-class 3", "--calibration-per-class with float32"),
        ("slim --method dkd --alpha 0.5", "--method, --alpha without kd or --teacher"),
        ("kd --method dist --temperature 2", "--temperature with --method dist"),
        (
            "slim50+int8 --epochs 0 --teacher big --lr 0.001 --batch 32 --temperature 9 --alpha 1",
            "--teacher, --temperature, --alpha, --lr, --batch with --epochs 0; .* fine-tune",
        ),
        ("slim --epochs slim=0 --method dkd", "--method with --epochs 0"),
        ("slim+qat --epochs slim=0,qat=1 --lr slim=0.1", "slim does not train with --epochs 0"),
    ],
)
def test_what_no_step_heeds_is_refused(words: str, message: str, source: Path):
    with pytest.raises(ConfigError, match=message):
        raise run("big", "--recipe", *words.split()).exception


def test_qat_and_the_usual_format_are_calibrated(source: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bloodedge.data.sources.load_data", Mock(side_effect=DataError("enough")))
    for words in ("slim", "qat+float32 --yes-really"):
        with pytest.raises(DataError, match="enough"):
            raise run("big", "--recipe", *words.split(), "--calibration-per-class", "3").exception


def test_what_each_step_left_is_told(capsys: pytest.CaptureFixture[str]):
    print_rows(
        [Row("qat", "cnn_se-qat", 1500, 1000, False, 3_000_000, 0.9, (0.85, 0.95))],
        "drawn [cells]",
    )
    shown = capsys.readouterr().out
    cells = ["qat *", "cnn_se-qat", "1.5", "1.0", "3,000", "90.00 [85.00, 95.00]"]
    assert cells in [re.split(" {2,}", line.strip()) for line in shown.splitlines()]
    assert shown.endswith("\naccuracy on val of drawn [cells]\n")


@pytest.mark.parametrize("text", ["kd", "=5", "slim=x", "1,slim=2.5", "5,10", "slim=1,slim=2"])
def test_epochs_by_step_in_another_form_are_refused(text: str, source: Path):
    with pytest.raises(ConfigError, match="such as kd=40,qat=5"):
        raise run("big", "--recipe", "slim", "--epochs", text).exception


def test_without_a_run_the_zoo_has_a_teacher(isolated_runs: Path):
    result = run("--recipe", "kd+slim900kb+float32+int8", "--epochs", "qat=1")
    assert isinstance(result.exception, ConfigError)
    assert "compressing vgg16" in result.stderr


def test_the_grammar_knows_every_format_that_is_exported():
    from bloodedge.deploy.convert import ALL_VARIANTS

    assert set(FORMATS) == set(ALL_VARIANTS)


def test_a_teacher_is_heeded_where_another_step_trains(
    source: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("bloodedge.data.sources.load_data", Mock(side_effect=DataError("enough")))
    words = "big --recipe slim+qat --epochs slim=0,qat=1 --teacher big --lr 0.1 --batch 8"
    with pytest.raises(DataError, match="enough"):
        raise run(*words.split(), "--temperature", "9").exception
