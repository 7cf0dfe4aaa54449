"""Do what is named in the first word, as the second, which is JSON, says."""

from __future__ import annotations

import json
import os
import sys

from .measuring import fetch, measure, profile, remove, stop, supervise
from .runtime import runtime


def main(argv: list[str]) -> None:
    """Do what was asked for."""
    os.umask(0o077)
    known = (runtime, measure, supervise, stop, fetch, profile, remove)
    commands = {function.__name__: function for function in known}
    commands[argv[0]](json.loads(argv[1]) if argv[1:] else {})


if __name__ == "__main__":
    main(sys.argv[1:])
