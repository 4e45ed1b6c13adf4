"""Bodies of KServe v2 inference over HTTP: JSON, or JSON with binary data behind it. Pure."""

import json
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from ergon.gateway.columns import Column, Malformed, of_bytes, of_json

HEADER_LENGTH = "Inference-Header-Content-Length"
LARGEST_PARSED_BYTES = 1 << 20
"""A JSON part larger than this is passed on as it is: reading 1 MiB of JSON takes 10 ms, in which nobody else is answered."""


class Body(NamedTuple):
    """A request's or an answer's body. `json_length` is where its JSON ends and binary data begins; None: it is all JSON."""

    data: bytes
    json_length: int | None = None

    def head(self) -> bytes:
        """The JSON part."""
        return self.data if self.json_length is None else self.data[: self.json_length]

    def with_head(self, head: bytes) -> "Body":
        """With another JSON part before the same binary data."""
        return Body(head) if self.json_length is None else Body(head + self.data[self.json_length :], len(head))


def body_of(data: bytes, header_length: str | None) -> Body:
    """A body by its header Inference-Header-Content-Length. Raises Malformed where that is no length within the body."""
    if header_length is None:
        return Body(data)
    if not header_length.isascii() or not header_length.isdecimal() or int(header_length) > len(data):
        raise Malformed(f"{HEADER_LENGTH}: {header_length[:20]!r} is no length within the body of {len(data)} bytes")
    return Body(data, int(header_length))


def is_sequence(request: Body) -> bool:
    """Whether the request is one of a sequence, whose model keeps state between requests: it must not be sent twice."""
    return b'"sequence_id"' in request.head()


def columns(answer: Body, names: Collection[str]) -> dict[str, Column]:
    """Those of the named outputs that the answer has. Raises Malformed where it cannot be read."""
    found: dict[str, Column] = {}
    place = answer.json_length or 0
    for output in _outputs(_parsed(answer.head())):
        name, parameters = str(output.get("name")), output.get("parameters")
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if size is not None and (not isinstance(size, int) or size < 0 or place + size > len(answer.data)):
            raise Malformed(f"output {name[:128]} has no binary_data_size within the answer")
        if name in names:
            found[name] = (
                of_json(name, output.get("shape"), output.get("data"))
                if size is None
                else of_bytes(name, output.get("datatype"), output.get("shape"), answer.data[place : place + size])
            )
        place += size or 0
    return found


def renamed(answer: Body, served: str, name: str) -> Body:
    """The answer in another model's name. One that says no name, or cannot be read, stays as it is."""
    head = answer.head()
    # Triton writes the name first and without spaces: then nothing needs to be parsed.
    begin = b'{"model_name":' + json.dumps(served).encode()
    if head.startswith(begin):
        return answer.with_head(b'{"model_name":' + json.dumps(name).encode() + head[len(begin) :])
    try:
        fields = _parsed(head)
    except Malformed:
        return answer
    if "model_name" not in fields:
        return answer
    return answer.with_head(_written({**fields, "model_name": name}))


def asking_for(request: Body, names: Collection[str]) -> tuple[Body, tuple[str, ...]]:
    """The request, extended by what it does not ask for of these outputs, and their names.

    Only a request that lists outputs needs that; without a list a server gives all.
    """
    head = request.head()
    if not names or b'"outputs"' not in head or len(head) > LARGEST_PARSED_BYTES:
        return request, ()
    try:
        fields = _parsed(head)
        outputs = _outputs(fields)
    except Malformed:
        return request, ()  # the server tells the client what is wrong with it
    asked = {output.get("name") for output in outputs}
    missing = tuple(name for name in names if name not in asked)
    if not outputs or not missing:
        return request, ()
    added = [{"name": name, "parameters": {"binary_data": False}} for name in missing]
    return request.with_head(_written({**fields, "outputs": [*outputs, *added]})), missing


def without(answer: Body, names: Collection[str]) -> Body:
    """The answer without these outputs, which came as JSON."""
    if not names:
        return answer
    try:
        fields = _parsed(answer.head())
        kept = [output for output in _outputs(fields) if output.get("name") not in names or "data" not in output]
    except Malformed:
        return answer
    return answer.with_head(_written({**fields, "outputs": kept}))


def error(message: str) -> bytes:
    """An error in KServe's form."""
    return json.dumps({"error": message}, ensure_ascii=False).encode()


def _parsed(head: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(head)
    except (ValueError, RecursionError) as problem:
        raise Malformed(f"the JSON cannot be read: {problem}") from None
    if not isinstance(fields, dict):
        raise Malformed("the JSON is no map")
    return fields


def _outputs(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    outputs = fields.get("outputs")
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise Malformed("there is no list of outputs")
    return outputs


def _written(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
