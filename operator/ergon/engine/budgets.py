"""What is written to the API server for one energy budget: its status, and an event when it can no longer be held."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from ergon.api.conditions import merge
from ergon.api.types import API_VERSION
from ergon.engine.cache import BudgetRecord, Cache
from ergon.engine.compare import covers
from ergon.engine.queue import KeyedQueue
from ergon.kube.client import KubeClient
from ergon.kube.errors import NotFound
from ergon.kube.events import EventRecorder
from ergon.reconcile.figures import keep_figures, same_wording
from ergon.reconcile.status import Fact

Object = dict[str, Any]


class BudgetWriter:
    """Brings the statuses of budgets to what was last decided for them."""

    def __init__(self, client: KubeClient, cache: Cache, events: EventRecorder, now_text: Callable[[], str]) -> None:
        self._client = client
        self._cache = cache
        self._events = events
        self._now_text = now_text
        self._wishes: dict[str, tuple[list[Fact], Object]] = {}
        self.queue: KeyedQueue[str] = KeyedQueue(self._sync, 2, "write budget")

    def wish(self, name: str, facts: list[Fact], body: Object) -> None:
        """Take over what the status should say; it is written soon where it differs."""
        record = self._cache.budgets.get(name)
        if record is None:
            return
        self._wishes[name] = (facts, body)
        if self._status(record, facts, body) is not None:
            self.queue.add(name)

    def forget(self, name: str) -> None:
        """The budget is gone."""
        self._wishes.pop(name, None)

    def _status(self, record: BudgetRecord, facts: list[Fact], body: Object) -> Object | None:
        """The status to write; None where it stands already."""
        previous = record.status.get("conditions") or ()
        body = keep_figures(body, record.status, tuple(body))
        facts = [_as_it_stands(fact, previous) for fact in facts] if covers(record.status, body) else facts
        conditions = merge(previous, facts, generation=record.generation, now=self._now_text())
        status = {**body, "observedGeneration": record.generation, "conditions": conditions}
        same = covers(record.status, status) and len(previous) == len(conditions) and set(record.status) <= set(status)
        return None if same else status

    async def _sync(self, name: str) -> None:
        record, wish = self._cache.budgets.get(name), self._wishes.get(name)
        status = self._status(record, *wish) if record is not None and wish is not None else None
        if record is None or status is None:
            return
        subject = {"apiVersion": API_VERSION, "kind": "EnergyBudget", "metadata": {"name": name}}
        try:
            answer = await self._client.apply_status({**subject, "status": status})
        except NotFound:
            return
        self._tell(record, status)
        record.status = answer.get("status") or {}

    def _tell(self, record: BudgetRecord, status: Object) -> None:
        """An event where a condition turned False, or true again."""
        before = {c["type"]: c["status"] for c in record.status.get("conditions") or ()}
        for condition in status["conditions"]:
            kind, now = condition["type"], condition["status"]
            if (now == "False" and before.get(kind) != "False") or (now == "True" and before.get(kind) == "False"):
                subject = {
                    "apiVersion": API_VERSION,
                    "kind": "EnergyBudget",
                    "metadata": {"name": record.name, "uid": record.uid},
                }
                level = "Normal" if now == "True" else "Warning"
                self._events.record(subject, level, condition["reason"], condition["message"] or condition["reason"])


def _as_it_stands(fact: Fact, conditions: Iterable[Object]) -> Fact:
    """A fact with the message that its condition has, where they differ in figures alone."""
    stands = next((c for c in conditions if c["type"] == fact.type and c["reason"] == fact.reason), None)
    message = stands.get("message", "") if stands is not None else fact.message
    return replace(fact, message=message) if same_wording(message, fact.message) else fact
