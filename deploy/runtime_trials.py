"""Which runtimes of this machine run a finished file, for its model card: tried, not looked up."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bloodedge.deploy.arena import arena_bytes
from bloodedge.deploy.compat import RUNTIMES, check_compatible
from bloodedge.deploy.interpreter import Classifier
from bloodedge.deploy.runtimes import Runtime, installed_runtimes
from bloodedge.errors import ModelError
from bloodedge.metrics import Floats
from bloodedge.text import one_line

# A few: 16x8 of a deep net takes a second for each.
_IMAGES = 4
MICRO = "tflite-micro"
_ARENA = re.compile(r"loads, arena ([0-9,]{1,16}) bytes")


def try_runtimes(path: Path, images: NDArray[np.uint8], answers: Floats) -> dict[str, str]:
    """Return what each runtime makes of a file that was made here, by its name and version.

    Runtimes that are installed run it; an older tflite-runtime that is not is judged by the
    operators it knows.

    Args:
        path: the file.
        images: `(N, S, S, 3)`; a few are asked.
        answers: `(N, C)`, the probabilities it gave for them when it was checked.
    """
    found = {}
    for runtime in installed_runtimes():
        title = f"{runtime.name} {runtime.version}"
        found[title] = _asked(runtime, path, images[:_IMAGES], answers[:_IMAGES])
    if find_spec("tflite_micro") is not None:
        arena = arena_bytes(path.read_bytes())
        title = f"{MICRO} {metadata.version(MICRO)}"
        found[title] = "refused" if arena is None else f"loads, arena {arena:,} bytes"
    for name, (title, _) in RUNTIMES.items():
        if not any(tried.startswith(name) for tried in found):
            found[title] = _by_operators(path, name)
    return found


def recorded_arena(tried: Mapping[str, object]) -> int | None:
    """Return the bytes of TFLite Micro's arena from what `try_runtimes` returned.

    0 where TFLite Micro refused the file, None where it was not tried.
    """
    for title, said in tried.items():
        if title.startswith(MICRO):
            found = _ARENA.fullmatch(str(said))
            return int(found[1].replace(",", "")) if found else 0
    return None


def _asked(runtime: Runtime, path: Path, images: NDArray[np.uint8], answers: Floats) -> str:
    with warnings.catch_warnings():
        # TensorFlow's interpreter says that it is old.
        warnings.simplefilter("ignore")
        try:
            p = Classifier(path, runtime=runtime).predict(images)
        except ModelError as error:
            return f"refused: {one_line(error)}"
    difference = float(np.abs(p - answers).max(initial=0.0))
    return "runs" if difference == 0 else f"runs, up to {difference:.1g} apart"


def _by_operators(path: Path, name: str) -> str:
    try:
        check_compatible(path.read_bytes(), name)
    except ModelError as error:
        return f"not tried; {one_line(error)}"
    return "not tried; knows its operators"
