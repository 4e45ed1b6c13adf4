"""Bad input: each with a reason and a message a person can act on, and no harm to anything else."""

import base64
import contextlib
import json
from collections.abc import Callable, Iterator

import pytest

from tests.engine.world import CONFIG, ECHO, Object, World, model, pool, settle, until, write_model

pytestmark = pytest.mark.cluster
Make = Callable[[World, str], Object]


def directory(code: str = ECHO, config: str = CONFIG, **spec: object) -> Make:
    def make(world: World, ns: str) -> Object:
        return model(ns, "bad", write_model(world.cluster.models, f"{ns}-bad", code, config=config), **spec)

    return make


def uri(text: str, **spec: object) -> Make:
    return lambda world, ns: model(ns, "bad", text, **spec)


def not_a_model(world: World, ns: str) -> Object:
    folder = world.cluster.models / f"{ns}-bad"
    folder.mkdir()
    (folder / "readme.txt").write_text("hello")
    return model(ns, "bad", f"file:///{ns}-bad")


RAISES = "class TritonPythonModel:\n    def initialize(self, args):\n        raise RuntimeError('the weights are not here')\n"

CASES: dict[str, tuple[Make, str, str]] = {
    "nothing there": (uri("file:///no/such/model"), "SourceNotFound", "/no/such/model"),
    "not a model directory": (not_a_model, "SourceInvalid", "config.pbtxt"),
    "leaves /sources": (uri("file:///a/%2e%2e/%2e%2e/etc"), "SourceNotAllowed", "'..'"),
    "wrong backend": (directory(variant={"backend": "onnxruntime"}), "ConfigurationInvalid", "onnxruntime"),
    "bad override": (directory(variant={"config": {"max_batch_sise": 4}}), "ConfigurationInvalid", "max_batch_sise"),
    "override with a path": (
        directory(variant={"config": {"parameters": {"EXECUTION_ENV_PATH": {"string_value": "/tmp/x"}}}}),
        "ConfigurationInvalid",
        "EXECUTION_ENV_PATH",
    ),
    "override that Triton refuses": (
        directory(variant={"config": {"max_batch_size": -5}}),
        "LoadFailed",
        "config.pbtxt does not fit",
    ),
    "raises in initialize": (directory(RAISES), "LoadFailed", "the weights are not here"),
    "syntax error": (directory("class TritonPythonModel(:\n"), "LoadFailed", "invalid syntax"),
    "no such bucket host": (uri("s3://models/ner", secret="missing"), "SecretInvalid", "does not exist"),
    "no pool of that kind": (directory(variant={"accelerators": ["tpu"]}), "NoPoolFits", "AcceleratorMismatch"),
    "larger than any server": (directory(variant={"memory": "100Gi"}), "NoPoolFits", "MemoryTooSmall"),
    "quality too low": (directory(minQuality=0.9), "NoPoolFits", "QualityTooLow"),
    "pool not selected": (directory(pools={"matchLabels": {"no": "such"}}), "NoPoolFits", "PoolNotSelected"),
}


@pytest.fixture(scope="class")
def bad_ones(running: World) -> Iterator[dict[str, str]]:
    """All bad models, at once, each in a namespace of its own; the namespaces by case."""
    settle(running)
    with contextlib.ExitStack() as spaces:
        namespaces = {case: spaces.enter_context(running.namespace()) for case in CASES}
        running.apply(*(make(running, namespaces[case]) for case, (make, _, _) in CASES.items()))
        yield namespaces


class TestOneThatIsBad:
    """Each says so while all the others are there too, which spares waiting between them."""

    @pytest.mark.parametrize("case", CASES)
    def test_says_what_is_wrong_and_harms_nothing(self, running: World, bad_ones: dict[str, str], case: str) -> None:
        _, reason, words = CASES[case]
        ns = bad_ones[case]
        condition = running.reason(ns, "bad", reason)
        assert condition["status"] == "False"
        assert words in condition["message"], condition["message"]
        stalled = running.condition(running.model(ns, "bad"), "Stalled")
        assert stalled["status"] == "True"
        running.apply(model(ns, "good", write_model(running.cluster.models, f"{ns}-good")))
        running.ready(ns, "good")
        assert running.ask(ns, "good") == 42
        running.kubectl("delete", "sm", "good", "-n", ns, "--wait=false")


def test_every_candidate_has_its_reason_in_alternatives(world: World) -> None:
    with world.namespace() as ns:
        world.apply(directory(variant={"accelerators": ["tpu"]})(world, ns))
        world.reason(ns, "bad", "NoPoolFits")
        alternatives = world.model(ns, "bad")["status"]["alternatives"]
        assert [(a["pool"], a["variant"], a["verdict"], a["reason"]) for a in alternatives] == [
            ("cpu", "cpu", "Rejected", "AcceleratorMismatch")
        ]


def test_a_secret_of_another_type_and_a_fetch_mended_by_its_secret(world: World) -> None:
    with world.namespace() as ns:
        data = {"access_key_id": base64.b64encode(b"id").decode()}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "source", "namespace": ns},
            "type": "Opaque",
            "data": data,
        }
        world.apply(secret)
        world.apply(model(ns, "bad", "s3://models/ner", secret="source"))
        condition = world.reason(ns, "bad", "SecretInvalid")
        assert "ergon.dev/source" in condition["message"]
        assert "Opaque" in condition["message"]


def test_what_is_mended_becomes_ready_by_itself(world: World) -> None:
    with world.namespace() as ns:
        world.apply(model(ns, "late", f"file:///{ns}-late"))
        world.reason(ns, "late", "SourceNotFound")
        write_model(world.cluster.models, f"{ns}-late")
        world.ready(ns, "late")


def foreign(kind: str, namespace: str, name: str, **more: object) -> Object:
    """An object that a team made by itself, under a name that a model's Service, route or slice would have."""
    version = {"HTTPRoute": "gateway.networking.k8s.io/v1", "EndpointSlice": "discovery.k8s.io/v1"}.get(kind, "v1")
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace, "labels": THEIRS}, **more}


THEIRS = {"app": "theirs"}


def test_what_others_have_under_its_names_is_left_alone(world: World) -> None:
    with world.namespace() as ns:
        ports = [{"port": 80, "protocol": "TCP"}]
        theirs = {
            ("service", "served"): foreign("Service", ns, "served", spec={"ports": ports, "selector": THEIRS}),
            ("httproute", "routed"): foreign("HTTPRoute", ns, "routed", spec={"hostnames": ["a.example"]}),
            ("endpointslice", "sliced-0"): foreign(
                "EndpointSlice", ns, "sliced-0", addressType="IPv4", endpoints=[], ports=ports
            ),
        }
        uri = write_model(world.cluster.models, f"{ns}-taken")
        world.apply(*theirs.values())
        before = {where: world.get(*where, "-n", ns) for where in theirs}
        world.apply(*(model(ns, name, uri) for name in ("served", "routed", "sliced")))
        assert "Service served" in world.reason(ns, "served", "NameTaken", kind="Accepted")["message"]
        assert "EndpointSlice sliced-0" in world.reason(ns, "sliced", "NameTaken", kind="Accepted")["message"]
        accepted = world.condition(world.ready(ns, "routed"), "Accepted")  # its Service is its own
        assert accepted["status"] == "True"
        assert "HTTPRoute routed" in accepted["message"]
        assert {where: world.get(*where, "-n", ns) for where in theirs} == before
        for where in theirs:
            world.kubectl("delete", *where, "-n", ns)
        world.ready(ns, "served", 60)
        world.ready(ns, "sliced", 60)
        until(lambda: (world.get("httproute", "routed", "-n", ns) or {}).get("spec", {}).get("parentRefs"), "its own route", 60)
        until(
            lambda: not world.condition(world.model(ns, "routed"), "Accepted").get("message"),
            "the model saying no more of it",
            20,
        )


def test_a_pool_does_not_take_over_the_objects_of_a_release(world: World) -> None:
    """`helm install ergon-prod` makes a policy of this name, and so would a pool `prod`."""
    theirs = ("netpol", "ergon-prod", "-n", "ergon-system")
    chart_labels = {"app.kubernetes.io/name": "ergon", "app.kubernetes.io/instance": "ergon-prod"}
    selector = {"podSelector": {"matchLabels": chart_labels}, "policyTypes": ["Ingress"]}
    metadata = {"name": "ergon-prod", "namespace": "ergon-system", "labels": chart_labels}
    world.apply({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": selector})
    before = world.get(*theirs)
    world.apply(pool("prod", servers={"min": 0, "max": 0}))

    def says(reason: str) -> Object:
        accepted = lambda: world.condition(world.get("ap", "prod") or {}, "Accepted")  # noqa: E731
        return until(lambda: found if (found := accepted()).get("reason") == reason else None, f"the pool {reason}", 60)

    assert "NetworkPolicy ergon-prod in namespace ergon-system" in says("NameTaken")["message"]
    assert world.get(*theirs) == before
    world.kubectl("delete", *theirs)
    says("Accepted")
    held = until(lambda: world.get(*theirs), "the pool's own policy", 30)
    assert held["spec"]["podSelector"]["matchLabels"]["ergon.dev/pool"] == "prod"
    world.kubectl("delete", "ap", "prod")


def test_a_change_while_it_loads_is_followed(world: World) -> None:
    slow = "import time\n\n\nclass TritonPythonModel:\n    def initialize(self, args):\n        time.sleep(4)\n"
    with world.namespace() as ns:
        world.apply(model(ns, "echo", write_model(world.cluster.models, f"{ns}-slow", slow)))
        world.reason(ns, "echo", "Loading")
        world.apply(model(ns, "echo", write_model(world.cluster.models, f"{ns}-fast", factor=5)))
        world.ready(ns, "echo")
        assert world.ask(ns, "echo", 2) == 10


def test_an_object_of_another_schema_keeps_what_it_serves(world: World) -> None:
    """A newer schema's field is ignored; the API server prunes it, so it is put in without validation."""
    with world.namespace() as ns:
        newer = model(ns, "echo", write_model(world.cluster.models, f"{ns}-echo"))
        newer["spec"]["someFutureField"] = {"a": 1}
        done = world.kubectl("apply", "--validate=warn", "-f", "-", stdin=json.dumps(newer))
        assert "someFutureField" in done.stderr
        world.ready(ns, "echo")


def test_a_budget_says_what_of_it_is_held(world: World) -> None:
    def budget(limits: dict[str, object]) -> dict[str, object]:
        return {
            "apiVersion": "ergon.dev/v1alpha1",
            "kind": "EnergyBudget",
            "metadata": {"name": "site"},
            "spec": {"limits": limits},
        }

    def says(condition: str, reason: str) -> None:
        until(
            lambda: world.condition(world.get("ebud", "site") or {}, condition).get("reason") == reason,
            f"the budget saying {condition}: {reason}",
            20,
        )

    world.apply(budget({"kilowattHours": 1, "window": "Day", "timeZone": "Mars/Base"}))
    says("Accepted", "InvalidSpec")
    world.apply(budget({"kilowattHours": 1000, "window": "Day", "timeZone": "Europe/Berlin"}))
    says("Accepted", "Accepted")
    says("WithinBudget", "WithinLimit")
    world.apply(budget({"watts": 1000000}))
    says("Accepted", "Accepted")
    says("Feasible", "Feasible")
    says("WithinBudget", "WithinLimit")
    world.kubectl("delete", "ebud", "site")
