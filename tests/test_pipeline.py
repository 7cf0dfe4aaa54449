"""`bloodedge pipeline`: the steps of a preset, how long they take, and going on after a stop."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bloodedge.cli import pipelining
from bloodedge.cli.app import app
from bloodedge.compress.chain.run import Planned, State
from bloodedge.data.dataset import SPLITS, Dataset, Split
from bloodedge.deploy.pipeline import estimate as timing
from bloodedge.deploy.pipeline import presets
from bloodedge.deploy.pipeline import scores as scoring
from bloodedge.deploy.pipeline.estimate import EPOCH_S, estimate
from bloodedge.deploy.pipeline.plan import EXPORT, steps, trains
from bloodedge.deploy.pipeline.presets import PRESETS, PTQ, QAT, Preset, Student, Teacher
from bloodedge.deploy.pipeline.scores import (
    FLOAT32,
    HEAD,
    INT8,
    INT8_QAT,
    Score,
    preferred,
    rows,
    teacher_scores,
)
from bloodedge.deploy.pipeline.stage import finish_all, plan, train_all
from bloodedge.errors import ConfigError, ModelError, RunError
from bloodedge.files import sha256_of
from bloodedge.runs import is_finished, runs_root

RECORDED = Path(__file__).parent.parent / "benchmarks/results/manifests"
RUNNER = CliRunner(env={"COLUMNS": "200"})
# Half a minute of fitting less, and nothing else than a preset has.
TINY = {"batch": 16, "learning_rate": 5e-3}


def tiny(**more: Any) -> Preset:
    student = Student("cnn_se_pico", 6, seeds=1, qat_epochs=1, fit=TINY)
    return Preset("tiny-", (replace(student, **more),))


def names(preset: Preset) -> list[str]:
    return [link.name for link in steps(preset)]


def recorded() -> dict[str, dict[str, Any]]:
    found = {path.stem: json.loads(path.read_text()) for path in RECORDED.glob("*.json")}
    return {name: manifest for name, manifest in found.items() if "kind" in manifest}


# ---- what a preset means ----


def test_the_runs_of_a_preset_have_names_that_are_known_beforehand():
    assert names(PRESETS["quick"]) == [
        "quick-cnn_se-s0",
        "quick-cnn_se-s0-tflite",
        "quick-cnn_se-s0-float32-test",
        "quick-cnn_se-s0-int8-test",
        "quick-cnn_se-s0-qat",
        "quick-cnn_se-s0-qat-tflite",
        "quick-cnn_se-s0-qat-int8-test",
    ]
    assert names(PRESETS["quick"].changed(name="mine", seeds=2))[::7] == [
        "mine-cnn_se-s0",
        "mine-cnn_se-s1",
    ]
    with pytest.raises(RunError, match="cannot be a run's name"):
        PRESETS["quick"].changed(name="../x")


def test_all_students_of_a_seed_come_before_the_next_and_teachers_last():
    pupil = Student("cnn_se", 2, PTQ, 2)
    two = Preset("", (pupil, Student("cnn_se_pico", 2, PTQ, 1)), (Teacher("big", "resnet18", 1),))
    trained = [link.name for link in steps(two) if trains(link)]
    assert trained == ["cnn_se-s0", "cnn_se_pico-s0", "cnn_se-s1", "big"]


@pytest.mark.parametrize(("int8", "may_fail"), [(PTQ, [False]), (QAT, [True, False])])
def test_a_file_may_fail_only_where_qat_follows(int8: str, may_fail: list[bool]):
    links = steps(Preset("", (Student("cnn_se", 2, int8, 1),)))
    assert [k.config.allow_failing for k in links if k.step == EXPORT] == may_fail


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Student("cnn_se", 1, "int4"), "int8 by 'int4'; expected qat or ptq"),
        (lambda: Student("cnn_se", 1, PTQ, qat_epochs=3), "settings of qat, but int8 by ptq"),
        (lambda: Student("cnn_se", 1, seeds=0), "--seeds 0 is out of range"),
        (lambda: Preset("", (Student("cnn_se", 1), Student("cnn_se", 2))), "named twice"),
        (lambda: Teacher("t", "vit_tiny", 1, width=0), None),
        (lambda: presets.find_preset("best"), "--preset 'best'; expected champion or quick"),
    ],
)
def test_bad_presets_are_refused_when_they_are_built(make: Callable[[], Any], error: str | None):
    if error is None:
        assert make().model == "vit_tiny"
        return
    with pytest.raises(ConfigError, match=error):
        make()
    with pytest.raises(ModelError, match="unknown model"):
        Student("cnn_sse", 1)


def test_the_recorded_champions_were_made_as_the_preset_says():
    manifests = recorded()
    links = {link.name: link for link in steps(PRESETS["champion"])}
    known = links.keys() & manifests.keys()
    # Who edits the preset has to record its results: the README tells them as the preset's.
    assert {"vgg16", "cnn_se-s2", "cnn_se_nano-s0-qat", "cnn_se_pico-s1-qat-int8-test"} <= known
    for name in known:
        data: Any = SimpleNamespace(**manifests[name]["data"])
        assert links[name].settings_that_differ(manifests[name], data) == [], name


def test_a_setting_that_an_earlier_version_did_not_have_was_off():
    link = next(link for link in steps(PRESETS["champion"]) if link.name == "cnn_se-s0")
    manifest = recorded()[link.name]
    data: Any = SimpleNamespace(**manifest["data"])
    manifest["config"]["fit"]["augment"].pop("exposure", None)
    assert link.settings_that_differ(manifest, data) == []
    manifest["config"]["fit"]["augment"].pop("colour")
    assert link.settings_that_differ(manifest, data) == ["fit.augment.colour is none, not 0.02"]


def test_whether_a_file_may_fail_matters_only_where_one_failed():
    link = next(link for link in steps(PRESETS["champion"]) if link.name == "cnn_se-s0-tflite")
    manifest = recorded()[link.name]
    data: Any = SimpleNamespace(**manifest["data"])
    was = manifest["config"]["allow_failing"]
    other = replace(link, config=replace(link.config, allow_failing=not was))
    assert other.settings_that_differ(manifest, data) == []
    manifest["metrics"]["variants"]["int8"]["failed"] = ["agreement"]
    assert other.settings_that_differ(manifest, data) == [f"allow_failing is {was}, not {not was}"]


# ---- how long it takes ----


def of_size(images: int, size: int = 64) -> Dataset:
    """As many training images; what they show does not matter."""
    one = np.zeros((1, size, size, 3), np.uint8)
    split = Split(np.broadcast_to(one, (images, *one.shape[1:])), np.zeros(images, np.int64))
    return Dataset("x", "npz", "x", ("a", "b"), dict.fromkeys(SPLITS, split), {})


def test_times_follow_epochs_images_and_their_size():
    links = steps(PRESETS["champion"])
    found = dict(zip([k.name for k in links], estimate(links, of_size(11_959)), strict=True))
    assert found["cnn_se-s0"] == pytest.approx(100 * EPOCH_S["train", "cnn_se"])
    assert found["cnn_se-s0-qat"] == pytest.approx(10 * EPOCH_S["qat", "cnn_se"])
    # 20 of the 29 epochs see a quarter of the pixels.
    assert found["vgg16"] == pytest.approx((9 + 20 / 4) * EPOCH_S["train", "vgg16"])
    assert found["vgg16-int8-test"] > found["cnn_se-s0-int8-test"]
    half = estimate(links, of_size(11_959, 32))[0]
    assert half == pytest.approx(found["cnn_se-s0"] / 4)


def test_fewer_images_take_less_and_a_large_model_stays_large():
    links = steps(PRESETS["champion"])
    all_, few = (
        dict(zip([k.name for k in links], estimate(links, of_size(n)), strict=True))
        for n in (11_959, 1000)
    )
    assert few["vgg16"] == pytest.approx(all_["vgg16"] * 1000 / 11_959)
    assert few["vgg16-int8-test"] == all_["vgg16-int8-test"]


def took(name: str, seconds: float, data: Dataset) -> None:
    """Leave a finished run of some data that took so long."""
    folder = runs_root() / name
    folder.mkdir(parents=True, exist_ok=True)
    entry = {"schema_version": 1, "kind": "train", "name": name, "model": {}, "metrics": {}}
    entry |= {"data": {"fingerprint": data.fingerprint}, "duration_s": seconds}
    (folder / "manifest.json").write_text(json.dumps(entry))


def test_only_a_run_of_the_same_images_tells_how_long_another_takes():
    link, *_ = (link for link in steps(PRESETS["champion"]) if link.name == "cnn_se-s0")
    took(link.name, 1e6, of_size(9))
    assert estimate([link], of_size(9)) == pytest.approx([1e6])
    recorded_ = 100 * EPOCH_S["train", "cnn_se"] * 8 / 11_959
    assert estimate([link], of_size(8)) == pytest.approx([recorded_])


def test_a_run_on_smaller_images_tells_how_long_whole_epochs_take():
    fit = {"progressive": ((8, 32),)}
    (short, *_), (*_, whole, _, _, _) = (
        steps(Preset("", (Student("cnn_se_pico", 10, PTQ, seeds, fit=some),)))
        for seeds, some in ((1, fit), (2, {}))
    )
    took(short.name, 80.0, of_size(9))
    # Two whole epochs, and eight that see a quarter: four in all, of 20 s each.
    assert estimate([short, whole], of_size(9)) == pytest.approx([80, 200])


def test_nobody_knows_how_long_another_model_takes_until_it_has_been_trained(
    monkeypatch: pytest.MonkeyPatch,
):
    preset = Preset("", (Student("mobilenet_v2_035", 10, PTQ, 2),))
    links = steps(preset)
    times = estimate(links, of_size(9))
    assert [t for t, k in zip(times, links, strict=True) if trains(k)] == [None, None]
    folder = runs_root() / "mobilenet_v2_035-s0"
    folder.mkdir(parents=True)
    entry = {"schema_version": 1, "kind": "train", "name": folder.name, "model": {}, "metrics": {}}
    entry |= {"data": {"fingerprint": of_size(9).fingerprint}, "duration_s": 120.0}
    (folder / "manifest.json").write_text(json.dumps(entry))
    times = estimate(links, of_size(9))
    assert [t for t, k in zip(times, links, strict=True) if trains(k)] == pytest.approx([120, 120])


def test_the_recorded_runs_took_about_as_long_as_is_foretold():
    took: dict[tuple[str, str], list[float]] = {}
    for link in steps(PRESETS["champion"]):
        manifest = recorded().get(link.name)
        if manifest and trains(link):
            epochs = timing._full_epochs(link.config.fit, 64)
            key = link.step, manifest["model"]["config"]["name"]
            took.setdefault(key, []).append(manifest["duration_s"] / epochs)
    assert took.keys() == EPOCH_S.keys()
    for key, seconds in took.items():
        assert 0.5 * min(seconds) <= EPOCH_S[key] <= 2 * max(seconds), key
    quick = PRESETS["quick"]
    whole = sum(filter(None, estimate(steps(quick), of_size(11_959))))
    assert whole < 15 * 60


# ---- the command ----


def npz(path: Path, data: Dataset) -> str:
    arrays = {}
    for split in ("train", "val", "test"):
        arrays |= {f"{split}_images": data[split].images, f"{split}_labels": data[split].labels}
    np.savez(path, **arrays)
    return str(path)


def test_a_dry_run_shows_the_steps_and_makes_nothing(tmp_path: Path, colours: Dataset):
    code = (
        "import sys; from bloodedge.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print('keras' in sys.modules, 'tensorflow' in sys.modules)"
    )
    words = ["pipeline", "--preset", "champion", "--dry-run", "--seeds", "2"]
    words += ["--data", npz(tmp_path / "colours.npz", colours)]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    lines = done.stdout.splitlines()
    assert lines[-1] == "False False"
    assert "to do: " in lines[-2]
    assert "two CPU cores" in lines[-2]
    rows = [line.split() for line in lines if " to do " in f"{line} "]
    assert ["train", "cnn_se-s1", "to", "do"] in [row[:4] for row in rows]
    assert not any("-s2" in line for line in lines)
    assert not runs_root().exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--preset", "best"], "--preset 'best'; expected champion or quick"),
        (["--preset", "quick", "--seeds", "0"], "--seeds 0 is out of range"),
        (["--preset", "quick", "--backend", "mxnet"], "unknown backend 'mxnet'"),
    ],
)
def test_bad_words_are_one_clear_error(words: list[str], says: str):
    done = RUNNER.invoke(app, ["pipeline", *words, "--data", "synthetic"])
    assert done.exit_code != 0
    assert says in str(done.exception)


def test_another_backend_trains_and_leaves_the_files_to_tensorflow(
    monkeypatch: pytest.MonkeyPatch, colours: Dataset
):
    asked: list[Any] = []
    monkeypatch.setattr("bloodedge.backend.check_backend", lambda name=None: name or "jax")
    started: dict[str, Any] = {}

    def start(data: str, **options: Any) -> Dataset:
        started.update(options)
        return colours

    monkeypatch.setattr("bloodedge.cli.starting.start_training", start)
    monkeypatch.setattr(
        "bloodedge.deploy.pipeline.stage.train_all",
        lambda preset, data, force: asked.append((preset.prefix, data, force)),
    )

    def run(command: list[str], called: str, **_: Any) -> int:
        asked.append(command)
        return 3

    monkeypatch.setattr("bloodedge.cli.steps.run_child", run)
    words = ["--preset", "quick", "--data", "a b", "--name", "own", "--seeds", "2"]
    done = RUNNER.invoke(app, ["pipeline", *words, "--devices", "all"])
    assert done.exit_code == 3
    assert (started["devices"], started["batch"]) == ("all", 64)
    assert asked[0] == ("own-", colours, False)
    python, *rest = asked[1]
    assert python == sys.executable
    assert rest[rest.index("pipeline") :] == [
        "pipeline",
        "--preset=quick",
        "--data=a b",
        "--seeds=2",
        "--name=own",
        "--backend=tensorflow",
    ]


@pytest.fixture
def no_tensorflow(monkeypatch: pytest.MonkeyPatch, colours: Dataset) -> list[str]:
    """Make it missing, and return a list that gets the prefix of what is trained."""
    trained: list[str] = []
    monkeypatch.setattr("bloodedge.backend.is_installed", lambda name: name != "tensorflow")
    monkeypatch.setattr("bloodedge.cli.starting.start_training", lambda *a, **k: colours)
    monkeypatch.setattr(
        "bloodedge.deploy.pipeline.stage.train_all",
        lambda preset, data, force: trained.append(preset.prefix),
    )
    return trained


def test_without_tensorflow_the_rest_is_left_to_where_it_is(no_tensorflow: list[str]):
    words = ["--preset", "quick", "--backend", "jax", "--data", "a b", "--name", "own"]
    done = RUNNER.invoke(app, ["pipeline", *words])
    assert no_tensorflow == ["own-"]
    assert isinstance(done.exception, ConfigError)
    there = "bloodedge pipeline --preset=quick '--data=a b' --name=own --backend=tensorflow"
    assert str(done.exception).endswith(f"copy {runs_root()} to where it is, and then: {there}")


@pytest.mark.parametrize("devices", ["1", "all"])
def test_a_dry_run_says_what_is_left_without_tensorflow(
    devices: str, no_tensorflow: list[str], tmp_path: Path, colours: Dataset
):
    words = ["--preset", "quick", "--backend", "jax", "--dry-run", "--devices", devices]
    done = RUNNER.invoke(app, ["pipeline", *words, "--data", npz(tmp_path / "c.npz", colours)])
    assert done.exit_code == 0, done.output
    last = done.stdout.splitlines()[-1]
    assert last.startswith("tensorflow is not installed: here the models are trained")
    assert last.endswith("--backend=tensorflow")
    assert no_tensorflow == []


def test_another_backend_that_is_missing_too_trains_nothing(no_tensorflow: list[str]):
    done = RUNNER.invoke(app, ["pipeline", "--preset", "quick", "--backend", "tensorflow"])
    assert str(done.exception).startswith("the backend tensorflow is not installed")
    assert no_tensorflow == []


def test_a_dry_run_compares_how_many_devices_share_a_batch(
    monkeypatch: pytest.MonkeyPatch, colours: Dataset
):
    monkeypatch.setattr("bloodedge.cli.starting.start_training", lambda *a, **k: colours)
    monkeypatch.setattr("bloodedge.train.finished.batch_parts", lambda: 2)
    link = steps(PRESETS["quick"])[0]
    folder = runs_root() / link.name
    folder.mkdir(parents=True)
    entry = {"schema_version": 1, "kind": "train", "name": link.name, "model": {}, "metrics": {}}
    entry |= {"data": colours.describe(), "config": json.loads(json.dumps(asdict(link.config)))}
    (folder / "manifest.json").write_text(json.dumps(entry))
    words = ["pipeline", "--preset", "quick", "--dry-run", "--devices", "2"]
    done = RUNNER.invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "devices is 1, not 2" in done.stdout


def test_a_class_without_test_images_is_not_the_worst():
    test = {"accuracy": 0.5, "accuracy_95ci": [0.1, 0.9], "recall": [0.5, 0.0]}
    test["confusion"] = [[1, 1], [0, 0]]
    model = {"file": {"bytes": 1, "gzip_bytes": 1}}
    for name, metrics in (("big", {"val": {"accuracy": 0.5}}), ("big-test", {"test": test})):
        (runs_root() / name).mkdir(parents=True)
        entry = {"schema_version": 1, "kind": "x", "name": name, "model": model, "data": {}}
        text = json.dumps({**entry, "metrics": metrics})
        (runs_root() / name / "manifest.json").write_text(text)
    (score,) = teacher_scores(Teacher("big", "vgg16", 1))
    assert score.worst == 50.0


def scored(file: str, val: float, test: float, **more: Any) -> Score:
    usual: dict[str, Any] = {"size": 10_000, "gzip": 8_000, "worst": 90.0}
    usual["interval"] = (test - 1, test + 1)
    return Score(file, val=val, test=test, **{**usual, **more})


def test_val_prefers_a_file_among_those_that_passed_their_gate(monkeypatch: pytest.MonkeyPatch):
    best_on_val = scored("best on val", 98.0, 96.0)
    best_on_test = scored("best on test", 97.0, 99.0)
    failed = scored("failed", 99.0, 99.5, failed=True)
    float32 = scored("in float", 99.9, 99.9)
    files = {FLOAT32: [float32], INT8: [best_on_test, failed], INT8_QAT: []}
    monkeypatch.setattr(scoring, "student_scores", lambda student, kind, prefix: files[kind])
    converted, trained = Student("cnn_se", 2, PTQ, 2), Student("cnn_se", 2, QAT, 2, qat_epochs=1)
    assert preferred(converted) == "best on test"
    files[INT8_QAT] = [best_on_val, scored("as good, later", 98.0, 99.0)]
    assert preferred(converted) == "best on test"
    assert preferred(trained) == "best on val"
    files.update({INT8: [failed], INT8_QAT: [failed]})
    assert preferred(trained) == ""


def test_a_row_has_means_over_seeds_and_the_worst_of_all():
    found = [
        scored("s0", 97.0, 96.0, size=10_000, worst=91.0),
        scored("s1", 98.0, 98.0, size=12_000, worst=85.0, failed=True),
    ]
    real = [scored("f0", 98.0, 97.5), scored("f1", 98.0, 98.5)]
    assert dict(zip(HEAD, scoring._row("net", INT8, found, real), strict=True)) == {
        "model": "net",
        "file": "int8, failed its gate",
        "seeds": "2",
        "KB": "11.0",
        "KB gzip": "8.0",
        "val, %": "97.50",
        "test, %": "97.00 ± 1.41",
        "against float32": "-1.00",
        "worst class, %": "85.0",
    }
    # A single seed has an interval, and nothing to be held against the two in float.
    one = dict(zip(HEAD, scoring._row("net", INT8, found[:1], real), strict=True))
    assert (one["file"], one["test, %"]) == ("int8", "96.00 [95.00, 97.00]")
    assert (one["against float32"], one["worst class, %"]) == ("", "91.0")


def test_times_read_as_people_say_them():
    said = [pipelining.duration(s) for s in (None, 0, 59.6, 600, 7170, 13_000)]
    assert said == ["?", "0 s", "60 s", "10 min", "2 h 0 min", "3 h 37 min"]


def test_what_is_finished_takes_no_more_time():
    (link, *_) = steps(PRESETS["quick"])
    assert [Planned(link, state, (), 60.0).left for state in State] == [
        0.0 if state is State.FINISHED else 60.0 for state in State
    ]


# ---- going on ----


def stamps() -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in runs_root().iterdir()}


@pytest.mark.parametrize("make", [train_all, finish_all])
def test_a_place_that_is_taken_is_refused_before_anything_is_trained(
    make: Callable[..., Any], colours: Dataset
):
    last = runs_root() / names(tiny())[-1]
    last.mkdir(parents=True)
    with pytest.raises(RunError, match=f"the run {re.escape(str(last))} exists"):
        make(tiny(), colours)
    assert list(stamps()) == [last.name]


@pytest.mark.slow
def test_it_goes_on_where_it_stopped_and_reads_test_once(
    colours: Dataset, interrupted: Callable[[], AbstractContextManager[None]]
):
    from bloodedge.backend import use_backend

    use_backend()
    preset = tiny()
    assert [step.state for step in plan(preset, colours)] == [State.TO_DO] * 7
    # The parents of what is not there yet are no reason to stop.
    with interrupted():
        finish_all(preset, colours)
    assert plan(preset, colours)[0].state is State.INTERRUPTED
    train_all(preset, colours)
    assert [step.state.value for step in plan(preset, colours)].count("finished") == 2
    assert not is_finished("tiny-cnn_se_pico-s0-tflite")
    before = stamps()
    runs = finish_all(preset, colours)
    assert runs[0].manifest["resumed"] == 1
    assert {name: stamps()[name] for name in before} == before
    assert [run.name for run in runs] == names(preset)
    assert {step.state for step in plan(preset, colours)} == {State.FINISHED}

    int8 = runs[-2].path / "tiny-cnn_se_pico-s0-qat-int8.tflite"
    assert runs[-1].manifest["parents"] == {"model": sha256_of(int8)}
    ends = runs[-2].manifest["config"]
    # What is shipped has to pass its gate; what it replaces need not.
    assert (ends["io"], ends["allow_failing"]) == ("uint8", False)
    assert runs[1].manifest["config"]["allow_failing"]
    whole = stamps()
    finish_all(preset, colours)
    assert stamps() == whole
    assert [kind for _, kind, *_ in rows(preset)] == ["float32", "int8", "int8, QAT"]
    assert preferred(preset.students[0], "tiny-").startswith("tiny-cnn_se_pico-s0-")

    with pytest.raises(RunError, match=r"fit\.epochs is 6, not 7.*choose another --name"):
        finish_all(tiny(epochs=7), colours)
    assert stamps() == whole


@pytest.mark.slow
def test_a_teacher_is_made_and_tested_beside_the_students(colours: Dataset):
    from bloodedge.backend import use_backend

    use_backend()
    student = Student("cnn_se_pico", 4, PTQ, 1, fit=TINY | {"warmup": 0.0})
    preset = Preset("d-", (student,), (Teacher("big", "cnn_se", 4, fit=TINY),))
    runs = {run.name: run for run in finish_all(preset, colours)}
    teacher = sha256_of(runs_root() / "d-big" / "model.keras")
    assert runs["d-cnn_se_pico-s0"].manifest["parents"] == {}
    assert runs["d-big-test"].manifest["parents"] == {"model": teacher}
    made = list(rows(preset))
    assert made[0][:2] == ("big", "Keras")
    assert len(made) == 3


@pytest.mark.slow
def test_quick_on_another_backend_end_to_end(tmp_path: Path, colours: Dataset):
    pytest.importorskip("jax")
    small = npz(tmp_path / "colours.npz", colours)
    words = [sys.executable, "-m", "bloodedge", "pipeline", "--preset", "quick"]
    done = subprocess.run(
        [*words, "--data", small, "--backend", "jax"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    cells = [re.split(" {2,}", line.strip()) for line in done.stdout.splitlines()]
    assert ["cnn_se", "int8, QAT", "1"] in [row[:3] for row in cells]
    assert f"cnn_se: val prefers {runs_root()}" in done.stdout
    assert is_finished("quick-cnn_se-s0-qat-int8-test")


def test_how_many_interpreters_answered_does_not_matter():
    name = "cnn_se-s0-float32-test"
    link = next(link for link in steps(PRESETS["champion"]) if link.name == name)
    manifest = recorded()[name]
    data: Any = SimpleNamespace(**manifest["data"])
    manifest["config"]["workers"] = 2
    assert link.settings_that_differ(manifest, data) == []
    manifest["config"]["split"] = "val"
    assert link.settings_that_differ(manifest, data) == ["split is val, not test"]
