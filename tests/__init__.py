"""Tests mirror the rooms of operator/ergon; those marked `cluster` run against a real API server, Triton and rclone."""

import asyncio

# pytest-asyncio asks for the current loop before its first own; without this, asyncio makes one that nobody closes.
asyncio.set_event_loop(None)
