"""A fit that is killed, damaged or starved ends as if nothing happened, or in one clear line."""

from __future__ import annotations

import errno
import multiprocessing
import random
import runpy
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.data.dataset import Dataset
from bloodedge.errors import BloodedgeError, RunError, TrainingError
from bloodedge.references import find_model
from bloodedge.runs import load_run, runs_root
from bloodedge.train.augment import AugmentConfig
from bloodedge.train.checkpoint import FILES, Checkpoints, Progress
from bloodedge.train.config import FitConfig
from bloodedge.train.restore import restore
from bloodedge.train.stage import TrainConfig, train
from bloodedge.train.targets import HardLabels

FIT = FitConfig(4, 16, 5e-3, ema=0.9, augment=AugmentConfig(mixup=0.2))
KILLS = 20


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


def fit(data: Dataset, name: str, **options):
    return train(TrainConfig("cnn_se", FIT, name, 0.25, **options), data)


def weights(name: str) -> list[np.ndarray]:
    return restore(find_model(name)).get_weights()


def interrupt_after(epochs: int, data: Dataset, name: str, monkeypatch) -> Path:
    """Stop a fit right after a checkpoint and return its unfinished folder."""

    def save_and_stop(self, progress):
        self.save(progress)
        if progress.epoch == epochs:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save_if_due", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            fit(data, name)
    folder = runs_root() / f".{name}.partial"
    assert all((folder / file).exists() for file in FILES)
    return folder


@pytest.fixture
def whole(colours: Dataset) -> list[np.ndarray]:
    fit(colours, "whole")
    return weights("whole")


def test_a_damaged_checkpoint_is_detected_and_the_previous_one_continued(
    colours: Dataset, whole, monkeypatch, capsys
):
    folder = interrupt_after(3, colours, "broken", monkeypatch)
    newest = folder / FILES[0]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    newest.write_bytes(content)
    fit(colours, "broken", resume=True)
    assert "trying the one before" in capsys.readouterr().err
    for expected, found in zip(whole, weights("broken"), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_checkpoint_gives_back_best_weights_their_score_random_states_and_the_settings_of_now(
    tmp_path,
):
    import keras

    def parts():
        layers = [keras.Input((2,)), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
        net = keras.Sequential(layers)
        return net, keras.optimizers.SGD(0.1), net.layers[0].seed_generator.state

    net, optimizer, state = parts()
    optimizer.build(net.trainable_variables)
    state.assign([5, 7])
    best = [weight + 1 for weight in net.get_weights()]
    progress = Progress({"epochs": 3}, best_score=(0.9, -0.4), best_weights=best, resumed=2)
    Checkpoints(tmp_path, net, optimizer).save(progress)

    again, optimizer, state = parts()
    settings = {"epochs": 3, "later": False}
    found = Checkpoints(tmp_path, again, optimizer).load(settings)
    assert (found.settings, found.resumed) == (settings, 3)
    assert found.best_score == (0.9, -0.4)
    assert keras.ops.convert_to_numpy(state).tolist() == [5, 7]
    for expected, loaded in (
        (best, found.best_weights),
        (net.get_weights(), again.get_weights()),
    ):
        for one, other in zip(expected, loaded, strict=True):
            np.testing.assert_array_equal(one, other)


def test_of_several_hosts_the_first_writes_checkpoints(tmp_path, monkeypatch):
    net = SimpleNamespace(get_weights=list, non_trainable_variables=[])
    checkpoints = Checkpoints(tmp_path, net, SimpleNamespace(variables=[]))
    for first in (False, True):
        monkeypatch.setattr("bloodedge.train.checkpoint.hosts.is_first", lambda first=first: first)
        checkpoints.save_if_due(Progress({}))
        assert (tmp_path / FILES[0]).exists() == first


def test_a_fit_whose_checkpoints_are_all_damaged_says_so(colours: Dataset, monkeypatch):
    folder = interrupt_after(2, colours, "broken", monkeypatch)
    for file in FILES:
        path = folder / file
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RunError, match=r"no checkpoint .* --force"):
        fit(colours, "broken", resume=True)


def test_a_full_disk_leaves_the_last_good_checkpoint(colours: Dataset, whole, monkeypatch):
    save, savez = Checkpoints.save, np.savez

    def full(*args, **kwargs):
        savez(*args, **kwargs)
        raise OSError(errno.ENOSPC, "No space left on device")

    def save_until_full(self, progress):
        if progress.epoch == 3:
            monkeypatch.setattr(np, "savez", full)
        save(self, progress)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save_if_due", save_until_full)
        with pytest.raises(BloodedgeError, match="No space left"):
            fit(colours, "starved")
    monkeypatch.setattr(np, "savez", savez)
    run = fit(colours, "starved", resume=True)
    assert run.manifest["resumed"] == 1
    assert len((run.path / "history.csv").read_text().splitlines()) == 5
    for expected, found in zip(whole, weights("starved"), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_writing_checkpoints_takes_a_twentieth_of_the_time_at_most(tmp_path, monkeypatch):
    now, saved, savez = [0.0], [], np.savez

    def slow(*args, **kwargs):
        savez(*args, **kwargs)
        saved.append(now[0])
        now[0] += 2.0

    net = SimpleNamespace(get_weights=list, non_trainable_variables=[])
    checkpoints = Checkpoints(tmp_path, net, SimpleNamespace(variables=[]))
    with monkeypatch.context() as patch:
        patch.setattr("bloodedge.train.checkpoint.time.monotonic", lambda: now[0])
        patch.setattr(np, "savez", slow)
        # Two seconds for one: the next is due after forty.
        for now[0] in (1.0, 12.0, 42.5, 43.5, 84.0, 86.0):
            checkpoints.save_if_due(Progress({}))
    assert saved == [1.0, 43.5, 86.0]


def test_a_loss_that_is_no_number_stops_the_fit_and_names_the_step(colours: Dataset, monkeypatch):
    for_batch = HardLabels.for_batch
    calls = []

    def poison(self, index, views):
        calls.append(1)
        rows = for_batch(self, index, views)
        return rows * np.nan if len(calls) == 15 else rows

    monkeypatch.setattr(HardLabels, "for_batch", poison)
    # 12 steps an epoch.
    with pytest.raises(TrainingError, match="epoch 2, step 3"):
        fit(colours, "poisoned")


def start(arguments: list[str], monkeypatch) -> multiprocessing.Process:
    """Start `bloodedge` as a process of its own, forked from one that has imported TensorFlow."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["keras", "tensorflow", "bloodedge.train.stage"])
    # A child takes over the parent's arguments.
    monkeypatch.setattr(sys, "argv", ["bloodedge", *arguments])
    run = {"run_name": "__main__", "alter_sys": True}
    process = context.Process(target=runpy.run_module, args=("bloodedge",), kwargs=run)
    process.start()
    return process


def finish(arguments: list[str], monkeypatch) -> None:
    process = start(arguments, monkeypatch)
    process.join()
    assert process.exitcode == 0


def wait_for_an_epoch(process: multiprocessing.Process, history: Path) -> None:
    """Wait until the process has written its history, or has ended."""
    before = history.stat().st_mtime_ns if history.exists() else 0
    while process.is_alive() and not (history.exists() and history.stat().st_mtime_ns > before):
        time.sleep(0.01)


@pytest.mark.slow
def test_a_run_killed_twenty_times_ends_in_the_weights_of_one_never_killed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    splits = {}
    for split, n in (("train", 64), ("val", 24), ("test", 24)):
        splits[f"{split}_labels"] = np.arange(n).reshape(-1, 1) % 3
        splits[f"{split}_images"] = rng.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", **splits)
    command = ["train", "--model", "cnn_se", "--width", "0.25", "--epochs", "150"]
    command += ["--batch", "16", "--ema", "0.9", "--data", "noise.npz"]
    finish([*command, "--name", "whole"], monkeypatch)
    killed = [*command, "--name", "killed", "--resume"]
    chance = random.Random(0)
    for kill in range(KILLS):
        process = start(killed, monkeypatch)
        if kill % 5:
            # Most kills strike while it trains and saves, the others while it starts.
            wait_for_an_epoch(process, runs_root() / ".killed.partial" / "history.csv")
        time.sleep(chance.uniform(0, 0.5))
        assert process.is_alive(), "it finished before the last kill: train longer"
        process.kill()
        process.join()
    finish(killed, monkeypatch)
    manifest = load_run(runs_root() / "killed").manifest
    assert manifest["resumed"] >= KILLS // 2
    assert not list((runs_root() / "killed").glob(".*"))
    for expected, found in zip(weights("whole"), weights("killed"), strict=True):
        np.testing.assert_array_equal(found, expected)
