"""How long woken models took to their first answer, as the counters of gateways tell it."""

from ergon.engine.first_answers import FirstAnswers
from ergon.fleet.types import ModelKey
from ergon.telemetry.gateway_page import Told

M, N = ModelKey("t", "m"), ModelKey("t", "n")


def test_what_was_told_before_the_first_look_is_not_of_now() -> None:
    answers = FirstAnswers()
    assert answers.look({"a": {M: Told(7, 3.5)}}) == {}
    assert answers.look({"a": {M: Told(7, 3.5)}}) == {}
    assert answers.look({"a": {M: Told(8, 3.75), N: Told(1, 0.5)}}) == {M: 0.25, N: 0.5}


def test_of_two_gateways_that_held_requests_the_sooner_answer_counts() -> None:
    answers = FirstAnswers()
    answers.look({"a": {}, "b": {}})
    assert answers.look({"a": {M: Told(1, 0.5)}, "b": {M: Told(1, 0.25)}}) == {M: 0.25}


def test_one_that_starts_again_or_is_silent_for_a_while() -> None:
    answers = FirstAnswers()
    answers.look({"a": {M: Told(5, 2.0)}})
    assert answers.look({"a": {M: Told(1, 0.5)}}) == {M: 0.5}
    assert answers.look({}) == {}
    assert answers.look({"a": {M: Told(3, 1.0)}}) == {M: 0.25}
    answers.keep([])
    assert answers.look({"a": {M: Told(9, 9.0)}}) == {}
