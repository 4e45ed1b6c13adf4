"""The optimum of a tiny fleet, exactly: one MILP over every server, the tiers of the objective solved one by one.

Nothing is aggregated or relaxed, so that it shows what a planner misses. It takes seconds at a dozen servers.
"""

import itertools
import math
from dataclasses import dataclass, field

import highspy
import numpy as np

from ergon.fleet.types import Fleet, ModelKey, Pool, Replica, ServerKey
from ergon.planning import Load, Plan
from tests.planning import law
from tests.planning.judge import recomputed_watts
from tests.planning.law import Law, Use

CLOSE = 1e-5
"""Optima of a solver are compared at this: it bends rows by 1e-6 of their size."""


@dataclass(frozen=True)
class Optimum:
    """Shortfall by tier (missing, then unserved), least watts at that shortfall, and a plan with both.

    `proven`: the solver ended by itself; otherwise `bound_watts` is what it knew when its time was over.
    """

    tiers: tuple[tuple[int, int, float], ...]
    watts: float
    bound_watts: float
    proven: bool
    plan: Plan


@dataclass
class _Rows:
    """A linear model in the making."""

    costs: dict[int, float] = field(default_factory=dict)
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    rows: list[tuple[float, float, dict[int, float]]] = field(default_factory=list)

    def column(self, lower: float = 0.0, upper: float = math.inf, *, whole: bool = False) -> int:
        self.lower.append(lower)
        self.upper.append(upper)
        self.whole.append(whole)
        return len(self.lower) - 1

    def row(self, lower: float, terms: dict[int, float], upper: float) -> None:
        self.rows.append((lower, upper, terms))

    def solve(self, costs: dict[int, float], seconds: float) -> tuple[np.ndarray | None, float, bool]:
        """Column values (None: no answer), a bound on the costs, and whether the answer is proven.

        The better of two ways: HiGHS 1.16 calls a worse answer optimal in about one of a hundred of these programmes, with one
        order of search and not with another; at a tolerance of 1e-9 it does so often.
        """
        found = [self._solve(costs, seconds, *way) for way in ((1e-7, 0, "choose"), (1e-7, 7, "off"))]
        answered = [one for one in found if one[0] is not None]
        return min(answered or found, key=lambda one: one[1])

    def _solve(
        self, costs: dict[int, float], seconds: float, tolerance: float, seed: int, presolve: str
    ) -> tuple[np.ndarray | None, float, bool]:
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = len(self.lower), len(self.rows)
        cost = np.zeros(len(self.lower))
        for column, value in costs.items():
            cost[column] = value
        lp.col_cost_, lp.col_lower_, lp.col_upper_ = cost, np.array(self.lower), np.array(self.upper)
        lp.row_lower_ = np.array([lower for lower, _, _ in self.rows])
        lp.row_upper_ = np.array([upper for _, upper, _ in self.rows])
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        lp.integrality_ = [kinds[whole] for whole in self.whole]
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = np.cumsum([0, *(len(terms) for _, _, terms in self.rows)])
        lp.a_matrix_.index_ = np.array([column for _, _, terms in self.rows for column in terms], dtype=np.int32)
        lp.a_matrix_.value_ = np.array([value for _, _, terms in self.rows for value in terms.values()], dtype=float)
        solver = highspy.Highs()
        for option, value in (
            ("output_flag", False),
            ("threads", 1),
            ("mip_rel_gap", 1e-7),
            ("mip_abs_gap", 1e-7),
            ("mip_feasibility_tolerance", tolerance),
            ("primal_feasibility_tolerance", tolerance),
            ("random_seed", seed),
            ("presolve", presolve),
            ("time_limit", seconds),
        ):
            solver.setOptionValue(option, value)
        solver.passModel(lp)
        solver.run()
        info, status = solver.getInfo(), solver.getModelStatus()
        proven = status == highspy.HighsModelStatus.kOptimal
        if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
            return None, math.inf if status == highspy.HighsModelStatus.kInfeasible else -math.inf, proven
        return (
            np.array(solver.getSolution().col_value),
            info.mip_dual_bound if any(self.whole) else info.objective_function_value,
            proven,
        )


@dataclass(frozen=True)
class _Place:
    """Columns of one replica that may be: whether it stands, whether it serves, its busy share."""

    variant: str
    use: Use
    server: ServerKey
    stands: int
    serves: int | None
    busy: int | None


class _Exact:
    def __init__(self, fleet: Fleet, margin: float) -> None:
        self.fleet, self.known, self.margin = fleet, Law(fleet), 1 - margin
        self.model = _Rows()
        self.places: dict[ModelKey, list[_Place]] = {key: [] for key in self.known.models}
        self.on: dict[ServerKey, int] = {}
        self.missing: dict[ModelKey, int] = {}
        self.unserved: dict[ModelKey, int] = {}
        self.watts: dict[str, dict[int, float]] = {}
        hopeless = [limit for limit in fleet.watt_limits if law.hopeless_watts(limit, fleet) > 0]
        self.closed = {name for limit in hopeless for name in law.pools_in(limit, fleet)}
        for pool in fleet.pools:
            self._pool(pool)
        for key in self.known.models:
            self._model(key)
        for pool in fleet.pools:
            self._servers(pool)
        for limit in fleet.watt_limits:
            if limit not in hopeless:
                self._limit(limit)

    def _pool(self, pool: Pool) -> None:
        most = pool.servers_min if pool.name in self.closed else pool.servers_max
        keys = [ServerKey(pool.name, ordinal) for ordinal in range(most)]
        for key in keys:
            self.on[key] = self.model.column(1.0 if key.ordinal < pool.servers_min else 0.0, 1.0, whole=True)
        for lower, upper in itertools.pairwise(keys):
            self.model.row(0.0, {self.on[lower]: 1.0, self.on[upper]: -1.0}, math.inf)
        watts = self.watts[pool.name] = {}
        if not pool.scale_in:
            fixed = self.model.column(1.0, 1.0)
            watts[fixed] = pool.pue * law.standing_watts(pool, pool.servers_max)
            return
        running = [self.on[key] for key in keys if key.ordinal not in pool.unavailable]
        nodes = self.model.column(whole=True)
        self.model.row(0.0, {nodes: float(pool.servers_per_node), **dict.fromkeys(running, -1.0)}, math.inf)
        watts[nodes] = pool.pue * pool.host_watts
        watts.update(dict.fromkeys(running, pool.pue * pool.idle_watts))

    def _model(self, key: ModelKey) -> None:
        model = self.known.models[key]
        demand = law.demand_of(self.fleet, key)
        for name, pool_name, use in self.known.candidates[key]:
            pool, variant = self.known.pools[pool_name], model.variant(name)
            if pool_name in self.closed or variant is None:
                continue
            for ordinal in range(pool.servers_max):
                server = ServerKey(pool_name, ordinal)
                if ordinal not in pool.unavailable and (key, variant.load_revision, server) not in self.fleet.refused:
                    self._place(key, name, use, server, demand)
        places = self.places[key]
        least, most = law.least_and_most(model)
        self.missing[key] = self.model.column(0.0, float(least), whole=True)
        self.unserved[key] = self.model.column(0.0, demand)
        self.model.row(float(least), {self.missing[key]: 1.0, **{p.stands: 1.0 for p in places}}, math.inf)
        self.model.row(-math.inf, {p.stands: 1.0 for p in places}, float(most))
        served = {p.busy: (p.use.work_per_second or 0.0) / (demand or 1.0) for p in places if p.busy is not None}
        share = 1.0 if demand else 0.0
        self.model.row(share, {self.unserved[key]: 1 / (demand or 1.0), **served}, share)
        for server in {p.server for p in places}:
            self.model.row(-math.inf, {p.stands: 1.0 for p in places if p.server == server}, 1.0)

    def _place(self, key: ModelKey, variant: str, use: Use, server: ServerKey, demand: float) -> None:
        model = self.model
        stands = model.column(0.0, 1.0, whole=True)
        model.row(-math.inf, {stands: 1.0, self.on[server]: -1.0}, 0.0)
        serves = busy = None
        if use.work_per_second is not None and demand > 0:
            most = min(use.rho * self.margin, demand / use.work_per_second)
            serves, busy = model.column(0.0, 1.0, whole=True), model.column(0.0, most)
            model.row(-math.inf, {serves: 1.0, stands: -1.0}, 0.0)
            model.row(-math.inf, {busy: 1.0, serves: -most}, 0.0)
        self.places[key].append(_Place(variant, use, server, stands, serves, busy))

    def _servers(self, pool: Pool) -> None:
        model = self.model
        for server, on in self.on.items():
            here = [p for places in self.places.values() for p in places if p.server == server]
            if server.pool != pool.name or not here:
                continue
            model.row(-math.inf, {p.stands: p.use.memory_bytes / 2**20 for p in here}, pool.memory_bytes / 2**20)
            if pool.max_models is not None:
                model.row(-math.inf, {on: -float(pool.max_models), **{p.stands: 1.0 for p in here}}, 0.0)
            busy = {p.busy: 1.0 for p in here if p.busy is not None}
            most = pool.max_busy_share * self.margin
            model.row(-math.inf, {**busy, on: -most}, 0.0)
            for place in here:
                if place.serves is not None and (rho := place.use.rho * self.margin) < most:
                    model.row(-math.inf, {**busy, place.serves: most - rho}, most)
            self._step(pool, here)

    def _step(self, pool: Pool, here: list[_Place]) -> None:
        """What a server draws more as soon as it executes at all, and what executing adds."""
        for place in here:
            if place.busy is not None:
                self.watts[pool.name][place.busy] = pool.pue * (place.use.watts - place.use.awake_watts)
        steps = {p.serves: p.use.awake_watts - p.use.idle_watts for p in here if p.serves is not None}
        if any(step > 0 for step in steps.values()):
            awake = self.model.column()
            self.watts[pool.name][awake] = pool.pue
            for serves, step in steps.items():
                self.model.row(0.0, {awake: 1.0, serves: -step}, math.inf)

    def _limit(self, limit: law.WattLimit) -> None:
        pools, models = law.pools_in(limit, self.fleet), law.models_in(limit, self.fleet)
        terms: dict[int, float] = {}
        if models is None:
            for name in pools:
                terms.update(self.watts[name])
        else:
            for key in models:
                for place in self.places[key]:
                    if place.busy is not None and place.server.pool in pools:
                        terms[place.busy] = self.watts[place.server.pool][place.busy]
        self.model.row(-math.inf, terms, law.LIMIT_SHARE * limit.watts * self.margin)

    def solve(self, seconds: float) -> Optimum | None:
        """The optimum, None where the solver found nothing in its time."""
        watts = {column: value for terms in self.watts.values() for column, value in terms.items()}
        short = {*self.missing.values(), *self.unserved.values()}
        upper, proven = list(self.model.upper), True
        self.model.upper = [0.0 if column in short else value for column, value in enumerate(upper)]
        values, bound, proven = self.model.solve(watts, seconds)
        if values is None:
            if bound != math.inf:
                return None
            self.model.upper = upper
            if not (proven := self._hold_tiers(seconds)):
                return None
            values, bound, proven = self.model.solve(watts, seconds)
        return None if values is None else self._optimum(values, bound, proven, watts)

    def _hold_tiers(self, seconds: float) -> bool:
        """Solve tier after tier and hold each at its best; whether all are proven."""
        priorities = {key: self.known.priority(key) for key in self.known.models}
        for priority in sorted(set(priorities.values()), reverse=True):
            keys = [key for key, own in priorities.items() if own == priority]
            scale = max(law.demand_of(self.fleet, key) for key in keys) or 1.0
            missing = {self.missing[key]: 1.0 for key in keys}
            unserved = {self.unserved[key]: 1 / scale for key in keys}
            for tier, slack in ((missing, 0.0), (unserved, 1e-8)):
                values, _, proven = self.model.solve(tier, seconds)
                if values is None or not proven:
                    return False
                best = sum(cost * values[column] for column, cost in tier.items())
                self.model.row(-math.inf, tier, (best if slack else round(best)) + slack)
        return True

    def _optimum(self, values: np.ndarray, bound: float, proven: bool, watts: dict[int, float]) -> Optimum:
        plan = self._plan(values)
        shortfall: dict[int, tuple[int, float]] = {}
        for key in self.known.models:
            missing, unserved = shortfall.get(self.known.priority(key), (0, 0.0))
            short = float(values[self.unserved[key]])
            shortfall[self.known.priority(key)] = (
                missing + round(values[self.missing[key]]),
                unserved + (short if short > 1e-7 * law.demand_of(self.fleet, key) else 0.0),
            )
        tiers = tuple((priority, *shortfall[priority]) for priority in sorted(shortfall, reverse=True))
        total = sum(cost * float(values[column]) for column, cost in watts.items())
        return Optimum(tiers, total, bound, proven, plan)

    def _plan(self, values: np.ndarray) -> Plan:
        placements: dict[ModelKey, tuple[Replica, ...]] = {}
        loads: dict[Replica, Load] = {}
        plan = Plan(placements=placements, loads=loads)
        for key, places in self.places.items():
            standing = [p for p in places if values[p.stands] > 0.5]
            busy = [float(values[p.busy]) if p.serves is not None and values[p.serves] > 0.5 else 0.0 for p in standing]
            work = [b * (p.use.work_per_second or 0.0) for b, p in zip(busy, standing, strict=True)]
            demand = law.demand_of(self.fleet, key)
            if (short := demand - math.fsum(work)) > 1e-7 * demand:
                plan.unserved[key] = short
            elif demand:
                work = [w * demand / math.fsum(work) for w in work]
            if missing := round(values[self.missing[key]]):
                plan.missing_replicas[key] = missing
            placements[key] = tuple(Replica(key, p.variant, p.server) for p in standing)
            for replica, place, x in zip(placements[key], standing, work, strict=True):
                use = place.use
                known = use.work_per_second is not None
                share = x / use.work_per_second if use.work_per_second else 0.0
                loads[replica] = Load(x, share, use.memory_bytes, use.batch, "profile" if known else "assumed")
        for pool in self.fleet.pools:
            plan.servers[pool.name] = sum(1 for server, on in self.on.items() if server.pool == pool.name and values[on] > 0.5)
        return _with_figures(self.fleet, self.known, plan)


def _with_figures(fleet: Fleet, known: Law, plan: Plan) -> Plan:
    """The plan with its watts, price and grams."""
    watts = recomputed_watts(fleet, plan, known)
    hopeless = {limit.name: law.hopeless_watts(limit, fleet) for limit in fleet.watt_limits}
    return Plan(
        placements=plan.placements,
        servers=plan.servers,
        missing_replicas=plan.missing_replicas,
        loads=plan.loads,
        unserved=plan.unserved,
        over_limit_watts={name: above for name, above in hopeless.items() if above > 0},
        watts=math.fsum(watts.values()),
        price_per_hour=math.fsum(pool.price_per_server_hour * law.running(pool, plan.servers[pool.name]) for pool in fleet.pools),
        grams_per_hour=math.fsum(watts[pool.name] / 1000 * pool.grams_per_kilowatt_hour for pool in fleet.pools),
    )


def exact(fleet: Fleet, seconds: float = 60.0, margin: float = 0.0) -> Optimum | None:
    """The optimum for energy alone, the current plan left aside; None where the solver found no answer in its time.

    `margin` takes that share off busy shares and limits, so that the plan keeps them though the solver bends them.
    """
    return _Exact(fleet, margin).solve(seconds)
