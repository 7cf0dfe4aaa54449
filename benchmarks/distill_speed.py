"""What stored answers of a teacher save: distillation with them against a live teacher, in one run.

    python -m bloodedge.benchmarks.distill_speed [--teacher vgg16] [--student cnn_se] [--batch 64]
        [--steps 4] [--epochs 60] [--backend B] [--precision P]

Both ways train on the same noise, in turns. The stored answers cost eight passes of the teacher
over the images once; the live teacher costs one every epoch.
"""

from __future__ import annotations

import argparse
import sys
from statistics import median

import numpy as np

from bloodedge.backend import use_backend
from bloodedge.benchmarks.comparison import exit_code
from bloodedge.benchmarks.train_speed import CLASSES, SIDE, random_split, seconds_of
from bloodedge.compress.targets import KdConfig, LiveTeachers, SoftLabels
from bloodedge.train.augment import VIEWS
from bloodedge.train.config import PRECISIONS, FitConfig
from bloodedge.train.device import precision, resolve_precision
from bloodedge.train.loop import predict_logits
from bloodedge.train.registry import ModelConfig, build
from bloodedge.train.targets import Targets
from bloodedge.train.trainer import Trainer

_ROUNDS = 5


def main() -> None:
    """Measure and print the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--teacher", default="vgg16", help="a model to build [vgg16]")
    parser.add_argument("--student", default="cnn_se", help="[cnn_se]")
    parser.add_argument("--batch", type=int, default=64, help="images a step [64]")
    parser.add_argument("--steps", type=int, default=4, help="steps a round [4]")
    parser.add_argument("--epochs", type=int, default=60, help="a distillation's [60]")
    parser.add_argument("--backend", help="tensorflow, jax or torch")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    args = parser.parse_args()
    keras = use_backend(args.backend)
    split = random_split(args.steps * args.batch)
    fit = FitConfig(epochs=10_000, batch=args.batch)
    half = resolve_precision(args.precision)
    with precision(half):
        teacher = build(ModelConfig(args.teacher, CLASSES, SIDE), size=SIDE)
        students = {
            way: build(ModelConfig(args.student, CLASSES, SIDE)) for way in ("stored", "live")
        }
    answers = np.zeros((len(split), VIEWS, CLASSES), np.float16)
    ways: dict[str, Targets] = {
        "stored": SoftLabels(split.labels, answers, KdConfig()),
        "live": LiveTeachers(split.labels, (teacher,), KdConfig()),
    }
    trainers = {way: Trainer(students[way], split, t, fit) for way, t in ways.items()}
    taken: dict[str, list[float]] = {"stored": [], "live": [], "teacher": []}
    for number in range(_ROUNDS + 1):
        for way, trainer in trainers.items():
            taken[way].append(seconds_of(lambda t=trainer, n=number: t.train_epoch(n, SIDE)))  # type: ignore[misc]
        taken["teacher"].append(seconds_of(lambda: predict_logits(teacher, split.images)))
    # The first round compiles.
    rate = {way: len(split) / median(times[1:]) for way, times in taken.items()}
    # Seconds for each image of the set: of the whole distillation, either way.
    stored = VIEWS / rate["teacher"] + args.epochs / rate["stored"]
    live = args.epochs / rate["live"]
    print(
        f"{keras.backend.backend()} in {half}, {args.teacher} teaches {args.student}, "
        f"batch {args.batch}\n"
        f"a step of distillation: {rate['stored']:,.1f} images/s with stored answers, "
        f"{rate['live']:,.1f} with the teacher live: ratio {rate['stored'] / rate['live']:.1f}\n"
        f"answers over {VIEWS} views: {rate['teacher']:,.1f} images/s\n"
        f"{args.epochs} epochs, the answers included: ratio {live / stored:.1f}"
    )


if __name__ == "__main__":
    sys.exit(exit_code(main))
