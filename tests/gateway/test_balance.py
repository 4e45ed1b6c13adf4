"""Which of several servers is asked."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ergon.gateway.balance import Load, choose

NAMES = ["a", "b", "c", "d"]


@given(
    st.lists(st.sampled_from(NAMES), unique=True),
    st.lists(st.sampled_from(NAMES), unique=True),
    st.dictionaries(st.sampled_from(NAMES), st.floats(0, 20)),
    st.integers(),
)
def test_one_that_was_not_tried_and_a_sound_one_where_there_is(
    addresses: list[str], tried: list[str], suspect: dict[str, float], seed: int
) -> None:
    loads = {name: Load(0, suspect.get(name, 0.0)) for name in NAMES}
    found = choose(addresses, loads.__getitem__, 10.0, random.Random(seed).randrange, tried)
    left = [name for name in addresses if name not in tried]
    sound = [name for name in left if loads[name].suspect_until <= 10.0]
    assert found in (sound or left or [None])


def test_the_busiest_of_several_is_never_chosen_and_equal_ones_share() -> None:
    chance, loads = random.Random(1), {name: Load() for name in NAMES}
    loads["d"].outstanding = 5
    counted = Counter(choose(NAMES, loads.__getitem__, 0.0, chance.randrange) for _ in range(3000))
    assert counted["d"] == 0
    assert all(700 < counted[name] < 1300 for name in "abc")


def test_load_evens_out() -> None:
    chance, loads = random.Random(1), {name: Load() for name in NAMES}
    for _ in range(400):
        found = choose(NAMES, loads.__getitem__, 0.0, chance.randrange)
        assert found is not None
        loads[found].outstanding += 1
    assert max(load.outstanding for load in loads.values()) - min(load.outstanding for load in loads.values()) <= 4
