"""Reading one image file, of any size or bit depth, into the square RGB the models take."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.errors import ConfigError, DataError
from bloodedge.frames import several
from bloodedge.tiff import misread

# How the files of a folder that are taken for images end, in any case.
IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".bmp", ".dib", ".tif", ".tiff"),
    *(".webp", ".gif", ".pbm", ".pgm", ".ppm", ".pnm"),
)
MAX_FILE_BYTES = 200 << 20
MAX_PIXELS = 100_000_000
_FOURTEEN_BITS = 1 << 14


def read_image(path: Path, size: int, crop: int | None = None) -> NDArray[np.uint8]:
    """Read an image file as the models take it; see `decode_image`.

    Args:
        path: the file.
        size: side of the result, in pixels.
        crop: side of the central square that is used, in pixels of the file.

    Returns:
        uint8 RGB of shape (size, size, 3).

    Raises:
        DataError: it is no file, is larger than 200 MB or 100 megapixels, is smaller than `crop`,
            is no image, several, or one whose channels or values have no meaning here.
        ConfigError: OpenCV is not installed.
    """
    return decode_image(read_bytes(path), size, str(path), crop)


def is_image_name(path: Path) -> bool:
    """Whether a file of a folder is called as an image is."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def read_bytes(path: Path) -> bytes:
    """Read an image file's bytes.

    Raises:
        DataError: the file is missing, cannot be read, or is larger than 200 MB.
    """
    try:
        # Only ordinary files: reading a pipe or a device could wait for ever.
        if not path.is_file():
            raise DataError(f"{path} is not a file", expected="an image")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MB", expected="an image")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def decode_image(data: bytes, size: int, name: str, crop: int | None = None) -> NDArray[np.uint8]:
    """Decode an image, cut its central square and resize it.

    Grey becomes RGB, 16-bit values are scaled to 8 bits, floats are taken as 0 to 1, and what is
    transparent shows white, as empty glass does. The EXIF orientation is ignored: a cell has
    no upright. Pixel areas are averaged when shrinking, a cubic is fitted when enlarging.

    Args:
        data: the bytes of an image file in a format OpenCV reads.
        size: side of the result, in pixels.
        name: what to call the image in an error.
        crop: side of the central square in pixels; by default as large as it can be.

    Returns:
        uint8 RGB of shape (size, size, 3).

    Raises:
        DataError: the bytes are no whole image, several, one above 100 megapixels, one smaller
            than `crop`, one whose channels or values have no meaning here, or a TIFF that OpenCV
            would misread.
        ConfigError: OpenCV is not installed.
    """
    cv2 = opencv()
    square = _rgb8(_central_square(_decode(data, name), name, crop), name)
    way = cv2.INTER_AREA if len(square) > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(square, (size, size), interpolation=way), np.uint8)


def opencv() -> Any:
    """Import OpenCV when it is first needed: a training host without it still starts.

    Raises:
        ConfigError: it is not installed.
    """
    # OpenCV reads this when it is loaded, and then refuses by the header, before it decodes. If
    # it was loaded before, its own limit of 2^30 pixels holds and `_decode` refuses afterwards.
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
    try:
        import cv2
    except ImportError as error:
        raise ConfigError(
            f"reading images needs OpenCV ({error})", fix="pip install opencv-python-headless"
        ) from error
    # A damaged file gets one line from here; OpenCV's own would be printed above it.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


def _decode(data: bytes, name: str) -> NDArray[Any]:
    """Return the pixels as stored: (H, W) grey, or (H, W, C) in OpenCV's order BGR or BGRA."""
    cv2 = opencv()
    pixels = None
    # Older OpenCV paints the missing part of a truncated JPEG grey and says nothing.
    truncated = data.startswith(b"\xff\xd8") and b"\xff\xd9" not in data
    if data and not truncated:
        try:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            if "MAX_IMAGE_PIXELS" in str(error):
                raise _too_large(name) from error
    if pixels is None:
        raise DataError(
            f"{name} cannot be read as an image",
            expected="a whole PNG, JPEG, TIFF, BMP or other file that OpenCV reads",
            fix="replace the file, or move it away",
        )
    if pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
        raise _too_large(name)
    if kind := several(data):
        raise DataError(
            f"{name} is {kind}",
            expected="one picture in a file",
            fix="save each of them as a file of its own",
        )
    if reason := misread(data, pixels):
        raise DataError(
            f"{name} cannot be read as it is meant: {reason}",
            expected="grey or RGB, interleaved and opaque, if it is a TIFF",
            fix="save it as PNG",
        )
    return np.asarray(pixels)


def _too_large(name: str) -> DataError:
    return DataError(
        f"{name} has more than {MAX_PIXELS // 10**6} megapixels",
        expected="a photograph of one cell",
        fix="cut the cells out of it first",
    )


def _central_square(pixels: NDArray[Any], name: str, crop: int | None) -> NDArray[Any]:
    height, width = pixels.shape[:2]
    side = crop or min(height, width)
    if side > min(height, width):
        raise DataError(
            f"{name} has {width}x{height} pixels",
            expected=f"at least {side}x{side}, which --crop cuts out",
        )
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def _rgb8(pixels: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Turn stored pixels into uint8 RGB of shape (H, W, 3)."""
    cv2 = opencv()
    values = np.ascontiguousarray(_eight_bits(pixels, name))
    channels = 1 if values.ndim == 2 else values.shape[2]
    if channels == 1:
        return np.asarray(cv2.cvtColor(values, cv2.COLOR_GRAY2RGB), np.uint8)
    if channels == 3:
        return np.asarray(cv2.cvtColor(values, cv2.COLOR_BGR2RGB), np.uint8)
    if channels != 4:
        raise DataError(f"{name} has {channels} channels", expected="1, 3, or 4 with transparency")
    colour, alpha = values[..., 2::-1], values[..., 3:] / np.float32(255.0)
    return np.asarray(np.rint(colour * alpha + 255.0 * (1.0 - alpha)), np.uint8)


def _eight_bits(pixels: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        colour = pixels[..., :3] if pixels.ndim == 3 else pixels
        if 0 < (brightest := int(colour.max())) < _FOURTEEN_BITS:
            # Cells would be all but black, and no camera leaves a bright field so dark.
            raise DataError(
                f"{name} has 16 bits, of which it uses few: its brightest value is {brightest}",
                expected="values up to 65535",
                fix="multiply 12-bit values by 16, 14-bit values by 4",
            )
        # 65535 = 257 * 255, so this is exact rounding.
        return np.asarray((pixels.astype(np.uint32) + 128) // 257, np.uint8)
    if pixels.dtype.kind == "f" and pixels.min() >= 0.0 and pixels.max() <= 1.0:
        return np.asarray(np.rint(pixels * 255.0), np.uint8)
    raise DataError(
        f"{name} holds {pixels.dtype} values from {pixels.min()} to {pixels.max()}",
        expected="8 or 16 bits without sign, or floats from 0 to 1",
    )
