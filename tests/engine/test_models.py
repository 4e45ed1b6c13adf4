"""What stays of a status while only its figures change."""

from typing import Any

from ergon.engine.models import keep_figures


def alternative(message: str, reason: str = "Kept") -> dict[str, Any]:
    return {"pool": "cpu", "variant": "int8", "verdict": "Chosen", "reason": reason, "message": message}


def test_alternatives_are_written_anew_for_other_words_but_not_for_other_figures() -> None:
    before = [alternative("12.5 requests/s for 3.1 W")]
    assert keep_figures([alternative("13 requests/s for 3.25 W")], before) is before
    for new in (alternative("no demand is planned"), alternative("12.5 requests/s for 3.1 W", reason="LeastEnergy")):
        assert keep_figures([new], before) == [new]
    assert keep_figures([*before, alternative("more")], before) == [*before, alternative("more")]
