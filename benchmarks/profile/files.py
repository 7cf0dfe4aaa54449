"""A profile as files and words: `profile.csv`, a bar chart for each model, and a table."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bloodedge.benchmarks.profile.table import Operator, Profile
from bloodedge.console import say
from bloodedge.errors import BloodedgeError
from bloodedge.figures import can_draw, new_figure, save_figure
from bloodedge.files import write_csv

if TYPE_CHECKING:
    from rich.table import Table

CSV_FILE = "profile.csv"
COLUMNS = ("model", "threads", "runtime", "place", "kind", "name", "us", "share", "invoke_us")
NOTE = (
    "The runtime's clock counts whole microseconds and drops the rest: operators faster than one "
    "show as 0, and what the operators' times leave of a whole inference is named, not guessed."
)
_REST = "not in any operator's time"
_MAX_BARS = 20
_LETTERS = 46


def save_profiles(profiles: Sequence[Profile], folder: Path) -> None:
    """Write all operators into one CSV, and a chart for each profile where matplotlib is there."""
    if not profiles:
        return
    rows = []
    for profile in profiles:
        start = (profile.model, profile.threads, profile.runtime)
        for place, operator in enumerate(profile.operators):
            share = operator.us / profile.total_us if profile.total_us else 0.0
            values = (operator.kind, operator.name, round(operator.us, 4), round(share, 6))
            rows.append((*start, place, *values, profile.invoke_us))
    write_csv(folder / CSV_FILE, COLUMNS, rows)
    if can_draw():
        for number, profile in enumerate(profiles, 1):
            draw(profile, folder / figure_name(profile, number))


def try_profiles(profiles: Callable[[], Sequence[Profile]], folder: Path) -> None:
    """Write profiles beside a result, which nothing that happens to them costs."""
    try:
        save_profiles(profiles(), folder)
    except KeyboardInterrupt:
        say("interrupted: the profiles by operator are not all kept")
    except (BloodedgeError, OSError) as error:
        say(f"the profiles by operator are not all kept: {error}")


def read_profiles(path: Path) -> list[Profile]:
    """Return what `save_profiles` wrote into a run here; empty where it wrote nothing."""
    if not path.is_file():
        return []
    found: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault((row["model"], row["threads"], row["runtime"]), []).append(row)
    profiles = []
    for (model, threads, runtime), rows in found.items():
        operators = tuple(Operator(r["kind"], r["name"], float(r["us"])) for r in rows)
        whole = float(rows[0]["invoke_us"]) if rows[0]["invoke_us"] else None
        profiles.append(Profile(model, int(threads), runtime, operators, whole))
    return profiles


def figure_name(profile: Profile, number: int) -> str:
    """Return a chart's file name: of models whose names are alike the number tells them apart."""
    stem = re.sub(r"[^A-Za-z0-9_.-]", "-", profile.model.removesuffix(".tflite")).lstrip(".")
    return f"profile-{number}-{stem[:80]}.png"


def lines(profile: Profile) -> list[tuple[str, int | None, float]]:
    """Return kind, number of operators and microseconds, the longest first, and what is left."""
    found: list[tuple[str, int | None, float]] = [
        (kind, count, us) for kind, (count, us) in profile.by_kind().items()
    ]
    rest = (profile.invoke_us or 0.0) - profile.total_us
    return [*found, (_REST, None, rest)] if rest > 0 else found


def draw(profile: Profile, path: Path) -> None:
    """Draw a bar for each kind of operator."""
    shown = lines(profile)[:_MAX_BARS]
    figure = new_figure(8, 1.2 + 0.32 * len(shown))
    axis = figure.subplots()
    names = [_label(kind, count) for kind, count, _ in shown]
    colours = ["#9aa5af" if count is None else "#3b82f6" for _, count, _ in shown]
    bars = axis.barh(range(len(shown)), [us for *_, us in shown], color=colours)
    axis.bar_label(bars, fmt="%.3g", padding=3)
    axis.set_yticks(range(len(shown)), names, parse_math=False)
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.set_xlabel("µs of one inference")
    axis.set_title(_title(profile), fontsize=9, parse_math=False)
    save_figure(figure, path)


def _title(profile: Profile) -> str:
    plural = "s" if profile.threads > 1 else ""
    return f"{profile.model}, {profile.threads} thread{plural}, {profile.runtime}"


def _label(kind: str, count: int | None) -> str:
    cut = kind if len(kind) <= _LETTERS else f"{kind[: _LETTERS - 1]}…"
    return cut if count is None or count == 1 else f"{count} x {cut}"


def profile_table(profile: Profile) -> Table:
    """Return the kinds of operators for a terminal."""
    from bloodedge.tables import table

    whole = max(profile.invoke_us or 0.0, profile.total_us) or 1.0
    rows = [
        (kind, "" if count is None else str(count), f"{us:.2f}", f"{100 * us / whole:.1f}")
        for kind, count, us in lines(profile)
    ]
    return table(("operator", "count", "µs", "%"), rows, title=_title(profile))
