"""What every training command does first, the cheap refusals before the heavy imports."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bloodedge.data.dataset import Dataset


def start_training(
    data: str, *, size: int | None, backend: str | None, devices: str, batch: int
) -> Dataset:
    """Load the data and make Keras ready on its backend and devices.

    Raises:
        ConfigError: no such backend, or so many devices cannot share a batch.
        DataError: the data is missing or damaged.
    """
    from bloodedge.backend import check_backend, use_backend
    from bloodedge.data.sources import load_data
    from bloodedge.train.device import spread_over

    check_backend(backend)
    images = load_data(data, size=size)
    use_backend(backend)
    spread_over(devices, batch)
    return images
