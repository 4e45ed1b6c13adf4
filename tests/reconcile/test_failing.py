"""When a model that keeps failing on one server is tried on another, and when not."""

import pytest

from ergon.fleet.types import ModelKey, ServerKey
from ergon.reconcile.failing import PASSING_TRIES, TRIES, better_elsewhere, keeps_failing
from ergon.reconcile.observed import Failure

REVISION = ModelKey("team", "m"), "r1"
A, B, C = (ServerKey("a", n) for n in range(3))


@pytest.mark.parametrize(
    ("reason", "passing", "after"),
    [
        ("DiskFull", False, TRIES),
        ("MemoryFull", False, TRIES),
        ("LoadFailed", False, TRIES),
        ("FetchFailed", False, TRIES),
        ("StoreUnavailable", True, PASSING_TRIES),
        ("ServerUnavailable", True, PASSING_TRIES),
        ("SourceNotFound", False, None),
        ("AccessDenied", False, None),
        ("SecretInvalid", False, None),
        ("ConfigurationInvalid", False, None),
        ("LoadHung", False, None),
    ],
)
def test_only_what_may_be_the_servers_doing_is_tried_elsewhere_and_not_at_once(
    reason: str, passing: bool, after: int | None
) -> None:
    said = [keeps_failing(Failure("r1", reason, "", attempts, 1.0), passing=passing) for attempts in range(1, 10)]
    assert said == [after is not None and attempts >= after for attempts in range(1, 10)]


def test_what_fails_on_one_server_is_tried_on_another() -> None:
    assert better_elsewhere({REVISION: {A}}, set()) == {(*REVISION, A)}


def test_what_fails_on_two_and_is_loaded_nowhere_stays_where_it_is() -> None:
    assert better_elsewhere({REVISION: {A, B}}, set()) == set()


def test_what_is_loaded_somewhere_leaves_all_servers_where_it_fails() -> None:
    assert better_elsewhere({REVISION: {A, B, C}}, {REVISION}) == {(*REVISION, A), (*REVISION, B), (*REVISION, C)}
