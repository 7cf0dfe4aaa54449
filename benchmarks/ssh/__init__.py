"""`bloodedge benchmark --ssh`: the runner on a Raspberry Pi, or any Linux machine, over ssh."""
