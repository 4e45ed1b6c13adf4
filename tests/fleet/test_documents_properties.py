"""Whatever a document holds, reading it never raises: it is read, passed over, or one line on what is wrong."""

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ergon.fleet.demand import read_demand
from ergon.fleet.documents import Document, read_fleet
from ergon.fleet.types import ModelKey
from tests.api.corpus import BUDGET, MODEL, POOL, Object

_NAMESPACE: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": {"x": "y"}}}
_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=8,
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, child in items for found in _paths(child, (*path, key)))]


@st.composite
def _changed(draw: st.DrawFn) -> Any:
    """A good object with anything at one or two places."""
    obj: Any = copy.deepcopy(draw(st.sampled_from([POOL, MODEL, BUDGET, _NAMESPACE])))
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(_paths(obj)))
        value = draw(_values)
        if not path:
            return value
        place = obj
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
    return obj


@settings(max_examples=300, deadline=None)
@given(st.lists(_changed(), max_size=4), st.booleans())
def test_reading_documents_never_raises(contents: list[Any], strict: bool) -> None:
    documents = [Document(f"f.yaml, document {number}", content) for number, content in enumerate(contents, 1)]
    reading = read_fleet([*documents, Document("good.yaml, document 1", _NAMESPACE)], operator_namespace="e", strict=strict)
    keys = [model.key for model in reading.fleet.models]
    assert len(set(keys)) == len(keys)
    assert not reading.broken & set(keys)
    for problem in reading.problems:
        assert str(problem).startswith(problem.where)
        assert "\n" not in str(problem)
        assert len(str(problem)) < 2000


@settings(max_examples=200, deadline=None)
@given(
    _values | st.fixed_dictionaries({"models": st.dictionaries(st.sampled_from(["a/b", "a", 3]) | st.text(max_size=4), _values)})
)
def test_reading_a_demand_never_raises(content: Any) -> None:
    demand, problems = read_demand(content, {ModelKey("a", "b")})
    assert all(work >= 0 for work in demand.values())
    assert all(problem for problem in problems)
