"""`bloodedge benchmark`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bloodedge.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from bloodedge.benchmarks.elsewhere import Driver
    from bloodedge.benchmarks.result import BenchmarkResult, BenchmarkRow
    from bloodedge.data.dataset import Dataset
    from bloodedge.runs import Run

_QUICK = {"repeats": 2, "seconds": 0.2}
# As on this machine: one protocol, so that the figures may be compared.
_RUNNER = {"repeats": 5, "seconds": 2.0}
# Options by the ways of measuring that alone heed them.
_WAYS = {
    ("--browser",): ("--litertjs", "--address", "--port", "--timeout"),
    ("--adb",): ("--serial", "--benchmark-model", "--delegate"),
    ("--ssh",): ("--ssh-port", "--identity", "--keep"),
    ("--browser", "--adb"): ("--device",),
}


def benchmark(
    context: typer.Context,
    models: Annotated[
        list[str],
        typer.Argument(help="Runs, .tflite files or zoo names; an export run means all its files."),
    ],
    data: options.Data = "bloodmnist",
    size: options.Size = None,
    name: options.Name = None,
    images: Annotated[
        int | None,
        typer.Option(
            "--images",
            help="Test images the accuracy is measured on; 0 is all. By default all here, 400 "
            "on another device.",
        ),
    ] = None,
    threads: Annotated[
        str, typer.Option("--threads", help="Thread counts, with commas; 0 is every core.")
    ] = "1,0",
    repeats: Annotated[
        int | None,
        typer.Option(
            "--repeats",
            help="Fresh processes for each model and thread count: 5, with --browser or --adb 3.",
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--seconds", help="Least seconds timed in each: 2, with --browser or --adb 1."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Under a minute; too short to rank models.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also find out where the time goes, by operator.")
    ] = False,
    browser: Annotated[
        bool, typer.Option("--browser", help="Measure in a phone's browser, on a page from here.")
    ] = False,
    litertjs: Annotated[
        Path | None,
        typer.Option("--litertjs", help="With --browser: the folder of its two npm archives."),
    ] = None,
    address: Annotated[
        str, typer.Option("--address", help="With --browser: this machine's address to use.")
    ] = "",
    port: Annotated[
        int,
        typer.Option("--port", help="With --browser: the port to serve on; 0 takes a free one."),
    ] = 0,
    timeout: Annotated[
        float, typer.Option("--timeout", help="With --browser: seconds to wait without news.")
    ] = 600.0,
    adb: Annotated[
        bool, typer.Option("--adb", help="Measure on an Android device with benchmark_model.")
    ] = False,
    serial: Annotated[
        str, typer.Option("--serial", help="With --adb: which device, where there are several.")
    ] = "",
    benchmark_model: Annotated[
        Path | None,
        typer.Option("--benchmark-model", help="With --adb: TensorFlow's program of that name."),
    ] = None,
    delegates: Annotated[
        list[str] | None,
        typer.Option(
            "--delegate",
            help="With --adb: xnnpack, cpu, gpu or nnapi; repeatable. By default xnnpack and cpu.",
        ),
    ] = None,
    ssh: Annotated[
        str | None,
        typer.Option("--ssh", help="Measure on a Raspberry Pi or other Linux machine: user@host."),
    ] = None,
    ssh_port: Annotated[
        int,
        typer.Option("--ssh-port", help="With --ssh: the port; 0 takes that of your ssh settings."),
    ] = 0,
    identity: Annotated[
        Path | None, typer.Option("--identity", help="With --ssh: the file of your private key.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="With --ssh: leave the files and runtime there.")
    ] = False,
    device: Annotated[
        str, typer.Option("--device", help="With --browser or --adb: what to call the device.")
    ] = "",
    seed: options.Seed = 0,
    resume: options.Resume = False,
    force: options.Force = False,
) -> None:
    """Measure accuracy and latency of TFLite models in the same run, here or on another device.

    Ctrl-C keeps what is complete; a run here that was killed goes on with --resume.
    """
    from bloodedge.cli.starting import refuse_other_data
    from bloodedge.data.sources import load_data
    from bloodedge.errors import ConfigError
    from bloodedge.tables import print_table

    given = {"images": images, "repeats": repeats, "seconds": seconds}
    settings = {key: value for key, value in given.items() if value is not None}
    settings |= {"seed": seed, "force": force}
    run: Callable[[Dataset], tuple[Run, BenchmarkResult]]
    if browser + adb + (ssh is not None) > 1:
        raise ConfigError("more than one of --browser, --adb and --ssh", expected="one device")
    way = "--browser" if browser else "--adb" if adb else "" if ssh is None else "--ssh"
    _refuse(context, way)
    if ssh is not None:
        remote = _ssh(ssh, ssh_port, identity, _thread_counts(threads), quick, keep, profile)
        usual = _QUICK if quick else _RUNNER
        run = _elsewhere(models, name or "benchmark-ssh", {**usual, **settings}, quick, remote)
    elif adb:
        counts = _thread_counts(threads)
        chosen = tuple(delegates or ())
        android = _android(benchmark_model, serial, counts, chosen, device, profile)
        run = _elsewhere(models, name or "benchmark-android", settings, quick, android)
    elif browser:
        from bloodedge.benchmarks.browser.driver import Browser, BrowserConfig

        driver = Browser(BrowserConfig(litertjs, address, port, timeout, device))
        run = _elsewhere(models, name or "benchmark-browser", settings, quick, driver)
    else:
        settings |= {"profile": profile, "resume": resume}
        run = _here(models, name or "benchmark", settings, quick, _thread_counts(threads))
    refuse_other_data(context, models)
    folder, result = run(load_data(data, size=size))
    print_table(_table(result, folder.manifest["data"]["title"]))
    if profile:
        _print_profiles(folder)
    print(f"{folder.path}: {result.runtime} on {result.hardware}")
    if not result.complete or any(row.error for row in result.rows):
        raise typer.Exit(1)


def _refuse(context: typer.Context, way: str) -> None:
    """Refuse options that change nothing in this way of measuring; none is this machine."""
    from bloodedge.cli.starting import refuse_unheeded

    for ways, unheeded in _WAYS.items():
        if way not in ways:
            refuse_unheeded(context, unheeded, f"without {' or '.join(ways)}")
    if way:
        refuse_unheeded(context, ("--resume",), f"with {way}", expected="it here alone")
    if way == "--browser":
        expected = "them here, or with --adb or --ssh"
        refuse_unheeded(context, ("--threads", "--profile"), "with --browser", expected=expected)


def _here(
    models: list[str], name: str, settings: dict[str, Any], quick: bool, threads: tuple[int, ...]
) -> Callable[[Dataset], tuple[Run, BenchmarkResult]]:
    from bloodedge.benchmarks.stage import BenchmarkStageConfig, benchmark

    config = BenchmarkStageConfig(tuple(models), name, threads=threads, quick=quick, **settings)
    return lambda data: benchmark(config, data)


def _ssh(
    host: str,
    port: int,
    identity: Path | None,
    threads: tuple[int, ...],
    quick: bool,
    keep: bool,
    profile: bool,
) -> Driver:
    from bloodedge.benchmarks.ssh.connection import Target
    from bloodedge.benchmarks.ssh.driver import Ssh, SshConfig

    return Ssh(SshConfig(Target(host, port, identity), threads, quick, keep, profile))


def _android(
    binary: Path | None,
    serial: str,
    threads: tuple[int, ...],
    delegates: tuple[str, ...],
    device: str,
    profile: bool,
) -> Driver:
    from bloodedge.benchmarks.android.driver import Android, AndroidConfig
    from bloodedge.errors import ConfigError

    if binary is None:
        raise ConfigError(
            "--adb without --benchmark-model",
            fix="give TensorFlow's benchmark_model for the device; the README says where it is",
        )
    chosen = {"delegates": delegates} if delegates else {}
    return Android(AndroidConfig(binary, serial, threads, device=device, profile=profile, **chosen))


def _elsewhere(
    models: list[str], name: str, settings: dict[str, Any], quick: bool, driver: Driver
) -> Callable[[Dataset], tuple[Run, BenchmarkResult]]:
    from bloodedge.benchmarks.elsewhere import DriverConfig, benchmark_elsewhere

    config = DriverConfig(tuple(models), name, **{**(_QUICK if quick else {}), **settings})
    return lambda data: benchmark_elsewhere(config, data, driver)


def _print_profiles(run: Run) -> None:
    from bloodedge.benchmarks.profile.files import CSV_FILE, NOTE, profile_table, read_profiles
    from bloodedge.tables import print_table

    profiles = read_profiles(run.path / CSV_FILE)
    for profile in profiles:
        print_table(profile_table(profile))
    if profiles:
        print(NOTE)


def _thread_counts(text: str) -> tuple[int, ...]:
    from bloodedge.errors import ConfigError

    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--threads {text!r}", expected="numbers with commas, as 1,0") from None


def _table(result: BenchmarkResult, title: str) -> Table:
    from bloodedge.tables import table

    names = _short([row.model for row in result.rows])
    rows = sorted(result.rows, key=lambda row: (row.model, row.threads, row.delegate))
    lines = [
        (names[row.model], *_figures(row, result.emulated), _note(row, result)) for row in rows
    ]
    head = ["model", "threads", "KB", "accuracy %", "median µs", "p90", "p99", "min", "note"]
    shown = slice(None) if any(note for *_, note in lines) else slice(-1)
    return table(head[shown], [line[shown] for line in lines], words=("note",), title=title)


def _figures(row: BenchmarkRow, emulated: bool) -> list[str]:
    from bloodedge.benchmarks.report.text import micros
    from bloodedge.text import kilobytes

    accuracy = "" if row.accuracy is None else f"{100 * row.accuracy:.2f}"
    # An emulator's latencies mean nothing, so they are not shown.
    timing = [None] * 4 if emulated else [row.median_us, row.p90_us, row.p99_us, row.min_us]
    return [str(row.threads), kilobytes(row.bytes), accuracy, *map(micros, timing)]


def _note(row: BenchmarkRow, result: BenchmarkResult) -> str:
    usual = "emulated" if result.emulated else "drift between repeats" if row.drift else ""
    return ": ".join(filter(None, (row.delegate, row.error or usual or row.note)))


def _short(names: Sequence[str]) -> dict[str, str]:
    """Return what tells names apart: not the folders and the ending that all files share."""
    from bloodedge.tables import short_paths

    short = short_paths(name for name in names if PurePath(name).is_absolute())
    return {name: short.get(name, name).removesuffix(".tflite") for name in names}
