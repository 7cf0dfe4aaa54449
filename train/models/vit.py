"""A small vision transformer (Dosovitskiy et al. 2021) from built-in layers only."""

from __future__ import annotations

from typing import Any

from bloodedge.errors import ConfigError
from bloodedge.train.models.blocks import input_and_scaling

_PATCH = 8
_HEADS = 3
_HEAD_WIDTH = 64
_BLOCKS = 12


def build_vit_tiny(
    *,
    classes: int,
    size: int | None,
    batch: int | None = None,
    width: float = 1.0,
    attention: str = "",
) -> Any:
    """Build ViT-Tiny: 5.4 million parameters at width 1 and 64x64.

    64 patches of 8x8 pixels, 12 pre-norm blocks of 192 channels and 3 heads (DeiT-Ti, Touvron et
    al. 2021), and the mean of all tokens instead of a class token (Beyer et al. 2022). `width`
    scales the channels of each head. Position embeddings tie it to one image size. See
    `bloodedge.train.models.spec.Builder` for the arguments; it takes no `--attention`.

    Raises:
        ConfigError: no size, or one that patches do not divide.
    """
    import keras

    if size is None or size % _PATCH:
        raise ConfigError(
            f"vit_tiny cannot cut images of {size} pixels into patches",
            expected=f"a multiple of {_PATCH}",
        )
    head = max(4, round(_HEAD_WIDTH * width / 4) * 4)
    image, x = input_and_scaling(size, batch)
    x = _tokens(x, size // _PATCH, _HEADS * head)
    for block in range(1, _BLOCKS + 1):
        x = _block(x, head, f"block{block}")
    x = keras.layers.LayerNormalization(epsilon=1e-6, name="norm")(x)
    x = keras.layers.GlobalAveragePooling1D(name="pool")(x)
    x = keras.layers.Dropout(0.1, name="dropout")(x)
    return keras.Model(image, keras.layers.Dense(classes, name="logits")(x), name="vit_tiny")


def _tokens(x: Any, side: int, channels: int) -> Any:
    """Project each patch and add its learnt position: `(N, side * side, channels)`.

    The positions are the projection's bias, which may differ from token to token: so they need no
    layer of our own. A patch's rows are contiguous pixels, hence five dimensions, not six.
    """
    import keras

    x = keras.layers.Reshape((side, _PATCH, side, _PATCH * 3), name="rows")(x)
    x = keras.layers.Permute((1, 3, 2, 4), name="patches")(x)
    x = keras.layers.Reshape((side * side, _PATCH * _PATCH * 3), name="tokens")(x)
    return keras.layers.EinsumDense(
        "ntp,pc->ntc",
        (side * side, channels),
        bias_axes="tc",
        bias_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
        name="embed",
    )(x)


def _block(x: Any, head: int, name: str) -> Any:
    """Self-attention, then two dense layers, each normalised before and added to its input."""
    import keras

    channels = _HEADS * head
    y = keras.layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm1")(x)
    y = keras.layers.MultiHeadAttention(_HEADS, head, name=f"{name}_attention")(y, y)
    x = keras.layers.Add(name=f"{name}_add1")([x, y])
    y = keras.layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm2")(x)
    y = keras.layers.Dense(4 * channels, activation="gelu", name=f"{name}_mlp1")(y)
    y = keras.layers.Dense(channels, name=f"{name}_mlp2")(y)
    return keras.layers.Add(name=f"{name}_add2")([x, y])
