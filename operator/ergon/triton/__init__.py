"""Adapter to Triton Inference Server over gRPC: repository index, load and unload, statistics, configuration merging.

In: an address and a key. Out: plain values, or one documented error. No decisions.
"""
