"""Faults on real parts: what broke, and that everything is right again without help, nothing lost, nothing done twice."""

import os
import signal
import time

import pytest

from tests.engine.world import ECHO, Operator, World, control_plane_pids, model, pool, stub_pids, triton_pids, until, write_model

pytestmark = pytest.mark.cluster

HANGS = "import time\n\n\nclass TritonPythonModel:\n    def initialize(self, args):\n        time.sleep(3600)\n"
SLOW = ECHO.replace(
    "class TritonPythonModel:\n",
    "class TritonPythonModel:\n    def initialize(self, args):\n        import time\n\n        time.sleep(2)\n\n",
)


def pod_ip(world: World, ordinal: int = 0) -> str:
    pod = world.get("pod", f"ergon-cpu-{ordinal}", "-n", "ergon-system") or {}
    return str(pod.get("status", {}).get("podIP", ""))


def restart(world: World, dead: Operator) -> Operator:
    """A new process under the old one's name, as a container that is started again has it."""
    operator = world.operator(identity=dead.identity)
    operator.leads()
    return operator


def test_the_operator_killed_at_any_point_goes_on_where_it_was(world: World, operator: Operator) -> None:
    with world.namespace() as ns:
        uri = write_model(world.cluster.models, f"{ns}-slow", SLOW)
        world.apply(model(ns, "stands", write_model(world.cluster.models, f"{ns}-stands")))
        world.ready(ns, "stands")
        stubs = stub_pids(f"{ns}.stands")
        with world.clients(ns, "stands") as clients:
            for delay in (0.0, 0.1, 0.4, 1.5):
                name = f"m{int(delay * 1000)}"
                world.apply(model(ns, name, uri))
                time.sleep(delay)
                operator.kill()
                operator = restart(world, operator)
                world.ready(ns, name)
                assert world.ask(ns, name) == 42
        clients.assert_unharmed()
        assert stub_pids(f"{ns}.stands") == stubs, "what stood was loaded anew"


def test_a_graceful_stop_hands_over_at_once(world: World, operator: Operator) -> None:
    standby = world.operator()
    until(lambda: "stands by" in standby.log, "a standby")
    began = time.monotonic()
    assert operator.stop() == 0
    standby.leads(10)
    assert time.monotonic() - began < 10


def test_two_operators_one_paused_and_resumed_act_as_one(world: World, operator: Operator) -> None:
    with world.namespace() as ns:
        standby = world.operator()
        until(lambda: "stands by" in standby.log, "a standby")
        operator.signal(signal.SIGSTOP)
        world.apply(model(ns, "echo", write_model(world.cluster.models, f"{ns}-echo")))
        standby.leads(40)
        world.ready(ns, "echo")
        stubs = stub_pids(f"{ns}.echo")
        operator.signal(signal.SIGCONT)
        until(lambda: operator.process.poll() is not None, "the one that was paused ending", 30)
        assert operator.process.returncode == 1
        assert "the Lease" in operator.log
        assert world.ask(ns, "echo") == 42
        assert stub_pids(f"{ns}.echo") == stubs
        assert standby.process.poll() is None


def test_a_dead_stub_is_seen_and_mended(world: World) -> None:
    with world.namespace() as ns:
        world.apply(model(ns, "echo", write_model(world.cluster.models, f"{ns}-echo")))
        world.ready(ns, "echo")
        (stub,) = stub_pids(f"{ns}.echo")
        os.kill(stub, signal.SIGKILL)

        def healed() -> bool:
            world.inside("curl", "-s", "-m", "5", "-X", "POST", f"http://echo.{ns}:8000/v2/models/{ns}.echo/infer", "-d", BODY)
            return bool(stub_pids(f"{ns}.echo")) and stub_pids(f"{ns}.echo") != [stub]

        until(healed, "a new stub", 40)
        world.ready(ns, "echo")
        until(lambda: world.endpoints(ns, "echo") == ["ergon-cpu-0"], "traffic again")
        assert world.ask(ns, "echo") == 42


BODY = '{"inputs":[{"name":"X","shape":[1,1],"datatype":"FP32","data":[1]}]}'


def test_triton_killed_gets_all_its_models_again(world: World, operator: Operator) -> None:
    with world.namespace() as ns:
        for n in range(3):
            world.apply(model(ns, f"echo{n}", write_model(world.cluster.models, f"{ns}-echo")))
        for n in range(3):
            world.ready(ns, f"echo{n}")
        (triton,) = triton_pids(operator, pod_ip(world))
        os.kill(triton, signal.SIGKILL)
        until(lambda: world.condition(world.model(ns, "echo0"), "Ready")["status"] == "False", "Ready going False", 15)
        for n in range(3):
            world.ready(ns, f"echo{n}")
            assert world.ask(ns, f"echo{n}") == 42


def test_a_deleted_pod_is_replaced_with_its_models(world: World) -> None:
    with world.namespace() as ns:
        world.apply(model(ns, "echo", write_model(world.cluster.models, f"{ns}-echo")))
        world.ready(ns, "echo")
        uid = (world.get("pod", "ergon-cpu-0", "-n", "ergon-system") or {})["metadata"]["uid"]
        world.kubectl("delete", "pod", "ergon-cpu-0", "-n", "ergon-system", "--wait=false")
        until(lambda: not world.endpoints(ns, "echo"), "its endpoint gone", 30)

        def replaced() -> bool:
            pod = world.get("pod", "ergon-cpu-0", "-n", "ergon-system")
            return pod is not None and pod["metadata"]["uid"] != uid

        until(replaced, "a new pod", 60)
        until(lambda: world.endpoints(ns, "echo"), "its endpoint back", 60)
        world.ready(ns, "echo")
        assert world.ask(ns, "echo") == 42


def test_a_load_that_hangs_is_not_sent_there_again_and_others_go_on(world: World) -> None:
    with world.namespace() as ns:
        world.apply(model(ns, "hangs", write_model(world.cluster.models, f"{ns}-hangs", HANGS), variant={"loadTimeout": "2s"}))
        condition = world.reason(ns, "hangs", "NoPoolFits", 90, kind="Placed")
        assert "hung" in condition["message"]
        world.apply(model(ns, "echo", write_model(world.cluster.models, f"{ns}-echo")))
        world.ready(ns, "echo")
        assert world.ask(ns, "echo") == 42


def test_a_pool_deleted_with_models_on_it_waits_for_them_and_goes(world: World) -> None:
    with world.namespace() as ns:
        world.apply(pool("doomed", power={"idleWatts": 1}))
        doomed = {"pools": {"matchLabels": {"doomed": "yes"}}}
        world.kubectl("label", "ap", "doomed", "doomed=yes")
        world.apply(model(ns, "echo", write_model(world.cluster.models, f"{ns}-echo"), **doomed))
        world.ready(ns, "echo", 90)
        world.kubectl("delete", "ap", "doomed", "--wait=false")
        until(lambda: world.get("ap", "doomed") is None, "the pool gone", 60)
        world.reason(ns, "echo", "NoPoolFits")
        until(lambda: world.get("sts", "ergon-doomed", "-n", "ergon-system") is None, "its servers gone", 40)
        world.apply(model(ns, "echo", f"file:///{ns}-echo", pools=None))
        world.ready(ns, "echo")


def test_a_silent_api_server_costs_no_request(world: World, operator: Operator) -> None:
    """The API server stopped for 20 s: what serves, serves; then everything goes on."""
    with world.namespace() as ns:
        world.apply(model(ns, "echo", write_model(world.cluster.models, f"{ns}-echo")))
        world.ready(ns, "echo")
        with world.clients(ns, "echo") as clients:
            servers = control_plane_pids(world.cluster, "kube-apiserver")
            assert servers
            for pid in servers:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(20)
            for pid in servers:
                os.kill(pid, signal.SIGCONT)
            world.apply(model(ns, "after", f"file:///{ns}-echo"))

            def right_again() -> bool:
                if all(each.process.poll() is not None for each in world.operators):
                    restart(world, operator)  # it lost its Lease meanwhile, and its container is started again
                return world.condition(world.model(ns, "after"), "Ready").get("status") == "True"

            until(right_again, "the new model Ready", 90)
        clients.assert_unharmed()
