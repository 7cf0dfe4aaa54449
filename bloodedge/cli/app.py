"""The application with its commands; each imports what is heavy when it runs."""

from __future__ import annotations

import typer

from bloodedge.cli import (
    benchmarking,
    bundling,
    clustering,
    compressing,
    distilling,
    evaluating,
    exporting,
    inspecting,
    linting,
    pipelining,
    predicting,
    pruning,
    quantizing,
    reporting,
    training,
    verifying,
)
from bloodedge.cli.data import data_app
from bloodedge.cli.demo import demo
from bloodedge.cli.models import models
from bloodedge.cli.reproducing import reproduce_app
from bloodedge.cli.zoo import zoo

app = typer.Typer(
    name="bloodedge",
    help="Train, compress, verify and benchmark blood-cell classifiers for edge devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")
app.command("models")(models)
app.command("zoo")(zoo)
app.command("train")(training.train)
app.command("distill")(distilling.distill)
app.command("prune")(pruning.prune)
app.command("cluster")(clustering.cluster)
app.command("quantize")(quantizing.quantize)
app.command("sensitivity")(quantizing.sensitivity)
app.command("compress")(compressing.compress)
app.command("pipeline")(pipelining.pipeline)
app.command("lint")(linting.lint)
app.command("export")(exporting.export)
app.command("verify")(verifying.verify)
app.command("inspect")(inspecting.inspect)
app.command("evaluate")(evaluating.evaluate)
app.command("benchmark")(benchmarking.benchmark)
app.command("bundle")(bundling.bundle)
app.command("report")(reporting.report)
app.command("predict")(predicting.predict)
app.add_typer(reproduce_app, name="reproduce")
app.command("demo")(demo)
