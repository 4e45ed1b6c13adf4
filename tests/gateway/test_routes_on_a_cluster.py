"""Routes on real servers: who answers, and when the bigger model is asked."""

import base64
import json
import struct
from collections.abc import Iterator

import pytest

from tests.engine.world import World, settle, until
from tests.gateway.world import Answer, Gateway, Inside, request, route, scored

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def guessing(running: World, inside: Inside) -> Iterator[tuple[str, Gateway]]:
    """A namespace with a small and a big model and routes over them, and a gateway that knows them."""
    settle(running)
    with running.namespace() as namespace:
        running.apply(scored(running, namespace, "small", 0.7), scored(running, namespace, "big", 0.9))
        running.apply(
            route(namespace, "guess"),
            route(namespace, "quick", escalation={"after": "1s"}),
            route(namespace, "never", escalation={"when": [{"output": "SCORE", "below": 0.5}], "maxRate": 0}),
            route(namespace, "turned", order=["big", "small"]),
            route(namespace, "spare", task="nothing", fallback="guess"),
            route(namespace, "lost", task="nothing", fallback="found"),
            route(namespace, "found", task="nothing", fallback="lost"),
        )
        running.ready(namespace, "small")
        running.ready(namespace, "big")
        gateway = Gateway(running, inside, 20990)
        try:
            known(gateway, f"{namespace}/guess")
            yield namespace, gateway
        finally:
            gateway.stop()


def known(gateway: Gateway, name: str) -> None:
    """Wait until a gateway answers for a route."""
    until(lambda: gateway.infer(name, "x").status == 200, f"{name} answered", 30)


def said(answer: Answer) -> tuple[str, str | None, str | None]:
    """Who answered, who was asked, and why further ones were."""
    assert answer.status == 200, answer.body
    return answer.output("LABEL"), answer.header("ergon-models"), answer.header("ergon-escalated")


def test_the_smallest_model_answers_until_it_is_unsure(guessing: tuple[str, Gateway]) -> None:
    namespace, gateway = guessing
    guess = f"{namespace}/guess"
    assert said(gateway.infer(guess, "small=0.9")) == ("small", "small", None)
    assert said(gateway.infer(guess, "small=0.1")) == ("big", "small,big", "Confidence")
    assert said(gateway.infer(guess, "small=0.1 big=0.1")) == ("big", "small,big", "Confidence")
    assert said(gateway.infer(guess, "small=0.1", ergon_escalation="forbid")) == ("small", "small", "held")
    assert said(gateway.infer(guess, "small=0.9", ergon_escalation="force")) == ("big", "big", "Forced")
    assert said(gateway.infer(guess, "small-fails=1")) == ("big", "small,big", "Unavailable")
    assert said(gateway.infer(guess, "small=0.1 big-fails=1")) == ("small", "small,big", "Confidence,held")
    assert said(gateway.infer(f"{namespace}/quick", "small=0.1")) == ("small", "small", None)
    assert said(gateway.infer(f"{namespace}/never", "small=0.1")) == ("small", "small", "held")
    assert said(gateway.infer(f"{namespace}/turned", "big=0.1")) == ("small", "big,small", "Confidence")
    assert said(gateway.infer(f"{namespace}/spare", "small=0.9"))[0] == "small"

    answer = gateway.infer(guess, "x")
    assert answer.json()["model_name"] == "guess"
    failed = gateway.infer(guess, "small-fails=1 big-fails=1")
    assert (failed.status, "told to fail" in failed.json()["error"]) == (502, True)
    assert said(gateway.infer(f"{namespace}/quick", "small-seconds=2")) == ("big", "small,big", "Late")
    late = gateway.infer(guess, "small-seconds=3", ergon_timeout="500ms")
    assert (late.status, late.seconds < 3) == (504, True)
    nobody = gateway.infer(f"{namespace}/lost", "x")
    assert nobody.status == 503
    assert nobody.header("retry-after")
    assert "has no model" in nobody.json()["error"]

    metrics = gateway.metrics()
    labels = f'namespace="{namespace}",route="guess"'
    assert (
        metrics[
            f'ergon_gateway_escalations_total{{model="small",namespace="{namespace}",reason="Forced",route="guess",to="big"}}'
        ]
        == 1
    )
    assert metrics[f"ergon_gateway_wished_escalations_total{{{labels}}}"] >= 5
    assert metrics[f'ergon_gateway_asked_total{{model="big",{labels}}}'] >= 5


def test_what_clients_may_get_wrong_is_told_in_the_protocols_words(guessing: tuple[str, Gateway]) -> None:
    namespace, gateway = guessing
    inside, at = gateway.inside, f"{gateway.url}/{namespace}/guess/v2/models/any"

    for body, headers, status, words in (
        (b"garbage", {}, 400, "parse"),
        ({"inputs": []}, {}, 400, ""),
        (request("x"), {"ergon_timeout": "soon"}, 400, "ergon-timeout"),
        (request("x"), {"ergon_timeout": "0s"}, 400, "above 0"),
        (request("x"), {"ergon_escalation": "maybe"}, 400, "forbid or force"),
        (request("x"), {"Inference_Header_Content_Length": "9999"}, 400, "no length within the body"),
    ):
        answer = inside.ask(f"{at}/infer", body, **headers)
        assert answer.status == status, (body, answer)
        assert words in answer.json()["error"]
        assert answer.header("ergon-escalated") is None
    assert inside.ask(f"{gateway.url}/{namespace}/none/v2/models/any/infer", request("x")).status == 404
    assert inside.ask(f"{gateway.url}/elsewhere", method="GET").status == 404
    assert inside.ask(f"{at}/infer", method="GET").status == 405
    assert inside.ask(f"{gateway.url}/v2/models/{namespace}.none/infer", request("x")).status == 404

    assert inside.ask(at, method="GET").json()["name"] == "guess"
    assert inside.ask(f"{at}/ready", method="GET").status == 200
    only_label = inside.ask(f"{at}/infer", {**request("small=0.1"), "outputs": [{"name": "LABEL"}]})
    assert said(only_label) == ("big", "small,big", "Confidence")
    assert [output["name"] for output in only_label.json()["outputs"]] == ["LABEL"]


def test_binary_bodies_are_judged_as_json_is(guessing: tuple[str, Gateway]) -> None:
    namespace, gateway = guessing
    for text, who in (("small=0.9", "small"), ("small=0.1", "big")):
        data = struct.pack("<I", len(text)) + text.encode()
        tensor = {"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        answer = gateway.inside.ask(
            f"{gateway.url}/{namespace}/guess/v2/models/any/infer",
            head + data,
            Inference_Header_Content_Length=str(len(head)),
        )
        length = int(answer.header("inference-header-content-length") or 0)
        assert json.loads(answer.body[:length])["model_name"] == "guess"
        assert who.encode() in answer.body[length:]


def test_grpc_is_served_alike(guessing: tuple[str, Gateway]) -> None:
    namespace, gateway = guessing
    name = f"{namespace}/guess"
    for text, who, why in (("small=0.9", b"small", None), ("small=0.1", b"big", "Confidence")):
        answer = gateway.inside.ask_grpc(gateway.grpc, name, text)
        assert answer.status == "OK", answer.body
        told = answer.json()
        assert told["model_name"] == name
        assert who in base64.b64decode(told["outputs"]["LABEL"])
        assert answer.header("ergon-escalated") == why
    assert gateway.inside.ask_grpc(gateway.grpc, f"{namespace}/none", "x").status == "NOT_FOUND"
    assert gateway.inside.ask_grpc(gateway.grpc, name, "small-seconds=3", timeout=0.5).status == "DEADLINE_EXCEEDED"
    plain = gateway.inside.ask_grpc(gateway.grpc, f"{namespace}.small", "x")
    assert (plain.status, plain.json()["model_name"]) == ("OK", f"{namespace}.small")
