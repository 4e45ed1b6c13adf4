"""How much energy a fleet of forty models takes when it is run in one way or another, on a simulated day; no cluster is needed.

In: a seed, a shape of day, policies. Out: a table, a waterfall, and `results/energy.json`. `streams` makes the requests, `fleet`
the models and pools (from examples/seed-fleet, whose NOTICE and README say where each figure is from), `thresholds` are the bars.
"""
