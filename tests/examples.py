"""On how many examples a property is tried that sets their number itself: few in every run, many with `make test-thorough`."""

from hypothesis import settings

THOROUGH = "thorough"
TIMES = 10


def examples(number: int) -> int:
    """So many in every run, ten times as many under the profile `thorough`."""
    return number * (TIMES if settings.get_current_profile_name() == THOROUGH else 1)
