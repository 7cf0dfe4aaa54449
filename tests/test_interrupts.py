"""A Ctrl-C that arrives where Python ignores exceptions."""

from __future__ import annotations

import subprocess
import sys

_COMMAND = """
import gc, os, signal, sys, time
from bloodedge import cli

def callback(phase, info):
    if phase == "start" and not came:
        came.append(1)
        os.kill(os.getpid(), signal.SIGINT)

came = []

def command():
    gc.callbacks.append(callback)
    gc.collect()
    print("goes on", flush=True)
    time.sleep(10)
    print("to its end", flush=True)

module = type(sys)("bloodedge.cli.app")
module.app = command
sys.modules[module.__name__] = module
cli.main()
"""


def test_ctrl_c_during_a_garbage_collection_ends_the_command():
    command = [sys.executable, "-c", _COMMAND]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 130
    assert done.stdout == "goes on\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith("bloodedge: interrupted")
