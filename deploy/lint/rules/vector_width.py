"""Channel counts that leave lanes of the vector unit empty."""

from __future__ import annotations

from collections.abc import Iterator

from bloodedge.deploy.lint.rule import Case, Rule, Severity

# The narrowest that XNNPACK's matrix kernels compute at once, on ARM as on x86.
LANES = 8
# One works channel by channel, the other's channels are tokens, which nobody can choose.
_OTHERWISE = ("DEPTHWISE_CONV_2D", "BATCH_MATMUL")
# Lost work below this share of all is not worth a line.
_SHARE = 0.05


def _look(case: Case) -> Iterator[str]:
    operators = case.file.operators if case.file else ()
    layers = [o for o in operators if o.macs and o.kind not in _OTHERWISE]
    full = {id(o): o.macs / o.channels * (-o.channels % LANES) for o in layers}
    total = sum(o.macs for o in layers) + sum(full.values())
    lost = sum(full.values())
    if layers and lost >= _SHARE * total:
        worst = sorted(layers, key=lambda o: -full[id(o)])
        counts = list(dict.fromkeys(o.channels for o in worst if full[id(o)]))[:3]
        named = ", ".join(str(count) for count in counts)
        yield f"{100 * lost / total:.0f} % of the lanes stay empty in layers of {named} channels"


RULE = Rule(
    "vector-width",
    "kernels compute output channels 8 at a time: 9 cost as much as 16",
    "choose multiples of 8; prune --channels leaves those",
    Severity.WARNING,
    _look,
)
