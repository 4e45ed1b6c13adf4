"""How busy a replica may be that generates: it has a place for each request in generation, and what waits, waits for a place.

The latency rule takes what is served to come one after the other. A generating replica serves as many at once as the batch of its
point, each for many seconds; so what comes within the time of one generation must find places, and beyond that nothing waits.
"""

import math
from collections.abc import Sequence

import numpy as np

from ergon.fleet.types import PEAK_SECONDS, Fleet, Model, Pool, Variant
from ergon.planning.arrays import Floats, Ints
from ergon.planning.points import LEAST_BUSY_SHARE


def busy_up_to_peaks(
    fleet: Fleet,
    models: Sequence[Model],
    variants: Sequence[Variant],
    pools: Sequence[Pool],
    m: Ints,
    v: Ints,
    p: Ints,
    point: Ints,
    rho: Floats,
) -> Floats:
    """rho of candidates (models `m`, variants `v`, pools `p`, operating points), that of models whose peak is known replaced.

    With demand x and peak y, replicas at x / y of their rate have places for y together; never above the pool's busy share.
    Against request mode, one L4 of 32 places by theory (places all taken, Poisson arrivals): 0.7 is 1 % late where the
    latency rule allows 0.57; bursts of code need 0.09 to 0.15 where it allows 0.33.

    What waits may wait for the target less the point's latency, t. A rate that is above y by t / PEAK_SECONDS for so long makes
    the last of it wait for t, so places for that much less will do: 8 % for conversations on an L4 (2 s, 0.4 s), 3 % for code.
    """
    ratios = np.array([_ratio(fleet, model) for model in models], float)
    if np.isnan(ratios).all():
        return rho
    found = rho.copy()
    for n in np.flatnonzero(~np.isnan(ratios[m]) & (point >= 0)).tolist():
        model = models[m[n]]
        waits = _waits(model, variants[v[n]].points[point[n]].latency_seconds or 0.0)
        most = pools[p[n]].max_busy_share
        found[n] = min(max(float(ratios[m[n]]) * (1.0 + waits / PEAK_SECONDS), LEAST_BUSY_SHARE), most)
    return found


def _waits(model: Model, latency_seconds: float) -> float:
    """How long a request may wait for a place, half a span at most; not at all where nothing says how long."""
    if model.slo_latency_seconds is None or not math.isfinite(model.slo_latency_seconds):
        return 0.0
    return min(max(model.slo_latency_seconds - latency_seconds, 0.0), PEAK_SECONDS / 2)


def _ratio(fleet: Fleet, model: Model) -> float:
    """Demand over peak; NaN where the model does not generate or its peak is not known."""
    peak, demand = fleet.peaks.get(model.key, 0.0), fleet.demand.get(model.key, 0.0)
    if not (0 < demand < np.inf and 0 < peak < np.inf) or not model.counts_tokens:
        return float("nan")
    return demand / peak
