"""What the planner should reach. Gaps are (watts - bound) / (bound - what servers.min costs anyway)."""

OPTIMA_SECONDS = 0.2
"""8 x 3 x 6: optimal, in so many seconds at most."""

SMALL_MEDIAN_GAP = 0.003
SMALL_WORST_GAP = 0.03
SMALL_SECONDS = 0.5

MID_GAP = 0.01
MID_SECONDS = 1.0
MID_THOROUGH_GAP = 0.005
MID_THOROUGH_SECONDS = 5.0

MEMORY_GAP = 0.02
MEMORY_SECONDS = 10.0
"""1,000 models where memory binds."""

LARGE_SECONDS = 15.0

REPLAN_SECONDS = 0.1
REPLAN_MOVES = 10
"""Moves beyond those of the replicas of a lost server."""

BELOW_BASELINES = -0.03
"""Watts relative to the best simpler planner, less one."""
