"""Everything that is known of each model in one table: what it is worth and what it costs."""

STEM = "full_table"
COMMAND = f"python -m bloodedge.benchmarks.{STEM}"
