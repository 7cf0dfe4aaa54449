"""Small models over several seeds: what each is worth in float, as int8, and trained for int8.

    python -m bloodedge.benchmarks.students train --data D [--models cnn_se,...] [--seeds 3]
    python -m bloodedge.benchmarks.students finish --data D [--models cnn_se,...] [--seeds 3]
    python -m bloodedge.benchmarks.students show [--models cnn_se,...] [--seeds 3]

`train` trains each seed and fine-tunes it for int8, on any backend, continuing what was
interrupted; with `--seed N` that seed alone, so that several processes can share the work.
`finish` needs TensorFlow: it exports, and evaluates each file once on test. `show` prints the table
of what is there, as Markdown. Any registered model can be named, such as the peers
`mobilenet_v2_035` and `mobilenet_v3_small`: all get the recipe of the students, without a teacher.
The runs have the names of `bloodedge pipeline --preset champion`, and where it trains a model the
same way they are the same.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bloodedge.backend import use_backend
from bloodedge.benchmarks.comparison import chosen, exit_code
from bloodedge.compress.chain.link import Link
from bloodedge.compress.chain.run import run_chain
from bloodedge.data.sources import load_data
from bloodedge.deploy.pipeline.plan import steps, trains
from bloodedge.deploy.pipeline.presets import PRESETS, Preset, Student
from bloodedge.deploy.pipeline.scores import markdown
from bloodedge.runs import is_finished
from bloodedge.train.models.cnn_se import PLANS
from bloodedge.train.registry import models

EPOCHS = 100


def students(names: Sequence[str], seeds: int, epochs: int | None = None) -> Preset:
    """Return what is trained: each model for as long as its champion, or 100 epochs."""
    usual = {student.model: student.epochs for student in PRESETS["champion"].students}
    return Preset(
        "",
        tuple(Student(m, epochs or usual.get(m, EPOCHS), seeds=seeds) for m in names),
    )


def trainable(preset: Preset, seed: int | None = None) -> list[Link]:
    """Return the trainings, of one seed or of all."""
    found = [link for link in steps(preset) if trains(link)]
    return [link for link in found if seed in (None, link.config.fit.seed)]


def finishable(preset: Preset) -> list[Link]:
    """Return the exports and evaluations of the runs that are trained."""
    found: list[Link] = []
    done: set[str] = set()
    for link in steps(preset):
        if trains(link):
            continue
        parent = link.parent.partition("/")[0]
        if is_finished(parent) or parent in done:
            found.append(link)
            done.add(link.name)
    return found


def main() -> None:
    """Train, finish or show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("action", choices=("train", "finish", "show"))
    parser.add_argument("--data", help="as for `bloodedge train`")
    parser.add_argument("--models", default=",".join(PLANS), help="[the three students]")
    parser.add_argument("--seeds", type=int, default=3, help="[3]")
    parser.add_argument("--seed", type=int, help="train this one of the seeds [all]")
    parser.add_argument("--epochs", type=int, help=f"[as the champion, else {EPOCHS}]")
    args = parser.parse_args()
    if args.seed is not None and (args.action != "train" or not 0 <= args.seed < args.seeds):
        parser.error(f"--seed {args.seed}: for train alone, from 0 to below --seeds {args.seeds}")
    preset = students(chosen(args.models, tuple(models()), "model"), args.seeds, args.epochs)
    if args.action != "show":
        if not args.data:
            parser.error("--data is needed")
        data = load_data(args.data)
        use_backend()
        if args.action == "train":
            run_chain(trainable(preset, args.seed), data)
        else:
            run_chain(finishable(preset), data)
    print(markdown(preset))


if __name__ == "__main__":
    sys.exit(exit_code(main))
