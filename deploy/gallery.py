"""Contact sheets: images side by side, each with a line of text below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bloodedge.figures import new_figure, save_figure

# More than this on one sheet cannot be told apart.
MAX_CELLS = 100
_COLUMNS = 8


def contact_sheet(
    images: Sequence[NDArray[np.uint8]], captions: Sequence[str], title: str, path: Path
) -> None:
    """Draw the first `MAX_CELLS` of the images `(H, W, 3)`."""
    shown = list(zip(images, captions, strict=True))[:MAX_CELLS]
    columns = max(1, min(_COLUMNS, len(shown)))
    rows = max(1, math.ceil(len(shown) / columns))
    figure = new_figure(1.5 * columns + 0.5, 1.9 * rows + 0.6)
    axes = np.atleast_1d(figure.subplots(rows, columns)).reshape(-1)
    for axis in axes:
        axis.set_axis_off()
    for axis, (image, caption) in zip(axes, shown, strict=False):
        axis.imshow(image)
        axis.set_title(caption, fontsize=5.5, parse_math=False)
    figure.suptitle(title, fontsize=9, parse_math=False)
    save_figure(figure, path)
