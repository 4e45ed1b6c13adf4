"""`ergon top` and `ergon explain`: statuses as a person reads them."""

import json
import math
from typing import Any

import pytest

from ergon.api.budget import EnergyBudgetSpec
from ergon.cli import top_flow
from ergon.cli.top_rows import budget_row, model_row, ordered, percent, pool_row, share_of, shown
from ergon.kube.client import KubeClient
from ergon.kube.errors import Forbidden, KubeError
from tests.kube.server import Answer, Request, say, serving, status

Object = dict[str, Any]


def model(name: str = "invoices", **status: Any) -> Object:
    conditions = [{"type": "Ready", "status": "True", "reason": "Ready", "message": ""}]
    return {
        "metadata": {"namespace": "finance", "name": name},
        "spec": {"task": "entity-extraction", "priority": 50},
        "status": {"conditions": conditions, "replicas": 2, "readyReplicas": 1, **status},
    }


BUSY = model(
    placements=[
        {"pool": "xeon", "server": 3, "variant": "int8", "state": "Ready"},
        {"pool": "xeon", "server": 0, "variant": "int8", "state": "Loading", "message": "since 3 s"},
        {"pool": "l4", "server": 1, "variant": "fp16", "state": "Ready"},
    ],
    alternatives=[
        {"pool": "edge", "variant": "int8", "verdict": "Rejected", "reason": "MemoryTooSmall", "message": "needs 600 MiB"},
        {"pool": "xeon", "variant": "int8", "verdict": "Chosen", "reason": "LeastEnergy", "message": "12 requests/s for 3 W"},
    ],
    demand={"unit": "requests", "observed": 100.0, "forecast": 130.0, "capacity": 168.0, "headroom": 0.23, "method": "level"}
    | {"message": "2 replicas: 130 requests/s are expected"},
    energy={"watts": 12.3, "joulesPerRequest": 0.054, "provenance": "derived"},
)


def test_a_model_is_one_row() -> None:
    row = model_row(BUSY)
    assert (row.name, row.ready, row.replicas) == ("finance/invoices", "Ready", "1/2")
    assert row.places == "l4 1; xeon 0,3"
    assert (row.observed, row.forecast, row.headroom, row.watts) == (100, 130, 0.23, 12.3)
    assert row.trend == "up"
    assert row.provenance == "derived"


@pytest.mark.parametrize(
    ("observed", "forecast", "trend"), [(100, 130, "up"), (100, 100, "level"), (130, 100, "down"), (0, 0, "-"), (0, 5, "-")]
)
def test_the_trend_is_the_forecast_beside_what_is_asked(observed: float, forecast: float, trend: str) -> None:
    assert model_row(model(demand={"observed": observed, "forecast": forecast})).trend == trend


def test_a_model_of_which_nothing_is_known_has_dashes() -> None:
    row = model_row({"metadata": {"namespace": "a", "name": "b"}, "spec": {"task": "t"}})
    assert (row.ready, row.places, row.replicas, row.trend) == ("-", "-", "0/0", "-")
    assert (shown(row.watts), percent(row.headroom)) == ("-", "-")


def test_models_are_ordered_by_what_was_asked_for_and_unknown_ones_come_last() -> None:
    rows = [
        model_row(model("quiet", energy={"watts": 1.0}, demand={"observed": 9.0})),
        model_row(model("unknown")),
        model_row(model("busy", energy={"watts": 5.0, "joulesPerRequest": 0.1}, demand={"observed": 3.0})),
    ]
    for by, names in (("watts", "busy quiet unknown"), ("demand", "quiet busy unknown"), ("name", "busy quiet unknown")):
        assert [row.name.split("/")[1] for row in ordered(rows, by)] == names.split()


def test_shares_are_of_what_is_known() -> None:
    assert share_of(1.0, [1.0, 3.0, math.nan]) == 0.25
    assert math.isnan(share_of(0.0, [0.0]))


def test_pools_and_budgets_are_rows() -> None:
    pool = pool_row(
        {
            "metadata": {"name": "l4"},
            "spec": {"accelerator": {"class": "gpu", "product": "NVIDIA-L4"}},
            "status": {"servers": {"ready": 1, "desired": 2}, "models": 3, "watts": 340.0, "provenance": "measured"},
        }
    )
    assert (pool.accelerator, pool.servers, pool.models, pool.watts) == ("NVIDIA-L4", "1/2", 3, 340)
    assert math.isnan(pool.busy_share)
    limits = {"watts": 5000, "kilowattHours": 80, "window": "Day"}
    EnergyBudgetSpec.model_validate({"limits": limits})
    budget = budget_row(
        {
            "metadata": {"name": "site"},
            "spec": {"limits": limits},
            "status": {"used": 12.0, "conditions": [{"type": "WithinBudget", "status": "False", "reason": "OverLimit"}]},
        }
    )
    assert (budget.limit, budget.used, budget.within, budget.feasible) == ("5,000 W, 80 kWh a day", 12, "False", "Unknown")


@pytest.fixture
def cluster_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Statuses as a cluster would give them."""

    def give(*models: Object, pools: tuple[Object, ...] = ()) -> None:
        async def listed(kinds: dict[str, str], namespace: str, context: str | None) -> dict[str, list[Object]]:
            return {"models": list(models), "pools": list(pools), "budgets": []}

        async def one(key: object, context: str | None) -> Object:
            return models[0]

        monkeypatch.setattr(top_flow, "_read", listed)
        monkeypatch.setattr(top_flow, "_get", one)

    return give


def test_the_table_shows_what_matters(cluster_of: Any, capsys: pytest.CaptureFixture[str]) -> None:
    cluster_of(BUSY, model("second", energy={"watts": 36.9}), model("third"))
    assert top_flow.show_top("models", "", "watts", 2, as_json=False, context=None) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["finance/second", "finance/invoices"]
    assert "25%" in lines[2]
    assert "and 1 more" in lines[3]


def test_json_has_no_figure_that_is_not_known(cluster_of: Any, capsys: pytest.CaptureFixture[str]) -> None:
    cluster_of(BUSY, model("second"))
    assert top_flow.show_top("models", "", "name", 40, as_json=True, context=None) == 0
    invoices, second = json.loads(capsys.readouterr().out)["models"]
    assert invoices["joules_per_request"] == 0.054
    assert "watts" not in second


def test_an_explanation_says_why_here_why_so_many_and_why_not_there(cluster_of: Any, capsys: pytest.CaptureFixture[str]) -> None:
    cluster_of(BUSY)
    assert top_flow.show_explanation("finance/invoices", None) == 0
    said = capsys.readouterr().out
    for part in (
        "finance/invoices: entity-extraction, priority 50",
        "xeon-3 int8, Ready: LeastEnergy, 12 requests/s for 3 W",
        "1/2 replicas ready; 2 replicas: 130 requests/s are expected",
        "asked 100 requests/s, 130 forecast (level), 168 can be served",
        "12.3 W, 0.054 J a request (derived)",
        "MemoryTooSmall",
    ):
        assert part in said


def test_a_cluster_that_cannot_be_read_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def refused(*_: object) -> Object:
        raise KubeError("list", "connection refused")

    monkeypatch.setattr(top_flow, "_read", refused)
    assert top_flow.show_top("all", "", "watts", 40, as_json=False, context=None) == 1
    assert capsys.readouterr().err == "ergon: the cluster cannot be read: connection refused\n"


def to_whom(*readable: str) -> Any:
    """An API server for a person who may read what is under these paths."""

    def answer(request: Request) -> Answer:
        if not request.path.endswith(readable):
            return status(403, f"you cannot list {request.path}", "Forbidden")(request)
        return say(200, {"metadata": {}, "items": [model()] if "specializedmodels" in request.path else []})(request)

    return answer


KINDS = {"models": "SpecializedModel", "pools": "AcceleratorPool", "budgets": "EnergyBudget"}


async def test_kinds_that_a_person_may_not_read_are_left_out() -> None:
    async with serving(to_whom("/namespaces/finance/specializedmodels")) as script, KubeClient(script.configuration()) as client:
        found = await top_flow.list_kinds(client, KINDS, "finance")
        assert list(found) == ["models"]
        assert len(found["models"]) == 1
        with pytest.raises(Forbidden, match="you cannot list"):
            await top_flow.list_kinds(client, KINDS, "")


def test_who_may_read_one_namespace_alone_is_told_to_name_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refused(*_: object) -> Object:
        raise Forbidden("LIST SpecializedModel", "forbidden", code=403)

    monkeypatch.setattr(top_flow, "_read", refused)
    assert top_flow.show_top("all", "", "watts", 40, as_json=False, context=None) == 1
    assert capsys.readouterr().err == "ergon: you may not read models of all namespaces; -n NAMESPACE shows those of one\n"


@pytest.mark.parametrize(("as_json", "shown_text"), [(False, "finance/invoices"), (True, '"models"')])
def test_what_may_not_be_read_is_a_note(
    as_json: bool, shown_text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def models_only(*_: object) -> dict[str, list[Object]]:
        return {"models": [BUSY]}

    monkeypatch.setattr(top_flow, "_read", models_only)
    assert top_flow.show_top("all", "finance", "watts", 40, as_json=as_json, context=None) == 0
    told = capsys.readouterr()
    assert shown_text in told.out
    assert "pools" not in told.out
    assert told.err.splitlines() == [f"ergon: note: you may not read {kind}, so none is shown" for kind in ("pools", "budgets")]
