"""How busy a replica may be that generates: it has a place for each request in generation, and what waits, waits for a place.

The latency rule takes what is served to come one after the other. A generating replica serves as many at once as the batch of its
point, each for many seconds; so what comes within the time of one generation must find places, and beyond that nothing waits.
"""

from collections.abc import Sequence

import numpy as np

from ergon.fleet.types import Fleet, Model, Pool
from ergon.planning.arrays import Floats, Ints
from ergon.planning.points import LEAST_BUSY_SHARE


def busy_up_to_peaks(
    fleet: Fleet, models: Sequence[Model], pools: Sequence[Pool], m: Ints, p: Ints, rho: Floats, mu: Floats
) -> Floats:
    """rho of candidates (models `m`, pools `p`), that of models whose peak is known replaced.

    With demand x and peak y, replicas at x / y of their rate have places for y together; never above the pool's busy share.
    Against request mode, one L4 of 32 places by theory (places all taken, Poisson arrivals): 0.7 is 1 % late where the
    latency rule allows 0.57; bursts of code need 0.09 to 0.15 where it allows 0.33.
    """
    known = np.array([_ratio(fleet, model) for model in models], float)
    if np.isnan(known).all():
        return rho
    most = np.array([pool.max_busy_share for pool in pools], float)[p]
    ratio = known[m]
    found: Floats = np.where(np.isnan(ratio) | (mu <= 0), rho, np.clip(ratio, LEAST_BUSY_SHARE, most))
    return found


def _ratio(fleet: Fleet, model: Model) -> float:
    """Demand over peak; NaN where the model does not generate or its peak is not known."""
    peak, demand = fleet.peaks.get(model.key, 0.0), fleet.demand.get(model.key, 0.0)
    if not (0 < demand < np.inf and 0 < peak < np.inf) or not model.counts_tokens:
        return float("nan")
    return demand / peak
