"""OpenAI's chat API in front of real servers, with models that answer whole and models that answer in pieces."""

import json
from typing import Any

import pytest

from tests.engine.world import World, model, until, write_model
from tests.gateway.world import Answer, Gateway, drawing, route

pytestmark = pytest.mark.cluster

CONFIG = """
backend: "python"
max_batch_size: BATCH
input [{ name: "text_input" data_type: TYPE_STRING dims: [1] }, { name: "limit" data_type: TYPE_INT32 dims: [1] optional: true }]
output [
  { name: "text_output" data_type: TYPE_STRING dims: [1] },
  { name: "tokens" data_type: TYPE_INT32 dims: [1] },
  { name: "SCORE" data_type: TYPE_FP32 dims: [1] }
]
instance_group [{ count: 1 kind: KIND_CPU }]
MORE
"""
WORDS = """
import numpy as np
import triton_python_backend_utils as pb


def words_of(request):
    text = pb.get_input_tensor_by_name(request, "text_input").as_numpy().reshape(-1)[0].decode()
    limit = pb.get_input_tensor_by_name(request, "limit")
    said = ["NAME", *text.split()]
    return said[: int(limit.as_numpy().reshape(-1)[0])] if limit is not None else said


def response(words, shape):
    score = 0.1 if "hard" in words else 0.9
    tensors = [
        pb.Tensor("text_output", np.array([" ".join(words).encode()], dtype=object).reshape(shape)),
        pb.Tensor("tokens", np.array([len(words)], dtype=np.int32).reshape(shape)),
        pb.Tensor("SCORE", np.array([score], dtype=np.float32).reshape(shape)),
    ]
    return pb.InferenceResponse(tensors)
"""
WHOLE = f"""{WORDS}

class TritonPythonModel:
    def execute(self, requests):
        return [response(words_of(request), (1, 1)) for request in requests]
"""
PIECES = f"""{WORDS}

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            for word in words_of(request):
                sender.send(response([word], (1,)))
            sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        return None
"""


def talking(world: World, namespace: str, name: str, quality: float, *, pieces: bool) -> dict[str, Any]:
    """A model that says its name and what it was told."""
    more = "model_transaction_policy { decoupled: true }" if pieces else ""
    config = CONFIG.replace("BATCH", "0" if pieces else "4").replace("MORE", more)
    code = (PIECES if pieces else WHOLE).replace("NAME", name)
    uri = write_model(world.cluster.models, f"{namespace}-{name}", code, config=config)
    return model(namespace, name, uri, variant={"quality": quality, "profiles": [drawing(quality)]}, task="chat")


def chat(gateway: Gateway, at: str, text: str, **fields: Any) -> Answer:
    """One chat request."""
    body = {"model": "any", "messages": [{"role": "user", "content": text}], **fields}
    return gateway.inside.ask(f"{gateway.url}/{at}/v1/chat/completions", body)


def pieces_of(answer: Answer) -> list[str]:
    """The texts of a stream's pieces."""
    events = [line.removeprefix("data: ") for line in answer.body.decode().split("\n\n") if line]
    assert events[-1] == "[DONE]", events
    choices = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
    return [choice["delta"]["content"] for choice in choices if choice["delta"].get("content")]


def test_a_route_talks(world: World, gateway: Gateway) -> None:
    with world.namespace() as namespace:
        spec = {"task": "chat", "chat": {"tokens": "tokens", "maxTokens": "limit"}}
        world.apply(talking(world, namespace, "small", 0.3, pieces=False), talking(world, namespace, "big", 0.9, pieces=True))
        world.apply(route(namespace, "chat", **spec), route(namespace, "mute"), route(namespace, "large", **spec, order=["big"]))
        world.ready(namespace, "small")
        world.ready(namespace, "big")
        at = f"{namespace}/chat"
        until(lambda: chat(gateway, at, "x").status == 200, "an answer", 30)

        answer = chat(gateway, at, "an easy one")
        told = answer.json()
        assert told["choices"][0]["message"] == {"role": "assistant", "content": "small an easy one"}
        assert (told["model"], told["object"], told["usage"]["completion_tokens"]) == ("chat", "chat.completion", 4)
        assert answer.header("ergon-models") == "small"

        answer = chat(gateway, at, "a hard one")
        assert answer.json()["choices"][0]["message"]["content"] == "bigahardone"
        assert (answer.header("ergon-models"), answer.header("ergon-escalated")) == ("small,big", "Confidence")

        assert chat(gateway, at, "an easy one", max_tokens=2).json()["choices"][0]["message"]["content"] == "small an"
        assert pieces_of(chat(gateway, at, "an easy one", stream=True)) == ["small an easy one"]
        streamed = chat(gateway, at, "a hard one", stream=True, stream_options={"include_usage": True})
        assert pieces_of(streamed) == ["big", "a", "hard", "one"]
        assert '"completion_tokens":4' in streamed.body.decode()
        assert streamed.header("content-type") == "text/event-stream"
        assert pieces_of(chat(gateway, f"{namespace}/large", "one two", stream=True)) == ["big", "one", "two"]

        models = gateway.inside.ask(f"{gateway.url}/{at}/v1/models", method="GET").json()
        assert [entry["id"] for entry in models["data"]] == ["chat"]
        refused = chat(gateway, at, "x", n=3)
        assert (refused.status, refused.json()["error"]["type"]) == (400, "invalid_request_error")
        nothing = chat(gateway, f"{namespace}/mute", "x")
        assert (nothing.status, "no chat" in nothing.json()["error"]["message"]) == (404, True)
        assert chat(gateway, f"{namespace}/none", "x").json()["error"]["code"] == "not_found"
