"""How much each channel matters, summed over everything that is coupled with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bloodedge.compress.channels.graph import ChannelGraph
from bloodedge.compress.channels.members import Member
from bloodedge.compress.channels.taylor import taylor_terms
from bloodedge.data.dataset import Split
from bloodedge.errors import ConfigError

Scores = Mapping[str, NDArray[np.float64]]


class Importance(Protocol):
    """Ranks the channels of every group.

    Scores of different groups are compared, so each criterion puts them on one scale.
    """

    def __call__(self, graph: ChannelGraph, train: Split, seed: int) -> Scores:
        """Return `(channels,)` scores of 0 or more for each group that it can rank, by name.

        Args:
            graph: what is coupled, with the model.
            train: labelled images, for criteria that look at data.
            seed: fixes which of them.
        """


def l1(graph: ChannelGraph, train: Split, seed: int) -> Scores:
    """Sum of the absolute weights that make a channel (Li et al. 2017), over its layers.

    A group's scores are divided by their sum: norms of different layers do not compare.
    """
    return _relative(graph, ((m, _norms(m)) for m in graph.members.values() if _has_kernel(m)))


def bn(graph: ChannelGraph, train: Split, seed: int) -> Scores:
    """Absolute batch-norm scale (network slimming, Liu et al. 2017), over its layers.

    Groups without a scale are not ranked. Scores are divided by the group's sum.
    """
    scaled = (m for m in graph.members.values() if m.is_batch_norm and m.layer.scale)
    return _relative(graph, ((m, np.abs(m.layer.get_weights()[0])) for m in scaled))


def taylor(graph: ChannelGraph, train: Split, seed: int) -> Scores:
    """Squared change of the loss, to first order, when a channel is removed.

    Molchanov et al. 2019: `(sum g w)^2` over the weights w that scale a channel, with gradients g
    of the mean loss of a mini-batch; averaged over mini-batches, summed over the coupled layers.
    The unit is the loss's, so the groups compare as they are.
    """
    return _by_group(graph, taylor_terms(graph, train, seed))


# What `--importance` takes.
CRITERIA: dict[str, Importance] = {"l1": l1, "bn": bn, "taylor": taylor}


def criterion(name: str) -> Importance:
    """Return a criterion.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in CRITERIA:
        raise ConfigError(f"--importance {name!r}", expected=", ".join(CRITERIA))
    return CRITERIA[name]


def _has_kernel(member: Member) -> bool:
    return bool(member.outputs) and not member.is_batch_norm


def _norms(member: Member) -> NDArray[np.float64]:
    kernel = member.layer.get_weights()[member.outputs[0]]
    rows = np.abs(kernel.astype(np.float64)).reshape(-1, len(member.out))
    norms: NDArray[np.float64] = rows.sum(axis=0)
    return norms


def _relative(
    graph: ChannelGraph, found: Iterator[tuple[Member, NDArray[np.float64]]]
) -> dict[str, NDArray[np.float64]]:
    scores = _by_group(graph, found)
    return {name: s / max(float(s.sum()), 1e-30) for name, s in scores.items()}


def _by_group(
    graph: ChannelGraph, found: Iterator[tuple[Member, NDArray[np.float64]]]
) -> dict[str, NDArray[np.float64]]:
    """Add up what belongs to the same channel; groups that nothing was found of are left out."""
    total, ranked = np.zeros(graph.count), np.zeros(graph.count, dtype=np.bool_)
    for member, values in found:
        np.add.at(total, member.out, values)
        ranked[member.out] = True
    return {g.name: total[g.channels] for g in graph.groups if ranked[g.channels].all()}
