"""Every way to compress, on the same trained models: bytes, work, latency and accuracy.

    python -m bloodedge.benchmarks.methods run --data D [--source cnn_se-s{}] [--seeds 3]
        [--recipes qat+int8,...] [--epochs N]
    python -m bloodedge.benchmarks.methods show [--benchmark RUN]

`run` follows each recipe from the run of each seed (`{}` is the seed) as `bloodedge compress` does,
continues what was interrupted, and evaluates each file once on test. `show` prints the table of
what is there, as Markdown, with the latencies of a run of `bloodedge benchmark`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from bloodedge.backend import use_backend
from bloodedge.benchmarks.comparison import evaluated_otherwise, exit_code
from bloodedge.benchmarks.result import BenchmarkRow, load_result
from bloodedge.benchmarks.stage import RESULT_FILE
from bloodedge.compress.chain.recipe import EVERY_STEP, RecipeConfig
from bloodedge.console import say
from bloodedge.data.sources import load_data
from bloodedge.deploy.evaluate import EvaluateConfig, evaluate
from bloodedge.deploy.recipe.stage import compress, links
from bloodedge.errors import ModelError, RunError
from bloodedge.references import find_model
from bloodedge.runs import is_finished, load_run, metrics_of, runs_root
from bloodedge.variants import Recipe

SOURCE = "cnn_se-s{}"
# The formats alone, then each method that trains, then several together.
RECIPES = (
    "float32+float16+dynamic+int8+int16x8+mixed",
    "qat+int8",
    "slim50+int8",
    "slim50+qat+int8",
    "sparse50+int8",
    "sparse80+int8",
    "2of4+int8",
    "cluster16+int8",
    "sparse50+cluster16+qat+int8",
    "slim50+sparse50+qat+int8",
)


@dataclass(frozen=True)
class Score:
    """One file: bytes raw and compressed, and accuracy in percent on val and test."""

    size: int
    gzip: int
    val: float
    test: float


def recipe_config(text: str, source: str, seed: int, epochs: int | None = None) -> RecipeConfig:
    """Return what `bloodedge compress SOURCE --recipe TEXT` does for one seed.

    Raises:
        ConfigError: no recipe.
    """
    recipe = Recipe.parse(text)
    trained = {EVERY_STEP: epochs} if epochs and recipe.steps else {}
    return RecipeConfig(source.format(seed), recipe, epochs=trained, seed=seed)


def files(text: str, source: str, seed: int) -> Iterator[tuple[str, str]]:
    """Yield what each file of a recipe is called in the table, and its run's name."""
    config = recipe_config(text, source, seed)
    before = "+".join(step.text for step in config.steps)
    for link in links(config)[len(config.steps) :]:
        yield "+".join(filter(None, (before, link.step))), link.name


def run(recipes: list[str], source: str, seeds: int, data: Any, epochs: int | None) -> None:
    """Make what is missing, the first seed of every recipe first; files below a gate are kept."""
    for seed in range(seeds):
        for text in recipes:
            say(f"{source.format(seed)}: {text}")
            compress(recipe_config(text, source, seed, epochs), data, allow_failing=True)
            for _, name in files(text, source, seed):
                if not is_finished(test_name(name)):
                    evaluate(EvaluateConfig(name, name=test_name(name)), data)


def test_name(name: str) -> str:
    """Return the name of the run that evaluates a file on test of the data that it was made with.

    Another file of that name, such as one that `bloodedge export` made of the same model with other
    images for calibration, or other images may have been evaluated under the usual name before.

    Raises:
        RunError: what is finished under the other name is not that evaluation, either.
    """
    usual, other = f"{name}-test", f"{name}-method-test"
    if not (is_finished(usual) and _differences(usual, name)):
        return usual
    if is_finished(other) and (differences := _differences(other, name)):
        raise RunError(
            f"{runs_root() / other} does not tell what {name} has on test: "
            f"it is {' and '.join(differences)}",
            fix="remove it",
        )
    return other


def _differences(evaluation: str, name: str) -> list[str]:
    """Return how an evaluation differs from one of a file on test of its own data, in words."""
    made, tested = (load_run(runs_root() / run).manifest for run in (name, evaluation))
    return evaluated_otherwise(tested, find_model(name).sha256, made["data"].get("fingerprint", ""))


def scores(recipes: list[str], source: str, seeds: int) -> dict[str, list[Score]]:
    """Return the seeds' finished files by what the table calls them."""
    found: dict[str, list[Score]] = {}
    for text in recipes:
        for seed in range(seeds):
            # A seed that was never trained has no files.
            with suppress(ModelError):
                for method, name in files(text, source, seed):
                    form = method.rpartition("+")[2]
                    found.setdefault(method, []).extend(_score(name, form))
    return found


def _score(name: str, form: str) -> Iterator[Score]:
    if not (is_finished(name) and is_finished(test_name(name))):
        return
    made: dict[str, Any] = metrics_of(name)["variants"][form]
    test = metrics_of(test_name(name))["test"]
    yield Score(
        made["bytes"],
        made["gzip_bytes"],
        100 * made["accuracy_val"],
        100 * test["accuracy"],
    )


def measured(benchmark: str) -> dict[str, BenchmarkRow]:
    """Return what one thread made of each model of a run of `bloodedge benchmark`.

    Raises:
        RunError, DataError: no such run, or its result is damaged.
    """
    result = load_result(load_run(runs_root() / benchmark).path / RESULT_FILE)
    return {row.model.removesuffix(".tflite"): row for row in result.rows if row.threads == 1}


def table(recipes: list[str], source: str, seeds: int, measured: Mapping[str, BenchmarkRow]) -> str:
    """Return what is there as Markdown: means over seeds; MACs and latency of the first's file."""
    found = scores(recipes, source, seeds)
    real = found.get("float32", [])
    lines = [
        "| method | seeds | KB | KB gzip | MACs | µs | val, % | test, % | against float32 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for text in recipes:
        for method, name in files(text, source, 0):
            lines.append(_line(method, found[method], real, measured.get(name)))
    return "\n".join(lines)


def _line(method: str, found: list[Score], real: list[Score], row: BenchmarkRow | None) -> str:
    if not found:
        return f"| {method} | 0 | not run yet | | | | | | |"

    def of(figure: Callable[[Score], float], some: list[Score] = found) -> float:
        return mean(map(figure, some))

    spread = f" ± {stdev(s.test for s in found):.2f}" if len(found) > 1 else ""
    against = ""
    if method != "float32" and len(found) == len(real):
        against = f"{of(lambda s: s.test) - of(lambda s: s.test, real):+.2f}"
    macs = f"{row.work.macs / 1e6:.1f} M" if row and row.work else "not measured"
    time = f"{row.median_us:,.1f}" if row and row.median_us else "not measured"
    return (
        f"| {method} | {len(found)} | {of(lambda s: s.size) / 1000:.1f} | "
        f"{of(lambda s: s.gzip) / 1000:.1f} | {macs} | {time} | "
        f"{of(lambda s: s.val):.2f} | {of(lambda s: s.test):.2f}{spread} | {against} |"
    )


def main() -> None:
    """Run or show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("action", choices=("run", "show"))
    parser.add_argument("--data", help="as for `bloodedge train`")
    parser.add_argument("--source", default=SOURCE, help=f"[{SOURCE}]")
    parser.add_argument("--seeds", type=int, default=3, help="[3]")
    parser.add_argument("--recipes", default=",".join(RECIPES), help="with commas between [all]")
    parser.add_argument("--epochs", type=int, help="of every step [each step's own]")
    parser.add_argument("--benchmark", help="the run that measured the first seed's files")
    args = parser.parse_args()
    recipes = args.recipes.split(",")
    if args.action == "run":
        if not args.data:
            parser.error("--data is needed")
        use_backend()
        run(recipes, args.source, args.seeds, load_data(args.data), args.epochs)
    print(
        table(recipes, args.source, args.seeds, measured(args.benchmark) if args.benchmark else {})
    )


if __name__ == "__main__":
    sys.exit(exit_code(main))
