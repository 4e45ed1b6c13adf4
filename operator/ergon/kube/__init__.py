"""Adapter to the Kubernetes API: a client with rate limit and retry, server-side apply, builders of child objects, events, the Lease.

In: dicts. Out: dicts, or one documented error. No decisions.
"""
