"""RadCliQ v0 and v1: a linear score of four metrics, fitted to radiologists' error counts.

Lower is better. Source: Yu et al., "Evaluating progress in automatic chest X-ray radiology report
generation" (Patterns, 2023). Their published regressions are written out here:
score = sum of coefficient * (metric - mean) / scale, plus a bias.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike

from lmrrg.metrics.parts import Array, Parts

RADCLIQ_METRICS = (*(part.name for part in fields(Parts)), "radcliq_v0", "radcliq_v1")
"""The metrics that a backend computes."""
LOWER_IS_BETTER = frozenset({"radcliq_v0", "radcliq_v1"})


@dataclass(frozen=True)
class _Term:
    """One metric's term in the regression."""

    mean: float
    scale: float
    coefficient: float

    def __call__(self, metric: ArrayLike) -> Array:
        """Return what a metric adds to the score, before the bias."""
        return self.coefficient * (np.asarray(metric, dtype=np.float64) - self.mean) / self.scale


# All digits are those of the published regressions. v0 and v1 were fitted apart, each with its own
# means and scales.
_V0_RADGRAPH = _Term(0.5398376019, 0.3018344441, -0.4796252645)
_V0_BERTSCORE = _Term(0.6312549595, 0.2246695075, -0.6762170542)
_V0_SEMB = _Term(0.7716797867, 0.2475033381, -0.4636657516)
_V0_BLEU2 = _Term(0.4607372065, 0.3033667094, 0.2165861905)
_V0_BIAS = 1.6416666667

_V1_RADGRAPH = _Term(0.5379231241, 0.3028258411, -0.3770836826)
_V1_BERTSCORE = _Term(0.6175725628, 0.2243093846, -0.3703000997)
_V1_SEMB = _Term(0.7647942121, 0.2539439110, -0.2526162179)
_V1_BIAS = 2.4666e-10


def radcliq_v0(
    radgraph: ArrayLike, bertscore: ArrayLike, semb: ArrayLike, bleu2: ArrayLike
) -> Array:
    """Return RadCliQ-v0 of N pairs: the number of errors that six radiologists would count.

    All arguments are [N]. It rewards a *low* BLEU-2 (the regression's sign), which is why a system
    should not be trained on it.

    >>> round(float(radcliq_v0(1.0, 1.0, 1.0, 1.0)), 4)  # identical reports
    -0.2421
    >>> bool(radcliq_v0(0.5, 0.5, 0.5, bleu2=0.9) > radcliq_v0(0.5, 0.5, 0.5, bleu2=0.1))
    True
    """
    return (
        _V0_RADGRAPH(radgraph)
        + _V0_BERTSCORE(bertscore)
        + _V0_SEMB(semb)
        + _V0_BLEU2(bleu2)
        + _V0_BIAS
    )


def radcliq_v1(radgraph: ArrayLike, bertscore: ArrayLike, semb: ArrayLike) -> Array:
    """Return RadCliQ-v1 of N pairs, in standard deviations of the error count.

    All arguments are [N]; NaN gives NaN. BLEU-2 belongs to the published regression with a
    coefficient of 4e-12 and is left out.

    >>> round(float(radcliq_v1(1.0, 1.0, 1.0)), 4)  # identical reports
    -1.4407
    >>> round(float(radcliq_v1(0.0, 0.0, 0.0)), 4)  # nothing in common
    2.4501
    """
    return _V1_RADGRAPH(radgraph) + _V1_BERTSCORE(bertscore) + _V1_SEMB(semb) + _V1_BIAS


WORST_V1 = float(radcliq_v1(0.0, 0.0, 0.0))
"""RadCliQ-v1 of an empty report, 2.4501: it shares nothing with the reference."""
