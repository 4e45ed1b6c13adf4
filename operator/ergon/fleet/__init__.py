"""The domain in plain numbers: the frozen Fleet snapshot of pools, servers, models, variants and replicas that every decision reads.

In: parsed api objects and observed facts. Out: frozen dataclasses. No I/O, no clock.
"""
