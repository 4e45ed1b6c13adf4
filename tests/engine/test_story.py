"""The way of one model on real parts: from apply to answers, through changes, to nothing left."""

import contextlib
import json
import re
import subprocess
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.engine.world import ECHO, World, model, until, write_model

pytestmark = pytest.mark.cluster


def left_of(world: World, namespace: str, name: str) -> list[str]:
    """What is left of a model: in the API server, in Triton, on disk."""
    left = [] if world.get("svc", name, "-n", namespace) is None else ["Service"]
    left += world.endpoints(namespace, name)
    if left:
        return left  # a wait asks again and again, and the servers are costly to ask
    pods = (world.get("pods", "-n", "ergon-system", "-l", "ergon.dev/pool=cpu") or {"items": []})["items"]
    for pod in pods:
        ip = pod["status"].get("podIP")
        done = world.inside(
            "curl",
            "-s",
            "-m",
            "5",
            f"http://{ip}:8000/v2/models/{namespace}.{name}/ready",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
        )
        left += [f"{pod['metadata']['name']} serves it"] if done.stdout == "200" else []
    return left


def test_apply_ask_change_scale_delete(world: World) -> None:
    with world.namespace() as ns:
        uri = write_model(world.cluster.models, f"{ns}-echo")
        world.apply(model(ns, "echo", uri, revision="1"))
        ready = world.ready(ns, "echo")
        (placement,) = ready["status"]["placements"]
        shown = {key: placement[key] for key in ("pool", "server", "variant", "state", "revision")}
        assert shown == {"pool": "cpu", "server": 0, "variant": "cpu", "state": "Ready", "revision": "1"}
        assert ready["status"]["coldStart"]["loadSeconds"] > 0
        assert world.ask(ns, "echo") == 42

        write_model(world.cluster.models, f"{ns}-echo2", factor=3)
        with world.clients(ns, "echo") as clients:
            world.apply(model(ns, "echo", f"file:///{ns}-echo2", revision="2"))
            until(lambda: world.ask(ns, "echo") == 63, "the new revision answering")
        clients.assert_unharmed()
        world.ready(ns, "echo")

        world.kubectl("scale", "sm/echo", "-n", ns, "--replicas=2")
        world.ready(ns, "echo")
        first, second = world.endpoints(ns, "echo")
        assert first == "ergon-cpu-0" != second
        assert world.kubectl("wait", "--for=condition=Ready", "sm/echo", "-n", ns, "--timeout=5s").returncode == 0

        world.kubectl("delete", "sm", "echo", "-n", ns)
        until(lambda: not left_of(world, ns, "echo"), "everything of the model gone", 40)


def test_a_broken_revision_leaves_the_old_one_serving_and_is_told(world: World) -> None:
    with world.namespace() as ns:
        world.apply(model(ns, "echo", write_model(world.cluster.models, f"{ns}-good"), revision="1"))
        world.ready(ns, "echo")
        with world.clients(ns, "echo") as clients:
            broken = write_model(world.cluster.models, f"{ns}-broken", "class TritonPythonModel(:\n")
            world.apply(model(ns, "echo", broken, revision="2"))
            condition = world.reason(ns, "echo", "OldRevisionServes")
            assert condition["status"] == "True"
            assert "invalid syntax" in condition["message"]
            assert world.condition(world.model(ns, "echo"), "Stalled")["status"] == "True"
            world.apply(model(ns, "echo", f"file:///{ns}-good", revision="1"))
            world.ready(ns, "echo")
        clients.assert_unharmed()


def test_a_change_back_while_the_new_one_loads_ends_with_what_is_asked_for(world: World) -> None:
    slow = ECHO.replace(
        "class TritonPythonModel:\n",
        "class TritonPythonModel:\n    def initialize(self, args):\n        import time\n\n        time.sleep(4)\n\n",
    )
    with world.namespace() as ns:
        first = model(ns, "echo", write_model(world.cluster.models, f"{ns}-first"), revision="1")
        world.apply(first)
        world.ready(ns, "echo")
        world.apply(model(ns, "echo", write_model(world.cluster.models, f"{ns}-second", slow, factor=5), revision="2"))
        until(lambda: world.model(ns, "echo")["status"]["placements"][0]["state"] == "Loading", "the new one loading")
        world.apply(first)
        world.ready(ns, "echo")
        assert world.ask(ns, "echo") == 42
        time.sleep(5)  # by now the load that was given up has ended in Triton, whatever it left
        world.ready(ns, "echo")
        assert world.ask(ns, "echo") == 42


def test_the_gateway_leads_to_it_by_http_and_by_grpc(world: World) -> None:
    with world.namespace() as ns:
        world.apply(model(ns, "echo", write_model(world.cluster.models, f"{ns}-echo")))
        world.ready(ns, "echo")
        body = {"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [21]}]}
        url = f"{world.cluster.gateway}/v2/models/{ns}.echo/infer"

        def answered() -> bool:
            request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return bool(json.loads(answer.read())["outputs"][0]["data"] == [42])
            except urllib.error.HTTPError as error:
                error.close()
                return False

        until(answered, "an answer through the Gateway", 20)
        tensor = triton.InferInput("X", [1, 1], "FP32")
        tensor.set_data_from_numpy(np.full((1, 1), 21, dtype=np.float32))
        with contextlib.closing(triton.InferenceServerClient(world.cluster.gateway.removeprefix("http://"))) as client:
            answer = client.infer(f"{ns}.echo", [tensor], headers={"ergon-model": f"{ns}.echo"}, client_timeout=10)
        assert answer.as_numpy("Y").tolist() == [[42]]


def test_a_configuration_override_reloads_without_fetching(world: World) -> None:
    with world.namespace() as ns:
        uri = write_model(world.cluster.models, f"{ns}-echo")
        world.apply(model(ns, "echo", uri))
        world.ready(ns, "echo")
        subprocess.run(["rm", "-rf", str(world.cluster.models / f"{ns}-echo")], check=True)
        world.apply(model(ns, "echo", uri, variant={"config": {"instance_group": [{"count": 2, "kind": "KIND_CPU"}]}}))
        world.ready(ns, "echo")
        assert world.ask(ns, "echo") == 42


def test_scale_to_zero_and_back(world: World) -> None:
    with world.namespace() as ns:
        world.apply(model(ns, "echo", write_model(world.cluster.models, f"{ns}-echo"), replicas=0))
        world.reason(ns, "echo", "ScaledToZero")
        leader = next(each for each in world.operators if each.process.poll() is None)
        page = ("curl", "-s", "-m", "5", f"http://127.0.0.1:{leader.port}/metrics")
        until(lambda: re.search(r'ergon_models\{state="scaled_to_zero"\} [1-9]', world.inside(*page).stdout), "it counted so")
        world.kubectl("scale", "sm/echo", "-n", ns, "--replicas=1")
        world.ready(ns, "echo")
        world.kubectl("scale", "sm/echo", "-n", ns, "--replicas=0")
        world.reason(ns, "echo", "ScaledToZero")
        until(lambda: not world.endpoints(ns, "echo"), "no endpoint left")


def test_a_namespace_deleted_with_models_in_it_goes(world: World) -> None:
    with world.namespace() as ns:
        world.apply(*(model(ns, f"echo{n}", write_model(world.cluster.models, f"{ns}-echo")) for n in range(3)))
        for n in range(3):
            world.ready(ns, f"echo{n}")
        world.kubectl("delete", "namespace", ns, "--wait=false")
        until(lambda: world.get("namespace", ns) is None, "the namespace gone", 40)
        until(lambda: not any(left_of(world, ns, f"echo{n}") for n in range(3)), "the models gone", 20)


def test_a_model_made_anew_under_its_name_is_served(world: World) -> None:
    with world.namespace() as ns:
        uri = write_model(world.cluster.models, f"{ns}-echo")
        for _ in range(2):
            world.apply(model(ns, "echo", uri))
            world.ready(ns, "echo")
            assert world.ask(ns, "echo") == 42
            world.kubectl("delete", "sm", "echo", "-n", ns)
