"""Series of pools, models and budgets: right types, and never more of them than a Prometheus bears."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ergon.telemetry.figures import MOST_MODELS, BudgetFigures, FiguresCollector, FleetFigures, ModelFigures, PoolFigures


def scraped(figures: FleetFigures) -> dict[str, dict[tuple[str, ...], float]]:
    collector, registry = FiguresCollector(), CollectorRegistry()
    collector.provide = lambda: figures
    registry.register(collector)
    page = generate_latest(registry).decode()
    return {
        family.name: {tuple(sample.labels[name] for name in sorted(sample.labels)): sample.value for sample in family.samples}
        for family in text_string_to_metric_families(page)
    }


def test_pools_models_and_budgets_have_series() -> None:
    found = scraped(
        FleetFigures(
            {"l4": PoolFigures(340.0, {"idle": 10.0, "models": 5.0, "unexplained": -1.0})},
            {("finance", "invoices"): ModelFigures(3.0, 4.0, 1.5, 90.0)},
            {"site": BudgetFigures(1500.0, 340.0, 400.0, within=True, feasible=False, shed_models=2)},
        )
    )
    assert found["ergon_pool_watts"] == {("l4",): 340.0}
    assert found["ergon_pool_joules"] == {("idle", "l4"): 10.0, ("models", "l4"): 5.0}
    assert found["ergon_pool_unexplained_joules"] == {("l4",): -1.0}
    assert found["ergon_model_joules"] == {("invoices", "finance"): 90.0}
    assert found["ergon_model_work_per_second"] == {("invoices", "finance"): 3.0}
    assert found["ergon_budget_shed_models"] == {("site",): 2.0}
    assert (found["ergon_budget_within"][("site",)], found["ergon_budget_feasible"][("site",)]) == (1.0, 0.0)


def test_models_beyond_the_first_are_one_series_and_nothing_is_lost() -> None:
    models = {("n", f"m{number}"): ModelFigures(1.0, 1.0, 1.0, float(number)) for number in range(MOST_MODELS + 50)}
    joules = scraped(FleetFigures(models=models))["ergon_model_joules"]
    assert len(joules) == MOST_MODELS + 1
    assert joules["_other", "_other"] == sum(range(50))
    assert sum(joules.values()) == sum(range(MOST_MODELS + 50))
