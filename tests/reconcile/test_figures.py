"""Figures in statuses: readable, and not rewritten for nothing."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.api.model import DemandStatus, EnergyStatus
from ergon.demand import Book, Limits, Tenant
from ergon.demand.rung import BEST, POINTS
from ergon.reconcile.figures import DemandView, EnergyView, demand_status, energy_status, keep, rounded
from tests.demand.things import NER, Server, server, variant

SENTENCE = "2 replicas: 120 requests/s are expected, one serves 84"


def demand(observed: float = 100.0, message: str = SENTENCE, capacity: float | None = 168.0) -> dict[str, object]:
    return demand_status(DemandView("requests", observed, observed * 1.2, capacity, "level", message))


def test_what_is_said_is_what_the_api_knows() -> None:
    said = demand(123.456)
    assert said == {
        "unit": "requests",
        "observed": 123.0,
        "forecast": 148.0,
        "capacity": 168.0,
        "headroom": 0.12,
        "method": "level",
        "message": SENTENCE,
    }
    DemandStatus.model_validate(said)
    energy = energy_status(EnergyView(12.3456, 0.054321, None, "derived"))
    assert energy == {"watts": 12.3, "joulesPerRequest": 0.0543, "provenance": "derived"}
    EnergyStatus.model_validate(energy)


def test_a_model_without_profiles_says_no_capacity() -> None:
    assert "capacity" not in demand(capacity=None)
    assert "headroom" not in demand(capacity=None)


def test_a_model_that_is_asked_too_much_has_no_headroom() -> None:
    assert demand(1000.0)["headroom"] == 0.0


@pytest.mark.parametrize(
    ("new", "stays"),
    [
        (demand(110.0), True),
        (demand(100.0, SENTENCE.replace("120", "131")), True),
        (demand(130.0), False),
        (demand(100.0, "the minimum: nothing was asked"), False),
        (demand(100.0, capacity=None), False),
        (demand(0.0), False),
    ],
)
def test_a_status_is_rewritten_when_something_has_changed_much(new: dict[str, object], stays: bool) -> None:
    before = demand(100.0)
    assert keep(new, before) is (before if stays else new)
    assert keep(new, None) is new


def test_a_forecast_by_any_methods_fits_into_the_status() -> None:
    longest = " and ".join(sorted(POINTS, key=len)[-BEST:])
    said = demand_status(DemandView("requests", 1.0, 1.2, None, longest, SENTENCE))
    assert said["method"] == longest
    DemandStatus.model_validate(said)
    DemandStatus.model_validate(demand_status(DemandView("requests", 1.0, 1.2, None, longest * 9, SENTENCE * 99)))


@pytest.mark.parametrize(("rate", "capacity"), [(1 / 60, None), (0.1, None), (10.0, 100.0)])
def test_a_model_that_is_asked_steadily_has_its_status_written_a_few_times_an_hour(rate: float, capacity: float | None) -> None:
    book, chance, writes = Book(), random.Random(7), 0
    view, replica, said = server({NER: Tenant(variant(()))}), Server(), None
    for step in range(2 * 720):
        now = 1e9 + 5 * step
        replica.execute(sum(chance.random() < rate / 20 for _ in range(100)), 1, 0.001)
        book.observe(view, {NER: replica.read(now)}, now)
        if step % 12 == 0 and step > 0:
            demand = book.demand(now, {NER: Limits()})[NER]
            shown = book.forecaster.observed(NER, now, 300)
            new = demand_status(DemandView("requests", shown, demand.work_per_second, capacity, demand.method, demand.reason))
            kept = keep(new, said)
            writes += kept is not said and step >= 720
            said = kept
    assert writes <= 8


@given(st.floats(1e-9, 1e12))
def test_three_digits_are_near_enough(value: float) -> None:
    assert rounded(value) == pytest.approx(value, rel=0.0051)
    assert len(f"{rounded(value):e}".rstrip("0").split("e")[0].replace(".", "").rstrip("0")) <= 3


@given(st.lists(st.floats(90, 110), min_size=2, max_size=20))
def test_a_load_that_swings_by_a_tenth_writes_once(values: list[float]) -> None:
    stands = demand(values[0])
    for value in values[1:]:
        assert keep(demand(value), stands) is stands
