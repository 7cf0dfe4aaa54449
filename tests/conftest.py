"""Fixtures that several test modules share."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from bloodedge.benchmarks.bundle import CLASSIFY
from bloodedge.benchmarks.elsewhere import DriverConfig, benchmark_elsewhere
from bloodedge.benchmarks.emulator import tools
from bloodedge.benchmarks.emulator.server import Server, write_program
from bloodedge.benchmarks.emulator.userland import Userland, make_userland
from bloodedge.benchmarks.result import BenchmarkResult
from bloodedge.benchmarks.ssh import device as device_module
from bloodedge.benchmarks.ssh.connection import Target
from bloodedge.benchmarks.ssh.driver import Ssh, SshConfig
from bloodedge.data.dataset import Dataset, Split
from bloodedge.deploy import interpreter
from bloodedge.errors import ConfigError
from bloodedge.runs import MANIFEST, Run
from bloodedge.train.checkpoint import Checkpoints

# A first call may compile or import; the suite also runs on busy machines.
settings.register_profile("bloodedge", deadline=None)
settings.load_profile("bloodedge")


@pytest.fixture(autouse=True)
def deliver_ctrl_c() -> None:
    """Let child processes get SIGINT: a shell's background jobs inherit that it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def isolated_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a runs folder of its own, and none of the caller's settings."""
    runs = tmp_path / "runs"
    monkeypatch.setenv("BLOODEDGE_RUNS", str(runs))
    monkeypatch.delenv("BLOODEDGE_DATA", raising=False)
    monkeypatch.delenv("BLOODEDGE_ZOO", raising=False)
    return runs


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """A context in which the next fit saves its first epoch, and Ctrl-C ends it."""

    def stop(self: Checkpoints, progress: Any) -> None:
        self.save(progress)
        raise KeyboardInterrupt

    @contextmanager
    def within() -> Iterator[None]:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Checkpoints, "save_if_due", stop)
            yield

    return within


@pytest.fixture(autouse=True)
def quick_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no child for each .keras file made here; tests/test_fuzz.py takes it back."""
    monkeypatch.setattr("bloodedge.train.restore.probe_model", lambda path: None)


def cannot(reason: object) -> None:
    """Skip a test that this machine cannot run; in CI, which installs everything, fail."""
    if os.environ.get("CI"):
        pytest.fail(str(reason))
    pytest.skip(str(reason))


@pytest.fixture
def classify(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The program of a bundle that classifies pictures; `runner.py` lies beside it here, too."""
    monkeypatch.syspath_prepend(str(CLASSIFY.parent))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec = importlib.util.spec_from_file_location("classify_alone", CLASSIFY)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("runner")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real sshd on the loopback address, on a port of its own."""
    try:
        tools.program("sshd")
        tools.program("ssh")
    except ConfigError as error:
        cannot(error)
    with Server(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def installed_python() -> Callable[[str], Path]:
    """Return what finds this machine's Python of a version; without one the test is skipped."""

    def find(version: str) -> Path:
        named = shutil.which(f"python{version}")
        kept = sorted((Path.home() / ".pyenv/versions").glob(f"{version}.*/bin/python"))
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        for path in (*([Path(named)] if named else []), *kept):
            # pyenv has a script of that name that starts none.
            asked = [str(path), "-c", code]
            done = subprocess.run(asked, capture_output=True, text=True, check=False)
            if done.stdout.strip() == version:
                return path
        pytest.skip(f"no Python {version} is installed here")

    return find


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The home folder of a stand-in device, whose name a shell could act on."""
    folder = tmp_path / "home of 'pi'"
    folder.mkdir()
    return folder


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """The device's programs; see `use_python`."""
    folder = tmp_path / "programs"
    folder.mkdir()
    return folder


@pytest.fixture
def use_python(programs: Path) -> Callable[[Path], None]:
    """Return what makes a Python the device's python3."""
    return lambda python: write_program(programs / "python3", f'exec "{python}" "$@"')


@pytest.fixture
def pi(
    server: Server,
    home: Path,
    programs: Path,
    use_python: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> Server:
    """A device that ssh reaches; its python3 is this one, runtime included."""
    monkeypatch.setenv("PATH", f"{server.client()}:{os.environ['PATH']}")
    monkeypatch.setattr(device_module, "_PAUSES", (0.1, 0.1, 0.1))
    use_python(Path(sys.executable))
    server.device(home, programs)
    if server.process is None or server.process.poll() is not None:
        server.start()
    return server


@pytest.fixture
def measure(
    pi: Server,
    brightest_tflite: bytes,
    colours: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tuple[Run, BenchmarkResult]]:
    """Return what measures a model there, whose name a shell could act on."""
    monkeypatch.setattr("bloodedge.deploy.interpreter.probe", interpreter.check_file)
    path = tmp_path / "a name; $(reboot) 'quoted'.tflite"
    path.write_bytes(brightest_tflite)

    def run(
        target: Target | None = None, seconds: float = 0.02, repeats: int = 1, **settings: Any
    ) -> tuple[Run, BenchmarkResult]:
        config = DriverConfig(
            (str(path),), "pi", images=6, repeats=repeats, seconds=seconds, force=True
        )
        usual = {"threads": (1,), "quick": True, **settings}
        return benchmark_elsewhere(config, colours, Ssh(SshConfig(target or pi.target, **usual)))

    return run


@pytest.fixture(scope="session")
def userland() -> Callable[[str], Userland]:
    """Make the emulated userland of an architecture, or take the finished one."""

    def make(name: str) -> Userland:
        try:
            return make_userland(name)
        except ConfigError as error:
            cannot(error)
            raise

    return make


def colour_split(per_class: int, seed: int, *, classes: int = 3, size: int = 16) -> Split:
    """Return images whose class is their brightest channel, with noise: easily learnt."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(classes), per_class)).astype(np.int64)
    images = rng.integers(0, 120, (len(labels), size, size, 3)).astype(np.uint8)
    images[np.arange(len(labels)), :, :, labels] += 100
    return Split(images, labels)


@pytest.fixture(scope="session")
def colours() -> Dataset:
    """Three classes told apart by colour, 16x16 pixels."""
    splits = {
        "train": colour_split(64, 1),
        "val": colour_split(20, 2),
        "test": colour_split(20, 3),
    }
    return Dataset(
        "colours", "synthetic", "synthetic colours", ("red", "green", "blue"), splits, {}
    )


class WithoutTest(Dataset):
    """A data set whose test images count for its fingerprint, and which no stage may take."""

    def __getitem__(self, split: str) -> Split:
        assert split != "test"
        return super().__getitem__(split)


@pytest.fixture
def colours_without_test(colours: Dataset) -> Dataset:
    return WithoutTest(**vars(replace(colours)))


@pytest.fixture(scope="session")
def trained_student(colours: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of half the student's width, trained once for all tests: see `student_named`."""
    from bloodedge.backend import use_backend

    use_backend()
    from bloodedge.train.config import FitConfig
    from bloodedge.train.stage import TrainConfig, train

    fit = FitConfig(epochs=3, batch=16, learning_rate=5e-3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BLOODEDGE_RUNS", str(tmp_path_factory.mktemp("runs")))
        return train(TrainConfig("cnn_se", fit, "student", 0.5), colours).path


@pytest.fixture
def student_named(trained_student: Path, isolated_runs: Path) -> Callable[[str], Path]:
    """Return what puts a copy of that run among this test's runs, under a name."""

    def copy(name: str) -> Path:
        run = Path(shutil.copytree(trained_student, isolated_runs / name))
        manifest = json.loads((run / MANIFEST).read_text())
        (run / MANIFEST).write_text(json.dumps({**manifest, "name": name}))
        return run

    return copy


def channel_means(softmax: bool) -> bytes:
    """A .tflite for 16x16 images that answers with the channels' means."""
    import tensorflow as tf

    from bloodedge.quiet import quiet

    def model(x: Any) -> Any:
        means = tf.reduce_mean(x, axis=(1, 2)) / 32.0
        return tf.nn.softmax(means) if softmax else means

    with quiet():
        spec = tf.TensorSpec((1, 16, 16, 3), tf.float32)
        concrete = tf.function(model).get_concrete_function(spec)
        return bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())


@pytest.fixture(scope="session")
def brightest_tflite() -> bytes:
    """A .tflite for 16x16 images whose class is the brightest channel."""
    return channel_means(softmax=True)


@pytest.fixture(scope="session")
def logits_tflite() -> bytes:
    """The same without the softmax, which no classifier of ours may lack."""
    return channel_means(softmax=False)


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .keras file without a manifest, with all that pruning weights treats differently.

    A stem, a 3x3 and a 1x1 convolution around SE, two dense layers, dropout and a penalty.
    """
    from bloodedge.backend import use_backend

    keras = use_backend()
    from bloodedge.train.modelio import save_model
    from bloodedge.train.models.blocks import input_and_scaling, squeeze_excite

    keras.utils.set_random_seed(0)
    image, x = input_and_scaling(16, None)
    x = keras.layers.Conv2D(8, 4, strides=4, activation="relu", name="stem")(x)
    x = keras.layers.Conv2D(14, 3, padding="same", kernel_regularizer="l2", name="conv")(x)
    x = keras.layers.BatchNormalization(momentum=0.9, name="norm")(x)
    x = squeeze_excite(keras.layers.ReLU(name="relu")(x), "se")
    x = keras.layers.Conv2D(12, 1, activation="relu", name="point")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(0.2, name="dropout")(x)
    x = keras.layers.Dense(16, activation="relu", name="hidden")(x)
    x = keras.layers.Dense(3, name="logits")(x)
    path = tmp_path_factory.mktemp("tiny") / "tiny.keras"
    save_model(keras.Model(image, x, name="tiny"), path)
    return path


@pytest.fixture
def on_jax() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return what runs Python where JAX finds so many CPU devices, and others if it looks."""

    def run(code: str, *, devices: int = 1, **environment: str) -> subprocess.CompletedProcess[str]:
        flags = f"--xla_force_host_platform_device_count={devices}"
        usual = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**usual, "XLA_FLAGS": flags, "CUDA_VISIBLE_DEVICES": "", **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done

    return run
