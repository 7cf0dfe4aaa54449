"""`python -m bloodedge` is the same as the `bloodedge` command."""

from bloodedge.cli import main

main()
