"""Options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from typing import Annotated

import typer

Data = Annotated[
    str,
    typer.Option(
        "--data",
        envvar="BLOODEDGE_DATA",
        help="bloodmnist or another 2D MedMNIST set, an .npz in its layout, a folder with one "
        "sub-folder per class, or synthetic.",
    ),
]
Size = Annotated[
    int | None,
    typer.Option("--size", help="Side of the images in pixels; by default 64, or the file's own."),
]
Name = Annotated[str | None, typer.Option("--name", help="The run's name.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a run of that name.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
Seed = Annotated[int, typer.Option("--seed", help="Fixes every random draw.")]
Backend = Annotated[
    str | None,
    typer.Option(
        "--backend", help="tensorflow, jax or torch; by default KERAS_BACKEND, or tensorflow."
    ),
]
Recipe = Annotated[
    str,
    typer.Option(
        "--recipe",
        help="strong; robust: for images from other cameras, too; "
        "study: the original study's 20 epochs without augmentation.",
    ),
]
# None means the recipe's own value.
Epochs = Annotated[int | None, typer.Option("--epochs", help="Passes over the training images.")]
Batch = Annotated[int | None, typer.Option("--batch", help="Images a step.")]
Rate = Annotated[float | None, typer.Option("--lr", help="Peak learning rate.")]
Average = Annotated[
    float | None,
    typer.Option("--ema", help="Momentum of the running average of the weights; 0 for none."),
]
Precision = Annotated[
    str,
    typer.Option("--precision", help="float32, bfloat16, or auto: bfloat16 on a GPU or TPU."),
]
Devices = Annotated[
    str,
    typer.Option(
        "--devices",
        help="How many devices, or cores with TensorFlow, share a batch: a number, or all.",
    ),
]
Coordinator = Annotated[
    str,
    typer.Option(
        "--coordinator",
        envvar="KERAS_DISTRIBUTION_JOB_ADDRESSES",
        help="ADDRESS:PORT of the first of several hosts (JAX).",
    ),
]
HostCount = Annotated[
    int,
    typer.Option(
        "--hosts", envvar="KERAS_DISTRIBUTION_NUM_PROCESSES", help="How many hosts train together."
    ),
]
HostNumber = Annotated[
    int,
    typer.Option(
        "--host", envvar="KERAS_DISTRIBUTION_PROCESS_ID", help="Which of them this is, from 0."
    ),
]
Width = Annotated[float, typer.Option("--width", help="Multiplies the number of channels.")]
Attention = Annotated[
    str,
    typer.Option("--attention", help="none, se or cbam; by default the model's own design."),
]
Temperature = Annotated[float, typer.Option("--temperature", help="Softens teacher and student.")]
# None means the method's own value.
Alpha = Annotated[
    float | None,
    typer.Option(
        "--alpha",
        help="Weight of the teacher against the labels, 0 to 1; by default the method's own.",
    ),
]
Teachers = Annotated[
    list[str] | None,
    typer.Option(
        "--teacher",
        help="Whose logits to learn: a run's name, a path, or a model of the zoo. Given several "
        "times: their mean.",
    ),
]
Method = Annotated[
    str,
    typer.Option(
        "--method",
        help="Loss of learning from a teacher: kd, dkd, dist, feature; distill has patient as well "
        "(live, blended images, no labels).",
    ),
]
TeacherViews = Annotated[
    int,
    typer.Option(
        "--teacher-views",
        help="Over how many of the eight flips and turns the teacher runs: 1, 2, 4 or 8.",
    ),
]
Layers = Annotated[
    list[str] | None,
    typer.Option("--layer", help="Change this layer, not the default choice; may be repeated."),
]
# Of pruning channels, under one of the first three.
Macs = Annotated[
    float | None, typer.Option("--macs", help="Channels: share of multiply-accumulates to keep.")
]
Kb = Annotated[
    float | None,
    typer.Option("--kb", help="Channels: KB of int8 weights to keep, without the file's tables."),
]
Ratio = Annotated[
    float | None, typer.Option("--ratio", help="Channels: share of their number to keep.")
]
Importance = Annotated[
    str, typer.Option("--importance", help="What ranks channels: taylor, l1 or bn.")
]
Floor = Annotated[
    float, typer.Option("--floor", help="Share of its channels that every layer keeps.")
]
MaxDrop = Annotated[
    float | None, typer.Option("--max-drop", help="Largest loss of accuracy: 0.01 is one point.")
]
MaxClassDrop = Annotated[
    float | None, typer.Option("--max-class-drop", help="Largest loss of any cell type's recall.")
]
MaxEce = Annotated[
    float | None, typer.Option("--max-ece", help="Largest rise of the calibration error (ECE).")
]
Runtime = Annotated[
    str,
    typer.Option(
        "--runtime",
        help="Where it will run: litert, tflite-runtime, tf-lite, tflite-micro or litert-js.",
    ),
]
