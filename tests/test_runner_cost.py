"""What the runner itself costs: memory beside the runtime's, and time before it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bloodedge.benchmarks import runner

RUNNER = Path(runner.__file__)
MODEL = RUNNER.parent.parent / "bloodedge" / "zoo" / "cnn_se" / "cnn_se.tflite"
# As many test images as BloodMNIST has, 42 MB of them.
IMAGES = 3421
BARE = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(model_path=sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
detail = interpreter.get_input_details()[0]
for _ in range(100):
    interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
    interpreter.invoke()
status = open("/proc/self/status").read()
print(status.split("VmHWM:")[1].split()[0])
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_a_process_takes_less_than_60_mb_above_the_runtime(tmp_path: Path) -> None:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    bare = subprocess.run(
        [sys.executable, "-c", BARE, str(MODEL)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    images = np.zeros((IMAGES, 64, 64, 3), dtype=np.uint8)
    np.savez(tmp_path / "s.npz", images=images, labels=np.zeros(IMAGES, dtype=int))
    spec = {
        "model": str(MODEL),
        "module": "ai_edge_litert.interpreter",
        "threads": 1,
        "sample": str(tmp_path / "s.npz"),
        "score": IMAGES,
        "score_seconds": None,
        "scaling": [0.0, 1.0],
        "seconds": 0.5,
        "warmup": 0.0,
        "least": 50,
        "seed": 0,
    }
    answer = runner.run_job(spec, 120)
    assert answer["images"] == IMAGES
    above_kib = answer["process_peak_kib"] - int(bare.stdout)
    assert above_kib * 1024 < 60e6
    # The sample is streamed: holding it would take 42 MB more.
    assert above_kib * 1024 < 42e6


def test_the_program_that_starts_the_processes_stays_small(tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(RUNNER.parent)!r})
import runner
code = runner.main(sys.argv[1:])
assert code == 0
status = open("/proc/self/status").read()
print(status.split("VmHWM:")[1].split()[0], "ai_edge_litert" in sys.modules)
"""
    out = tmp_path / "r.json"
    options = ["--quick", "--repeats", "1", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", code, str(MODEL), *options],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    peak_kib, loaded = done.stdout.split()
    assert loaded == "False"
    # Python and NumPy are in it.
    assert int(peak_kib) * 1024 < 100e6
    assert json.loads(out.read_text())["complete"] is True


def test_it_starts_in_under_2_seconds(tmp_path: Path) -> None:
    """Of its own time: what others take from the processor is not counted."""
    command = [sys.executable, str(RUNNER), str(MODEL), "--out", str(tmp_path / "r.json")]
    ticks = os.sysconf("SC_CLK_TCK")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        # It says how long it takes as soon as it has read everything and starts the first process.
        assert " processes, about " in process.stderr.readline()
        stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        process.kill()
    user, system = int(stat[11]), int(stat[12])
    assert (user + system) / ticks < 2
