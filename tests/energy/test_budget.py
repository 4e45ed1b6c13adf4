"""A budget over time: what it uses, what it allows, who gives way in which order, and what is said."""

from dataclasses import replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ergon.api.budget import EnergyBudgetSpec
from ergon.api.types import LabelSelector
from ergon.energy.accounts import Provenance
from ergon.energy.budget import Budget, BudgetState, Needs
from ergon.energy.forecast import level_forecast
from ergon.energy.giving_way import Saving, Way, give_way
from ergon.energy.ledger import DeviceTick, Ledger, PoolTick, ReplicaTick
from ergon.energy.scope import ScopeUse, scope_use
from ergon.energy.verdict import BudgetReason, LimitKind, Verdict
from tests.energy.world import A, B, fleet, pool

NOON = datetime(2026, 11, 25, 12, tzinfo=ZoneInfo("UTC")).timestamp()
SAVINGS = (
    Saving(Way.SHED, 300, (B,), 50),
    Saving(Way.VARIANT, 60, (A,)),
    Saving(Way.SHED, 200, (A,), 10),
    Saving(Way.SPARE, 100),
    Saving(Way.BATCH, 40, (A, B)),
    Saving(Way.SHED, 900, (A,), 500),
)


def budget(enforcement: str = "Enforce", shed: int = 100, name: str = "b", **limits: Any) -> Budget:
    return Budget(name, spec(enforcement, shed, **limits))


def spec(enforcement: str = "Enforce", shed: int = 100, **limits: Any) -> EnergyBudgetSpec:
    said = {"limits": limits or {"watts": 1000}, "enforcement": enforcement, "shedBelowPriority": shed}
    return EnergyBudgetSpec.model_validate(said)


def use(watts: float, seconds: float = 5.0, intensity: float = 360.0) -> ScopeUse:
    return ScopeUse(seconds, watts * seconds, 0.0, watts * seconds * intensity / 3.6e6, watts)


def hold(of: Budget, watts: float, seconds: float, needs: Needs | None = None, start: float = NOON) -> list[Verdict]:
    needs = needs or Needs(needed_watts=watts, protected_watts=0.5 * watts)
    return [of.observe(5.0, use(watts), needs, start + 5 * (tick + 1)) for tick in range(round(seconds / 5))]


@pytest.mark.parametrize(
    ("excess", "ways", "shed"),
    [
        (-5, [], None),
        (0, [], None),
        (80, [Way.SPARE], None),
        (150, [Way.SPARE, Way.VARIANT], None),
        (170, [Way.SPARE, Way.VARIANT, Way.BATCH], None),
        (210, [Way.SPARE, Way.VARIANT, Way.BATCH, Way.SHED], 10),
        (500, [Way.SPARE, Way.VARIANT, Way.BATCH, Way.SHED, Way.SHED], 50),
        (9999, [Way.SPARE, Way.VARIANT, Way.BATCH, Way.SHED, Way.SHED], 50),
    ],
)
def test_the_order_of_giving_way(excess: float, ways: list[Way], shed: int | None) -> None:
    given = give_way(excess, SAVINGS, shed_below_priority=100)
    assert [saving.way for saving in given.savings] == ways
    assert given.shed_priority == shed
    assert given.missing_watts == max(0, excess - given.watts) if ways else given.missing_watts == 0


def test_within_its_limit_a_budget_only_passes_it_on() -> None:
    verdict = hold(budget(), 800, 120)[-1]
    assert (verdict.within, verdict.feasible, verdict.gives_way.savings) == (True, True, ())
    assert verdict.watt_limit is not None
    assert verdict.watt_limit.watts == 1000
    assert verdict.within_message == "800 W of 1,000 W, mean of 60 s"
    assert verdict.shed_below_priority == 0


def test_a_limit_that_binds_says_who_gives_way_in_order() -> None:
    needs = Needs(needed_watts=1160, protected_watts=500, savings=SAVINGS)
    first, *_, last = hold(budget(), 940, 60, needs)
    assert last.within_reason is BudgetReason.GIVING_WAY
    assert last.shed_below_priority == 100
    assert last.within_message == (
        "940 W of 1,000 W, mean of 60 s; spare capacity and idle servers go (100 W), then models move to more efficient variants "
        "at or above minQuality (team-a/names: 60.0 W), then batches grow within the latency target (team-a/names, team-b/dates: "
        "40.0 W), then models of lower priority are shed (team-a/names: 200 W)"
    )
    assert [(event.reason, event.warning) for event in first.events] == [(BudgetReason.GIVING_WAY, True)]
    assert last.events == ()


def test_measured_power_above_the_limit_lowers_what_planning_may_use_and_is_told() -> None:
    verdicts = hold(budget(), 1100, 60, Needs(1100, 500, planned_watts=940))
    held = [verdict.watt_limit.watts for verdict in verdicts if verdict.watt_limit is not None]
    assert held[2] == 1000
    assert held[3] == pytest.approx(940 / 0.95 * 0.95 / 1.1)
    assert not verdicts[-1].within
    assert {event.reason for verdict in verdicts for event in verdict.events} == {
        BudgetReason.GIVING_WAY,
        BudgetReason.OVER_LIMIT,
    }


def test_protected_demand_is_never_taken_from_and_the_excess_is_said() -> None:
    verdict = hold(budget(), 1300, 600, Needs(1500, 1300, planned_watts=1300))[-1]
    assert verdict.watt_limit is not None
    assert verdict.watt_limit.watts == pytest.approx(1300 / 0.95)
    assert (verdict.feasible, verdict.feasible_reason) == (False, BudgetReason.PROTECTED_DEMAND)
    assert verdict.feasible_message == (
        "models of priority 100 and above and the servers that always run need 1,300 W, more than limits.watts of 1,000 W, "
        "crossed now; they are served all the same: raise the limit, or shedBelowPriority"
    )


def test_servers_that_always_run_alone_above_the_limit_are_named() -> None:
    verdict = hold(budget(), 1300, 5, Needs(1300, 1200, servers_watts=1100))[-1]
    assert verdict.feasible_reason is BudgetReason.SERVERS_ALONE
    assert "servers that always run take 1,100 W" in verdict.feasible_message


def test_a_forecast_that_crosses_a_watt_limit_is_told_hours_before() -> None:
    forecast = replace(
        level_forecast(0, 0), needed_watts=[900.0] * 12 + [1400.0] * 12, protected_watts=[600.0] * 12 + [1100.0] * 12
    )
    verdict = hold(budget(), 900, 5, Needs(900, 600, forecast=forecast))[-1]
    assert not verdict.feasible
    assert verdict.tightest.infeasible_in_seconds == 3 * 3600
    assert "crossed in 3 h" in verdict.feasible_message


def test_observe_reports_and_touches_nothing() -> None:
    verdict = hold(budget("Observe"), 1300, 120, Needs(1300, 500, savings=SAVINGS))[-1]
    assert (verdict.within, verdict.watt_limit, verdict.shed_below_priority) == (False, None, 0)
    assert verdict.within_message.endswith("observed only: nothing gives way")
    assert verdict.gives_way.savings == ()


def kilowatt_hours(amount: float, **more: Any) -> Budget:
    return budget(kilowattHours=amount, window="Day", **more)


def test_kilowatt_hours_bind_before_they_are_gone() -> None:
    """10 kWh a day, half a day gone, 500 W asked for: 6 kWh are to come and 4 are left."""
    of = kilowatt_hours(10)
    of.observe(3600.0, use(6000, 3600.0), Needs(500, 200), NOON)
    verdict = hold(of, 500, 60, Needs(500, 200))[-1]
    assert verdict.tightest.kind is LimitKind.KILOWATT_HOURS
    assert verdict.tightest.used == pytest.approx(6.008, abs=0.001)
    assert verdict.watt_limit is not None
    assert 300 < 0.95 * verdict.watt_limit.watts < 400
    assert verdict.within
    assert "6.01 of 10.0 kWh in this day, 10.0 projected, 5.01 allowed up to now" in verdict.within_message


def test_grams_follow_the_intensity_of_what_was_used() -> None:
    of = budget(carbonGrams=1000, window="Hour")
    verdict = hold(of, 4000, 60)[-1]
    assert verdict.tightest.used == pytest.approx(4000 * 60 * 360 / 3.6e6)
    assert verdict.tightest.kind is LimitKind.CARBON_GRAMS
    assert verdict.watt_limit is not None
    assert 2600 < 0.95 * verdict.watt_limit.watts < 4000, "1,000 g an hour at 360 g/kWh are 2.8 kW"


def test_a_limit_lowered_in_the_window_keeps_what_was_used_and_another_window_begins_anew() -> None:
    of = kilowatt_hours(10)
    of.observe(3600.0, use(6000, 3600.0), Needs(500, 200), NOON)
    of.update(spec(kilowattHours=5, window="Day"))
    verdict = hold(of, 100, 5)[-1]
    assert verdict.tightest.used == pytest.approx(6, abs=0.01)
    assert (verdict.within, verdict.feasible) == (False, False)
    of.update(spec(kilowattHours=5, window="Week"))
    assert hold(of, 100, 5)[-1].tightest.used == pytest.approx(0, abs=0.01)


def test_a_new_window_begins_with_nothing_used() -> None:
    of = kilowatt_hours(10)
    hold(of, 9000, 3600, start=NOON + 11 * 3600)
    verdict = hold(of, 9000, 5, start=NOON + 12 * 3600)[-1]
    assert verdict.tightest.used == pytest.approx(9000 * 5 / 3.6e6)


def test_of_several_limits_the_tightest_rules_and_is_reported() -> None:
    of = budget(watts=1000, kilowattHours=1.2, window="Hour")
    verdict = hold(of, 1100, 10, Needs(1100, 100))[-1]
    assert verdict.tightest.kind is LimitKind.WATTS
    assert verdict.limits[0].share > verdict.limits[1].share
    assert verdict.watt_limit is not None
    assert verdict.watt_limit.watts <= 1000


def test_two_budgets_over_one_pool_each_count_every_joule_and_the_tighter_rules() -> None:
    day, always = kilowatt_hours(10), budget(name="always")
    day.observe(3600.0, use(6000, 3600.0), Needs(500, 200), NOON)
    verdicts = [hold(of, 500, 60, Needs(500, 200))[-1] for of in (day, always)]
    assert verdicts[0].watt_limit is not None
    others = [verdict.watt_limit.watts for verdict in verdicts[1:] if verdict.watt_limit is not None]
    assert all(verdicts[0].watt_limit.watts < watts for watts in [*others, 1000.0])
    assert verdicts[1].limits[0].used == pytest.approx(500)


def test_a_restart_changes_nothing() -> None:
    whole, cut = (budget(watts=1000, kilowattHours=12, carbonGrams=9e3, window="Day") for _ in range(2))
    for step in range(100):
        watts = 1150.0 if step % 30 < 12 else 700.0
        needs = Needs(watts, 400, planned_watts=watts)
        if step % 7 == 0:
            state = BudgetState.model_validate_json(cut.to_state().model_dump_json())
            cut = Budget("b", spec(watts=1000, kilowattHours=12, carbonGrams=9e3, window="Day"), state)
        verdicts = [of.observe(60.0, use(watts, 60.0), needs, NOON + 60 * step) for of in (whole, cut)]
        for one, other in zip(verdicts[0].limits, verdicts[1].limits, strict=True):
            if one.kind is not LimitKind.WATTS:
                assert other.used == pytest.approx(one.used)
    assert len(cut.to_state().model_dump_json()) < 8_000


def test_a_zone_that_is_none_is_refused_and_the_budget_stays_as_it_was() -> None:
    of = kilowatt_hours(10)
    with pytest.raises(ValueError, match="no time zone"):
        of.update(spec(kilowattHours=10, window="Day", timeZone="Mars/Olympus"))
    assert hold(of, 100, 5)[-1].within


def test_what_a_scope_uses_is_pools_with_all_they_draw_or_models_with_what_they_are_charged() -> None:
    l4, x = pool("l4", pue=1.2, grams_per_kilowatt_hour=300.0), pool("x", pue=1.5)
    replicas = (ReplicaTick(A, 2.0, 72.0), ReplicaTick(B, 1.0, 72.0))
    device = DeviceTick("l4-0", 16.0, 49.6, replicas)
    booked = Ledger().record(
        [PoolTick("l4", 5.0, (device,), host_watts=90.0, pue=1.2), PoolTick("x", 5.0, (), host_watts=10.0, pue=1.5)]
    )
    everything = scope_use(None, None, booked, fleet(l4, x))
    assert everything.joules == pytest.approx(1.2 * (248 + 450) + 75)
    assert everything.grams == pytest.approx(1.2 * 698 / 3.6e6 * 300)
    assert everything.provenance is Provenance.ASSUMED
    only = LabelSelector.model_validate({"matchLabels": {"kind": "x"}})
    assert scope_use(only, None, booked, fleet(l4, x)).joules == pytest.approx(75)
    team = LabelSelector.model_validate({"matchLabels": {"kubernetes.io/metadata.name": "team-a"}})
    assert scope_use(None, team, booked, fleet(l4, x)).joules == pytest.approx(1.2 * 112)
    assert scope_use(only, team, booked, fleet(l4, x)).joules == 0
    now = scope_use(None, None, booked, fleet(l4, x), {"l4": 100.0})
    assert now.grams == pytest.approx(everything.grams / 3)
