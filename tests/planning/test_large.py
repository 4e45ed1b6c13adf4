"""Large fleets are planned in fewer steps: as valid as all others, and with a bound as true. Small ones stand in for them."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from ergon.fleet.types import Fleet
from ergon.planning import Effort, Reason, plan, pool_level, pool_programme
from tests.planning.fleets import FRESH, fleets
from tests.planning.judge import tiers, violations
from tests.planning.test_planner import fleet as asked
from tests.planning.test_planner import model, pool, variant
from tests.planning.test_properties import worse


@pytest.fixture
def all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_level, "SIFTED_FROM", 0)
    monkeypatch.setattr(pool_programme, "SIFTED_FROM", 0)


@pytest.mark.usefixtures("all_are_large")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fleets(FRESH))
def test_a_large_fleet_s_plan_keeps_the_contract_and_its_bound_is_true(fleet: Fleet) -> None:
    large = plan(fleet, effort=replace(Effort.normal(), exact_binaries=0))
    assert violations(fleet, large) == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool_level, "SIFTED_FROM", 10**9)
        patch.setattr(pool_programme, "SIFTED_FROM", 10**9)
        best = plan(fleet)
    if worse(tiers(fleet, best), tiers(fleet, large)) == "":
        assert large.lower_bound_watts <= best.watts * (1 + 1e-9) + 1e-9


@pytest.mark.usefixtures("all_are_large")
def test_one_broken_model_is_reported_and_the_rest_is_planned() -> None:
    many = [model(f"m{n:02}", variant(memory=100)) for n in range(40)]
    broken = model("broken", variant(memory=10**9))
    made = plan(asked([pool("a", servers=8, memory=1000)], [*many, broken], demand={broken.key: float("nan")}))
    assert made.missing_replicas == {broken.key: 1}
    assert [a.reason for a in made.alternatives[broken.key]] == [Reason.MEMORY_TOO_SMALL]
    assert all(len(made.placements[m.key]) == 1 for m in many)
    assert any("broken" in note for note in made.notes)
