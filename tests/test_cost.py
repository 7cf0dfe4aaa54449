"""MACs against closed forms, one layer at a time; and the command that prints them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from bloodedge.backend import use_backend
from bloodedge.cli.app import app
from bloodedge.errors import ModelError
from bloodedge.train.cost import count_macs, model_cost
from bloodedge.train.registry import ModelConfig, build, models


@pytest.fixture(autouse=True, scope="module")
def keras() -> Any:
    return use_backend()


def macs_of(keras: Any, layer: Any, *shape: int) -> int:
    image = keras.Input(shape)
    return count_macs(keras.Model(image, layer(image)))


@pytest.mark.parametrize(
    ("kind", "arguments", "expected"),
    [
        ("Conv2D", {"filters": 8, "kernel_size": 3, "padding": "same"}, 12 * 10 * 8 * 9 * 4),
        ("Conv2D", {"filters": 8, "kernel_size": 3}, 10 * 8 * 8 * 9 * 4),
        ("Conv2D", {"filters": 8, "kernel_size": (1, 7), "padding": "same"}, 12 * 10 * 8 * 7 * 4),
        ("Conv2D", {"filters": 8, "kernel_size": 2, "strides": 2}, 6 * 5 * 8 * 4 * 4),
        ("Conv2D", {"filters": 8, "kernel_size": 3, "groups": 2}, 10 * 8 * 8 * 9 * 2),
        ("DepthwiseConv2D", {"kernel_size": 5, "padding": "same"}, 12 * 10 * 4 * 25),
        ("DepthwiseConv2D", {"kernel_size": 3, "depth_multiplier": 2}, 10 * 8 * 8 * 9),
        ("SeparableConv2D", {"filters": 8, "kernel_size": 3}, 10 * 8 * (4 * 9 + 4 * 8)),
        (
            "SeparableConv2D",
            {"filters": 8, "kernel_size": 3, "depth_multiplier": 3},
            10 * 8 * (12 * 9 + 12 * 8),
        ),
        ("Dense", {"units": 7}, 12 * 10 * 4 * 7),
        ("BatchNormalization", {}, 0),
        ("MaxPooling2D", {}, 0),
    ],
)
def test_a_layer_costs_its_closed_form(
    keras: Any, kind: str, arguments: dict[str, Any], expected: int
):
    assert macs_of(keras, getattr(keras.layers, kind)(**arguments), 12, 10, 4) == expected


def test_an_einsum_costs_the_product_of_its_letters(keras: Any):
    layer = keras.layers.EinsumDense("ntp,pc->ntc", (6, 9), bias_axes="tc")
    assert macs_of(keras, layer, 6, 5) == 6 * 5 * 9


def test_self_attention_costs_projections_scores_and_sums(keras: Any):
    tokens = keras.Input((6, 10))
    out = keras.layers.MultiHeadAttention(num_heads=2, key_dim=3)(tokens, tokens)
    projections, scores = 4 * 6 * 10 * 2 * 3, 2 * 6 * 6 * 2 * 3
    assert count_macs(keras.Model(tokens, out)) == projections + scores


def test_cross_attention_counts_queries_and_keys_apart(keras: Any):
    queries, values = keras.Input((6, 10)), keras.Input((4, 8))
    layer = keras.layers.MultiHeadAttention(num_heads=2, key_dim=3, value_dim=5, output_shape=7)
    expected = 6 * 10 * 6 + 4 * 8 * 6 + 4 * 8 * 10 + 6 * 4 * 2 * (3 + 5) + 6 * 10 * 7
    assert count_macs(keras.Model([queries, values], layer(queries, values))) == expected


def test_a_layer_called_twice_counts_twice(keras: Any):
    first, second = keras.Input((3,)), keras.Input((3,))
    dense = keras.layers.Dense(5)
    shared = keras.Model([first, second], keras.layers.Add()([dense(first), dense(second)]))
    assert count_macs(shared) == 2 * 3 * 5


def test_a_call_outside_the_model_does_not_count(keras: Any):
    image = keras.Input((3,))
    dense = keras.layers.Dense(5)
    model = keras.Model(image, dense(image))
    dense(keras.Input((3,)))
    assert count_macs(model) == 15


def test_a_nested_model_counts_as_its_layers(keras: Any):
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5), keras.layers.Dense(2)])
    image = keras.Input((3,))
    assert count_macs(keras.Model(image, keras.layers.Dense(4)(inner(image)))) == 15 + 10 + 8


def test_parameters_fixed_and_bytes(keras: Any):
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(5),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
        ]
    )
    cost = model_cost(model)
    assert (cost.parameters, cost.fixed, cost.macs) == (20 + 20, 10, 15)
    assert cost.parameters == model.count_params()
    assert cost.float_bytes == 160


@pytest.mark.parametrize("name", ["cnn_se", "mobilenet_v2_035", "vgg16"])
def test_a_model_for_any_size_costs_what_one_of_that_size_does(keras: Any, name: str):
    config = ModelConfig(name, 4, 32)
    fixed = build(config, size=32)
    expected = count_macs(fixed)
    assert count_macs(build(config), (32, 32, 3)) == expected > 0
    nested = keras.Sequential([keras.Input((None, None, 3)), build(config)])
    assert count_macs(nested, (32, 32, 3)) == expected


def test_the_batch_does_not_count(keras: Any):
    config = ModelConfig("cnn_se", 8, 32)
    open_batch, eight = build(config, size=32), build(config, size=32, batch=8)
    assert count_macs(open_batch) == count_macs(eight)


def test_an_open_size_is_one_clear_error(keras: Any):
    with pytest.raises(ModelError, match="static image size"):
        count_macs(build(ModelConfig("cnn_se", 8, 32)))


def test_a_layer_without_a_rule_is_one_clear_error(keras: Any):
    with pytest.raises(ModelError, match="Conv2DTranspose"):
        macs_of(keras, keras.layers.Conv2DTranspose(2, 3), 8, 8, 3)


def test_the_models_command_lists_every_model_with_its_cost():
    rows = json.loads(CliRunner().invoke(app, ["models", "--json", "--size", "32"]).stdout)
    assert [row["name"] for row in rows] == list(models())
    by_name = {row["name"]: row for row in rows}
    student = build(ModelConfig("cnn_se", 8, 32), size=32)
    assert by_name["cnn_se"]["macs"] == count_macs(student)
    assert by_name["cnn_se"]["float32_bytes"] == 4 * student.count_params()
    assert by_name["study_cnn4"]["macs"] is None
    assert "46 or more" in by_name["study_cnn4"]["note"]


def test_the_models_command_prints_those_of_a_role_together():
    out = CliRunner().invoke(app, ["models"]).stdout
    assert out.startswith("64x64 pixels, 8 classes")
    words = [line.split()[0] for line in out.splitlines() if line.strip()]
    places = [words.index(word) for word in ("teacher:", "vgg16", "student:", "cnn_se", "study:")]
    assert places == sorted(places)
    assert "5,800,994" in out
