"""How models hold up on test images that were stained, focused, lit or stored in another way."""

COMMAND = "python -m bloodedge.benchmarks.robustness"


def stem_of(*, unseen: bool) -> str:
    """Return what the files of a measurement, and their folder, are called."""
    return "robustness-unseen" if unseen else "robustness"
