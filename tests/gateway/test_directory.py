"""What is known of models, routes and servers, from objects as the API server gives them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.gateway.directory import MODEL, ROUTE, SLICE, Directory
from ergon.gateway.routes import Candidate, spent

Object = dict[str, Any]


def model(name: str, namespace: str = "a", *, quality: float = 0.5, task: str = "t", ready: str = "", **labels: str) -> Object:
    variant = {"name": "cpu", "accelerators": ["cpu"], "backend": "python", "source": {"uri": "file:///x"}, "memory": "1Mi"}
    conditions = (
        [{"type": "Ready", "status": "True" if ready in ("Ready", "Asleep") else "False", "reason": ready}] if ready else []
    )
    return {
        "metadata": {"namespace": namespace, "name": name, "labels": labels, "resourceVersion": "1"},
        "spec": {"task": task, "variants": [{**variant, "quality": quality}]},
        "status": {"conditions": conditions},
    }


def route(name: str = "r", namespace: str = "a", *, generation: int = 1, status: Object | None = None, **spec: Any) -> Object:
    metadata = {"namespace": namespace, "name": name, "generation": generation, "resourceVersion": "1"}
    return {"metadata": metadata, "spec": {"task": "t", **spec}, "status": status or {}}


def piece(name: str, *endpoints: Object, namespace: str = "a", of: str = "m", **labels: str) -> Object:
    labels = {"ergon.dev/model": of, "ergon.dev/namespace": namespace, **labels}
    return {
        "metadata": {"namespace": namespace, "name": name, "labels": labels, "resourceVersion": "1"},
        "endpoints": list(endpoints),
    }


def at(address: str, **conditions: bool) -> Object:
    return {"addresses": [address], "conditions": conditions}


def names(directory: Directory, name: str = "r") -> list[str]:
    found = directory.route("a", name)
    assert found is not None
    return [candidate.model for candidate in found.candidates]


def test_models_come_by_quality_until_the_operator_has_spoken() -> None:
    directory = Directory()
    for obj in (model("big", quality=0.9), model("small", quality=0.2), model("other", task="x"), model("far", "b", quality=0.1)):
        directory.put(MODEL, obj)
    directory.put(ROUTE, route())
    assert names(directory) == ["small", "big"]
    told = {"observedGeneration": 1, "candidates": [{"model": "big"}, {"model": "small"}]}
    directory.put(ROUTE, route(status=told))
    assert names(directory) == ["big", "small"]
    directory.put(ROUTE, route(status=told, generation=2, order=["small"]))
    assert names(directory) == ["small"]


def test_a_selector_and_any_task_choose() -> None:
    directory = Directory()
    directory.put(MODEL, model("small", quality=0.2, team="blue"))
    directory.put(MODEL, model("general", task="chat", quality=0.9, team="blue"))
    directory.put(ROUTE, route(candidates={"matchLabels": {"team": "blue"}}))
    directory.put(ROUTE, route("all", candidates={"matchLabels": {"team": "blue"}}, anyTask=True))
    assert names(directory) == ["small"]
    assert names(directory, "all") == ["small", "general"]


def test_a_route_follows_its_models() -> None:
    directory = Directory()
    directory.put(ROUTE, route())
    assert names(directory) == []
    directory.put(MODEL, model("one", quality=0.5))
    assert names(directory) == ["one"]
    directory.put(MODEL, model("two", quality=0.1))
    assert names(directory) == ["two", "one"]
    directory.put(MODEL, model("two", quality=0.9))
    assert names(directory) == ["one", "two"]
    directory.drop(MODEL, model("one"))
    assert names(directory) == ["two"]
    directory.drop(ROUTE, route())
    assert directory.route("a", "r") is None


def test_a_spec_that_cannot_be_read_says_so() -> None:
    directory = Directory()
    directory.put(ROUTE, route(order=["x", "x"]))
    found = directory.route("a", "r")
    assert found is not None
    assert "twice" in found.problem


@pytest.mark.parametrize(
    ("conditions", "ready"),
    [({}, True), ({"ready": True}, True), ({"ready": False}, False), ({"ready": True, "terminating": False}, True)],
)
def test_only_ready_endpoints_are_servers(conditions: dict[str, bool], ready: bool) -> None:
    directory = Directory()
    directory.put(SLICE, piece("m-0", at("10.0.0.1", **conditions)))
    assert directory.addresses("a.m") == (("10.0.0.1",) if ready else ())


def test_a_slice_of_gateways_is_sleep_and_no_server() -> None:
    directory = Directory()
    directory.put(MODEL, model("m"))
    directory.put(SLICE, piece("m-0", at("10.0.0.9"), **{"ergon.dev/asleep": "true"}))
    assert (directory.addresses("a.m"), directory.asleep("a.m")) == ((), True)
    directory.put(SLICE, piece("m-1", at("10.0.0.1")))
    assert (directory.addresses("a.m"), directory.asleep("a.m")) == (("10.0.0.1",), False)
    directory.drop(SLICE, piece("m-0"))
    directory.put(SLICE, piece("m-1"))
    assert (directory.addresses("a.m"), directory.asleep("a.m")) == ((), False)


def test_a_model_that_says_it_sleeps_sleeps() -> None:
    directory = Directory()
    directory.put(MODEL, model("m", ready="Asleep"))
    assert directory.asleep("a.m")
    directory.put(MODEL, model("m", ready="NoModelReady"))
    assert not directory.asleep("a.m")
    known = directory.model("a.m")
    assert known is not None
    assert known.problem == "NoModelReady"


def test_nobody_takes_the_requests_of_another_namespace() -> None:
    directory = Directory()
    directory.put(SLICE, piece("m-0", at("10.6.6.6"), namespace="evil", **{"ergon.dev/namespace": "a"}))
    assert directory.addresses("a.m") == ()


def test_listeners_hear_of_a_model_when_something_of_it_changes() -> None:
    directory, heard = Directory(), []
    directory.listeners.append(heard.append)
    directory.put(MODEL, model("m"))
    directory.put(MODEL, model("m"))
    directory.put(SLICE, piece("m-0", at("10.0.0.1")))
    directory.drop(SLICE, piece("m-0"))
    directory.drop(MODEL, model("m"))
    assert heard == ["a.m"] * 4


OBJECTS = st.lists(
    st.tuples(
        st.sampled_from(["put", "drop"]),
        st.sampled_from([(MODEL, "m"), (MODEL, "n"), (ROUTE, "r"), (SLICE, "m-0"), (SLICE, "m-1")]),
        st.integers(0, 3),
    ),
    max_size=30,
)


def _made(kind: str, name: str, number: int) -> Object:
    if kind == MODEL:
        return model(name, quality=number / 4)
    if kind == ROUTE:
        return route(name, order=["n", "m"][: number % 3])
    return piece(name, *[at(f"10.0.0.{part}") for part in range(number)])


@given(OBJECTS)
def test_a_list_anew_leads_where_the_events_led(events: list[tuple[str, tuple[str, str], int]]) -> None:
    followed, current = Directory(), {}
    for what, (kind, name), number in events:
        made = _made(kind, name, number)
        made["metadata"]["resourceVersion"] = str(len(current) * 10 + number)
        if what == "put":
            followed.put(kind, made)
            current[kind, name] = made
        else:
            followed.drop(kind, made)
            current.pop((kind, name), None)
    listed = Directory()
    listed.put(MODEL, model("gone"))
    listed.put(SLICE, piece("m-9", at("10.9.9.9")))
    for kind in (MODEL, ROUTE, SLICE):
        listed.replace(kind, [obj for (of, _), obj in current.items() if of == kind])
    assert listed.addresses("a.m") == followed.addresses("a.m")
    assert listed.routes() == followed.routes()
    assert listed.model("a.m") == followed.model("a.m")


def test_joules_are_summed_with_the_weakest_provenance_and_only_where_all_are_known() -> None:
    directory = Directory()
    for name in ("m", "n", "o"):
        directory.put(MODEL, model(name))
    told = [
        {"model": "m", "joulesPerRequest": 1, "provenance": "measured"},
        {"model": "n", "joulesPerRequest": 2.5, "provenance": "assumed"},
        {"model": "o"},
    ]
    directory.put(ROUTE, route(status={"observedGeneration": 1, "candidates": told}))
    found = directory.route("a", "r")
    assert found is not None
    assert found.candidates[0] == Candidate("m", "a.m", 0.0, 1.0, "measured")
    assert spent(found, ["m"]) == (1.0, "measured")
    assert spent(found, ["m", "n"]) == (3.5, "assumed")
    assert spent(found, ["m", "o"]) is None
