"""Every energy budget over time: what its scope used, what it leaves now, and what another process needs to go on with it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ergon.api.budget import EnergyBudgetSpec
from ergon.energy.budget import Budget, BudgetState, Needs
from ergon.energy.ledger import Booked
from ergon.energy.scope import scope_use
from ergon.energy.verdict import Verdict
from ergon.engine.cache import BudgetRecord, Cache
from ergon.fleet.types import Fleet
from ergon.reconcile.observed import Refusal

log = logging.getLogger("ergon.energy")

LIMIT_CHANGED = 0.02
"""Of a budget's watts: a limit that moves by less is no ground for another plan."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """What a budget left its scope, by the spec of which generation; `spec` is None where a process before this one judged."""

    watts: float | None
    generation: int
    spec: EnergyBudgetSpec | None = None

    def of(self, record: BudgetRecord) -> bool:
        """Whether it was judged as it is now."""
        return self.generation == record.generation if self.spec is None else self.spec == record.spec


class BudgetBook:
    """All budgets by name. `version` grows when what one of them leaves has changed enough to plan anew."""

    def __init__(self, cache: Cache) -> None:
        self.version = 0
        self._cache = cache
        self._budgets: dict[str, Budget] = {}
        self._kept: dict[str, BudgetState] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._judged: dict[str, _Judged] = {}
        self._refused: dict[str, Refusal] = {}
        self._needs: Mapping[str, Needs] = {}

    def restore(self, budgets: Mapping[str, BudgetState]) -> None:
        """Go on from what a process before this one counted, in place of what was counted since."""
        self._kept = dict(budgets)
        for name, state in budgets.items():
            self._budgets.pop(name, None)
            if state.left_watts is not None:
                self._judged[name] = _Judged(state.left_watts, state.generation)
                self.version += 1

    def to_state(self) -> dict[str, BudgetState]:
        """What another process needs to go on. A budget that was not judged yet is handed on as it was taken over."""
        return self._kept | {name: self._state(name, budget) for name, budget in self._budgets.items()}

    def planned(self, needs: Mapping[str, Needs]) -> None:
        """A plan was taken over: what each budget's scope asks for."""
        self._needs = needs

    def judge(
        self, seconds: float, booked: Sequence[Booked], grams_per_kilowatt_hour: Mapping[str, float], wall_seconds: float
    ) -> None:
        """So many seconds later, this was booked; the time is `wall_seconds` since the epoch.

        What was used counts at once, also before a plan says what the scope of a budget asks for.
        """
        fleet = self._fleet()
        self._drop_gone()
        for name, record in self._cache.budgets.items():
            budget = self._current(name, record.spec) if record.spec is not None else None
            if record.spec is None or budget is None:
                continue
            use = scope_use(record.spec.pools, record.spec.namespaces, booked, fleet, grams_per_kilowatt_hour)
            if (needs := self._needs.get(name)) is None:
                budget.count(use, wall_seconds)
            else:
                self._take(name, budget.observe(seconds, use, needs, wall_seconds), record.spec, record.generation)

    def verdict(self, name: str) -> Verdict | None:
        """What was last decided of a budget."""
        return self._verdicts.get(name)

    def refusal(self, name: str) -> Refusal | None:
        """Why a budget cannot be held as it is."""
        return self._refused.get(name)

    def limits(self) -> dict[str, float | None]:
        """Watts that each budget leaves its scope; None: nothing binds. Of one that was never judged nothing is said.

        What was judged last holds until it is judged again: else all that is shed would come back for that moment.
        """
        found = {}
        for name, record in self._cache.budgets.items():
            judged = self._judged.get(name)
            if judged is None or record.spec is None:
                continue
            if judged.of(record):
                found[name] = judged.watts
            elif judged.watts is not None and judged.spec is not None and _same_scope(judged.spec, record.spec):
                found[name] = min(judged.watts, record.spec.limits.watts or judged.watts)
        return found

    def _state(self, name: str, budget: Budget) -> BudgetState:
        judged = self._judged.get(name)
        left = {"left_watts": judged.watts, "generation": judged.generation} if judged is not None else {}
        return budget.to_state().model_copy(update=left)

    def _drop_gone(self) -> None:
        """Of a budget that was deleted nothing is kept."""
        for name in [name for name in {*self._budgets, *self._kept} if name not in self._cache.budgets]:
            for known in (self._budgets, self._kept, self._verdicts, self._judged, self._refused):
                known.pop(name, None)
            self.version += 1

    def _current(self, name: str, spec: EnergyBudgetSpec) -> Budget | None:
        """The budget as it is now; None where its time zone is none."""
        budget = self._budgets.get(name)
        try:
            if budget is None:
                budget = self._budgets[name] = Budget(name, spec, self._kept.get(name))
                self._kept.pop(name, None)
            else:
                budget.update(spec)
        except ValueError as error:
            self._refused[name] = Refusal("InvalidSpec", f"spec.limits.timeZone: {error}")
            return None
        self._refused.pop(name, None)
        return budget

    def _take(self, name: str, verdict: Verdict, spec: EnergyBudgetSpec, generation: int) -> None:
        self._verdicts[name] = verdict
        for event in verdict.events:
            log.log(logging.WARNING if event.warning else logging.INFO, "budget %s: %s: %s", name, event.reason, event.message)
        watts = verdict.watt_limit.watts if verdict.watt_limit is not None else None
        old = self._judged.get(name)
        if old is not None and not _moved(old.watts, watts):
            watts = old.watts
        else:
            self.version += 1
        self._judged[name] = _Judged(watts, generation, spec)

    def _fleet(self) -> Fleet:
        pools = tuple(record.pool for record in self._cache.pools.values() if record.pool is not None)
        return Fleet(pools, (), dict(self._cache.namespaces), "")


def _moved(old: float | None, new: float | None) -> bool:
    if old is None or new is None:
        return old is not new
    return abs(new - old) > LIMIT_CHANGED * max(old, new)


def _same_scope(one: EnergyBudgetSpec, other: EnergyBudgetSpec) -> bool:
    """Where it differs, watts of one say nothing of the other."""
    return one.pools == other.pools and one.namespaces == other.namespaces
