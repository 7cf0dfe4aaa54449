"""A later step that undoes an earlier one."""

from __future__ import annotations

from collections.abc import Iterator

from bloodedge.deploy.lint.rule import Case, Rule, Severity

# What the fine-tuning of a step leaves of those before it: QAT keeps zeros and shared values,
# clustering keeps zeros; nothing else keeps anything but the channels that are gone. A second
# pruning begins with no zeros at all.
_ZEROS, _VALUES = "zeros", "shared values"
_MADE = {"sparse": _ZEROS, "2of4": _ZEROS, "cluster": _VALUES, "qat": "int8 training"}
_KEEPS = {"cluster": {_ZEROS}, "qat": {_ZEROS, _VALUES}}


def _look(case: Case) -> Iterator[str]:
    kinds = case.recipe.kinds() if case.recipe else []
    for place, kind in enumerate(kinds):
        made = _MADE.get(kind)
        for later in kinds[place + 1 :]:
            if made and made not in _KEEPS.get(later, set()):
                yield f"{later} undoes what {kind} did: its fine-tuning does not keep the {made}"
                break


RULE = Rule(
    "undone",
    "fine-tuning moves every weight that nothing holds in place",
    "order the steps as kd, slim, sparse, cluster, qat",
    Severity.USELESS,
    _look,
)
