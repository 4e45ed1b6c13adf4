"""The one writer: takes a snapshot, lets the pure rooms decide, and carries the actions out with one bounded queue a server.

In: the cache that the edge fills. Out: calls on the adapters. Leadership is kept here.
"""
