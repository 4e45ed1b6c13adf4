"""Escalation on real labels: the language of short strings, by a small model, a general one, and a route over both.

In: Django's translations (BSD-3, from PyPI) with their languages. Out: quality and CPU seconds, and a picture of them.
"""
