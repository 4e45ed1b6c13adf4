"""Says how much work is asked of every model and what an execution takes: windows, learned points, forecasts, scaling.

In: Triton's counters as plain values, fleet values, times in seconds. Out: demand in the planner's unit of work with one
sentence of why, and operating points corrected by what was seen. Pure: no I/O, no clock; one clock that never steps back is the
caller's.
"""

from ergon.demand.book import Book, Demand, Seen, ServerView, Tenant
from ergon.demand.counters import BatchCounters, Counters, Window, difference
from ergon.demand.forecast import Forecast, Forecaster
from ergon.demand.learning import Finding, ServiceKey
from ergon.demand.scaling import Decision, Limits, Scaling, Signals

__all__ = [
    "BatchCounters",
    "Book",
    "Counters",
    "Decision",
    "Demand",
    "Finding",
    "Forecast",
    "Forecaster",
    "Limits",
    "Scaling",
    "Seen",
    "ServerView",
    "ServiceKey",
    "Signals",
    "Tenant",
    "Window",
    "difference",
]
