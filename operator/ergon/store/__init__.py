"""Adapter to the model store beside each Triton (rclone's remote control): fetch, progress, cancel, rename, list, remove.

In: a typed source and a target name. Out: plain values, or one documented error. No decisions.
"""
