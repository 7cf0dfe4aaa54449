"""The errors that remain: what several models misread, and which labels all of them doubt."""

STEM = "errors"
COMMAND = f"python -m bloodedge.benchmarks.{STEM}"
