"""Series of pools, models and budgets: right types, and never more of them than a Prometheus bears."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ergon.telemetry.figures import MOST_MODELS, BudgetFigures, FiguresCollector, FleetFigures, ModelFigures, PoolFigures


def scraped(figures: FleetFigures, collector: FiguresCollector | None = None) -> dict[str, dict[tuple[str, ...], float]]:
    collector, registry = collector or FiguresCollector(), CollectorRegistry()
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


def test_the_series_of_the_others_is_a_counter_whoever_comes_and_goes() -> None:
    collector = FiguresCollector()
    joules = {f"m{number}": float(number) for number in range(MOST_MODELS + 50)}

    def other() -> float:
        models = {("n", name): ModelFigures(1.0, 1.0, 1.0, taken) for name, taken in joules.items()}
        return scraped(FleetFigures(models=models), collector)["ergon_model_joules"]["_other", "_other"]

    first = other()
    assert first == sum(range(50))
    joules["m10"] += 7.0
    assert other() == first + 7.0
    joules["m20"] = 1e6  # gets a series of its own, and the least of those loses it
    assert other() == first + 7.0
    joules["m50"] += 0.5
    assert other() == first + 7.5
    del joules["m30"]  # and another one has a series again
    assert other() == first + 7.5
    for number in range(100):
        joules.pop(f"m{number}", None)
    assert other() == first + 7.5, "also when all have series of their own"
