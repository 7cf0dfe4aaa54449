"""Check the files of this bundle, then measure every model in it.

    python3 run.py [--quick] [--threads 1,0] ...

Options are passed on to runner.py; `--help` lists them. Needs what runner.py needs, and says so on
any Python 3: that is why nothing here is newer than Python 3.5.
"""

import hashlib
import io
import os
import runpy
import signal
import sys
from pathlib import Path


def damaged(folder: Path) -> "list[str]":
    """Return the files of the bundle in a folder that are not as SHA256SUMS says."""
    lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    listed = [line.partition("  ")[::2] for line in lines]
    return [name for digest, name in listed if not _has(folder / name, digest)]


def _has(path: Path, digest: str) -> bool:
    if not path.is_file():
        return False
    found = hashlib.sha256()
    with path.open("rb") as file:
        # In pieces: a sample may be larger than the memory.
        for piece in iter(lambda: file.read(1 << 20), b""):
            found.update(piece)
    return found.hexdigest() == digest


def silence() -> None:
    """Nobody reads any more: send what is written nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)


class Screen(io.TextIOWrapper):
    """Progress for a reader who may go away, as over a connection: the measurement goes on."""

    def write(self, text: str) -> int:
        """Write, or be silent from now on."""
        try:
            return super().write(text)
        except OSError:
            silence()
            return len(text)

    def flush(self) -> None:
        """Write what is left, or be silent from now on."""
        try:
            super().flush()
        except OSError:
            silence()


def hang_up(signum: int, frame: object) -> None:
    """The terminal was closed: let the runner keep what is complete."""
    silence()
    signal.raise_signal(signal.SIGINT)


def main() -> None:
    """Run runner.py in this process, with the bundle's models and sample."""
    if sys.hexversion < 0x3080000:
        found = ".".join(map(str, sys.version_info[:3]))
        print("error: Python 3.8 or newer is needed, this is " + found, file=sys.stderr)
        sys.exit(2)
    # Not the current folder: from there the user's own --out is meant.
    here = Path(__file__).resolve().parent
    try:
        wrong = damaged(here)
    except (OSError, ValueError):
        wrong = ["SHA256SUMS"]
    if wrong:
        said = "error: " + wrong[0] + " is damaged or missing: copy the bundle again"
        print(said, file=sys.stderr)
        sys.exit(2)
    # Under nohup a lost terminal is ignored already.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, hang_up)
    sys.stderr = Screen(sys.stderr.buffer, errors="backslashreplace", line_buffering=True)
    # macOS puts ._NAME beside each file that it copies to a stick or an SD card.
    models = sorted(str(path) for path in (here / "models").glob("[!.]*.tflite"))
    ours = "--sample", str(here / "sample.npz"), "--out", str(here / "result.json")
    sys.argv[1:1] = [*models, *ours]
    runpy.run_path(str(here / "runner.py"), run_name="__main__")


if __name__ == "__main__":
    main()
