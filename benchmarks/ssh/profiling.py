"""Where the models' time goes on the device, once they are measured."""

from __future__ import annotations

from bloodedge.benchmarks.profile.litert import RUNTIME, measured, read_profile, say_why
from bloodedge.benchmarks.profile.table import Profile
from bloodedge.benchmarks.result import BenchmarkResult
from bloodedge.benchmarks.ssh.device import Device
from bloodedge.console import say
from bloodedge.errors import BloodedgeError


def profile(device: Device, result: BenchmarkResult, seconds: float) -> list[Profile]:
    """Return a profile of each model that was measured; where there is none a line says why.

    What is measured stays, whatever happens here: a lost connection or Ctrl-C ends it with the
    profiles that are complete.

    Args:
        device: that has just measured.
        result: what it measured.
        seconds: how long to run each model with the profiler.
    """
    names, threads = measured(result)
    found: list[Profile] = []
    if why := _why_not(result):
        say(f"no profile by operator: {why}")
        return found
    try:
        python = str(device.ask("runtime").get("python"))
        for done, name in enumerate(names, 1):
            say(f"profile [{done}/{len(names)}] {name}")
            answer = device.profile(python, [f"models/{name}", str(threads), str(seconds)])
            try:
                found.append(read_profile(name, threads, result.runtime, answer))
            except ValueError as error:
                say_why(name, error)
    except BloodedgeError as error:
        say(f"no more profiles: {error}")
    except KeyboardInterrupt:
        say("interrupted: keeping what is complete")
    return found


def _why_not(result: BenchmarkResult) -> str:
    if not result.complete:
        return "the measurement was interrupted"
    if result.emulated:
        return "the times of an emulator mean nothing"
    runtime = result.runtime.partition(" ")[0]
    return "" if runtime == RUNTIME else f"{runtime} does not tell"
