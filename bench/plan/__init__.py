"""How good, how fast and how steady the planner is, on fleets drawn by seed; no cluster is needed.

In: a seed and what to measure. Out: a table, and `results/plan.json`. `generator` draws fleets, `baselines` are simpler planners,
`thresholds` are the bars.
"""
