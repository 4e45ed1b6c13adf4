"""Adapter to the Kubernetes API: a paced and retried client, server-side apply, builders of child objects, events, the Lease.

In: dicts. Out: dicts, or one documented error. No decisions.
"""
