"""The distillation losses, each as one value an image, in Keras operations.

All take float32 logits `(B, C)` of teacher and student; the caller weighs them against the labels.
"""

from __future__ import annotations

from typing import Any

# How much more the classes that are not the label's count (Zhao et al. 2022, beta).
_NON_TARGET_WEIGHT = 8.0
# What lengths are at least. It is inside their roots: a root of zero has no gradient.
_EPSILON = 1e-8
# A logit far below all others, of which the softmax is 0; of infinity it would be NaN.
_NO_LOGIT = -1e9


def kd(teacher: Any, student: Any, temperature: float) -> Any:
    """Return `T^2 KL(teacher_T || student_T)` (Hinton, Vinyals & Dean 2015)."""
    return temperature**2 * _kl(teacher / temperature, student / temperature)


def dkd(label: Any, teacher: Any, student: Any, temperature: float) -> Any:
    """Return decoupled distillation (Zhao et al. 2022): `T^2 (TCKD + 8 NCKD)`.

    TCKD compares how sure both are of the label's class, NCKD how they divide the rest among the
    other classes, which plain distillation suppresses where the teacher is sure. The authors'
    warm-up of 20 epochs is left out: the rate has one.

    Args:
        label: `(B, C)` one-hot or smoothed labels; the largest entry is the class.
        teacher: `(B, C)` logits.
        student: `(B, C)` logits.
        temperature: T.
    """
    from keras import ops

    t, s = teacher / temperature, student / temperature
    mask = ops.one_hot(ops.argmax(label, axis=-1), label.shape[-1], dtype="float32")
    target = _kl(_label_or_not(t, mask), _label_or_not(s, mask))
    others = _kl(_without_label(t, mask), _without_label(s, mask))
    return temperature**2 * (target + _NON_TARGET_WEIGHT * others)


def dist(teacher: Any, student: Any) -> Any:
    """Return DIST (Huang et al. 2022): 1 - Pearson correlation of the probabilities, twice.

    Once within each image over the classes, once within each class over the batch; the second is
    the same for every image of the batch.
    """
    from keras import ops

    p, q = ops.softmax(teacher), ops.softmax(student)
    between = 1 - _correlation(p, q)
    within = 1 - ops.mean(_correlation(ops.transpose(p), ops.transpose(q)))
    return between + within


def similarity(teacher: Any, student: Any) -> Any:
    """Return how differently both see which images are alike (Tung & Mori 2019).

    `||G_t - G_s||^2` of each image's row, where `G = F F^T` over the batch with rows of unit
    length. No weights are learnt for it, whatever the widths.

    Args:
        teacher: `(B, F)` features of the teacher.
        student: `(B, E)` features of the student.
    """
    from keras import ops

    def gram(features: Any) -> Any:
        g = ops.matmul(features, ops.transpose(features))
        squares = ops.sum(ops.square(g), axis=1, keepdims=True)
        return g / ops.sqrt(squares + _EPSILON**2)

    return ops.sum(ops.square(gram(teacher) - gram(student)), axis=1)


def cross_entropy(label: Any, logits: Any) -> Any:
    """Return the cross-entropy of `(B, C)` labels and logits."""
    from keras import ops

    return -ops.sum(label * ops.log_softmax(logits), axis=-1)


def _kl(teacher: Any, student: Any) -> Any:
    from keras import ops

    log_p, log_q = ops.log_softmax(teacher), ops.log_softmax(student)
    return ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)


def _label_or_not(logits: Any, mask: Any) -> Any:
    """Return `(B, 2)` logits of "the label's class" and "any other"."""
    from keras import ops

    own = ops.sum(logits * mask, axis=-1)
    rest = ops.logsumexp(_without_label(logits, mask), axis=-1)
    return ops.stack([own, rest], axis=-1)


def _without_label(logits: Any, mask: Any) -> Any:
    """Return `(B, C)` logits of which the label's leaves the softmax, whatever it was."""
    from keras import ops

    return ops.where(mask > 0, _NO_LOGIT, logits)


def _correlation(a: Any, b: Any) -> Any:
    """Return Pearson's correlation along the last axis."""
    from keras import ops

    a = a - ops.mean(a, axis=-1, keepdims=True)
    b = b - ops.mean(b, axis=-1, keepdims=True)
    squares = ops.sum(a * a, axis=-1) * ops.sum(b * b, axis=-1)
    return ops.sum(a * b, axis=-1) / ops.sqrt(squares + _EPSILON**2)
