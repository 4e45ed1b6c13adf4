"""Whether a model that sleeps is about to be asked, as on the days before: so that it wakes before its daily first request.

The forecast is made for models that are asked: of a night's hundreds of minutes without a request, the last value is right in
all but one. So what comes again at its time is looked for by itself, and on two days running, so that chance wakes nothing.
"""

import math

from ergon.demand.history import PER_QUARTER, QUARTERS, History

DAYS = ((1, 2), (7, 14))
"""Yesterday and the day before; the same day of the last two weeks."""
LEAST_WORK = 0.5
"""Of work in the quarters of an hour looked at, on each of the days: half a request is somebody who asked."""
_QUARTERS_A_DAY = 96


def recurring_work(history: History, row: int, now_seconds: float, horizon_seconds: float) -> float:
    """The work that came on both of two earlier days in the quarters of an hour from now to the horizon; 0 where it did not.

    Of the two days the smaller; of yesterday and last week the larger.
    """
    first = int(now_seconds // 60) // PER_QUARTER
    last = int((now_seconds + horizon_seconds) // 60) // PER_QUARTER
    return max(min(_work_of(history, row, first, last, day) for day in days) for days in DAYS)


def _work_of(history: History, row: int, first: int, last: int, days: int) -> float:
    shifted = [quarter - days * _QUARTERS_A_DAY for quarter in range(first, last + 1)]
    now = (history.closed_minute + 1) // PER_QUARTER
    if shifted[0] < 0 or shifted[0] <= now - QUARTERS:
        return 0.0
    rates = [float(history.quarters[row, quarter % QUARTERS]) for quarter in shifted]
    work = math.fsum(rate for rate in rates if rate > 0) * 60 * PER_QUARTER  # NaN, unknown, is not above 0
    return work if work >= LEAST_WORK else 0.0
