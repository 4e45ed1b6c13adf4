"""The domain in plain numbers: the frozen Fleet that every decision reads (pools, models, variants, replicas).

In: parsed api objects and observed facts. Out: frozen dataclasses. No I/O, no clock.
"""
