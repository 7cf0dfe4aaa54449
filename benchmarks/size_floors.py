"""How close each file comes to its floor, and what the rest of it is.

    python -m bloodedge.benchmarks.size_floors [MODEL...] [--out benchmarks/results]

MODEL is a run, an export run, a file, a model of the zoo, or NAME:WIDTH, a registered model that is
built with random weights: sizes do not depend on what was learnt, as long as no two parts are
equal, which would be stored once. The floor is that of the project: weights and biases plus 4 KiB
or 10 %, whichever is more. Writes `size_floors.md` and `.json`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bloodedge.benchmarks.comparison import exit_code
from bloodedge.benchmarks.recorded import RESULTS, record
from bloodedge.console import say
from bloodedge.deploy.flat.bytemap import ByteMap, map_bytes
from bloodedge.errors import ModelError
from bloodedge.references import find_models

STEM = "size_floors"
COMMAND = f"python -m bloodedge.benchmarks.{STEM}"
STUDENTS = ("cnn_se:1", "cnn_se_nano:1", "cnn_se_pico:1")
_CLASSES, _SIDE, _CALIBRATION = 8, 64, 8
_TABLES = ("scales", "zero points")
# An author and a licence of ordinary length.
_MAKER = ("A. N. Author", "CC BY 4.0")


def files(name: str) -> Iterator[tuple[str, bytes]]:
    """Yield each .tflite that a name means, with its title.

    Raises:
        ModelError: nothing is known by that name.
    """
    try:
        found = find_models(name)
    except ModelError:
        yield from _converted(name, _random(name))
        return
    for reference in found:
        if reference.is_tflite:
            yield reference.path.stem, reference.path.read_bytes()
        else:
            from bloodedge.backend import use_backend

            use_backend("tensorflow")
            from bloodedge.train.restore import restore

            yield from _converted(reference.name, restore(reference))


def _random(name: str) -> Any:
    from bloodedge.backend import use_backend

    keras = use_backend("tensorflow")
    from bloodedge.train.registry import ModelConfig, build

    model, _, width = name.partition(":")
    try:
        factor = float(width)
    except ValueError:
        raise ModelError(
            f"no run, file or zoo model {name!r}", expected="one of them, or NAME:WIDTH"
        ) from None
    keras.utils.set_random_seed(0)
    net = build(ModelConfig(model, _CLASSES, _SIDE, factor), size=_SIDE)
    # Biases start as zeros, all of them equal; the squares keep variances positive.
    rng = np.random.default_rng(0)
    net.set_weights([w + rng.normal(0, 0.02, w.shape) ** 2 for w in net.get_weights()])
    return net


def _converted(name: str, model: Any) -> Iterator[tuple[str, bytes]]:
    """Convert to every variant, as an export does, with provenance of the usual length."""
    from bloodedge._version import __version__
    from bloodedge.data.synthetic_set import load_synthetic
    from bloodedge.deploy.convert import ALL_VARIANTS, convert
    from bloodedge.deploy.ends import name_ends
    from bloodedge.deploy.metadata import About, describe_use, provenance
    from bloodedge.deploy.seal import seal

    side = int(model.input_shape[1])
    data = load_synthetic(_CALIBRATION, side)
    figures = {"images": 3421, "accuracy": 0.1234, "parent": 0.1234, "agreement": 0.1234}
    about = describe_use(data.title)
    for variant in ALL_VARIANTS:
        say(f"{name}: {variant}")
        own = provenance(parent="0" * 64, data="0" * 64, synthetic=True, val=figures, failed=())
        told = About(
            f"{name.partition(':')[0]}-s0-{variant}", about, f"bloodedge {__version__}", *_MAKER
        )
        try:
            raw = convert(model, variant, data["train"].images[:_CALIBRATION])
        except ModelError as error:
            # 16x8 knows no HARD_SWISH.
            say(f"{name}: left out: {error}")
            continue
        yield f"{name} {variant}", seal(name_ends(raw), told, own, data.class_names)


def row(found: ByteMap) -> dict[str, Any]:
    """Return a file's figures in bytes; `above_floor` is negative for a file within its floor."""
    return {
        "bytes": found.total,
        "weights_and_biases": found.constants,
        "floor": found.lean_limit,
        "added": found.added,
        "above_floor": found.above_floor,
        "quantization_tables": sum(found.purposes[purpose] for purpose in _TABLES),
        "purposes": {purpose: count for purpose, count in found.purposes.items() if count},
    }


def render(found: Mapping[str, Any]) -> str:
    """Return the recorded JSON as Markdown."""
    rows = found["files"]
    purposes = list(dict.fromkeys(p for entry in rows.values() for p in entry["purposes"]))
    lines = [
        "# Sizes against the floor",
        "",
        f"`{found['command']}`, in bytes. Floor: weights and biases plus 4,096 or 10 %, whichever "
        "is more.",
        "Metadata and labels (at most 1 KB, for Android Studio, MediaPipe and provenance) come on "
        "top and are",
        "not held against it. Registered models are built with random weights, no two parts "
        "equal: sizes do",
        "not depend on what was learnt, but for which layers `mixed` leaves in float.",
        "",
        "| file | bytes | weights and biases | floor | without metadata and labels, against the "
        "floor | scales and zero points | metadata and labels |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, entry in rows.items():
        over = entry["above_floor"]
        verdict = f"{over:+,} ({'above' if over > 0 else 'within'})"
        cells = (entry["bytes"], entry["weights_and_biases"], entry["floor"])
        more = (entry["quantization_tables"], entry["added"])
        lines.append(
            f"| {name} | {' | '.join(f'{c:,}' for c in cells)} | {verdict} | "
            f"{' | '.join(f'{c:,}' for c in more)} |"
        )
    lines += ["", "## What each byte is for", "", f"| file | {' | '.join(purposes)} |"]
    lines.append("| --- " * (1 + len(purposes)) + "|")
    for name, entry in rows.items():
        counts = (f"{entry['purposes'].get(p, 0):,}" for p in purposes)
        lines.append(f"| {name} | {' | '.join(counts)} |")
    lines += ["", *_CONCLUSION]
    return "\n".join(lines) + "\n"


_CONCLUSION = (
    "Where a file is above its floor, the scales and zero points are why: int8 and 16x8 give every",
    "output channel a scale of 4 bytes for its weights and one for its bias. Zero points of 8",
    "bytes are stored once for each number of channels; the scales differ. Without these tables",
    "every file is within its floor. What was tried to do without them, on the shipped student",
    "(`tests/test_scales.py` repeats it):",
    "",
    "- One zero point for all channels: LiteRT and TFLite refuse the file.",
    "- A bias without scales: the answers stay, but XNNPACK leaves those convolutions to slower",
    "  kernels.",
    "- A bias with one scale: LiteRT and TFLite fail to start.",
    "- A bias that refers to the scales of its weights: the answers stay on every processor, in a",
    "  file that is 1.2 KB smaller and yet above the floor. GPU delegates multiply a bias by its",
    "  own scales and would answer wrongly without a word, so it was not done.",
)


def main(words: Sequence[str] | None = None) -> None:
    """Map every file and write the table."""
    parser = argparse.ArgumentParser(prog=COMMAND)
    parser.add_argument("models", nargs="*", default=list(STUDENTS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parsed = parser.parse_args(words)
    rows = {title: row(map_bytes(c)) for name in parsed.models for title, c in files(name)}
    named = [] if parsed.models == list(STUDENTS) else parsed.models
    found = {
        "schema": "bloodedge-size-floors/1",
        "command": " ".join([COMMAND, *named]),
        "files": rows,
    }
    record(parsed.out, STEM, found, render)


if __name__ == "__main__":
    sys.exit(exit_code(main))
