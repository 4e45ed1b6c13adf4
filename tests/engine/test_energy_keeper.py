"""What is booked of servers that are read late, by halves, or not at all."""

from typing import Any

import pytest

from ergon.energy.meters import Reading
from ergon.engine.energy import POOL_READING
from ergon.engine.packed import packed, unpacked
from ergon.reconcile.figures import energy_status
from tests.engine.energy_keeper import IDLE_WATTS, KEY, Energy


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


def test_a_model_that_does_nothing_has_a_status_that_stands() -> None:
    energy = Energy()
    record = energy.cache.models[KEY]

    def written(minutes: int) -> int:
        """So often its status is written anew."""
        times = 0
        for _ in range(minutes):
            energy.after(60.0)
            for key in energy.keeper.telling():
                view = energy.keeper.model(key)
                assert view is not None
                record.status["energy"] = energy_status(view)
                times += 1
        return times

    for minute in range(1, 121):
        energy.read(100 * minute, 30.0 * minute)
        written(1)
    assert record.status["energy"]["watts"] == pytest.approx(50.0, rel=0.25)
    assert written(12 * 60) <= 8
    assert record.status["energy"]["watts"] == 0.0
    assert written(12 * 60) == 0


@pytest.mark.parametrize("agents", [0, 1, 3], ids=["all-boot", "some-boot", "all-answer"])
def test_one_query_for_a_pool_is_all_that_its_servers_draw(agents: int) -> None:
    """Three of its pods are there; so many of them answer."""
    energy = Energy(agents=agents, pods=3, source="Prometheus", prometheus={"query": "watts"})
    for _ in range(6):
        energy.keeper.pool_readings["cpu"] = Reading(watts={POOL_READING: 45.0})
        energy.after()
    assert energy.joules() == pytest.approx(45.0 * 60)
    assert energy.joules("idle") == pytest.approx(3 * IDLE_WATTS * 60)
    assert energy.assumed_joules() == 0
    assert energy.keeper.pool_figures()["cpu"].watts == pytest.approx(45.0)


@pytest.mark.parametrize("agents", [0, 1, 3], ids=["all-boot", "some-boot", "all-answer"])
def test_a_query_without_an_answer_is_assumed_for_all_servers(agents: int) -> None:
    energy = Energy(agents=agents, pods=3, source="Prometheus", prometheus={"query": "watts"})
    for _ in range(60):
        energy.after()
    assert energy.joules() == energy.assumed_joules() == pytest.approx(3 * IDLE_WATTS * 600, rel=0.11)
    assert energy.keeper.pool_figures()["cpu"].watts == pytest.approx(3 * IDLE_WATTS)


def test_what_a_meter_said_before_it_fell_silent_is_no_measurement_of_what_comes_after() -> None:
    energy = Energy(source="Triton")
    for tick in range(3):
        energy.read(0, 0.0, Reading(joules={"gpu": 1500.0 * tick}, watts={"gpu": 150.0}))
        energy.after()
    measured = energy.joules()
    assert energy.assumed_joules() <= 0.5 * measured
    for _ in range(360):
        energy.after()
    assert energy.joules() - measured == pytest.approx(IDLE_WATTS * 3600, rel=0.05)
    assert energy.assumed_joules() == pytest.approx(energy.joules() - measured, rel=0.05)
    said = energy.keeper.pool("cpu")
    assert said is not None
    assert said.provenance == "assumed"
