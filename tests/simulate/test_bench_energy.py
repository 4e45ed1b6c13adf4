"""The streams and the fleet of bench/energy are what they are said to be."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench.energy import fleet, streams
from bench.energy.kept import Kept

from ergon.simulate.curves import build_places
from ergon.simulate.traces import join

TOTALS = {"conv": 1.0, "code": 0.4, "text": 0.5}


@pytest.fixture(scope="module")
def built() -> tuple[fleet.Fleet, list[str]]:
    return fleet.build()


def test_forty_models_and_the_general_one_each_with_a_place(built: tuple[fleet.Fleet, list[str]]) -> None:
    made, kinds = built
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"conv": 8, "code": 4, "text": 28, "none": 1}
    placed = {key for (key, _, _), place in build_places(made).items() if place.known}
    assert placed == {model.key for model in made.models}
    assert "tpu" not in {pool.accelerator_class for pool in made.pools}


@pytest.mark.parametrize(("shape", "swing"), [("flat", 1.0), ("3:1", 3.0), ("10:1", 10.0)])
def test_a_day_has_its_totals_and_its_shape(built: tuple[fleet.Fleet, list[str]], shape: str, swing: float) -> None:
    made, kinds = built
    workload = streams.build(made.models, kinds, TOTALS, shape, 1)
    day = workload.steps.requests[-1440:]
    assert len(workload.steps.requests) == 3 * 1440
    for kind, total in TOTALS.items():
        mine = [n for n, k in enumerate(kinds) if k == kind]
        assert day[:, mine].sum() / 86400 == pytest.approx(total, rel=0.15)  # a slow stream plays a part of the hour only
    hours = day.sum(axis=1).reshape(24, 60).sum(axis=1)
    smooth = np.convolve(np.concatenate([hours, hours]), np.ones(3) / 3, "valid")[:24]
    assert smooth.max() / smooth.min() == pytest.approx(swing, rel=0.3)


def test_the_same_seed_gives_the_same_requests_and_days_differ(built: tuple[fleet.Fleet, list[str]]) -> None:
    made, kinds = built
    one, same = (streams.build(made.models, kinds, TOTALS, "3:1", 2) for _ in range(2))
    assert one.chunks is not None
    assert same.chunks is not None
    first, second = join(list(one.chunks())), join(list(same.chunks()))
    assert first.seconds.tolist() == second.seconds.tolist()
    assert np.all(np.diff(first.seconds) >= 0)
    per_day = one.steps.requests.reshape(3, 1440, -1)
    assert not np.array_equal(per_day[0], per_day[2])
    assert np.isfinite(one.work(slice(None))).all() or "text" in kinds


def test_a_run_is_kept_and_read_again_and_another_is_not_taken_for_it(tmp_path: Path) -> None:
    figures = Kept(
        policy="hpa", seed=1, kwh=2.0, within=0.995, worst_model="n/m", worst_model_within=0.96, worst_window=0.5, refused=0,
        mean_watts=80.0, planned_watts=None, servers={"l4": 2.0}, watts={"idle": 8.0}, loads=1, boots=2, size="",
        solver_seconds=0.1, cpu_seconds=3.0,
    )  # fmt: skip
    figures.write(tmp_path / "made" / "run.json")
    assert Kept.read(tmp_path / "made" / "run.json") == figures
    assert Kept.read(tmp_path / "none.json") is None
    assert not figures.in_time
    assert replace(figures, worst_model_within=0.97).in_time
