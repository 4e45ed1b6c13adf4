"""Trace-driven simulation of a fleet: what a way of running it would have drawn, answered in time, and refused.

In: a Fleet, a trace, a policy and a seed. Out: one Result a policy, and a page about them. No I/O, no clock; chance only through
an explicit numpy Generator. The planner, the moves and the demand code are the operator's own; power is interpolated between
measured points and never taken from the planner's formula.
"""
