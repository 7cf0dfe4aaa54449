"""Variant names and recipes: one reading for each text, one text for each reading."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodedge.errors import ConfigError
from bloodedge.variants import FORMATS, STEPS, Recipe, Step, Variant

amounts = st.integers(1, 9999).map(lambda n: float(f"{n / 100:g}"))
# What recipes may ask for; names may have had other numbers.
IN_RANGE = {
    "slim": amounts,
    "sparse": amounts.filter(lambda n: 1 <= n <= 99),
    "cluster": st.integers(3, 256).map(float),
}


@st.composite
def steps(draw: st.DrawFn, *, in_range: bool = False) -> Step:
    kind = draw(st.sampled_from(sorted(STEPS)))
    if not STEPS[kind] or draw(st.booleans()):
        return Step(kind)
    number = st.integers(1, 256).map(float) if kind == "cluster" else amounts
    chosen = IN_RANGE[kind] if in_range else number
    return Step(kind, draw(chosen), draw(st.sampled_from(STEPS[kind])))


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    drawn = draw(st.lists(steps(in_range=True), max_size=4))
    chosen = [step for step in drawn if step.kind != "kd"]
    first = [Step("kd")] if draw(st.booleans()) else []
    formats = draw(st.lists(st.sampled_from(FORMATS), unique=True, max_size=3))
    return Recipe((*first, *chosen) or (Step("qat"),), tuple(formats))


@given(recipes())
def test_a_recipe_reads_back(recipe: Recipe):
    assert Recipe.parse(recipe.text) == recipe


@given(
    st.from_regex(r"[a-z][a-z0-9_.]{0,8}(-[a-z]{1,3}[0-9])?", fullmatch=True),
    st.none() | amounts,
    st.lists(steps(), max_size=4),
    st.sampled_from(["", *FORMATS]),
)
def test_a_name_reads_back(base: str, width: float | None, steps: list[Step], form: str):
    variant = Variant(base, width, tuple(steps), form)
    assert Variant.parse(variant.text) == variant


@given(st.text("abkdqtslimw0158.-+", min_size=1, max_size=24))
def test_every_text_is_a_name_and_stays_one(text: str):
    assert Variant.parse(text).text == text


def test_the_parts_of_a_name():
    variant = Variant.parse("cnn_se-w1.0-kd-slim24kb-2of4-qat-int8")
    done = (Step("kd"), Step("slim", 24, "kb"), Step("2of4"), Step("qat"))
    assert variant == Variant("cnn_se", 1.0, done, "int8")
    # Another spelling of a number, or parts in another order, belong to the base.
    assert Variant.parse("net-w1-slim050").base == "net-w1-slim050"
    assert Variant.parse("int8-kd") == Variant("int8", None, (Step("kd"),))
    assert Variant.parse("kd-w0.5").text == "kd-w0.5"


def test_names_grow_by_steps():
    net = Variant("net").then(Step("sparse", 80))
    assert net.text == "net-sparse80"
    assert net.as_format("int8").text == "net-sparse80-int8"
    with pytest.raises(ConfigError, match="no step follows int8"):
        net.as_format("int8").then(Step("qat"))


@pytest.mark.parametrize(
    "parts", [("a-kd",), ("a-w1.0",), ("a-int8",), ("a-w1.0", None, (Step("qat"),))]
)
def test_a_base_that_would_be_read_as_more_is_refused(parts: tuple):
    with pytest.raises(ConfigError, match="would not be read as"):
        Variant(*parts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty recipe"),
        ("slin+qat", "did you mean 'slim'"),
        ("kd++qat", "unknown step ''"),
        ("int8+qat", "formats after all steps"),
        ("qat+int8+int8", "each format once"),
        ("slim+kd", "kd as the first step"),
        ("kd5", "expected kd"),
        ("cluster16kb", "expected cluster or cluster25"),
        ("cluster2.5", "expected cluster or cluster25"),
        ("2of4", ""),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(text: str, message: str):
    if not message:
        assert Recipe.parse(text).kinds() == [text]
        return
    with pytest.raises(ConfigError, match=message):
        Recipe.parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("slim200", "more than slim0, less than slim100"),
        ("qat+slim100+int8", "more than slim0, less than slim100"),
        ("slim0kb", "more than slim0kb"),
        ("slim100ch", "more than slim0ch, less than slim100ch"),
        ("sparse0", "sparse1 to sparse99"),
        ("sparse99.5", "sparse1 to sparse99"),
        ("cluster1", "cluster3 to cluster256"),
        ("cluster257", "cluster3 to cluster256"),
    ],
)
def test_a_number_that_no_step_takes_is_refused_in_a_recipe_and_read_in_a_name(
    text: str, expected: str
):
    with pytest.raises(ConfigError, match=f"the step '[a-z0-9.]+'; expected {expected}$"):
        Recipe.parse(text)
    word = text.split("+")[-2 if "+" in text else -1]
    assert Variant.parse(f"net-{word}").steps == (Step.parse(word),)


@pytest.mark.parametrize("amount", [1 / 3, -5, 1e9, float("nan")])
def test_an_amount_that_no_name_can_hold_is_refused(amount: float):
    with pytest.raises(ConfigError, match="slim25kb"):
        Step("slim", amount)
