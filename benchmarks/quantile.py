"""Student's t, for the intervals of a few runs and of a meter's samples."""

from __future__ import annotations


def student_t(freedom: float) -> float:
    """Return the 97.5 % quantile of Student's t: half of a 95 % interval in standard errors.

    Args:
        freedom: degrees of freedom, above 0; they need not be whole.
    """
    # What `scipy.stats.t.ppf` calls, without the second that importing `scipy.stats` takes.
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))
