"""Images that occur in more than one split: they make a test result look better than it is."""

from __future__ import annotations

import hashlib
from itertools import combinations

from bloodedge.data.dataset import SPLITS, Dataset, Split


def shared_images(data: Dataset) -> dict[tuple[str, str], int]:
    """Count the images of each split that another one holds as well, pixel for pixel.

    Returns:
        For each pair of splits (first, second), how many images of the second are in the first.
    """
    digests = {name: _digests(data[name]) for name in SPLITS}
    held = {name: set(own) for name, own in digests.items()}
    return {
        (first, second): sum(digest in held[first] for digest in digests[second])
        for first, second in combinations(SPLITS, 2)
    }


def _digests(split: Split) -> list[bytes]:
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in split.images]
