"""`benchmark --ssh` against a real sshd on the loopback address; the device is this machine."""

from __future__ import annotations

import fcntl
import io
import json
import math
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from bloodedge.benchmarks.bundle import SUMS
from bloodedge.benchmarks.elsewhere import DriverConfig, Material, score
from bloodedge.benchmarks.emulator.server import Server, write_program
from bloodedge.benchmarks.result import BenchmarkResult
from bloodedge.benchmarks.ssh import device as device_module
from bloodedge.benchmarks.ssh import driver as driver_module
from bloodedge.benchmarks.ssh.connection import SshError, Target, failure
from bloodedge.benchmarks.ssh.device import Device
from bloodedge.benchmarks.ssh.driver import Ssh, SshConfig
from bloodedge.benchmarks.stage import balanced_indices
from bloodedge.data.dataset import Dataset
from bloodedge.errors import BloodedgeError, ConfigError, DataError
from bloodedge.runs import Run, RunFolder, runs_root

BASE = ".cache/bloodedge-ssh"
NAME = "a name; $(reboot) 'quoted'.tflite"


Measure = Callable[..., tuple[Run, BenchmarkResult]]


def left_in(home: Path) -> list[str]:
    return sorted(path.relative_to(home).as_posix() for path in home.rglob("*"))


def when(there: Callable[[], bool], then: Callable[[], None]) -> threading.Thread:
    """Do something as soon as something is there, while the test goes on."""

    def watch() -> None:
        for _ in range(6000):
            if there():
                return then()
            time.sleep(0.02)
        return None

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def notes_of(run: Run) -> list[str]:
    notes: list[str] = json.loads((run.path / "benchmark.json").read_text())["notes"]
    return notes


def logged(home: Path, text: str) -> Callable[[], bool]:
    return lambda: any(text in log.read_text() for log in (home / BASE).glob("*/log"))


# ---- measuring ----


def test_the_models_are_measured_there_and_nothing_is_left(
    measure: Measure, home: Path, colours: Dataset, capfd: pytest.CaptureFixture[str]
) -> None:
    run, result = measure()
    assert (result.complete, result.protocol, result.emulated) == (True, "runner", False)
    (row,) = result.rows
    assert (row.model, row.accuracy) == (NAME, 1.0)
    assert row.median_us
    recorded = json.loads((run.path / "benchmark.json").read_text())
    assert recorded["config"]["quick"] is True
    (raw,) = recorded["rows"]
    labels = colours["test"].labels
    same = score(*[labels[balanced_indices(labels, 6, 0)]] * 2)
    assert {key: raw[key] for key in same} == same
    assert run.manifest["kind"] == "benchmark"
    shown = capfd.readouterr().err
    assert "MB to" in shown
    assert "has ai_edge_litert" in shown
    assert f"[1/1] {NAME}" in shown
    assert left_in(home) == [".cache"]


def test_what_is_kept_is_private_and_measured_anew(
    measure: Measure, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    measure(keep=True)
    (folder,) = (p for p in (home / BASE).iterdir() if p.is_dir())
    assert stat.S_IMODE((home / BASE).stat().st_mode) == 0o700
    assert (folder / "result.json").exists()
    before = (folder / "result.json").stat().st_mtime_ns
    measure(keep=True)
    assert (folder / "result.json").stat().st_mtime_ns > before
    measure()
    assert left_in(home) == [".cache"]
    assert "going on with it" not in capfd.readouterr().err


def test_what_a_login_says_is_no_answer(
    pi: Server, measure: Measure, home: Path, programs: Path
) -> None:
    noise = """echo 'Welcome to {"pi"}'; echo '["done"]'; echo '{"done": 1}'; echo warned >&2"""
    pi.device(home, programs, noise)
    assert measure()[1].complete


def test_counts_of_threads_that_it_lacks_are_refused_in_the_runners_words(
    measure: Measure, home: Path
) -> None:
    with pytest.raises(ConfigError, match=r"runner on .* refused: .*expected 0 to"):
        measure(threads=(1000,))
    assert left_in(home) == [".cache"]
    assert not (runs_root() / "pi").exists()


def test_two_measurements_at_once_are_refused(measure: Measure, home: Path) -> None:
    (home / BASE).mkdir(parents=True)
    with (home / BASE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another measurement is running"):
            measure()
    # What belongs to the other one stays.
    assert left_in(home / BASE) == ["lock"]


# ---- broken connections, Ctrl-C, power ----


def test_a_connection_that_breaks_is_made_again(
    pi: Server, measure: Measure, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    thread = when(logged(home, "processes, about"), pi.cut)
    _, result = measure(repeats=3)
    thread.join()
    assert (result.complete, len(result.rows)) == (True, 1)
    shown = capfd.readouterr().err
    assert "trying again" in shown
    # Nothing is shown twice.
    assert shown.count("[1/3]") == 1
    assert left_in(home) == [".cache"]


def test_what_was_measured_without_us_is_fetched_by_the_same_command(
    pi: Server, measure: Measure, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    thread = when(logged(home, "processes, about"), lambda: pi.stop(cut=True))
    with pytest.raises(SshError, match=r"is lost.*the same command fetches it"):
        measure(repeats=2)
    thread.join()
    assert not (runs_root() / "pi").exists()
    ended = [False]
    for _ in range(600):
        ended = [path.exists() for path in (home / BASE).glob("*/exit")]
        if ended:
            break
        time.sleep(0.1)
    pi.start()
    _, result = measure(repeats=2)
    assert ended
    assert result.complete
    assert "going on with it" in capfd.readouterr().err
    assert left_in(home) == [".cache"]


def test_a_device_that_goes_down_goes_on_by_the_same_command(measure: Measure, home: Path) -> None:
    def power_off() -> None:
        (state,) = (home / BASE).glob("*/state.json")
        os.killpg(json.loads(state.read_text())["pid"], signal.SIGKILL)

    thread = when(logged(home, "[1/3]"), power_off)
    with pytest.raises(SshError, match="went down in the middle"):
        measure(repeats=3)
    thread.join()
    run, result = measure(repeats=3)
    assert result.complete
    assert any(note.startswith("resumed after") for note in notes_of(run))
    assert left_in(home) == [".cache"]


def test_a_record_of_the_start_that_is_empty_costs_nothing_that_was_measured(
    measure: Measure, home: Path
) -> None:
    def brown_out() -> None:
        (state,) = (home / BASE).glob("*/state.json")
        os.killpg(json.loads(state.read_text())["pid"], signal.SIGKILL)
        state.write_text("")

    thread = when(logged(home, "[1/3]"), brown_out)
    with pytest.raises(SshError, match="went down in the middle"):
        measure(repeats=3)
    thread.join()
    run, result = measure(repeats=3)
    assert result.complete
    assert notes_of(run)[0].startswith("resumed after")
    assert left_in(home) == [".cache"]


def shut_down(home: Path) -> None:
    """End the measurement as a device does that is shut down in an orderly way."""
    (state,) = (home / BASE).glob("*/state.json")
    os.kill(json.loads(state.read_text())["pid"], signal.SIGTERM)
    for _ in range(600):
        if state.with_name("exit").exists():
            return
        time.sleep(0.1)


def test_a_device_that_is_shut_down_goes_on_by_the_same_command(
    measure: Measure, home: Path
) -> None:
    thread = when(logged(home, "[1/20]"), lambda: shut_down(home))
    with pytest.raises(SshError, match=r"ended in the middle .* 130"):
        measure(repeats=20)
    thread.join()
    (folder,) = (path.parent for path in (home / BASE).glob("*/state.json"))
    assert json.loads((folder / "result.json").read_text())["complete"] is False
    run, result = measure(repeats=20)
    assert result.complete
    assert notes_of(run)[0].startswith("resumed after")
    assert left_in(home) == [".cache"]


def test_a_device_that_starts_anew_goes_on_by_itself(
    pi: Server, measure: Measure, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "_PAUSES", (1.0,) * 60)

    def reboot() -> None:
        pi.stop(cut=True)
        shut_down(home)
        (path,) = (home / BASE).glob("*/state.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "before"}))
        pi.start()

    thread = when(logged(home, "[1/20]"), reboot)
    run, result = measure(repeats=20)
    thread.join()
    assert result.complete
    assert notes_of(run)[0].startswith("resumed after")
    assert left_in(home) == [".cache"]


def test_a_result_that_is_lost_on_its_way_is_fetched_again_also_where_all_is_kept(
    measure: Measure, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ask = Device.ask

    def lose(self: Device, command: str, **options: object) -> object:
        answer = ask(self, command, **options)
        if command == "fetch":
            raise SshError("the connection broke")
        return answer

    with monkeypatch.context() as patched, pytest.raises(SshError):
        patched.setattr(Device, "ask", lose)
        measure(keep=True)
    capfd.readouterr()
    assert measure(keep=True)[1].complete
    assert "going on with it" in capfd.readouterr().err
    assert measure()[1].complete
    assert "going on with it" not in capfd.readouterr().err


def test_a_run_that_cannot_be_written_here_is_fetched_again(
    measure: Measure, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "commit", full)
        with pytest.raises(BloodedgeError, match="No space left"):
            measure()
    assert "still on the device: the same command fetches it" in capfd.readouterr().err
    assert measure()[1].complete
    assert "going on with it" in capfd.readouterr().err
    assert left_in(home) == [".cache"]


class Told:
    """A device that does what it is told: an answer or an error for each command."""

    said: ClassVar[dict[str, Any]] = {}
    asked: ClassVar[list[str]] = []

    def __init__(self, *_: object) -> None:
        self.asked.clear()

    def _do(self, what: str, usual: Any = None) -> Any:
        self.asked.append(what)
        answer = self.said.get(what, usual)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def look(self) -> Any:
        return self._do("look", False)

    def send(self, _: object) -> None:
        self._do("send")

    def ask(self, command: str, **_: object) -> Any:
        return self._do(command, {"python": "x"})

    def measure(self, *_: object) -> Any:
        return self._do("measure", (0, ""))

    def forget(self) -> None:
        self._do("forget")

    def remove(self) -> None:
        self._do("remove")


TRACEBACK = DataError("pi: exit code 1: json.decoder.JSONDecodeError: Expecting value")
NOTHING = {"result": None, "partial": False}


@pytest.mark.parametrize(
    ("said", "error", "kept"),
    [
        # Something is there, or may be.
        ({"look": True, "measure": TRACEBACK}, DataError, True),
        ({"measure": KeyboardInterrupt(), "stop": KeyboardInterrupt()}, KeyboardInterrupt, True),
        ({"measure": KeyboardInterrupt(), "fetch": KeyboardInterrupt()}, KeyboardInterrupt, True),
        ({"fetch": ConfigError("the result is larger than 16 MiB")}, ConfigError, True),
        ({"fetch": {"result": "{"}}, DataError, True),
        ({"measure": (130, ""), "fetch": {"result": None, "partial": True}}, SshError, True),
        # Nothing was measured.
        ({"send": KeyboardInterrupt()}, KeyboardInterrupt, False),
        ({"runtime": ConfigError("no runtime")}, ConfigError, False),
        ({"measure": (2, "no such thread"), "fetch": NOTHING}, ConfigError, False),
        ({"measure": KeyboardInterrupt(), "fetch": NOTHING}, KeyboardInterrupt, False),
    ],
)
@pytest.mark.parametrize("keep", [False, True])
def test_only_what_holds_nothing_is_removed_after_an_error(
    said: dict[str, Any],
    error: type[BaseException],
    kept: bool,
    keep: bool,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Told, "said", said)
    monkeypatch.setattr(driver_module, "Device", Told)
    none = np.zeros(0, np.int64)
    pack = {SUMS: b""}.copy
    material = Material({}, np.zeros((0, 8, 8, 3), np.uint8), none, (), "", True, pack)
    with pytest.raises(error):
        Ssh(SshConfig(Target("pi"), keep=keep))(material, DriverConfig(("a",), "pi"))
    done = {"remove", "forget"} & set(Told.asked)
    assert done == (set() if kept else {"forget" if keep else "remove"})
    assert ("the same command goes on" in capfd.readouterr().err) == kept


@pytest.mark.parametrize("error", [SshError("the connection broke"), KeyboardInterrupt()])
def test_what_cannot_be_removed_is_said(
    error: BaseException,
    measure: Measure,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(self: Device) -> None:
        raise error

    monkeypatch.setattr(Device, "remove", fail)
    assert measure()[1].complete
    assert f"is still there: {str(error) or 'interrupted'}" in capfd.readouterr().err


def test_a_full_disk_costs_nothing_that_was_measured(
    measure: Measure, home: Path, programs: Path
) -> None:
    # In place of a full disk: no file of the runner's may grow beyond 32 KiB.
    limit = 'case "$*" in *measure*) ulimit -f 64;; esac'
    write_program(programs / "python3", f'{limit}\nexec "{sys.executable}" "$@"')
    with pytest.raises(SshError, match=r"ended in the middle .* code 2: .*large.*memory and disk"):
        measure(repeats=12)
    assert logged(home, "[1/12]")()
    write_program(programs / "python3", f'exec "{sys.executable}" "$@"')
    run, result = measure(repeats=12)
    assert result.complete
    assert notes_of(run)[0].startswith("resumed after")
    assert left_in(home) == [".cache"]


def test_a_record_that_the_runner_cannot_use_is_not_kept_for_ever(
    measure: Measure, home: Path
) -> None:
    def spoil() -> None:
        (state,) = (home / BASE).glob("*/state.json")
        os.killpg(json.loads(state.read_text())["pid"], signal.SIGKILL)
        state.with_name("result.json.partial").write_text("{}")

    thread = when(logged(home, "[1/3]"), spoil)
    with pytest.raises(SshError, match="went down in the middle"):
        measure(repeats=3)
    thread.join()
    with pytest.raises(ConfigError, match=r"refused: .*no journal of this runner"):
        measure(repeats=3)
    assert left_in(home) == [".cache"]


def test_what_was_refused_is_tried_again_also_where_it_was_kept(
    measure: Measure, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (home / BASE).mkdir(parents=True)
    with (home / BASE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for _ in range(2):
            with pytest.raises(ConfigError, match="another measurement is running"):
                measure(keep=True)
    capfd.readouterr()
    assert measure(keep=True)[1].complete
    assert "another measurement" not in capfd.readouterr().err


def test_ctrl_c_keeps_what_is_complete(
    measure: Measure, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    thread = when(logged(home, "[1/50]"), lambda: os.kill(os.getpid(), signal.SIGINT))
    _, result = measure(repeats=50)
    thread.join()
    assert (result.complete, len(result.rows)) == (False, 1)
    assert result.rows[0].accuracy == 1.0
    assert "fetching what is complete" in capfd.readouterr().err
    assert left_in(home) == [".cache"]


def test_a_second_ctrl_c_leaves_there_what_is_complete(
    measure: Measure, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ask = Device.ask

    def interrupt(self: Device, command: str, **options: object) -> object:
        if command == "fetch":
            raise KeyboardInterrupt
        return ask(self, command, **options)

    thread = when(logged(home, "[1/50]"), lambda: os.kill(os.getpid(), signal.SIGINT))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Device, "ask", interrupt)
        measure(repeats=50)
    thread.join()
    _, result = measure(repeats=50)
    assert (result.complete, len(result.rows)) == (False, 1)
    assert "going on with it" in capfd.readouterr().err
    assert left_in(home) == [".cache"]


# ---- what is refused ----


@pytest.mark.parametrize(
    "host",
    ["", "-oProxyCommand=reboot", "pi@-l", "pi@", "@host", "a b", "a;b", "a\n", "$(x)", "a'b", "é"],
)
def test_hostile_hosts_are_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="expected user@host"):
        Target(host)


@pytest.mark.parametrize(
    "host", ["pi@raspberrypi.local", "alias", "pi@192.0.2.1", "pi@fe80::1%eth0"]
)
def test_hosts_are_taken_as_ssh_does(host: str) -> None:
    assert Target(host, 22).options()[-5:] == ["-p", "22", "-T", "--", host]


def test_settings_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--ssh-port"):
        Target("pi", 1 << 16)
    with pytest.raises(ConfigError, match="does not exist"):
        Target("pi", identity=tmp_path / "none")
    for threads in ((), (1, 1), (-1,), (5000,)):
        with pytest.raises(ConfigError, match="threads"):
            SshConfig(Target("pi"), threads)


def test_without_ssh_the_way_to_get_it_is_said(
    measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"ssh is not installed.*apt install"):
        measure()


def test_a_host_that_does_not_answer_is_one_line(pi: Server, measure: Measure) -> None:
    target = Target(pi.target.host, 1, pi.target.identity)
    with pytest.raises(SshError, match=r"cannot be reached: .*refused.*switched on"):
        measure(target)


def test_a_login_that_is_refused_asks_for_no_password(pi: Server, measure: Measure) -> None:
    target = Target(pi.target.host, pi.port, pi.root / "other_key")
    with pytest.raises(SshError, match=r"refused the login.*ssh-copy-id -p"):
        measure(target)


def test_unknown_and_changed_host_keys_are_not_passed_over(pi: Server, measure: Measure) -> None:
    known = pi.root / "known_hosts"
    known.write_text("")
    with pytest.raises(SshError, match=r"is not known yet.*compare the fingerprint"):
        measure()
    assert known.read_text() == ""
    other = (pi.root / "other_key.pub").read_text()
    known.write_text(f"[127.0.0.1]:{pi.port} {other}")
    with pytest.raises(SshError, match="another host key than before"):
        measure()


@pytest.mark.parametrize(
    ("program", "script", "said"),
    [
        ("python3", None, r"has no python3.*apt install python3"),
        ("python3", """echo '{"version": [3, 7, 3]}'""", r"has Python 3\.7\.3; expected 3\.8"),
        ("python3", """echo '{"version": ["3", null]}'""", "has no python3"),
        ("python3", "echo nothing", "gives no answer"),
        ("tar", "echo 'tar: x: No space left on device' >&2; exit 2", "No space left on device"),
    ],
)
def test_a_device_that_lacks_something_is_one_line(
    program: str,
    script: str | None,
    said: str,
    pi: Server,
    measure: Measure,
    home: Path,
    programs: Path,
) -> None:
    (programs / program).unlink()
    if script:
        write_program(programs / program, script)
    with pytest.raises(BloodedgeError, match=said) as caught:
        measure()
    assert "\n" not in str(caught.value)
    assert not [name for name in left_in(home) if name not in (".cache", BASE)]
    assert not (runs_root() / "pi").exists()


ENVIRONMENT = dict.fromkeys(("runtime", "runtime_version", "cpu_model", "machine"), "x")


def liar(tmp_path: Path, result: object) -> Path:
    folder = tmp_path / "liar"
    folder.mkdir()
    answers = {"runtime": {"python": "x"}, "measure": {"code": 0}, "fetch": {"result": result}}
    (folder / "__main__.py").write_text(
        "import json, sys\n"
        f"answers = json.loads({json.dumps(answers)!r})\n"
        "print(json.dumps({'done': answers.get(sys.argv[1], {})}))\n"
    )
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": "bloodedge-benchmark/9"}, "cannot be used"),
        ({"rows": [{}]}, "cannot be used"),
        ({"emulated": "no"}, "cannot be used"),
        ({"environment": {**ENVIRONMENT, "load": math.nan}}, "cannot be used.*NaN"),
        ({"protocol": "browser", "rows": []}, "its runner did not make"),
        ({"sha256": "0" * 64}, "a result of another file"),
        ({"model": "other.tflite"}, "a result of another file"),
        ({}, None),
    ],
)
def test_a_device_that_lies_is_not_believed(
    change: dict[str, Any],
    said: str | None,
    measure: Measure,
    brightest_tflite: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = dict.fromkeys(
        ("median_us", "p90_us", "p99_us", "min_us", "load_ms", "first_ms", "spread"), 1.0
    )
    row: dict[str, Any] = {
        **measured,
        "model": NAME,
        "sha256": sha256(brightest_tflite).hexdigest(),
        **{"bytes": 1, "gzip_bytes": 1, "threads": 1, "peak_rss_kib": 1, "images": 6},
        **{"accuracy": 1.0, "drift": False, "error": None},
    }
    value = {
        "schema": "bloodedge-benchmark/1",
        "complete": True,
        "environment": ENVIRONMENT,
        "rows": [{**row, **{k: v for k, v in change.items() if k in row}}],
        **{k: v for k, v in change.items() if k not in row},
    }
    monkeypatch.setattr(device_module, "_AGENT", liar(tmp_path, json.dumps(value)))
    if said is None:
        assert measure()[1].rows[0].accuracy == 1.0
        return
    with pytest.raises(DataError, match=said) as caught:
        measure()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("result", [None, 7, "{", "[]", "\udc80"])
def test_no_result_is_one_line(
    result: object, measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "_AGENT", liar(tmp_path, result))
    with pytest.raises(DataError, match=r"died with exit code 0|cannot be used"):
        measure()


def test_what_ssh_says_is_understood() -> None:
    target = Target("pi@host", 2222)
    for said, meant in (
        ("ssh: Could not resolve hostname host: Name or service not known", "no host known here"),
        ("ssh: connect to host host port 22: No route to host", "cannot be reached"),
        ("ssh: connect to host host port 22: Connection timed out", "cannot be reached"),
        ("pi@host: Permission denied (publickey,password).", "refused the login"),
        ("Received disconnect: Too many authentication failures", "--identity"),
        ("Host key verification failed.", "ssh -p 2222 pi@host"),
        ("Connection to host closed by remote host.", "broke"),
        ("Timeout, server host not responding.", "broke"),
        ("client_loop: send disconnect: Broken pipe", "broke"),
        ("", "broke: no message"),
        ("\x1b[2Jodd", "failed: ?[2Jodd"),
    ):
        assert meant in str(failure(target, said))


def test_a_long_name_is_packed_for_the_device() -> None:
    name = f"models/{'a' * 190}.tflite"
    packed = device_module._tar({name: b"content", "run.py": b""})
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert archive.getnames() == [name, "run.py"]
    listed = subprocess.run(["tar", "-tf", "-"], input=packed, capture_output=True, check=True)
    assert listed.stdout.decode().split() == [name, "run.py"]


# ---- without the driver ----


@pytest.mark.slow
@pytest.mark.parametrize("start", ["python3 run.py", "sh run.sh"])
def test_scp_and_the_bundle_do_as_well(
    start: str, pi: Server, measure: Measure, brightest_tflite: bytes, colours: Dataset,
    tmp_path: Path, home: Path,
) -> None:  # fmt: skip
    from bloodedge.benchmarks.bundle import BundleConfig, bundle
    from bloodedge.benchmarks.result import load_result

    path = tmp_path / "brightest.tflite"
    path.write_bytes(brightest_tflite)
    folder = bundle(BundleConfig((str(path),), tmp_path / "device", images=6), colours)
    key = ["-i", str(pi.root / "key")]
    host = pi.target.host
    port = str(pi.port)

    def do(*words: str) -> None:
        program = shutil.which(words[0])
        assert program
        subprocess.run([program, *words[1:]], check=True, timeout=300, stdin=subprocess.DEVNULL)

    do("scp", "-q", "-r", "-P", port, *key, str(folder), f"{host}:")
    do("ssh", "-p", port, *key, host, f"cd device && {start} --quick --threads 1")
    do("scp", "-q", "-P", port, *key, f"{host}:device/result.json", str(tmp_path))
    result = load_result(tmp_path / "result.json")
    assert (result.complete, result.rows[0].accuracy) == (True, 1.0)
