"""Bodies of KServe v2, JSON and binary, as they are read and changed on their way."""

import contextlib
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.gateway import kserve
from ergon.gateway.columns import Malformed
from ergon.gateway.kserve import Body


def answer(**more: Any) -> dict[str, Any]:
    outputs = [
        {"name": "LABEL", "datatype": "BYTES", "shape": [1, 1], "data": ["en"]},
        {"name": "SCORE", "datatype": "FP32", "shape": [1, 1], "data": [0.25]},
    ]
    return {"model_name": "demo.small", "model_version": "1", "outputs": outputs, **more}


def written(value: Any, *, compact: bool = True) -> bytes:
    return json.dumps(value, separators=(",", ":") if compact else None).encode()


def binary() -> Body:
    text, number = struct.pack("<I", 2) + b"en", struct.pack("<f", 0.25)
    outputs = [
        {"name": "LABEL", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(text)}},
        {"name": "SCORE", "datatype": "FP32", "shape": [1, 1], "parameters": {"binary_data_size": len(number)}},
    ]
    head = written({"model_name": "demo.small", "outputs": outputs})
    return Body(head + text + number, len(head))


@pytest.mark.parametrize("body", [Body(written(answer())), Body(written(answer(), compact=False)), binary()])
def test_the_named_outputs_are_read(body: Body) -> None:
    found = kserve.columns(body, {"SCORE", "LABEL", "NONE"})
    assert {name: list(column.flat) for name, column in found.items()} == {"LABEL": ["en"], "SCORE": [0.25]}
    assert set(kserve.columns(body, {"SCORE"})) == {"SCORE"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"outputs": 1}',
        b'{"outputs": [1]}',
        b"[" * 100_000,
        written({"outputs": [{"name": "SCORE", "parameters": {"binary_data_size": 99}}]}),
        written({"outputs": [{"name": "SCORE", "parameters": {"binary_data_size": -4}}]}),
        written({"outputs": [{"name": "SCORE", "shape": [1], "data": [1, 2]}]}),
    ],
)
def test_an_answer_that_is_none_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        kserve.columns(Body(data), {"SCORE"})


@given(st.binary(max_size=200))
def test_whatever_a_model_sends_the_worst_is_malformed(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        kserve.columns(Body(data), {"SCORE"})
    assert kserve.renamed(Body(data), "a.b", "r").data is not None


@pytest.mark.parametrize("length", ["", "x", "-1", "1.5", "100", "²"])
def test_a_length_that_is_none_is_malformed(length: str) -> None:
    with pytest.raises(Malformed):
        kserve.body_of(b"{}", length)


@pytest.mark.parametrize("body", [Body(written(answer())), Body(written(answer(), compact=False)), binary()])
def test_an_answer_goes_by_the_name_of_the_route(body: Body) -> None:
    renamed = kserve.renamed(body, "demo.small", "language")
    assert json.loads(renamed.head())["model_name"] == "language"
    assert kserve.columns(renamed, {"SCORE"})["SCORE"].flat == [0.25]


def test_an_output_that_the_client_did_not_ask_for_is_asked_for_and_taken_out_again() -> None:
    request = {"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": ["x"]}], "outputs": [{"name": "LABEL"}]}
    asked, added = kserve.asking_for(Body(written(request)), ["SCORE"])
    assert added == ("SCORE",)
    assert json.loads(asked.data)["outputs"] == [{"name": "LABEL"}, {"name": "SCORE", "parameters": {"binary_data": False}}]
    assert set(kserve.columns(kserve.without(Body(written(answer())), added), {"SCORE", "LABEL"})) == {"LABEL"}


@pytest.mark.parametrize(
    "request_body",
    [
        {"inputs": []},
        {"inputs": [], "outputs": []},
        {"inputs": [], "outputs": [{"name": "SCORE"}, {"name": "LABEL"}]},
        {"outputs": 1},
    ],
)
def test_a_request_that_gets_what_is_needed_stays_as_it_is(request_body: Any) -> None:
    body = Body(written(request_body))
    assert kserve.asking_for(body, ["SCORE"]) == (body, ())


def test_binary_inputs_stay_behind_the_longer_json() -> None:
    head = written({"inputs": [{"name": "X", "parameters": {"binary_data_size": 3}}], "outputs": [{"name": "LABEL"}]})
    asked, _ = kserve.asking_for(Body(head + b"\x00\x01\x02", len(head)), ["SCORE"])
    assert asked.json_length is not None
    assert asked.data[asked.json_length :] == b"\x00\x01\x02"
    assert len(json.loads(asked.head())["outputs"]) == 2


def test_requests_of_a_sequence_are_known() -> None:
    assert kserve.is_sequence(Body(written({"parameters": {"sequence_id": 7}, "inputs": []})))
    assert not kserve.is_sequence(Body(written({"inputs": [{"name": "sequence", "data": ["sequence_id"]}]}) + b"x", 3))
