"""The sample models do what they say, in a real Triton, and leave when they are told to."""

import asyncio
import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from ergon.triton import InstanceKind, RepositoryState, TritonServer, compose
from tests.triton.server import Server
from tests.triton.test_client import in_state, until

pytestmark = pytest.mark.cluster

MODELS = Path(__file__).parents[2] / "examples" / "models"


async def load(server: Server, triton: TritonServer, name: str, **override: Any) -> None:
    """Load a sample model as a variant named `demo.<name>`."""
    served = f"demo.{name}"
    target = server.repository / served
    if not target.exists():
        shutil.copytree(MODELS / name, target)
    config = compose(
        (MODELS / name / "config.pbtxt").read_text(),
        override,
        name=served,
        backend="python",
        revision="1",
        default_kind=InstanceKind.CPU,
    )
    await triton.load(served, config, 60)


async def ask(server: Server, name: str, tensor: str, *rows: str) -> dict[str, list[Any]]:
    """The outputs for some rows of text, by name."""
    body = {"inputs": [{"name": tensor, "shape": [len(rows), 1], "datatype": "BYTES", "data": list(rows)}]}
    request = urllib.request.Request(f"http://127.0.0.1:{server.http}/v2/models/demo.{name}/infer", json.dumps(body).encode())

    def send() -> dict[str, list[Any]]:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return {output["name"]: output["data"] for output in json.load(answer)["outputs"]}

    return await asyncio.to_thread(send)


async def unloads(server: Server, triton: TritonServer, name: str) -> None:
    """Unload a model, and see that its process goes with it."""
    await triton.unload(f"demo.{name}")
    await until(lambda: in_state(triton, f"demo.{name}", RepositoryState.UNAVAILABLE))

    async def no_stub_is_left() -> bool:
        return not server.stubs()

    await until(no_stub_is_left)


async def test_entities_are_found(server: Server, triton: TritonServer) -> None:
    await load(server, triton, "entities")
    answer = await ask(server, "entities", "TEXT", "Angela Merkel met Tim Cook in Berlin.", "Nothing here.")
    found = [{entity["text"] for entity in json.loads(row)} for row in answer["ENTITIES"]]
    assert {"Angela Merkel", "Tim Cook", "Berlin"} <= found[0]
    assert found[1] == set()
    await unloads(server, triton, "entities")


async def test_questions_on_file_are_answered_and_others_are_told_apart(server: Server, triton: TritonServer) -> None:
    await load(server, triton, "faq")
    answer = await ask(server, "faq", "PROMPT", "What is a pool?", "When does a model sleep?", "Why is the sky blue?")
    assert answer["TEXT"][0].startswith("A pool is a set of identical Triton servers")
    assert "idleAfter" in answer["TEXT"][1]
    assert [score > 0.6 for score in answer["SCORE"]] == [True, True, False]
    await unloads(server, triton, "faq")


async def test_content_types_are_told(server: Server, triton: TritonServer) -> None:
    await load(server, triton, "content-type")
    program = "import os\n\n\ndef main():\n    for name in os.listdir():\n        print(name)\n\n\nmain()\n"
    page = "<!DOCTYPE html><html><head><title>A page</title></head><body><p>Some words</p></body></html>"
    answer = await ask(server, "content-type", "CONTENT", program, page)
    assert answer["LABEL"] == ["python", "html"]
    assert all(0.5 < score <= 1 for score in answer["SCORE"])
    await unloads(server, triton, "content-type")


async def test_languages_are_told(server: Server, triton: TritonServer) -> None:
    await load(server, triton, "language")
    texts = [
        "Good morning, how are you?",
        "Guten Morgen,\nwie geht es dir?",
        "Bonjour, comment allez-vous ?",
        "早上好，你好吗？",
        "",
    ]
    answer = await ask(server, "language", "TEXT", *texts)
    assert answer["LANGUAGE"][:4] == ["en", "de", "fr", "zh"]
    assert all(score > 0.5 for score in answer["SCORE"][:4])
    assert answer["SCORE"][4] < 0.5
    await unloads(server, triton, "language")


async def test_general_questions_are_answered(server: Server, triton: TritonServer) -> None:
    await load(server, triton, "general")
    answer = await ask(server, "general", "PROMPT", "What is the capital of France?", "Name three colours.")
    assert "Paris" in answer["TEXT"][0]
    assert "Red" in answer["TEXT"][1]
    assert all(0 < tokens <= 48 for tokens in answer["TOKENS"])
    with pytest.raises(urllib.error.HTTPError, match="500"):
        await ask(server, "general", "PROMPT", "word " * 3000)
    assert (await ask(server, "general", "PROMPT", "What is the capital of France?"))["TOKENS"][0] > 0
    await unloads(server, triton, "general")


async def test_a_variants_config_reaches_the_model(server: Server, triton: TritonServer) -> None:
    await load(server, triton, "general", parameters={"max_tokens": {"string_value": "3"}})
    assert (await ask(server, "general", "PROMPT", "Tell me a long story."))["TOKENS"] == [3]
    await unloads(server, triton, "general")
