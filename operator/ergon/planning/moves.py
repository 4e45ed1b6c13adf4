"""From the replicas that stand to those of a plan, a few at a time: a stage that the engine may be given now.

Make before break: a model keeps its old replicas until as many new ones serve. So a stage reserves room for both, on every
server, in memory and in places; and it never asks for more moves at once than the limit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ergon.fleet.types import Fleet, ModelKey, Pool, Replica, ServerKey
from ergon.planning.plan import Plan
from ergon.planning.points import matching_points

Placements = dict[ModelKey, tuple[Replica, ...]]


@dataclass(slots=True)
class _Room:
    """What is still free on every server, what stands counted in until it may go."""

    fleet: Fleet
    pools: dict[str, Pool] = field(init=False)
    used_bytes: dict[ServerKey, int] = field(default_factory=dict)
    used_places: dict[ServerKey, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pools = {pool.name: pool for pool in self.fleet.pools}

    def take(self, server: ServerKey, size_bytes: int) -> None:
        """Reserve room, whether there is some or not."""
        self.used_bytes[server] = self.used_bytes.get(server, 0) + size_bytes
        self.used_places[server] = self.used_places.get(server, 0) + 1

    def fits(self, server: ServerKey, size_bytes: int) -> bool:
        """Whether one more replica of that size has room."""
        pool = self.pools.get(server.pool)
        if pool is None or server.ordinal >= pool.servers_max or server.ordinal in pool.unavailable:
            return False
        places = pool.max_models is None or self.used_places.get(server, 0) < pool.max_models
        return places and self.used_bytes.get(server, 0) + size_bytes <= pool.memory_bytes


@dataclass(frozen=True, slots=True)
class _Model:
    """A model between its current and its planned replicas."""

    key: ModelKey
    priority: int
    stand: tuple[Replica, ...]
    planned: tuple[Replica, ...]
    least: int

    @property
    def kept(self) -> tuple[Replica, ...]:
        """What stands and is planned."""
        return tuple(replica for replica in self.stand if replica in self.planned)

    @property
    def old(self) -> tuple[Replica, ...]:
        """What stands and is not planned."""
        return tuple(replica for replica in self.stand if replica not in self.planned)

    @property
    def new(self) -> tuple[Replica, ...]:
        """What is planned and does not stand."""
        return tuple(replica for replica in self.planned if replica not in self.stand)


def next_stage(fleet: Fleet, plan: Plan, limit: int) -> Placements:
    """The placements that the engine should have now, on the way from `fleet.current` to the plan, by model.

    At most `limit` replicas are loaded at once. A replica that is not in its model's placements may go as soon as enough of
    those in it serve (the engine's rule); where that would leave fewer than its least replicas, or where a new one has no
    room yet, the old ones stay in it. Given again when the stage is reached, it gives the next one, and at last the plan's.
    Where full servers are to swap, one of the replicas goes by way of a server with room, or the swap stays undone: `stuck`.
    """
    sizes = _Sizes(fleet)
    models = _models(fleet, plan)
    room = _Room(fleet)
    for model in models:
        for replica in model.stand:
            room.take(replica.server, sizes.of(replica))
    for replica in fleet.leaving:
        room.take(replica.server, sizes.of(replica))
    stage: Placements = {}
    left = limit
    for model in models:
        stage[model.key], started = _step(model, room, sizes, left)
        left -= started
    if left == limit and limit > 0:
        _detour(models, stage, room, sizes)
    return stage


def stuck(fleet: Fleet, plan: Plan) -> tuple[ModelKey, ...]:
    """Models that the plan would move and that cannot get on, not even by way of another server."""
    stage = next_stage(fleet, plan, limit=1)
    if any(set(stage[model.key]) != set(model.stand) for model in _models(fleet, plan)):
        return ()
    return tuple(model.key for model in _models(fleet, plan) if model.new)


def _models(fleet: Fleet, plan: Plan) -> list[_Model]:
    """The most important first; among those, models with fewer replicas than their least before the others."""
    stand: dict[ModelKey, list[Replica]] = {}
    for replica in fleet.current:
        stand.setdefault(replica.model, []).append(replica)
    found = []
    for spec in fleet.models:
        least = spec.min_replicas if spec.fixed_replicas is None else spec.fixed_replicas
        mine = tuple(sorted(stand.get(spec.key, ()), key=lambda replica: (replica.server, replica.variant)))
        found.append(_Model(spec.key, spec.priority, mine, plan.placements.get(spec.key, ()), least))
    return sorted(found, key=lambda model: (-model.priority, len(model.stand) >= model.least, model.key))


def _step(model: _Model, room: _Room, sizes: "_Sizes", left: int) -> tuple[tuple[Replica, ...], int]:
    """The model's placements now, and how many loads that begins."""
    if not model.new:
        return model.planned, 0
    begun: list[Replica] = []
    for replica in model.new:
        # one model has one replica on a server: another variant there must go first, which is a change in place
        in_place = next((old for old in model.old if old.server == replica.server), None)
        others = len(model.kept) + len(begun)
        if in_place is not None and others < min(model.least, 1):
            continue
        if len(begun) < left and room.fits(replica.server, sizes.of(replica)):
            room.take(replica.server, sizes.of(replica))
            begun.append(replica)
    if len(begun) == len(model.new):
        return model.planned, len(begun)
    taken = {replica.server for replica in begun}
    stay = tuple(old for old in model.old if old.server not in taken)
    return (*model.kept, *begun, *stay), len(begun)


def _detour(models: list[_Model], stage: Placements, room: _Room, sizes: "_Sizes") -> None:
    """Nothing can be begun: send one old replica by way of a server with room, so that its place becomes free."""
    blocking = {replica.server for model in models for replica in model.new}
    for model in models:
        for old in model.old:
            if old.server not in blocking:
                continue
            elsewhere = _elsewhere(model, old, room, sizes)
            if elsewhere is not None:
                stage[model.key] = tuple(elsewhere if replica == old else replica for replica in stage[model.key])
                return


def _elsewhere(model: _Model, old: Replica, room: _Room, sizes: "_Sizes") -> Replica | None:
    """The same variant on another server of the pool that has room."""
    pool = room.pools.get(old.server.pool)
    here = {replica.server for replica in (*model.stand, *model.planned)}
    for ordinal in range(pool.servers_max if pool is not None else 0):
        server = ServerKey(old.server.pool, ordinal)
        if server not in here and room.fits(server, sizes.of(old)) and sizes.may_be(old, server):
            return Replica(old.model, old.variant, server)
    return None


class _Sizes:
    """Memory of replicas: the most that the operating points on their pool say, or that was measured."""

    def __init__(self, fleet: Fleet) -> None:
        self._barred = fleet.barred
        self._models = {model.key: model for model in fleet.models}
        self._pools = {pool.name: pool for pool in fleet.pools}
        self._measured = fleet.measured
        self._known: dict[tuple[ModelKey, str, str], int] = {}

    def of(self, replica: Replica) -> int:
        """Bytes that the replica takes on its server; 0 for what nobody knows any more."""
        key = (replica.model, replica.variant, replica.server.pool)
        if key not in self._known:
            self._known[key] = self._measure(replica)
        return self._known[key]

    def _measure(self, replica: Replica) -> int:
        model, pool = self._models.get(replica.model), self._pools.get(replica.server.pool)
        variant = model.variant(replica.variant) if model is not None else None
        if variant is None:
            return 0
        if pool is None:
            return variant.memory_bytes
        said = [point.memory_bytes for point in matching_points(variant, pool)]
        fitting = [variant.memory_bytes if size is None else size for size in said]
        fitting = [size for size in fitting if size <= pool.memory_bytes] or [variant.memory_bytes]
        measured = self._measured.get((replica.model, replica.variant, pool.weighed_as), 0)
        return max(*fitting, min(measured, pool.memory_bytes))

    def may_be(self, replica: Replica, server: ServerKey) -> bool:
        """Whether the replica's revision is not refused there, nor avoids the server."""
        model = self._models.get(replica.model)
        variant = model.variant(replica.variant) if model is not None else None
        return variant is not None and (replica.model, variant.load_revision, server) not in self._barred


def moves(current: tuple[Replica, ...], placements: Mapping[ModelKey, tuple[Replica, ...]]) -> tuple[int, int]:
    """How many replicas must be loaded and unloaded between what stands and placements."""
    stand, wanted = set(current), {replica for replicas in placements.values() for replica in replicas}
    return len(wanted - stand), len(stand - wanted)
