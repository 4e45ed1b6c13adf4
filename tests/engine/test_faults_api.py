"""Faults of the API server as the operator meets them: refusals, lost and failing watches, silence. What serves, serves on."""

import time
from collections.abc import Iterator

import pytest

from tests.engine.proxied import KINDS, ApiProxy, proxy
from tests.engine.test_story import left_of
from tests.engine.world import Operator, World, model, stub_pids, until, write_model

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def proxied(running: World) -> Iterator[ApiProxy]:
    """A proxy for all tests here, instead of one each: an operator takes some seconds to start."""
    with proxy(running) as started:
        yield started
        _stop_operators(running)


@pytest.fixture
def api(world: World, proxied: ApiProxy) -> Iterator[ApiProxy]:
    """The one operator that runs talks through this proxy."""
    if not any(_runs(operator) and operator.kubeconfig == proxied.kubeconfig for operator in world.operators):
        _stop_operators(world)
        world.operator(kubeconfig=proxied.kubeconfig).leads()
    yield proxied
    proxied.tell(refuse=None, swallow=[], silent=False)
    for operator in world.operators:
        if _runs(operator) and operator.kubeconfig is None:
            operator.stop()


@pytest.fixture
def operator(world: World, api: ApiProxy) -> Operator:
    """The operator behind the proxy."""
    return next(operator for operator in world.operators if _runs(operator))


def _runs(operator: Operator) -> bool:
    return operator.process.poll() is None


def _stop_operators(world: World) -> None:
    for operator in world.operators:
        if _runs(operator):
            operator.stop()


@pytest.mark.parametrize("refusal", [{"code": 500}, {"code": 429, "retry_after": 1}], ids=["500", "429"])
def test_an_api_server_that_refuses_costs_time_and_no_request(
    refusal: dict[str, int], world: World, api: ApiProxy, operator: Operator
) -> None:
    with world.namespace() as ns:
        uri = write_model(world.cluster.models, f"{ns}-echo")
        world.apply(model(ns, "stands", uri), model(ns, "goes", uri))
        world.ready(ns, "stands")
        world.ready(ns, "goes")
        with world.clients(ns, "stands") as clients:
            api.tell(refuse={**refusal, "every": 2}, cut=KINDS)
            began = time.monotonic()
            world.apply(*(model(ns, f"new{n}", uri) for n in range(3)))
            for n in range(3):
                world.ready(ns, f"new{n}")
            print(f"with every second call answered {refusal['code']}: 3 models Ready after {time.monotonic() - began:.1f} s")
            refused = api.tell(refuse={**refusal, "every": 1})["refused"]
            world.apply(model(ns, "late", uri))
            world.kubectl("delete", "sm", "goes", "-n", ns)
            until(lambda: api.tell()["refused"] >= refused + 5, "refusals")
            api.tell(refuse=None)
            began = time.monotonic()
            world.ready(ns, "late")
            until(lambda: not left_of(world, ns, "goes"), "the deleted model gone", 15)
            print(f"after every call was answered {refusal['code']}: right again after {time.monotonic() - began:.1f} s")
        clients.assert_unharmed()
        assert operator.process.poll() is None
        assert world.ask(ns, "late") == 42


def test_a_lost_creation_and_a_lost_deletion_are_seen_when_the_watch_lists_anew(world: World, api: ApiProxy) -> None:
    with world.namespace() as ns:
        uri = write_model(world.cluster.models, f"{ns}-echo")
        world.apply(model(ns, "stands", uri), model(ns, "goes", uri))
        world.ready(ns, "stands")
        world.ready(ns, "goes")
        with world.clients(ns, "stands") as clients:
            lost = api.tell(swallow=["specializedmodels"])["swallowed"]
            world.apply(model(ns, "comes", uri))
            world.kubectl("delete", "sm", "goes", "-n", ns)
            until(lambda: api.tell()["swallowed"] >= lost + 2, "the events swallowed")
            # What comes later is told again, so that the watch goes on behind what was lost.
            api.tell(swallow=[])
            world.apply(model(ns, "later", uri))
            world.ready(ns, "later")
            # Of the one that goes it may have heard by now: writing what is known of it finds nobody.
            assert not world.model(ns, "comes").get("status")
            began = time.monotonic()
            api.tell(expire=KINDS)
            world.ready(ns, "comes")
            print(f"a lost creation: Ready {time.monotonic() - began:.1f} s after the watch ended")
            until(lambda: not left_of(world, ns, "goes"), "the deleted model gone", 20)
            print(f"a lost deletion: nothing left {time.monotonic() - began:.1f} s after the watch ended")
        clients.assert_unharmed()


def test_lost_events_of_a_replaced_server_send_no_request_to_the_dead(world: World, api: ApiProxy) -> None:
    with world.namespace() as ns:
        world.apply(model(ns, "echo", write_model(world.cluster.models, f"{ns}-echo")))
        world.ready(ns, "echo")
        (pod,) = world.endpoints(ns, "echo")
        api.tell(swallow=["pods"])
        world.kubectl("delete", "pod", pod, "-n", "ergon-system", "--wait=false")
        began = time.monotonic()
        until(lambda: not world.endpoints(ns, "echo"), "its endpoint gone", 15)
        print(f"a pod that ended unseen: its endpoint gone after {time.monotonic() - began:.1f} s")
        world.kubectl("wait", "--for=condition=Ready", f"pod/{pod}", "-n", "ergon-system", "--timeout=60s")
        api.tell(swallow=[], expire=["pods"])
        began = time.monotonic()
        world.ready(ns, "echo")
        print(f"its successor, unseen too: Ready {time.monotonic() - began:.1f} s after the watch ended")
        assert world.ask(ns, "echo") == 42


def test_an_error_in_a_watch_ends_the_operator_and_a_new_start_goes_on(world: World, api: ApiProxy, operator: Operator) -> None:
    with world.namespace() as ns:
        uri = write_model(world.cluster.models, f"{ns}-echo")
        world.apply(model(ns, "stands", uri))
        world.ready(ns, "stands")
        stubs = stub_pids(f"{ns}.stands")
        with world.clients(ns, "stands") as clients:
            api.tell(fail=["specializedmodels"])
            until(lambda: operator.process.poll() is not None, "the operator's end", 20)
            assert operator.process.returncode == 1
            began = time.monotonic()
            successor = world.operator(identity=operator.identity, kubeconfig=api.kubeconfig)
            world.apply(model(ns, "after", uri))
            world.ready(ns, "after")
            print(f"an error event: {time.monotonic() - began:.1f} s from the new start to a new model Ready")
            assert successor.process.poll() is None
        clients.assert_unharmed()
        assert stub_pids(f"{ns}.stands") == stubs, "what stood was loaded anew"


def test_a_leader_cut_off_from_the_api_server_ends_and_another_leads(world: World, api: ApiProxy, operator: Operator) -> None:
    with world.namespace() as ns:
        uri = write_model(world.cluster.models, f"{ns}-echo")
        world.apply(model(ns, "stands", uri))
        world.ready(ns, "stands")
        stubs = stub_pids(f"{ns}.stands")
        standby = world.operator()
        until(lambda: "stands by" in standby.log, "a standby")
        with world.clients(ns, "stands") as clients:
            api.tell(silent=True)
            began = time.monotonic()
            world.apply(model(ns, "after", uri))
            standby.leads(30)
            print(f"a leader that is cut off: another leads after {time.monotonic() - began:.1f} s")
            world.ready(ns, "after", 8)  # by itself, and not only when the new leader looks at everything again
            print(f"and what was applied meanwhile is Ready after {time.monotonic() - began:.1f} s")
            until(lambda: operator.process.poll() is not None, "the end of the one cut off", 20)
            assert operator.process.returncode == 1
        clients.assert_unharmed()
        assert stub_pids(f"{ns}.stands") == stubs, "what stood was loaded anew"
