"""From facts to the conditions of a status: times kept while nothing changed."""

from collections.abc import Iterable
from typing import Any

from ergon.reconcile.status import Fact

Object = dict[str, Any]
_WORDS = {True: "True", False: "False", None: "Unknown"}


def stamp(facts: Iterable[Fact], previous: Iterable[Object], generation: int, now: str) -> list[Object]:
    """Conditions in metav1 form; `lastTransitionTime` is that of the previous one while the status is the same."""
    before = {condition["type"]: condition for condition in previous}
    stamped = []
    for fact in facts:
        status = _WORDS[fact.status]
        old = before.get(fact.type)
        since = old["lastTransitionTime"] if old is not None and old.get("status") == status else now
        stamped.append(
            {
                "type": fact.type,
                "status": status,
                "reason": fact.reason,
                "message": fact.message[:1024],
                "lastTransitionTime": since,
                "observedGeneration": generation,
            }
        )
    return stamped


def keep_since(placements: list[Object], previous: Iterable[Object], now: str) -> list[Object]:
    """Placements with `since`: that of the previous one while variant and state are the same."""
    before = {(p["pool"], p["server"]): p for p in previous}
    result = []
    for placement in placements:
        old = before.get((placement["pool"], placement["server"]), {})
        same = old.get("state") == placement["state"] and old.get("variant") == placement["variant"]
        result.append({**placement, "since": old.get("since", now) if same else now})
    return result
