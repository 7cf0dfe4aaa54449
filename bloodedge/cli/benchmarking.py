"""`bloodedge benchmark`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bloodedge.cli import options

if TYPE_CHECKING:
    from bloodedge.benchmarks.host import BenchmarkResult


def benchmark(
    models: Annotated[
        list[str], typer.Argument(help="Runs, .tflite files or zoo names; an export run is all.")
    ],
    data: options.Data = "bloodmnist",
    size: options.Size = None,
    name: options.Name = None,
    images: Annotated[
        int, typer.Option("--images", help="Test images the accuracy is measured on; 0 is all.")
    ] = 0,
    threads: Annotated[
        str, typer.Option("--threads", help="Thread counts, with commas; 0 is every core.")
    ] = "1,0",
    repeats: Annotated[
        int, typer.Option("--repeats", help="Fresh processes for each model and thread count.")
    ] = 5,
    seconds: Annotated[
        float, typer.Option("--seconds", help="Least time of timed inferences in a process.")
    ] = 2.0,
    quick: Annotated[bool, typer.Option("--quick", help="A rough look.")] = False,
    seed: options.Seed = 0,
    force: options.Force = False,
) -> None:
    """Measure accuracy and latency of TFLite models on this machine, in the same run."""
    from rich.console import Console

    from bloodedge.benchmarks.stage import BenchmarkStageConfig
    from bloodedge.benchmarks.stage import benchmark as run
    from bloodedge.data.sources import load_data

    config = BenchmarkStageConfig(
        tuple(models),
        name or "benchmark",
        images,
        _thread_counts(threads),
        repeats,
        seconds,
        quick,
        seed,
        force,
    )
    folder, result = run(config, load_data(data, size=size))
    Console().print(_table(result))
    print(f"{folder.path}: {result.runtime} on {result.hardware}")
    if any(row.error for row in result.rows):
        raise typer.Exit(1)


def _thread_counts(text: str) -> tuple[int, ...]:
    from bloodedge.errors import ConfigError

    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--threads {text!r}", expected="numbers with commas, as 1,0") from None


def _table(result: BenchmarkResult) -> object:
    from rich.markup import escape
    from rich.table import Table

    table = Table("model", "threads", "KB", "accuracy %", "median us", "p90", "p99", "min", "note")
    for row in sorted(result.rows, key=lambda row: (row.model, row.threads)):
        accuracy = "" if row.accuracy is None else f"{100 * row.accuracy:.2f}"
        timing = ["" if v is None else f"{v:.0f}" for v in _timings(row)]
        note = row.error or ("drift between processes" if row.drift else "")
        size = f"{row.bytes / 1000:.1f}"
        table.add_row(escape(row.model), str(row.threads), size, accuracy, *timing, escape(note))
    return table


def _timings(row: object) -> list[float | None]:
    return [getattr(row, f"{key}_us") for key in ("median", "p90", "p99", "min")]
