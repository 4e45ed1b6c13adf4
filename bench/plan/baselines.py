"""Simpler planners, for comparison only: each takes model after model, and none looks at the fleet as a whole."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.planning import law

from bench.plan.places import full_watts
from bench.plan.state import Option, Part, Server, State
from ergon.fleet.types import Fleet, Model, ModelKey
from ergon.planning import Plan

Rank = Callable[["Choice", Option], tuple[float | str, ...]]
"""Lower is taken first."""


@dataclass(frozen=True)
class Choice:
    """The model that is placed, and its classes of accelerator from the thriftiest."""

    model: Model
    classes: tuple[str, ...]


def first_fit_by_class(fleet: Fleet) -> Plan:
    """The class a full server of which is thriftiest; in it the first server with room."""
    return _filled(
        State(fleet), lambda choice, option: (choice.classes.index(option.pool.accelerator_class), *_first(option))
    ).plan()


def greedy_marginal(fleet: Fleet) -> Plan:
    """The pool where one more unit of work costs the least energy, its servers taken as running; the first server with room."""
    return _filled(State(fleet), lambda _, option: (_marginal_joules(option), *_first(option))).plan()


def best_fit_consolidated(fleet: Fleet) -> Plan:
    """The server that the work costs the least added energy on, the fullest of equals; then servers are emptied where it pays."""
    return _consolidated(_filled(State(fleet), _least_added)).plan()


def cheapest_price(fleet: Fleet) -> Plan:
    """The pool with the least price for the work; the first server with room."""

    def price(_: Choice, option: Option) -> tuple[float | str, ...]:
        capacity = (option.use.work_per_second or 0.0) * option.use.rho
        return (option.pool.price_per_server_hour / capacity if capacity else 0.0, *_first(option))

    return _filled(State(fleet), price).plan()


def one_class(fleet: Fleet) -> Plan:
    """Everything on one class of accelerator, best fit: the class that leaves the least unserved, then takes the least watts."""

    def only(kind: str) -> Plan:
        state = State(fleet)
        state.closed |= {pool.name for pool in fleet.pools if pool.accelerator_class != kind}
        return _consolidated(_filled(state, _least_added)).plan()

    plans = [only(kind) for kind in sorted({pool.accelerator_class for pool in fleet.pools})]
    return min(plans, key=lambda made: (sum(made.missing_replicas.values()), len(made.unserved), made.watts))


BASELINES: dict[str, Callable[[Fleet], Plan]] = {
    "first fit by class": first_fit_by_class,
    "greedy by marginal energy": greedy_marginal,
    "best fit by marginal energy, consolidated": best_fit_consolidated,
    "one class only": one_class,
    "cheapest price": cheapest_price,
}


def _first(option: Option) -> tuple[str, float]:
    return option.pool.name, float(option.server.key.ordinal)


def _marginal_joules(option: Option) -> float:
    return option.pool.pue * option.use.marginal_joules if option.use.work_per_second else 0.0


def _least_added(_: Choice, option: Option) -> tuple[float | str, ...]:
    """Added watts a unit of work; opening a server counts as a full one would, else none is ever opened."""
    left = min(option.use.rho, option.server.rho) - option.server.busy - option.busy
    if option.work_per_second == 0:
        return (option.added_watts, left, *_first(option))
    opens = not option.server.parts
    watts = full_watts(option.pool, option.use) * option.busy if opens else option.added_watts
    return (watts / option.work_per_second, left, *_first(option))


def _filled(state: State, rank: Rank) -> State:
    """Models by priority, those first that keep most of a server busy; then replicas that only have to stand."""
    known = state.known
    order = sorted(known.models.values(), key=lambda m: (-known.priority(m.key), -_size(state, m), m.key))
    for model in order:
        _serve(state, _choice(state, model), rank)
    return state


def _size(state: State, model: Model) -> float:
    demand = law.demand_of(state.fleet, model.key)
    fastest = max((use.work_per_second or 0.0 for _, _, use in state.known.candidates[model.key]), default=0.0)
    return demand / fastest if fastest else 0.0


def _choice(state: State, model: Model) -> Choice:
    costs: dict[str, float] = {}
    for _, name, use in state.known.candidates[model.key]:
        pool = state.known.pools[name]
        joules = full_watts(pool, use) / use.work_per_second if use.work_per_second else math.inf
        costs[pool.accelerator_class] = min(joules, costs.get(pool.accelerator_class, math.inf))
    return Choice(model, tuple(sorted(costs, key=lambda kind: (costs[kind], kind))))


def _serve(state: State, choice: Choice, rank: Rank) -> None:
    model = choice.model
    least, most = law.least_and_most(model)
    left, placed = law.demand_of(state.fleet, model.key), 0
    while placed < most and left > 0:
        options = list(state.options(model, left))
        enough = [option for option in options if option.work_per_second >= left / (most - placed) * (1 - 1e-12)]
        best = min(enough or options, key=lambda option: rank(choice, option), default=None)
        if best is None:
            break
        state.take(model.key, best)
        placed += 1
        left = 0.0 if best.work_per_second >= left * (1 - 1e-12) else left - best.work_per_second
    while placed < least:
        best = min(state.options(model, 0.0), key=lambda option: (option.added_watts, rank(choice, option)), default=None)
        if best is None:
            break
        state.take(model.key, best)
        placed += 1


def _consolidated(state: State) -> State:
    """Empty the least busy server of a pool onto others that run, as long as one can be emptied and that saves watts."""
    for pool in state.fleet.pools:
        tried: set[ModelKey] = set()
        while pool.scale_in and state.open[pool.name] > pool.servers_min:
            running = state.servers[pool.name][: state.open[pool.name]]
            free = [server for server in running if server.parts and not tried & set(server.parts)]
            server = min(free, key=lambda s: (s.busy, s.key), default=None)
            if server is None:
                break
            tried |= set(server.parts)
            if _emptied(state, server):
                _fill_hole(state, pool.name, server)
    return state


def _emptied(state: State, server: Server) -> bool:
    """Whether all of a server's parts found another running server that takes them for less; else all is as it was."""
    pool = state.known.pools[server.key.pool]
    saved = pool.pue * (pool.idle_watts + server.step + pool.host_watts / pool.servers_per_node)
    saved += pool.pue * math.fsum(part.busy * (part.use.watts - part.use.awake_watts) for part in server.parts.values())
    moved: list[tuple[ModelKey, Part, Server]] = []
    added = 0.0
    for key, part in sorted(server.parts.items(), key=lambda item: -item[1].busy):
        option = min(_elsewhere(state, key, part, server), key=lambda o: (o.added_watts, o.server.key), default=None)
        if option is None or (added := added + option.added_watts) >= saved:
            for model, old, target in moved:
                state.remove(target, model)
                state.put(server, model, old)
            return False
        moved.append((key, part, option.server))
        state.remove(server, key)
        state.take(key, option)
    return True


def _elsewhere(state: State, key: ModelKey, part: Part, server: Server) -> Iterable[Option]:
    """Running servers that take all of a part's work."""
    if state.limits:
        return []  # what limits allow is counted up, never down: moving under one would need more than a simple planner has
    work = part.busy * (part.use.work_per_second or 0.0)
    return [
        option
        for option in state.options(state.known.models[key], work)
        if option.server is not server and option.server.parts and option.work_per_second >= work * (1 - 1e-12)
    ]


def _fill_hole(state: State, pool: str, server: Server) -> None:
    """Give an emptied server what is on the highest one, and close that."""
    last = state.servers[pool][state.open[pool] - 1]
    revisions = {
        key: next(v.load_revision for v in state.known.models[key].variants if v.name == part.variant)
        for key, part in last.parts.items()
    }
    if last is not server and not any((key, revisions[key], server.key) in state.fleet.refused for key in last.parts):
        for key in list(last.parts):
            state.put(server, key, state.remove(last, key))
    while state.open[pool] and not state.servers[pool][state.open[pool] - 1].parts:
        state.open[pool] -= 1
