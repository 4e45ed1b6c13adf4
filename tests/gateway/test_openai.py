"""OpenAI's chat API: what is understood, and what is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.api.route import Chat
from ergon.gateway import openai
from ergon.gateway.failures import Failure, Kind
from ergon.gateway.openai import ChatRequest, Stamp

STAMP = Stamp("chatcmpl-1", 1700000000, "assistant")
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": [{"type": "text", "text": "How are "}, {"type": "text", "text": "you?"}]},
]


def read(chat: Chat | None = None, **fields: Any) -> ChatRequest:
    return openai.read_request(json.dumps({"messages": TALK, **fields}).encode(), chat or Chat())


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("LastMessage", "How are you?"),
        (
            "ChatML",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi.<|im_end|>\n"
            "<|im_start|>user\nHow are you?<|im_end|>\n<|im_start|>assistant\n",
        ),
    ],
)
def test_messages_become_a_prompt_as_the_route_says(template: Any, prompt: str) -> None:
    assert read(Chat(template=template)).prompt == prompt


def test_a_model_with_a_template_of_its_own_gets_the_messages() -> None:
    assert json.loads(read(Chat(template="Messages")).prompt)[3] == {"role": "user", "content": "How are you?"}


def test_what_else_may_be_asked() -> None:
    assert read(max_tokens=5).max_tokens == 5
    assert read(max_completion_tokens=6, max_tokens=5).max_tokens == 6
    assert read().max_tokens is None
    assert not read().stream
    asked = read(stream=True, stream_options={"include_usage": True}, temperature=0.5, seed=1, model="any")
    assert (asked.stream, asked.usage) == (True, True)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "no JSON"),
        (b"[]", "map"),
        (b"{}", "messages"),
        (b'{"messages": []}', "messages"),
        (b'{"messages": "hi"}', "messages"),
        (b'{"messages": [1]}', "messages"),
        (b'{"messages": [{"role": "system", "content": "x"}]}', "role user"),
        (b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', r"messages[0].content"),
        (b'{"messages": [{"role": "user", "content": null}]}', r"messages[0].content"),
        (b'{"messages": [{"role": "user", "content": "x"}], "n": 2}', "n:"),
        (b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 0}', "max_tokens"),
        (b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": "5"}', "max_tokens"),
        (b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": true}', "max_tokens"),
    ],
)
def test_what_is_wrong_is_named(body: bytes, word: str) -> None:
    with pytest.raises(Failure) as caught:
        openai.read_request(body, Chat())
    assert caught.value.kind is Kind.BAD_REQUEST
    assert word in str(caught.value)


@given(
    st.binary()
    | st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(json.dumps)
)
def test_whatever_is_sent_the_worst_is_a_bad_request(body: bytes | str) -> None:
    with pytest.raises(Failure) as caught:
        openai.read_request(body if isinstance(body, bytes) else body.encode(), Chat())
    assert caught.value.kind is Kind.BAD_REQUEST


def test_a_stream_is_events_that_end() -> None:
    stream = openai.first_chunk(STAMP) + openai.chunk(STAMP, "Hi\n\n") + openai.last_chunks(STAMP, 2, usage=True)
    events = [line.removeprefix("data: ") for line in stream.decode().split("\n\n") if line]
    assert events[-1] == "[DONE]"
    pieces = [json.loads(event) for event in events[:-1]]
    assert {piece["object"] for piece in pieces} == {"chat.completion.chunk"}
    assert pieces[0]["choices"][0]["delta"]["role"] == "assistant"
    assert pieces[1]["choices"][0]["delta"] == {"content": "Hi\n\n"}
    assert pieces[2]["choices"][0]["finish_reason"] == "stop"
    assert pieces[3]["usage"]["completion_tokens"] == 2


def test_a_whole_answer_tells_tokens_where_they_are_known() -> None:
    assert openai.completion(STAMP, "Hi", 1)["usage"] == {"prompt_tokens": 0, "completion_tokens": 1, "total_tokens": 1}
    assert "usage" not in openai.completion(STAMP, "Hi", None)
    assert openai.completion(STAMP, "Hi", None)["choices"][0]["message"] == {"role": "assistant", "content": "Hi"}
