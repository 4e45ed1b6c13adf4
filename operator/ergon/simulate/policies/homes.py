"""Where a model stands that has servers of its own, and which servers those are.

On a CPU pool several models share a node, as kube-scheduler packs requests for cores: a pod is an eighth of a server there. On
accelerators a pod is a server: an accelerator is given to one pod.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ergon.fleet.types import Fleet, ModelKey, Pool, Replica, ServerKey
from ergon.simulate.curves import Place
from ergon.simulate.policies.base import Target

CPU_SLOTS = 8


class NoHome(Exception):
    """A model has no pool that serves it; the message is for a person."""


@dataclass(frozen=True, slots=True)
class Home:
    """Pods of a model on a pool: `slots` of them fill a server, each is planned for `pod_work_per_second`."""

    place: Place
    pool: Pool
    slots: int

    @property
    def pod_work_per_second(self) -> float:
        """Work per second that keeps the latency rule and the pool's busy share."""
        return self.place.planned_work_per_second / self.slots

    def pods(self, work_per_second: float) -> int:
        """Pods for so much work, one at least."""
        return max(1, math.ceil(work_per_second / self.pod_work_per_second - 1e-9))

    def watts(self, pods: int, work_per_second: float) -> float:
        """What so many pods draw with so much work: their part of nodes and servers, and executing."""
        pool, place = self.pool, self.place
        standing = pool.host_watts / pool.servers_per_node + pool.idle_watts + place.awake_watts
        return pool.pue * (standing * pods / self.slots + place.slope_watts[-1] * work_per_second / place.work_per_second)

    def price(self, pods: int) -> float:
        """Of so many pods, per hour."""
        return self.pool.price_per_server_hour * pods / self.slots


def homes_of(fleet: Fleet, places: Iterable[Place], model: ModelKey) -> list[Home]:
    """Every place of a model that can serve requests. Raises NoHome where there is none."""
    pools = {pool.name: pool for pool in fleet.pools}
    found = [
        Home(place, pools[place.pool], CPU_SLOTS if pools[place.pool].accelerator_class == "cpu" else 1)
        for place in places
        if place.model == model and place.known and pools[place.pool].servers_max > 0
    ]
    if not found:
        raise NoHome(f"{model}: no pool serves it with an operating point, so it cannot have servers of its own")
    return found


def energy_best(homes: Iterable[Home], peak: float, mean: float) -> Home:
    """The home that draws the least when it is sized for the peak and does the mean."""
    return min(homes, key=lambda home: (home.watts(home.pods(peak), mean), home.pool.name, home.place.variant))


@dataclass(slots=True)
class Slots:
    """Which pods stand where. A pod takes the lowest server with room of its kind; the last that came goes first."""

    fleet: Fleet
    used: dict[ServerKey, dict[ModelKey, int]] = field(default_factory=dict)
    pods: dict[tuple[ModelKey, str], list[ServerKey]] = field(default_factory=dict)
    variants: dict[tuple[ModelKey, str], str] = field(default_factory=dict)
    sizes_bytes: dict[tuple[ModelKey, str], int] = field(default_factory=dict)

    def resize(self, home: Home, count: int) -> int:
        """Have so many pods; how many there are, fewer where the pool is full."""
        model, pool = home.place.model, home.pool
        mine = self.pods.setdefault((model, pool.name), [])
        self.variants[model, pool.name] = home.place.variant
        self.sizes_bytes[model, pool.name] = home.place.memory_bytes
        while len(mine) > count:
            key = mine.pop()
            there = self.used[key]
            there[model] -= 1
            if not there[model]:
                del there[model]
        while len(mine) < count:
            room = self._room(home)
            if room is None:
                break
            there = self.used.setdefault(room, {})
            there[model] = there.get(model, 0) + 1
            mine.append(room)
        return len(mine)

    def _room(self, home: Home) -> ServerKey | None:
        pool, model = home.pool, home.place.model
        for ordinal in range(pool.servers_max):
            key = ServerKey(pool.name, ordinal)
            there = self.used.get(key, {})
            if sum(there.values()) < home.slots and (home.slots > 1 or not there):
                held = sum(self.sizes_bytes[other, pool.name] for other in there)
                fits = held + home.place.memory_bytes <= pool.memory_bytes
                if model in there or (fits and (pool.max_models is None or len(there) < pool.max_models)):
                    return key
        return None

    def target(self) -> Target:
        """Where all pods stand; several pods of a model on one server are one replica."""
        placements: dict[ModelKey, list[Replica]] = {}
        for (model, pool), keys in self.pods.items():
            for key in dict.fromkeys(keys):
                placements.setdefault(model, []).append(Replica(model, self.variants[model, pool], key))
        return Target({model: tuple(replicas) for model, replicas in placements.items()})


def fixed_target(fleet: Fleet, sizes: Mapping[ModelKey, Iterable[tuple[Home, int]]]) -> tuple[Target, list[str]]:
    """Pods of fixed counts, and a sentence for each model that could not have all of them."""
    slots, short = Slots(fleet), []
    for model, parts in sizes.items():
        for home, count in parts:
            had = slots.resize(home, count)
            if had < count:
                short.append(f"{model}: pool {home.pool.name} has room for {had} of {count} pods; raise servers.max")
    return slots.target(), short
