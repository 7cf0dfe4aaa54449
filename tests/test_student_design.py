"""The students' sizes, and the script that compares them with what else was tried."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from bloodedge.backend import use_backend
from bloodedge.benchmarks import student_design
from bloodedge.benchmarks.comparison import Variant, run_missing
from bloodedge.benchmarks.student_design import CANDIDATES, Candidate, table
from bloodedge.data.dataset import Dataset
from bloodedge.errors import RunError
from bloodedge.files import write_json
from bloodedge.runs import MANIFEST, load_run, runs_root
from bloodedge.train.cost import count_macs
from bloodedge.train.models.cnn_se import PLANS, Conv, Plan, build_student


@pytest.fixture(autouse=True, scope="module")
def backend() -> None:
    use_backend()


def test_a_plan_is_built_layer_by_layer() -> None:
    plan = Plan(8, (Conv(16, 2, True), Conv(24)), patch=4)
    net = build_student("net", plan, classes=5, size=32)
    convs = [layer for layer in net.layers if layer.name in ("stem", "conv1", "conv2")]
    assert [layer.output.shape[1:] for layer in convs] == [(8, 8, 8), (4, 4, 16), (4, 4, 24)]
    assert {layer.name for layer in net.layers} >= {"se1_a", "se1_b"}
    assert "se2_a" not in {layer.name for layer in net.layers}
    # Patches of RGB, two 3x3 convolutions, the gate of 16 channels, and the logits.
    gate = 2 * 16 * 4
    macs = 64 * 48 * 8 + 16 * 72 * 16 + 16 * 144 * 24 + gate + 24 * 5
    assert count_macs(net) == macs


@pytest.mark.parametrize("name", PLANS)
def test_channels_fill_the_groups_of_int8_kernels(name: str) -> None:
    plan = PLANS[name]
    assert all(n % 8 == 0 for n in (plan.stem, *(conv.filters for conv in plan.convs)))


@pytest.mark.parametrize(
    ("student", "least", "most"),
    [
        ("cnn_se", 40_000, 64_000),
        ("cnn_se_nano", 16_000, 20_000),
        ("cnn_se_pico", 5_000, 8_000),
    ],
)
def test_no_candidate_has_more_weights_than_its_bytes_hold(
    student: str, least: int, most: int
) -> None:
    for plan in CANDIDATES[student].values():
        assert least < build_student("net", plan, classes=8, size=64).count_params() < most


def test_a_plan_without_attention_takes_the_one_that_is_asked_for() -> None:
    def parameters(attention: str, own: str = "none") -> int:
        plan = Plan(8, (Conv(16, 2, True),), attention=own)
        net = build_student("net", plan, classes=5, size=32, attention=attention)
        return int(net.count_params())

    assert parameters("") == parameters("none") < parameters("se") == parameters("", "se")
    assert parameters("cbam") > parameters("none")


def test_a_table_gives_medians_and_every_seed() -> None:
    times = {"float32": [90.0, 80.0, 85.0], "int8": [40.0, 50.0, 42.5]}
    sizes = {"float32": 200_000, "int8": 61_234}
    found = {"a": Candidate([98.123, 97.0], [0.05, 0.12345], 51_865, 2_145_104, sizes, times)}
    assert table(found).splitlines()[2:] == [
        "| a | 51,865 | 2.15 M | 61.2 | 85 | 42 | 2.00 | 98.12, 97.00 | 0.0500, 0.1235 |"
    ]


@pytest.mark.slow
def test_a_candidate_is_trained_and_measured(
    colours: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CANDIDATES["cnn_se"], "tiny", Plan(8, (Conv(8, 2, True),)))
    student_design.link("tiny", 1, "cnn_se", 0).made(colours, force=False)
    manifest = load_run(student_design.runs_root() / "design-tiny-e1-s0").manifest
    assert manifest["config"]["candidate"] == "tiny"
    assert manifest["config"]["plan"]["convs"][0]["filters"] == 8
    monkeypatch.setattr(student_design, "_ROUNDS", 2)
    found = student_design.measure(colours, ["tiny", "patch4-wide"], 1, 1)
    assert list(found) == ["tiny"]
    assert len(found["tiny"].times["int8"]) == 2
    assert all(us > 0 for times in found["tiny"].times.values() for us in times)
    accuracy = manifest["metrics"]["val"]["accuracy"]
    assert found["tiny"].accuracy == [pytest.approx(100 * accuracy)]


def test_a_candidate_by_its_students_recipe_is_another_run() -> None:
    usual, own = (student_design.link("nano-wide", 60, m, 1) for m in ("cnn_se", "cnn_se_nano"))
    assert (usual.config.fit.optimizer, own.config.fit.optimizer) == ("adamw", "muon")
    assert usual.config.plan == own.config.plan
    assert own.config.fit.epochs == 60
    assert (usual.name, own.name) == (
        "design-nano-wide-e60-s1",
        "design-nano-wide-as-cnn_se_nano-e60-s1",
    )


def test_a_candidate_of_other_data_is_not_measured_nor_taken_for_trained(colours: Dataset) -> None:
    link = student_design.link("pico-se", 1, "cnn_se", 0)
    (runs_root() / link.name).mkdir(parents=True)
    settings = json.loads(json.dumps(asdict(link.config)))
    manifest = {
        "schema_version": 1,
        "kind": "train",
        "name": link.name,
        "config": settings,
        "model": {},
        "data": colours.describe(),
        "metrics": {},
        "files": {},
    }
    write_json(runs_root() / link.name / MANIFEST, manifest)
    row = Variant("pico-se", lambda seed: link)
    run_missing([row], 1, colours)
    other = replace(colours, splits={**colours.splits, "train": colours["val"]})
    with pytest.raises(RunError, match="its data is other images of synthetic colours"):
        run_missing([row], 1, other)
    with pytest.raises(RunError, match="is of other data: synthetic colours"):
        student_design.measure(other, ["pico-se"], 1, 1)
