"""Kubernetes quantities and durations as numbers.

Sources: `resource.Quantity` of k8s.io/apimachinery for sizes, Go's `time.ParseDuration` for durations (the part people use).
"""

import math
import re
from decimal import Decimal

QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?([eE][0-9]{1,2}|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
QUANTITY_WORDS = "write a number with a unit such as 600Mi, 2Gi or 500M (no space; MB and GB are no units), at least 1Mi"
LEAST_QUANTITY = 2**20
"""What is smaller was meant otherwise: a unit was forgotten, and Kubernetes' `600m` is not even one byte."""
LARGEST_QUANTITY = 2**63 - 1
LONGEST_TEXT = 32
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
DURATION_WORDS = "write a number with a unit such as 200ms, 10s, 5m or 1h30m"
POSITIVE_DURATION_WORDS = "write a number above 0 with a unit such as 200ms, 10s, 5m or 1h30m"

_MULTIPLIERS = {
    "": Decimal(1),
    "k": Decimal(10) ** 3,
    "M": Decimal(10) ** 6,
    "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15,
    "E": Decimal(10) ** 18,
    "Ki": Decimal(2) ** 10,
    "Mi": Decimal(2) ** 20,
    "Gi": Decimal(2) ** 30,
    "Ti": Decimal(2) ** 40,
    "Pi": Decimal(2) ** 50,
    "Ei": Decimal(2) ** 60,
}
_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")


def quantity_bytes(text: str | int) -> int:
    """The number of bytes a Kubernetes quantity stands for, rounded up, 1 MiB or more. Raises ValueError naming the text."""
    text = str(text).strip()
    if len(text) > LONGEST_TEXT or not re.fullmatch(QUANTITY_PATTERN, text):
        raise ValueError(f"{text[:LONGEST_TEXT]!r} is not a quantity; {QUANTITY_WORDS}")
    number = text.rstrip("ikKMGTPE")
    value = Decimal(number) * _MULTIPLIERS[text[len(number) :]]
    if value < LEAST_QUANTITY:
        raise ValueError(f"{text!r} is too little; {QUANTITY_WORDS}")
    if value > LARGEST_QUANTITY:
        raise ValueError(f"{text!r} is too large; at most 2^63 - 1 is possible")
    return math.ceil(value)


def duration_seconds(text: str) -> float:
    """The seconds in a duration such as `200ms`, `10m` or `1h30m`. Raises ValueError naming the text."""
    if len(text) > LONGEST_TEXT or not re.fullmatch(DURATION_PATTERN, text):
        raise ValueError(f"{text[:LONGEST_TEXT]!r} is not a duration; {DURATION_WORDS}")
    return float(sum(Decimal(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text)))


def format_bytes(count: int) -> str:
    """Bytes in the largest binary unit that keeps the figure readable: `600 MiB`, `1.5 GiB`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if value >= 10 or value == int(value) else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")
