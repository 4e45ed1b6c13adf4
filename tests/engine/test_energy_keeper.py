"""What is booked of servers that are read late, by halves, or not at all."""

from typing import Any

import pytest

from ergon.engine.packed import packed, unpacked
from tests.engine.energy_keeper import Energy


def state_of(energy: Energy) -> dict[str, Any]:
    """As another process reads it."""
    found = packed(energy.keeper.to_state(), 10**6, ())
    assert found is not None
    return unpacked(found[0])


@pytest.mark.parametrize("late_by", [0, 1, 6], ids=["at-once", "late", "a-minute-late"])
def test_what_is_kept_and_read_late_is_taken_up_as_if_nothing_had_been_booked_since(late_by: int) -> None:
    before = Energy()
    for tick in range(1, 4):
        before.read(10 * tick, 2.0 * tick)
        before.after()
    kept, booked = state_of(before), before.model_joules()
    after = Energy(60.0)
    done = 3
    for _ in range(late_by):
        done += 1
        after.read(10 * done, 2.0 * done)
        after.after()
    after.keeper.restore(kept)
    for _ in range(6):
        done += 1
        after.read(10 * done, 2.0 * done)
        after.after()
    requests = 10 * (done - 3)
    assert after.model_joules() - booked == pytest.approx(10.0 * requests * 2.0, rel=0.03)
    assert after.joules("idle") == pytest.approx(10.0 * after.seconds, rel=0.03)
