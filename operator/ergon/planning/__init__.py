"""Decides which replica stands on which server: candidates with a typed reason for every no, and a plan.

In: a Fleet snapshot. Out: a Plan. Pure: same snapshot, same plan.
"""
