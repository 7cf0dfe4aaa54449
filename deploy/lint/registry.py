"""All rules, in the order in which they are reported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bloodedge.deploy.lint.rule import Rule
from bloodedge.deploy.lint.rules import (
    download_only,
    float_fallback,
    int16x8,
    js_types,
    loads,
    micro,
    qat_format,
    sparse_file,
    too_new,
    unaccelerated,
    undone,
    vector_width,
)
from bloodedge.errors import ConfigError


def registered(rules: Iterable[Rule]) -> Mapping[str, Rule]:
    """Return rules by name.

    Raises:
        ConfigError: two have the same name.
    """
    found: dict[str, Rule] = {}
    for rule in rules:
        if rule.name in found:
            raise ConfigError(f"the rule {rule.name!r} is registered twice")
        found[rule.name] = rule
    return found


RULES = registered(
    module.RULE
    for module in (
        loads,
        undone,
        qat_format,
        sparse_file,
        too_new,
        micro,
        js_types,
        int16x8,
        float_fallback,
        unaccelerated,
        vector_width,
        download_only,
    )
)
