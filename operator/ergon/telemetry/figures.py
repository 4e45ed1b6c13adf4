"""What the fleet is asked for and takes, as Prometheus series: pools and budgets all, models only those that take most."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

MOST_MODELS = 200
"""Models with series of their own, so that a fleet of thousands does not fill a Prometheus; the rest is in `_other`."""
OTHER = "_other"


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """A pool's watts now, and its joules by account since the ledger began."""

    watts: float
    joules: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """A model's demand in work per second and its energy."""

    observed: float
    planned: float
    watts: float
    joules: float


@dataclass(frozen=True, slots=True)
class BudgetFigures:
    """A budget's tightest limit, in its unit, and how many models it leaves without a replica they should have."""

    limit: float
    used: float
    projected: float
    within: bool
    feasible: bool
    shed_models: int


@dataclass(slots=True)
class FleetFigures:
    """All of it. Models are (namespace, name)."""

    pools: Mapping[str, PoolFigures] = field(default_factory=dict)
    models: Mapping[tuple[str, str], ModelFigures] = field(default_factory=dict)
    budgets: Mapping[str, BudgetFigures] = field(default_factory=dict)


class _OtherJoules:
    """What the models without series of their own took, as a counter: it only grows. Whoever gets a series of its own, or is
    deleted, takes nothing back: its joules stay, and Prometheus sees no reset.
    """

    def __init__(self) -> None:
        self._joules = 0.0
        self._known: dict[tuple[str, str], float] = {}

    def count(self, models: Mapping[tuple[str, str], ModelFigures], shown: Collection[tuple[str, str]]) -> float:
        """The sum, with what the models that are not `shown` took since the last time."""
        for key, model in models.items():
            if key not in shown:
                self._joules += max(0.0, model.joules - self._known.get(key, 0.0))
        self._known = {key: model.joules for key, model in models.items()}
        return self._joules


class FiguresCollector(Collector):
    """Gives at each scrape what `provide` says then."""

    def __init__(self) -> None:
        self.provide: Callable[[], FleetFigures] = FleetFigures
        self._other_joules = _OtherJoules()

    def collect(self) -> Iterator[Metric]:
        """Series of the moment."""
        figures = self.provide()
        yield from _pools(figures.pools)
        yield from _models(figures.models, self._other_joules)
        yield from _budgets(figures.budgets)


def _pools(pools: Mapping[str, PoolFigures]) -> Iterator[Metric]:
    watts = GaugeMetricFamily("ergon_pool_watts", "Power of a pool, host and PUE included.", labels=["pool"])
    joules = CounterMetricFamily("ergon_pool_joules", "Joules of a pool by account.", labels=["pool", "account"])
    for name, pool in pools.items():
        watts.add_metric([name], pool.watts)
        for account, value in pool.joules.items():
            if account == "unexplained":
                continue  # signed: no counter
            joules.add_metric([name, account], value)
    unexplained = GaugeMetricFamily(
        "ergon_pool_unexplained_joules", "Measured joules that no account explains, signed.", labels=["pool"]
    )
    for name, pool in pools.items():
        unexplained.add_metric([name], pool.joules.get("unexplained", 0.0))
    yield from (watts, joules, unexplained)


def _models(models: Mapping[tuple[str, str], ModelFigures], others: _OtherJoules) -> Iterator[Metric]:
    labels = ["namespace", "model"]
    observed = GaugeMetricFamily("ergon_model_work_per_second", "Work per second asked of a model.", labels=labels)
    planned = GaugeMetricFamily(
        "ergon_model_planned_work_per_second", "Work per second that is planned for a model.", labels=labels
    )
    watts = GaugeMetricFamily("ergon_model_watts", "Watts of a model over the last hour.", labels=labels)
    joules = CounterMetricFamily("ergon_model_joules", "Joules of a model.", labels=labels)
    for (namespace, name), model in _shown(models, others):
        for family, value in (
            (observed, model.observed),
            (planned, model.planned),
            (watts, model.watts),
            (joules, model.joules),
        ):
            family.add_metric([namespace, name], value)
    yield from (observed, planned, watts, joules)


def _shown(models: Mapping[tuple[str, str], ModelFigures], others: _OtherJoules) -> list[tuple[tuple[str, str], ModelFigures]]:
    """Those that take most, and the sum of the others."""
    ranked = sorted(models.items(), key=lambda item: (-item[1].joules, item[0]))
    shown, rest = ranked[:MOST_MODELS], [model for _, model in ranked[MOST_MODELS:]]
    joules = others.count(models, {key for key, _ in shown})
    if rest or joules > 0:
        sums = {name: sum(getattr(model, name) for model in rest) for name in ("observed", "planned", "watts")}
        shown.append(((OTHER, OTHER), ModelFigures(**sums, joules=joules)))
    return shown


def _budgets(budgets: Mapping[str, BudgetFigures]) -> Iterator[Metric]:
    figures = {
        "limit": "The tightest limit of a budget, in its unit.",
        "used": "What is used of a budget's tightest limit, in its unit.",
        "projected": "What a budget's tightest limit comes to at the window's end.",
        "within": "1 while a budget is met.",
        "feasible": "1 while what is protected fits a budget.",
        "shed_models": "Models that a budget leaves without a replica they should have.",
    }
    for name, text in figures.items():
        family = GaugeMetricFamily(f"ergon_budget_{name}", text, labels=["budget"])
        for budget, said in budgets.items():
            family.add_metric([budget], float(getattr(said, name)))
        yield family
