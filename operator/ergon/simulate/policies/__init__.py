"""Ways of running a fleet, each behind one interface: what is observed goes in, which replicas should be where comes out.

All of them meet the same pools, profiles, latency rule, cold starts and arrivals; none but `clairvoyant` and `bound` is told of
the future, and fixed sizes are found on the very day that is measured, which is more than a person could know.
"""
