"""Annealing: never more short, never dearer for as little, and always what the servers can hold."""

import random

import numpy as np
import pytest
from bench.plan.generator import instance
from bench.plan.shapes import Size, Style

from ergon.planning import Effort, Weights
from ergon.planning.anneal import anneal
from ergon.planning.limits import build_limits
from ergon.planning.packing import pack
from ergon.planning.placing import Placer
from ergon.planning.pool_level import solve_pools
from ergon.planning.problem import build_problem
from ergon.planning.servers import ROUNDING, Servers, less_short, rank_of_shortfall
from tests.planning.fleets import SOUND, random_fleet


def packed(fleet: object) -> Placer:
    problem = build_problem(fleet, Weights())  # type: ignore[arg-type]
    limits = build_limits(problem.fleet, problem)
    level = solve_pools(problem, limits, Effort.normal())
    placer = Placer(Servers.empty(problem, limits), level)
    if level is not None:
        pack(placer, level, by_priority=True, by_rho=False)
    return placer


def assert_holds(servers: Servers) -> None:
    """Memory, places, busy shares, replicas and watts within what there is, and figures that were kept are those counted anew."""
    table, on = servers.table, servers.problem.on
    for s, residents in enumerate(servers.residents):
        p = servers.pool_of[s]
        assert sum(table.memory[c] for c in residents.values()) <= on.memory_bytes[p]
        assert len(residents) <= on.slots[p]
        rho = min((table.rho[c] for c in residents.values() if table.may_carry[c]), default=1.0)
        assert sum(servers.share[m][s] for m in residents) <= rho * (1 + 1e-9) + ROUNDING
    assert all(len(homes) <= most for homes, most in zip(servers.homes, table.highest, strict=True))
    again = Servers.empty(servers.problem, servers.limits)
    for m, homes in enumerate(servers.homes):
        for s, c in homes.items():
            again.put(c, s, servers.share[m][s])
    assert servers.total == pytest.approx(again.total)
    assert servers.drawn == pytest.approx(again.drawn)
    assert np.allclose(servers.opening, again.opening)


@pytest.mark.parametrize("seed", range(30))
def test_a_packing_becomes_no_worse_and_stays_possible(seed: int) -> None:
    placer = packed(random_fleet(random.Random(seed), SOUND))
    servers = placer.servers
    short, before = rank_of_shortfall(servers), servers.total
    anneal(servers, placer.level, 40)
    assert_holds(servers)
    after = rank_of_shortfall(servers)
    assert not less_short(short, after)
    assert less_short(after, short) or servers.total <= before + 1e-6


@pytest.mark.parametrize("style", [Style.TIGHT_MEMORY, Style.TIGHT_WATTS])
def test_it_saves_where_packing_leaves_something_to_save(style: Style) -> None:
    placer = packed(instance(Size(40, 5, 25), style, 2, 0.8))
    servers = placer.servers
    for m in range(len(servers.homes)):
        placer.place_all(m)
    short, before = rank_of_shortfall(servers), servers.total
    anneal(servers, placer.level, 200)
    assert_holds(servers)
    assert less_short(rank_of_shortfall(servers), short) or servers.total < before
