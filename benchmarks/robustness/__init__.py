"""How models hold up on test images that were stained, focused, lit or stored in another way."""

COMMAND = "python -m bloodedge.benchmarks.robustness"
