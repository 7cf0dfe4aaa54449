"""What several models say together: a bound for what one can learn from them, on val.

    python -m bloodedge.benchmarks.ensemble --data D MODEL... [--size S] [--views N] [--split test]

MODEL is what `bloodedge evaluate` takes. Prints the accuracy of each model, of the mean of their
probabilities over every number of them, in the order given, and how many images all misread. With
`--views 2` to 8 a model says the mean of what it says of so many flips and turns of an image.
Test is read with `--split test` alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bloodedge.benchmarks.comparison import exit_code
from bloodedge.benchmarks.open_models import open_models
from bloodedge.console import say
from bloodedge.data.sources import load_data
from bloodedge.errors import check_range
from bloodedge.metrics import wilson_interval
from bloodedge.train.augment import VIEWS, view_of

Probabilities = NDArray[np.float32]


def table(said: Mapping[str, Probabilities], labels: NDArray[np.int64]) -> str:
    """Return the accuracies as Markdown.

    Args:
        said: what each model says, `(N, C)`, by its name.
        labels: the classes, `(N,)`.
    """
    lines = ["| model | alone, % [95 %] | with all above, % |", "| --- | --- | --- |"]
    total = np.zeros(next(iter(said.values())).shape)
    for count, (name, p) in enumerate(said.items()):
        total += p
        together = f"{100 * np.mean(total.argmax(axis=1) == labels):.2f}" if count else ""
        right = int((p.argmax(axis=1) == labels).sum())
        low, high = wilson_interval(right, len(labels))
        alone = f"{100 * right / len(labels):.2f} [{100 * low:.2f}, {100 * high:.2f}]"
        lines.append(f"| `{name}` | {alone} | {together} |")
    wrong = np.all([p.argmax(axis=1) != labels for p in said.values()], axis=0)
    return "\n".join(
        [*lines, "", f"{int(wrong.sum())} of {len(labels):,} images are misread by all."]
    )


def over_views(
    ask: Callable[[NDArray[np.uint8]], Probabilities], images: NDArray[np.uint8], views: int
) -> Probabilities:
    """Return the mean of what a model says of the first of the eight flips and turns.

    Args:
        ask: returns `(N, C)` of `(N, S, S, 3)` images.
        images: the images.
        views: how many flips and turns, the image as it is the first of them.
    """
    turned = (np.ascontiguousarray(view_of(images, view)) for view in range(views))
    said: Probabilities = np.stack([ask(each) for each in turned]).mean(axis=0)
    return said


def main(words: Sequence[str] | None = None) -> None:
    """Ask every model about each image, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--data", required=True, help="as for `bloodedge evaluate`")
    parser.add_argument("--size", type=int, help="likewise")
    parser.add_argument("--views", type=int, default=1, help="flips and turns of each image [1]")
    parser.add_argument("--split", choices=("val", "test"), default="val", help="[val]")
    args = parser.parse_args(words)
    check_range("--views", args.views, 1, VIEWS)
    data = load_data(args.data, size=args.size)
    asked, said = data[args.split], {}
    for name, model in open_models(args.models, data).items():
        say(f"{name}: {len(asked):,} {args.split} images of {data.title}")
        said[name] = over_views(model.probabilities, asked.images, args.views)
    print(table(said, asked.labels))


if __name__ == "__main__":
    sys.exit(exit_code(main))
