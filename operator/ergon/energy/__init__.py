"""Says where every joule went, and how many watts are left for whom: power models, meters, the ledger, budgets.

In: what was observed in an interval (counters, busy seconds, servers on), wall time only for calendar windows. Out: joules by
account with their provenance, verdicts on budgets, small states to restart from. Pure: no clock, no I/O; time is an argument.
"""
