"""Label selectors select what Kubernetes' own would."""

import pytest

from ergon.api.types import LabelSelector

LABELS = {"team": "search", "tier": "gold"}


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ({}, True),
        ({"matchLabels": {"team": "search"}}, True),
        ({"matchLabels": {"team": "search", "tier": "iron"}}, False),
        ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["ads", "search"]}]}, True),
        ({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}, False),
        ({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["search"]}]}, False),
        ({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, False),
        ({"matchLabels": {"tier": "gold"}, "matchExpressions": [{"key": "zone", "operator": "Exists"}]}, False),
    ],
)
def test_selectors(selector: dict[str, object], selected: bool) -> None:
    assert LabelSelector.model_validate(selector).matches(LABELS) is selected
