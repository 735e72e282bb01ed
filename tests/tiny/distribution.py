"""The Kolmogorov-Smirnov test against the lengths of the trace: lognormal, median 1,000, sigma 1, at most 16,000."""

from __future__ import annotations

import math
from collections.abc import Sequence

MEDIAN, SIGMA, CAP = 1000.0, 1.0, 16000.0


def kolmogorov_smirnov(lengths: Sequence[float]) -> float:
    """p-value of the hypothesis that the lengths are of this distribution, by Kolmogorov's series."""
    count = len(lengths)
    distance = 0.0
    for rank, length in enumerate(sorted(lengths)):
        below = 0.5 * (1 + math.erf(math.log(length / MEDIAN) / SIGMA / math.sqrt(2)))  # share of shorter ones
        if length < CAP:
            distance = max(distance, below - rank / count, (rank + 1) / count - below)
    scaled = distance * (math.sqrt(count) + 0.12 + 0.11 / math.sqrt(count))
    terms = [(-1) ** (k - 1) * math.exp(-2 * k * k * scaled * scaled) for k in range(1, 101)]
    return min(1.0, max(0.0, 2 * sum(terms)))
