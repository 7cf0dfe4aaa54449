"""The students: small CNNs, the largest with SE, designed for int8 kernels, in three sizes.

`python -m bloodedge.benchmarks.student_design` compares them with what else was tried.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bloodedge.train.models.blocks import (
    attend,
    conv_bn_relu,
    input_and_scaling,
    logits_head,
    scaled,
    squeeze_excite,
)


@dataclass(frozen=True)
class Conv:
    """A 3x3 convolution with batch norm and ReLU.

    Attributes:
        filters: its channels.
        stride: its stride.
        attention: whether attention follows, of the plan's kind or of the one asked for.
    """

    filters: int
    stride: int = 1
    attention: bool = False


@dataclass(frozen=True)
class Plan:
    """The layers of a student.

    Attributes:
        stem: channels of the first convolution.
        convs: what follows it.
        patch: the first convolution's kernel and stride.
        attention: what follows the convolutions that have attention, unless another is asked for.
        dropout: the share of the last means that is dropped in training.
    """

    stem: int
    convs: tuple[Conv, ...]
    patch: int = 2
    attention: str = "se"
    dropout: float = 0.1


# Channels are multiples of 8, which int8 kernels multiply together. A weight costs 16
# multiplications where an image is 4x4, 64 at 8x8, and 256 at 16x16.
PLANS = {
    "cnn_se": Plan(
        16,
        (Conv(32, 2, True), Conv(32), Conv(40, 2, True), Conv(40), Conv(32, 2)),
    ),
    # In 24 KB and in 12, the 1.2 KB that SE takes are worth more as channels, and the smallest has
    # little to overfit with: dropout costs it more than it brings.
    "cnn_se_nano": Plan(8, (Conv(24, 2), Conv(24), Conv(24), Conv(24, 2, True)), attention="none"),
    "cnn_se_pico": Plan(
        16, (Conv(16, 2), Conv(16), Conv(16, 2, True)), attention="none", dropout=0.0
    ),
}


def build_cnn_se(**arguments: Any) -> Any:
    """Build `cnn_se`: 53,225 parameters and 5.6 million MACs at width 1 and 64x64.

    See `bloodedge.train.models.spec.Builder` for the arguments.
    """
    return build_student("cnn_se", PLANS["cnn_se"], **arguments)


def build_cnn_se_nano(**arguments: Any) -> Any:
    """Build `cnn_se_nano`: 17,992 parameters, 3.5 million MACs. Arguments as for `build_cnn_se`."""
    return build_student("cnn_se_nano", PLANS["cnn_se_nano"], **arguments)


def build_cnn_se_pico(**arguments: Any) -> Any:
    """Build `cnn_se_pico`: 7,496 parameters, 1.5 million MACs. Arguments as for `build_cnn_se`."""
    return build_student("cnn_se_pico", PLANS["cnn_se_pico"], **arguments)


def build_student(
    name: str,
    plan: Plan,
    *,
    classes: int,
    size: int | None,
    batch: int | None = None,
    width: float = 1.0,
    attention: str = "",
) -> Any:
    """Build the net of a plan.

    The stem takes patches, so that each pixel is read once and the export can read a row of a
    patch as one position of many channels (`bloodedge.deploy.flat.faster`). A plan's own SE hides
    an eighth of the channels. See `bloodedge.train.models.spec.Builder` for the other arguments.
    """
    import keras

    image, x = input_and_scaling(size, batch)
    x = conv_bn_relu(x, scaled(plan.stem, width), "stem", kernel=plan.patch, stride=plan.patch)
    for place, conv in enumerate(plan.convs, start=1):
        x = conv_bn_relu(x, scaled(conv.filters, width), f"conv{place}", stride=conv.stride)
        if conv.attention:
            x = _attend(x, plan, attention, place)
    return keras.Model(image, logits_head(x, classes, plan.dropout), name=name)


def _attend(x: Any, plan: Plan, wanted: str, place: int) -> Any:
    kind = wanted or plan.attention
    if kind == "se":
        return squeeze_excite(x, f"se{place}")
    return attend(x, kind, f"attend{place}")
