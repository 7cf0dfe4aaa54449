"""A Raspberry Pi without the board: an Arm userland that qemu runs on this machine.

`python -m bloodedge.benchmarks.emulator` makes it. It tells what a device would answer and how it
would fail, never how fast it is.
"""
