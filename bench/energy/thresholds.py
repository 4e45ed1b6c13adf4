"""What running a fleet by Ergon should be worth: kWh relative to another policy, less one, on the day that varies 3:1."""

AGAINST = {
    "general": -0.70,
    "general-hpa": -0.60,
    "dedicated": -0.40,
    "hpa": -0.30,
    "static": -0.20,
    "clairvoyant": 0.10,
}

FLAT_AGAINST_STATIC = 0.02
"""On the flat day there is nothing to follow."""

LEAST_WITHIN = 0.99
LEAST_WITHIN_EACH = 0.97
LEAST_WITHIN_WINDOW = 0.90

PLANNED_AGAINST_SIMULATED = 0.05
"""Planned watts beside simulated ones, either way."""
