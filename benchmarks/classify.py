"""Classify pictures on a device, with a model of this bundle.

    python3 classify.py cell.png pictures --crop 200 --csv cells.csv
    python3 classify.py pictures --watch

Needs what runner.py needs, which lies beside it, and Pillow. Pictures are cut and scaled as
`bloodedge predict` does it, to within a grey level. Exit codes: 0 all classified, 1 a picture could
not be read or the table not be written, 2 bad arguments, no runtime or no Pillow, 130 Ctrl-C, with
which --watch ends well. The table of --csv holds what is classified by then.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib
import io
import os
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

# Nothing is left in the bundle: its sums tell what belongs there.
sys.dont_write_bytecode = True
runner: Any = importlib.import_module("runner")
# Only now: runner.py says in a line where NumPy is missing.
import numpy as np  # noqa: E402

try:
    from PIL import Image, UnidentifiedImageError
except ImportError:
    sys.stderr.write("error: Pillow is needed: pip install pillow, or apt install python3-pil\n")
    sys.exit(2)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".bmp", ".dib", ".tif", ".tiff"),
    *(".webp", ".gif", ".pbm", ".pgm", ".ppm", ".pnm"),
)
# What `bloodedge predict` reads as well; others, such as EPS, would start programs.
FORMATS = ("PNG", "JPEG", "MPO", "JPEG2000", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM")
MOST_PIXELS, BYTES_A_PIXEL = 100_000_000, 20
FOURTEEN_BITS = 1 << 14
# A TIFF's tags of what an image is, today's and the one before, and what they say of a smaller copy
# of another; today's also of a mask.
SUBFILE, NO_PAGE = 254, 1 | 4
OLD_SUBFILE, OLD_COPY = 255, 2
ROWS = 256  # of a picture in memory as float32 together


class PictureError(Exception):
    """A picture that cannot be read as it is meant, in one line."""


class Model(NamedTuple):
    """A model that is loaded: its runtime's interpreter, its two ends and its classes."""

    interpreter: Any
    taken: dict[str, Any]
    given: dict[str, Any]
    names: list[str]


# ---- pictures ----


def weights(length: int, size: int) -> NDArray[np.float32]:
    """Return the share `(size, length)` that each old pixel of a line has in each new one.

    Areas are averaged when shrinking, a cubic (a = -0.75) is fitted when enlarging, which is what
    OpenCV's INTER_AREA and INTER_CUBIC do.
    """
    if length > size:
        edges = np.arange(size + 1) * length / size
        pixels = np.arange(length)
        inside = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
        return np.asarray(np.maximum(inside, 0) * size / length, np.float32)
    centres = (np.arange(size) + 0.5) * length / size - 0.5
    reach = 2
    pixels = np.arange(-reach, length + reach)
    far = np.abs(centres[:, None] - pixels)
    near = (1.25 * far - 2.25) * far**2 + 1
    cubic = np.where(far <= 1, near, ((-0.75 * far + 3.75) * far - 6) * far + 3)
    cubic[far >= reach] = 0
    # Beyond the edge the last pixel goes on.
    folded = cubic[:, reach : reach + length].copy()
    folded[:, 0] += cubic[:, :reach].sum(axis=1)
    folded[:, -1] += cubic[:, reach + length :].sum(axis=1)
    return np.asarray(folded, np.float32)


def scaled(square: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return pixels `(n, n, 3)` as `(size, size, 3)`."""
    shares = weights(len(square), size)
    narrow = [
        np.einsum("hwc,sw->hsc", square[start : start + ROWS].astype(np.float32), shares)
        for start in range(0, len(square), ROWS)
    ]
    pixels = np.einsum("hsc,th->tsc", np.concatenate(narrow), shares)
    return np.asarray(np.clip(np.rint(pixels), 0, 255), np.uint8)


def deep(image: Image.Image) -> NDArray[np.uint8]:
    """Return a picture of one channel with more than 8 bits in 8.

    Raises:
        PictureError: its values do not use 16 bits, or are no shares of 1.
    """
    values = np.asarray(image)
    if values.dtype.kind == "f":
        if not (values.min() >= 0 and values.max() <= 1):
            raise PictureError("its values are not between 0 and 1: save it as 8-bit PNG")
        return np.asarray(np.rint(values * 255), np.uint8)
    check_bits(int(values.max()), values.min() >= 0)
    return np.asarray((values.astype(np.uint32) + 128) // 257, np.uint8)


def check_bits(brightest: int, positive: bool = True) -> None:
    """Refuse 12 or 14 bits in 16: cells would be all but black.

    Raises:
        PictureError: so it is.
    """
    if not positive or brightest >= 1 << 16 or 0 < brightest < FOURTEEN_BITS:
        raise PictureError("its values use few of 16 bits: save it as 8-bit PNG")


def rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Return a picture's pixels `(H, W, 3)`; what is transparent is white, as empty glass is."""
    if image.mode[0] in "IF":
        return np.repeat(deep(image)[..., None], 3, axis=-1)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def check_one(image: Image.Image) -> None:
    """Refuse a file of several pictures, of which the first alone would be read.

    The further pictures of a camera's JPEG (MPO) are its previews, and do not count.

    Raises:
        PictureError: so it is.
    """
    is_tiff = image.format == "TIFF"
    count = pages(image) if is_tiff else getattr(image, "n_frames", 1)
    if count > 1 and image.format != "MPO":
        what = f"{image.format} of {count} {'pages' if is_tiff else 'frames'}"
        raise PictureError(f"it is a {what}: save each as a file of its own")


def pages(tiff: Any) -> int:
    """Return how many pages a TIFF has; a smaller copy of another image and a mask are none."""
    count = frame = 1
    with contextlib.suppress(EOFError):
        while True:
            # Pillow has read the tags before it says that it knows no such pixels.
            with contextlib.suppress(SyntaxError):
                tiff.seek(frame)
            kind, old = tiff.tag_v2.get(SUBFILE), tiff.tag_v2.get(OLD_SUBFILE)
            beside = isinstance(kind, int) and kind & NO_PAGE
            count += not beside and old != OLD_COPY
            frame += 1
    tiff.seek(0)
    return count


def central_square(image: Image.Image, crop: int | None) -> NDArray[np.uint8]:
    """Return the pixels `(n, n, 3)` of a picture's central square.

    Raises:
        PictureError: it is of another kind than pictures are, several, or smaller than `crop`.
    """
    if image.format not in FORMATS:
        raise PictureError(f"it is {image.format}: save it as PNG")
    check_one(image)
    width, height = image.size
    side = crop or min(width, height)
    if side > min(width, height):
        raise PictureError(f"it has {width}x{height} pixels, less than {crop}")
    # Pillow keeps the upper 8 of 16 bits in colour.
    upper = ";16" in str([tile[3] for tile in getattr(image, "tile", ())])
    left, top = (width - side) // 2, (height - side) // 2
    pixels = rgb(image.crop((left, top, left + side, top + side)))
    if upper and image.mode[0] not in "IF":
        check_bits(int(pixels.max()) << 8)
    return pixels


def read_picture(path: Path, size: int, crop: int | None) -> NDArray[np.uint8]:
    """Return the central square of a picture file as `(size, size, 3)`.

    Raises:
        PictureError: the file is no whole picture, or several, or too small or too large.
    """
    if not path.is_file():
        raise PictureError("it is no file")
    try:
        with Image.open(path) as image:
            return scaled(central_square(image, crop), size)
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError("it is no picture that Pillow reads") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        most = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise PictureError(f"it has more than {most:.0f} megapixels") from None
    except Exception as error:  # decoders raise all kinds for damaged files
        raise PictureError(runner.one_line(error) or type(error).__name__) from None


def limit_pixels() -> None:
    """Let Pillow refuse by its header what would not fit into half of the memory."""
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS
    with contextlib.suppress(AttributeError, ValueError, OSError):  # not on Windows
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        Image.MAX_IMAGE_PIXELS = min(MOST_PIXELS, memory // 2 // BYTES_A_PIXEL)
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def files_in(paths: Sequence[Path]) -> list[Path]:
    """Return the files, and of each folder the pictures in it, by name, but for hidden ones."""
    found = []
    for path in paths:
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        found += [p for p in inside if p == path or _is_picture(p)]
    return found


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.name[0] != "."


def new_files(paths: Sequence[Path], seconds: float = 0.5) -> Iterator[Path]:
    """Yield the files that are there and then, for ever, each that comes or changes.

    A camera may still be writing what has changed since the last look, or is empty.
    """
    done: dict[Path, tuple[int, int]] = {}
    before: dict[Path, tuple[int, int]] = {}
    while True:
        now = {}
        for path in paths:
            with contextlib.suppress(OSError):  # it may go at any moment, and come back
                for file in files_in([path]):
                    status = file.stat()
                    now[file] = status.st_size, status.st_mtime_ns
        for file, stamp in now.items():
            if stamp[0] and stamp == before.get(file) != done.get(file):
                done[file] = stamp
                yield file
        before = now
        time.sleep(seconds)


# ---- the model ----


def open_model(path: Path, labels: Path) -> Model:
    """Load a model, and name its classes by its own labels, else by the bundle's.

    Raises:
        RunnerError: there is no runtime, the model takes no single square picture in colour, or it
            has several outputs.
    """
    module = importlib.import_module(runner.find_runtime()[2])
    interpreter, _ = runner.load(module.Interpreter, {"model": str(path), "threads": 1})
    taken, outputs = interpreter.get_input_details()[0], interpreter.get_output_details()
    shape = tuple(int(n) for n in taken["shape"])
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
        raise runner.RunnerError(f"it takes {shape}, expected a square picture in colour")
    if shape[0] != 1:
        said = f"it takes a batch of {shape[0]} pictures; export it with a batch of 1"
        raise runner.RunnerError(said)
    if len(outputs) != 1:
        raise runner.RunnerError(f"it has {len(outputs)} outputs, expected one: the classes")
    given = outputs[0]
    classes = int(np.prod(given["shape"]))
    for names in (runner.model_labels(path), runner.read_text(labels).splitlines()):
        if len(names) == classes:
            return Model(interpreter, taken, given, [runner.one_line(name) for name in names])
    return Model(interpreter, taken, given, [f"class {i}" for i in range(classes)])


def probabilities(model: Model, picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return what a model says of a picture `(S, S, 3)`: `(C,)`, in 0..1.

    Raises:
        RunnerError: that are no probabilities.
    """
    fed = runner.prepare(picture[None], model.taken)
    model.interpreter.set_tensor(model.taken["index"], fed)
    model.interpreter.invoke()
    said = model.interpreter.get_tensor(model.given["index"]).reshape(-1).astype(np.float64)
    scale, zero_point = model.given["quantization"]
    # A float output has a scale of 0.
    p = np.asarray((said - zero_point) * scale if scale else said)
    # A code is off by up to half a step for each class.
    summed = abs(p.sum() - 1) <= 0.02 + len(p) / 512
    if not (np.isfinite(p).all() and p.min() > -1e-6 and p.max() < 1 + 1e-3 and summed):
        raise runner.RunnerError("what it says are no probabilities, expected 0 to 1, summing to 1")
    return p


# ---- the program ----


def classify(model: Model, files: Iterable[Path], crop: int | None) -> Iterator[list[Any]]:
    """Yield each picture's line: file, class, its probability, those of all classes by name.

    What cannot be read is said, and its line has the file alone.
    """
    by_name = sorted(range(len(model.names)), key=model.names.__getitem__)
    for path in files:
        try:
            picture = read_picture(path, int(model.taken["shape"][1]), crop)
        except PictureError as error:
            print(f"error: {runner.one_line(path)}: {error}", file=sys.stderr)
            yield [str(path)]
            continue
        p = probabilities(model, picture)
        best = int(p.argmax())
        yield [str(path), model.names[best], *(round(float(p[i]), 6) for i in (best, *by_name))]


def csv_line(cells: Sequence[Any]) -> str:
    """Return a line of CSV in which no text is a spreadsheet's formula."""
    formula = tuple("=+-@\t\r\n")
    safe = [f"'{cell}" if str(cell).startswith(formula) else cell for cell in cells]
    out = io.StringIO()
    # So it quotes a carriage return inside a cell as well, behind which a formula could begin.
    csv.writer(out, lineterminator="\r\n").writerow(safe)
    return out.getvalue()[:-2] + "\n"


def write_table(path: Path, header: list[str], lines: Iterable[list[Any]]) -> None:
    """Write a CSV whole or not at all; lines shorter than the header end in empty cells."""
    rows = [header, *([*line, *[""] * (len(header) - len(line))] for line in lines)]
    content = "".join(map(csv_line, rows)).encode("utf-8", "backslashreplace")
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the arguments; what cannot work ends in a line and exit code 2."""
    here = Path(__file__).resolve().parent
    # macOS puts ._NAME beside each file that it copies to a stick or an SD card.
    models = sorted((here / "models").glob("[!.]*.tflite"))
    parser = argparse.ArgumentParser(description="Classify pictures of one cell each.")
    parser.add_argument("pictures", nargs="+", type=Path, help="image files, or folders of them")
    parser.add_argument("--model", type=Path, help="a .tflite file [the only one in models/]")
    parser.add_argument(
        "--crop", type=int, metavar="PIXELS", help="use a central square of so many [the largest]"
    )
    parser.add_argument("--csv", type=Path, help="also write every probability into this file")
    watch = "go on with each picture that comes into the folders, until Ctrl-C"
    parser.add_argument("--watch", action="store_true", help=watch)
    parser.add_argument("--force", action="store_true", help="replace the file of --csv")
    args = parser.parse_args(argv)
    if args.model is None and len(models) != 1:
        found = ", ".join(str(Path("models") / path.name) for path in models) or "none"
        parser.error(f"--model is needed; in this bundle there are: {found}")
    args.model = args.model or models[0]
    if not args.model.is_file():
        parser.error(f"--model {args.model} is no file")
    if args.crop is not None and args.crop < 1:
        parser.error(f"--crop {args.crop}: expected at least 1")
    if args.csv and (refused := why_not(args.csv, [args.model, *args.pictures], args.force)):
        parser.error(f"--csv {args.csv}: {refused}")
    return args


def why_not(table: Path, read: Sequence[Path], force: bool) -> str:
    """Return why a table cannot be written there, before hours are spent; nothing if it can."""
    if table.resolve() in [path.resolve() for path in read] or _is_picture(table):
        return "it is read, or named as a picture; choose another name"
    if table.exists() and not force:
        return "it exists; choose another name, or add --force"
    if table.is_dir():
        return "it is a folder; choose another name"
    try:
        partial = table.with_name(table.name + ".partial")
        partial.touch()
        partial.unlink()
    except OSError as error:
        return f"{error.strerror or error}; choose another folder"
    return ""


def work_through(model: Model, args: argparse.Namespace) -> tuple[list[list[Any]], bool]:
    """Classify what is asked for and write the table; return its lines, and whether all are there.

    Raises:
        OSError: a folder cannot be read, or the table not be written.
        RunnerError: the model's answers are no probabilities.
    """
    header = ["image", "class", "probability", *sorted(model.names)]
    lines: dict[str, list[Any]] = {}
    whole = True
    try:
        files = new_files(args.pictures) if args.watch else files_in(args.pictures)
        for line in classify(model, files, args.crop):
            # First: with Ctrl-C the table has at least what was said.
            lines[line[0]] = line
            if len(line) > 1:
                path, name, p = line[:3]
                with contextlib.suppress(OSError):  # nobody may read any more
                    print(f"{runner.one_line(path)}  {name}  {100 * p:.1f} %", flush=True)
            if args.csv and args.watch:  # what ends it may be a power cut
                write_table(args.csv, header, lines.values())
    except KeyboardInterrupt:
        whole = args.watch
    if args.csv and lines:
        write_table(args.csv, header, lines.values())
    return list(lines.values()), whole


def main(argv: list[str]) -> int:
    """Classify, and return the exit code."""
    args = parse(argv)
    limit_pixels()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the terminal cannot show is no reason to stop.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        model = open_model(args.model, Path(__file__).resolve().with_name("labels.txt"))
        lines, whole = work_through(model, args)
    except OSError as error:
        # A full disk gives no name: then it is the table's.
        print(f"error: {error.strerror or error}: {error.filename or args.csv}", file=sys.stderr)
        return 1
    # The last two are the runtimes' own, where a file is damaged.
    except (runner.RunnerError, ValueError, RuntimeError) as error:
        print(f"error: {args.model}: {runner.one_line(error)}", file=sys.stderr)
        return 2
    if not whole:
        return 130
    if not lines and not args.watch:
        print("error: no pictures there; expected " + " ".join(SUFFIXES), file=sys.stderr)
        return 1
    return int(any(len(line) == 1 for line in lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
