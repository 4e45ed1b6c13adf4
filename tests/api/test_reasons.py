"""Every reason that the operator's code can give stands in the closed sets, so that people can rely on them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from ergon.api.conditions import BUDGET_REASONS, MODEL_REASONS, POOL_REASONS, known

SOURCE = Path(__file__).parents[2] / "operator" / "ergon"
KINDS = {
    "reconcile/status.py": MODEL_REASONS,
    "reconcile/pools.py": POOL_REASONS,
    "reconcile/budgets.py": BUDGET_REASONS,
}


def literal_reasons(path: Path) -> Iterator[tuple[str, str]]:
    """Condition and reason of every `Fact("Type", …, "Reason")` in a file; reasons that are computed are not seen."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Fact" and len(node.args) >= 3:
            condition = node.args[0]
            for reason in ast.walk(node.args[2]):
                if isinstance(reason, ast.Constant) and isinstance(reason.value, str) and isinstance(condition, ast.Constant):
                    yield str(condition.value), reason.value


@pytest.mark.parametrize("name", KINDS)
def test_reasons_in_the_code_are_in_the_closed_sets(name: str) -> None:
    found = {(condition, reason) for condition, reason in literal_reasons(SOURCE / name) if reason}
    assert found
    unknown = sorted((condition, reason) for condition, reason in found if not known(KINDS[name], condition, reason))
    assert not unknown


def test_why_a_model_is_not_loaded_has_a_reason_for_every_error() -> None:
    from ergon.engine.jobs import _REASONS

    for _, reason in _REASONS:
        assert known(MODEL_REASONS, "Loaded", reason), reason
