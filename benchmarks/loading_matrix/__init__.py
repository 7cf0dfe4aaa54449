"""Which runtime runs which file: every variant, loaded and asked in each runtime."""

STEM = "loading_matrix"
COMMAND = f"python -m bloodedge.benchmarks.{STEM}"
