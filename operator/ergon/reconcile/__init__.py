"""Compares what is planned with what is observed and says what to do next: actions, endpoints, statuses, events.

In: plan, observation, time as an argument. Out: values. Pure; it can be read top to bottom as the story of one model.
"""
