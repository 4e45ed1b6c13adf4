"""The alerts of the examples: what they fire on, and what they leave alone."""

import re

import pytest
import yaml
from tests.install.chart import ROOT, Object


def alert(name: str) -> Object:
    """One rule of the example."""
    rules = yaml.safe_load((ROOT / "examples" / "monitoring" / "alerts.yaml").read_text())["spec"]["groups"][0]["rules"]
    return next(rule for rule in rules if rule["alert"] == name)


@pytest.mark.parametrize(
    ("known", "loaded", "asleep", "scaled_to_zero", "fires"),
    [(3, 3, 0, 0, False), (3, 2, 0, 0, True), (3, 2, 1, 0, False), (3, 2, 0, 1, False), (3, 1, 1, 0, True), (0, 0, 0, 0, False)],
)
def test_models_that_should_be_loaded_and_are_not_are_told_and_no_others(
    known: int, loaded: int, asleep: int, scaled_to_zero: int, fires: bool
) -> None:
    counts = {"known": known, "loaded": loaded, "asleep": asleep, "scaled_to_zero": scaled_to_zero}
    rule = alert("ErgonModelsNotLoaded")
    arithmetic = re.sub(r'max\(ergon_models\{state="(\w+)"\}\)', lambda found: str(counts[found[1]]), rule["expr"])
    assert re.fullmatch(r"[\d\s+>-]+", arithmetic)
    assert eval(arithmetic) is fires
