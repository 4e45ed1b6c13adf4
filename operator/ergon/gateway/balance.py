"""Which server of several is asked: the less busy of two taken at random, and none that just failed while another is there. Pure.

Two choices come close to the best of all, and unlike it do not send every gateway to the same idle server at once
(Mitzenmacher, "The power of two choices in randomized load balancing", 2001).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

SUSPECT_SECONDS = 2.0
"""A server that could not be reached is asked last for so long; within that its EndpointSlice tells whether it is gone."""


@dataclass(slots=True)
class Load:
    """What one gateway has under way at one server, and until when it counts as broken (seconds of the loop's clock)."""

    outstanding: int = 0
    suspect_until: float = 0.0


def choose(
    addresses: Sequence[str], load: Callable[[str], Load], now: float, draw: Callable[[int], int], tried: Sequence[str] = ()
) -> str | None:
    """One of these addresses that was not tried yet; None where all were. `draw(n)` gives a random number below n."""
    left = [address for address in addresses if address not in tried] if tried else addresses
    sound = [address for address in left if load(address).suspect_until <= now]
    among = sound or left
    if not among:
        return None
    if len(among) == 1:
        return among[0]
    first = draw(len(among))
    second = (first + 1 + draw(len(among) - 1)) % len(among)
    return min(among[first], among[second], key=lambda address: load(address).outstanding)
