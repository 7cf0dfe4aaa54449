from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodedge import images
from bloodedge.errors import DataError
from bloodedge.frames import several
from bloodedge.images import decode_image, read_image

RGB = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


def encode(pixels: np.ndarray, suffix: str = ".png") -> bytes:
    return bytes(cv2.imencode(suffix, pixels)[1].tobytes())


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm"])
def test_lossless_formats_give_the_same_rgb(suffix: str) -> None:
    np.testing.assert_array_equal(decode_image(encode(RGB[..., ::-1], suffix), 16, "x"), RGB)


def test_sixteen_bits_are_scaled_and_rounded() -> None:
    deep = RGB[..., ::-1].astype(np.uint16) * 257
    np.testing.assert_array_equal(decode_image(encode(deep), 16, "x"), RGB)
    # Halfway between two levels a 16-bit value is at most 128/257 away from one of them.
    for more, level in ((128, 0), (129, 1)):
        between = deep + np.uint16(more) * (deep < 65535)
        nearest = RGB + np.uint8(level) * (RGB < 255)
        np.testing.assert_array_equal(decode_image(encode(between), 16, "x"), nearest)


def test_twelve_bits_in_sixteen_are_not_shown_almost_black() -> None:
    deep = RGB[..., ::-1].astype(np.uint16) * 16
    opaque = np.full((16, 16, 1), 65535, np.uint16)
    for dark in (deep, deep * 4, np.dstack([deep, opaque])):
        with pytest.raises(DataError, match=r"of which it uses few: .* multiply 12-bit values by"):
            decode_image(encode(dark), 16, "x")
    np.testing.assert_array_equal(decode_image(encode(deep * 0), 16, "x"), RGB * 0)


def test_a_crop_takes_the_central_square_of_so_many_pixels() -> None:
    wide = np.zeros((20, 30, 3), np.uint8)
    wide[2:18, 7:23] = RGB
    np.testing.assert_array_equal(decode_image(encode(wide[..., ::-1]), 16, "x", crop=16), RGB)
    with pytest.raises(DataError, match=r"x has 30x20 pixels; expected at least 21x21"):
        decode_image(encode(wide), 16, "x", crop=21)


def test_grey_and_palette_like_values_fill_all_channels() -> None:
    got = decode_image(encode(RGB[..., 0]), 16, "x")
    np.testing.assert_array_equal(got, np.repeat(RGB[..., :1], 3, axis=2))


@pytest.mark.parametrize("alpha", [0, 51, 255])
def test_what_is_transparent_shows_white(alpha: int) -> None:
    layered = np.dstack([RGB[..., ::-1], np.full((16, 16), alpha, np.uint8)])
    exact = RGB * (alpha / 255) + 255 * (1 - alpha / 255)
    assert np.abs(decode_image(encode(layered), 16, "x") - exact).max() <= 0.5 + 1e-4


def test_float_images_are_zero_to_one() -> None:
    unit = (RGB[..., ::-1] / 255).astype(np.float32)
    np.testing.assert_array_equal(decode_image(encode(unit, ".tif"), 16, "x"), RGB)
    for wrong in (unit * 2, unit - 1, np.full_like(unit, np.nan)):
        with pytest.raises(DataError, match="floats from 0 to 1"):
            decode_image(encode(wrong, ".tif"), 16, "x")


def test_signed_values_are_refused() -> None:
    with pytest.raises(DataError, match="without sign"):
        decode_image(encode(RGB.astype(np.int16), ".tif"), 16, "x")


def test_shrinking_averages_areas() -> None:
    got = decode_image(encode(RGB[..., ::-1]), 8, "x")
    mean = RGB.reshape(8, 2, 8, 2, 3).mean(axis=(1, 3))
    assert np.abs(got - mean).max() <= 0.5


def test_enlarging_is_cubic() -> None:
    want = cv2.resize(RGB, (40, 40), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(decode_image(encode(RGB[..., ::-1]), 40, "x"), want)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(8, 24))
def test_the_central_square_is_taken(height: int, width: int, size: int) -> None:
    side = min(height, width)
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - side) // 2, (width - side) // 2
    canvas[top : top + side, left : left + side] = (10, 20, 30)
    got = decode_image(encode(canvas), size, "x")
    assert got.shape == (size, size, 3)
    assert (got == (30, 20, 10)).all()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_truncated_images_are_refused(suffix: str, share: float) -> None:
    large = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    whole = encode(large, suffix)
    with pytest.raises(DataError, match=r"cells/a.* cannot be read as an image"):
        decode_image(whole[: int(len(whole) * share)], 16, "cells/a")


@pytest.mark.parametrize(("kind", "suffix"), [("GIF", "gif"), ("PNG", "png"), ("WebP", "webp")])
def test_an_animation_is_refused_and_one_frame_read(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"cell.{suffix}"
    frames = np.random.default_rng(2).integers(0, 256, (3, 40, 40, 3), np.uint8)
    for number in (1, 2, 3):
        animation = cv2.Animation()
        animation.frames, animation.durations = list(frames[:number]), [100] * number
        assert cv2.imwriteanimation(str(path), animation)
        assert cv2.imcount(str(path)) == number
        if number == 1:
            assert read_image(path, 16).shape == (16, 16, 3)
            continue
        with pytest.raises(DataError, match=f"is a {kind} of {number} frames; expected one pic"):
            read_image(path, 16)


def test_frames_are_counted_behind_a_chunk_of_odd_length() -> None:
    """A WebP's chunks begin at even places, with a byte between that no length counts."""

    def chunk(kind: bytes, length: int) -> bytes:
        return kind + struct.pack("<I", length) + bytes(length + length % 2)

    kinds = ((b"VP8X", 10), (b"ICCP", 5), (b"ANIM", 6), (b"ANMF", 17), (b"ANMF", 16))
    body = b"WEBP" + b"".join(chunk(*kind) for kind in kinds)
    assert several(b"RIFF" + struct.pack("<I", len(body)) + body) == "a WebP of 2 frames"


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([b"GIF89a", b"II*\0", b"MM\0+", b"\x89PNG\r\n\x1a\n", b"RIFF1234WEBPVP8X"]),
    st.binary(max_size=200),
)
def test_any_bytes_have_some_number_of_frames(start: bytes, data: bytes) -> None:
    said = several(start + data)
    assert said is None or said.startswith("a ")


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"])
)
def test_any_bytes_are_an_image_or_one_kind_of_error(data: bytes, start: bytes) -> None:
    with pytest.raises(DataError):
        decode_image(start + data, 16, "x")


def test_missing_folder_and_large_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="is not a file"):
        read_image(tmp_path / "no.png", 16)
    with pytest.raises(DataError, match="is not a file"):
        read_image(tmp_path, 16)
    path = tmp_path / "a.png"
    path.write_bytes(encode(RGB))
    assert read_image(path, 16).shape == (16, 16, 3)
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 10)
    with pytest.raises(DataError, match="is larger than"):
        read_image(path, 16)


def test_too_many_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 255)
    with pytest.raises(DataError, match="megapixels"):
        decode_image(encode(RGB), 16, "x")


def test_bombs_are_refused_before_decoding(tmp_path: Path) -> None:
    # 400 megapixels in 70 bytes. In a process of its own, for OpenCV reads its limit at import.
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(20_000, 20_000))
    code = "import sys, pathlib, bloodedge.images as i; i.read_image(pathlib.Path(sys.argv[1]), 64)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert "more than 100 megapixels" in done.stderr


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
