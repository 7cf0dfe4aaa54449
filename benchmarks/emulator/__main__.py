"""Make the emulated devices: `python -m bloodedge.benchmarks.emulator`.

Prints, for each architecture and TFLite runtime, the `python3` that runs as on such a device.
A finished one is used again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bloodedge.benchmarks.comparison import exit_code
from bloodedge.benchmarks.emulator import tools
from bloodedge.benchmarks.emulator.userland import ARCHITECTURES, default_folder, make_userland


def main() -> None:
    """Make what is missing and print where it is."""
    parser = argparse.ArgumentParser(
        prog="python -m bloodedge.benchmarks.emulator",
        description="Make Arm userlands that qemu runs here; needs Debian's packages and PyPI.",
    )
    add = parser.add_argument
    add("--arch", action="append", choices=list(ARCHITECTURES), help="repeatable [all]")
    add("--out", type=Path, help=f"where they are kept [{default_folder()}]")
    add("--mirror", default="", help="Debian's packages [as this machine's apt]")
    add(
        "--install",
        action="store_true",
        help="first apt-get what is missing, sshd included; needs root",
    )
    args = parser.parse_args()
    if args.install:
        tools.install()
    for name in args.arch or ARCHITECTURES:
        made = make_userland(name, args.out, args.mirror)
        for runtime in made.architecture.runtimes:
            print(f"{name} {runtime}: {made.with_runtime(runtime) / 'python3'}")


if __name__ == "__main__":
    sys.exit(exit_code(main))
