"""Decides which replica stands on which server: candidates with a typed reason for every no, and a plan.

In: a Fleet snapshot. Out: a Plan. Pure: the same snapshot gives the same plan, whatever the order of its parts.
"""

from ergon.planning.candidates import Reason, Rejection, judge
from ergon.planning.effort import Effort, Weights
from ergon.planning.plan import Alternative, Load, Plan, Provenance
from ergon.planning.planner import plan

__all__ = ["Alternative", "Effort", "Load", "Plan", "Provenance", "Reason", "Rejection", "Weights", "judge", "plan"]
