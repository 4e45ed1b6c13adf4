"""OpenAI's chat API in values: what a request asks for, and what answers look like. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ergon.api.route import Chat
from ergon.gateway.failures import Failure, Kind

DONE = b"data: [DONE]\n\n"
_MOST_TOKENS = 1 << 20


@dataclass(frozen=True)
class ChatRequest:
    """What a chat request asks for. `max_tokens` None: as many as the model likes."""

    prompt: str
    max_tokens: int | None = None
    stream: bool = False
    usage: bool = True
    """Whether a stream ends with the numbers of tokens; an answer that is no stream always tells them."""


@dataclass(frozen=True)
class Stamp:
    """What every piece of one answer repeats."""

    id: str
    created: int
    model: str


def read_request(body: bytes, chat: Chat) -> ChatRequest:
    """A chat completion request. Raises Failure, saying which field is wrong."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Failure(Kind.BAD_REQUEST, f"the body is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise Failure(Kind.BAD_REQUEST, "the body must be a map")
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise Failure(Kind.BAD_REQUEST, "messages: a list with at least one message is needed")
    if fields.get("n") not in (None, 1):
        raise Failure(Kind.BAD_REQUEST, "n: only one answer is given")
    limit = fields.get("max_completion_tokens", fields.get("max_tokens"))
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or not 0 < limit <= _MOST_TOKENS):
        raise Failure(Kind.BAD_REQUEST, "max_tokens: must be a number above 0")
    options = fields.get("stream_options")
    return ChatRequest(
        prompt=_prompt(messages, chat),
        max_tokens=limit,
        stream=fields.get("stream") is True,
        usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def completion(stamp: Stamp, text: str, tokens: int | None) -> dict[str, Any]:
    """A whole answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": "stop"}
    return {**_stamped(stamp, "chat.completion"), "choices": [choice], **_usage(tokens)}


def first_chunk(stamp: Stamp) -> bytes:
    """The beginning of a stream."""
    return _event(stamp, [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])


def chunk(stamp: Stamp, text: str) -> bytes:
    """A piece of a stream."""
    return _event(stamp, [{"index": 0, "delta": {"content": text}, "finish_reason": None}])


def last_chunks(stamp: Stamp, tokens: int | None, *, usage: bool) -> bytes:
    """The end of a stream."""
    end = _event(stamp, [{"index": 0, "delta": {}, "finish_reason": "stop"}])
    return end + (_event(stamp, [], _usage(tokens)) if usage and tokens is not None else b"") + DONE


def models(name: str) -> dict[str, Any]:
    """The list of models: the route alone."""
    return {"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "ergon"}]}


def _prompt(messages: Sequence[Mapping[str, Any]], chat: Chat) -> str:
    texts = [(str(message.get("role", "user")), _text(place, message)) for place, message in enumerate(messages)]
    match chat.template:
        case "ChatML":
            return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in texts) + "<|im_start|>assistant\n"
        case "Messages":
            return json.dumps([{"role": role, "content": text} for role, text in texts], ensure_ascii=False)
        case _:
            asked = [text for role, text in texts if role == "user"]
            if not asked:
                raise Failure(Kind.BAD_REQUEST, "messages: none is of the role user")
            return asked[-1]


def _text(place: int, message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str) for part in content
    ):
        return "".join(part["text"] for part in content)
    if content is None and message.get("role") == "assistant":
        return ""
    raise Failure(Kind.BAD_REQUEST, f"messages[{place}].content: must be text; this route takes nothing else")


def _stamped(stamp: Stamp, kind: str) -> dict[str, Any]:
    return {"id": stamp.id, "object": kind, "created": stamp.created, "model": stamp.model}


def _usage(tokens: int | None) -> dict[str, Any]:
    """Models do not tell how many tokens a prompt has; what is not known counts as none."""
    return {} if tokens is None else {"usage": {"prompt_tokens": 0, "completion_tokens": tokens, "total_tokens": tokens}}


def _event(stamp: Stamp, choices: list[dict[str, Any]], more: Mapping[str, Any] | None = None) -> bytes:
    fields = {**_stamped(stamp, "chat.completion.chunk"), "choices": choices, **(more or {})}
    return b"data: " + json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
