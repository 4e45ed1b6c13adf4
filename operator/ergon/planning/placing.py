"""Where one more replica fits best: the step that packing, repair and improvement are made of."""

import numpy as np

from ergon.planning.arrays import Bools, Floats, Ints
from ergon.planning.limits import closed_by
from ergon.planning.pool_programme import PoolLevel
from ergon.planning.servers import ROUNDING, Servers

LEAST_PIECE = 0.02
"""A part of a model's load that keeps a server busy for less is not worth a replica of its own."""

_TIGHTNESS = 0.02
"""What a wholly free server is worth against its own cost, when servers that fit are compared: full ones first."""


_Option = tuple[float, int, int, float]
"""J (a unit of work), candidate, server and busy share of a replica that could be."""


class Placer:
    """Finds servers for replicas, within the watt limits."""

    def __init__(self, servers: Servers, level: PoolLevel | None = None) -> None:
        self.servers, self.level = servers, level
        table = servers.table
        c = servers.problem.candidates
        self._open = c.useful & ~c.standing_only
        self._open &= ~closed_by(servers.limits, servers.problem)
        on = servers.problem.on
        standing = on.server_cost + on.node_cost / on.per_node
        busy, memory, slots = (
            (level.busy_price, level.memory_price, level.slot_price) if level is not None else (standing, *[0 * standing] * 2)
        )
        self._paid: list[float] = (busy + memory + slots).tolist()
        self._target = np.ceil(level.servers - 1e-6).tolist() if level is not None else [0] * len(on.most)
        self.price: list[float] = (c.cost + busy[c.pool] / c.rho).tolist()
        part = c.memory_bytes / np.maximum(on.memory_bytes[c.pool], 1.0)
        self.rent: list[float] = (memory[c.pool] * part + slots[c.pool] / np.maximum(on.slots[c.pool], 1)).tolist()
        with np.errstate(divide="ignore", invalid="ignore"):
            self.energy: list[float] = np.where(c.mu > 0, c.cost / c.mu, np.inf).tolist()
            self._per_work: list[float] = np.where(c.mu > 0, np.array(self.price) / c.mu, np.inf).tolist()
        self._by_energy: list[list[int] | None] = [None] * (len(table.first) - 1)
        self._by_memory: list[list[int] | None] = [None] * (len(table.first) - 1)
        self._worth: list[float] = np.maximum(np.maximum(standing, np.array(self._paid)), 1e-3).tolist()
        self._refused = {c: frozenset(ordinals) for c, ordinals in servers.problem.refused.items()}

    def carriers(self, m: int) -> list[int]:
        """The model's candidates that can carry load, the least J a unit of work first, scarce room counted in."""
        found = self._by_energy[m]
        if found is None:
            table = self.servers.table
            found = [c for c in range(table.first[m], table.first[m + 1]) if self._open[c] and table.mu[c] > 0]
            found.sort(key=lambda c: (self._per_work[c], c))
            self._by_energy[m] = found
        return found

    def holders(self, m: int) -> list[int]:
        """The model's candidates that can hold a replica, the smallest first."""
        found = self._by_memory[m]
        if found is None:
            table = self.servers.table
            found = [c for c in range(table.first[m], table.first[m + 1]) if self._open[c]]
            found.sort(key=lambda c: (table.memory[c], self.energy[c], c))
            self._by_memory[m] = found
        return found

    def room(self, c: int, *, loaded: bool = True) -> Floats:
        """Per server of the candidate's pool the busy share that a new replica could have; negative where none fits.

        One of a model without demand keeps nobody waiting: only memory and places count.
        """
        servers, table = self.servers, self.servers.table
        p, m = table.pool[c], table.model[c]
        a, b = servers.start[p], servers.start[p + 1]
        room: Floats = (
            np.minimum(servers.limit[a:b], table.rho[c]) - servers.load[a:b] if loaded or table.may_carry[c] else np.zeros(b - a)
        )
        fits = (servers.free_bytes[a:b] >= table.memory[c]) & (servers.free_slots[a:b] >= 1)
        room[~fits] = -1.0
        for s in servers.homes[m]:
            if a <= s < b:
                room[s - a] = -1.0
        for ordinal in self._refused.get(c, ()):
            s = servers.number(p, ordinal)
            if a <= s < b and servers.ordinal(s) == ordinal:
                room[s - a] = -1.0
        return room

    def best(self, c: int, u: float, spare: float = 0.0) -> tuple[float, int] | None:
        """(J besides that of its busy share, server in use) for a replica of that busy share; None where none has room.

        `spare` is to be left on the server.
        """
        servers, table = self.servers, self.servers.table
        p = table.pool[c]
        a, b = servers.start[p], servers.start[p + 1]
        if a == b or not servers.occupied[p]:
            return None
        room = self.room(c, loaded=u > 0) - u - spare
        fits = (room >= -ROUNDING) & (servers.count[a:b] > 0)
        places = np.flatnonzero(fits)
        if not len(places):
            return None
        score = self._untidiness(c, u, places, room)
        k = int(np.argmin(score))
        s = a + int(places[k])
        return (float(score[k]), s) if self._within_limits(c, s, u) else None

    def _within_limits(self, c: int, s: int, u: float) -> bool:
        return not self.servers.limits or self.servers.spare(c, s, u) >= u * (1 - ROUNDING)

    def _untidiness(self, c: int, u: float, places: Ints, room: Floats) -> Floats:
        servers, table = self.servers, self.servers.table
        p = table.pool[c]
        at = places + servers.start[p]
        left = (servers.free_bytes[at] - table.memory[c]) / max(servers.problem.on.memory_bytes[p], 1.0)
        score: Floats = 0.3 * left
        if u > 0:
            limit = servers.limit[at]
            loaded = np.isfinite(limit)
            spoilt = np.where(loaded, np.maximum(limit - table.rho[c], 0.0), 0.0)
            cramped = np.where(loaded, u * np.maximum(table.rho[c] / np.where(loaded, limit, 1.0) - 1.0, 0.0), 0.0)
            score = score + (room[places] + 20 * (spoilt + cramped)) / table.rho[c]
        else:
            score = score + np.maximum(1.0 - servers.load[at], 0.0)
        score *= _TIGHTNESS * self._worth[p]
        if u > 0:
            score += np.maximum(table.awake[c] - servers.awake[at], 0.0) * table.watt_cost[p]
        return score

    def fresh(self, c: int, u: float) -> tuple[float, int] | None:
        """(J besides that of its busy share, server) for a replica on a server that nobody uses yet; None where there is none."""
        servers, table = self.servers, self.servers.table
        p = table.pool[c]
        a, b = servers.start[p], servers.start[p + 1]
        if servers.occupied[p] >= b - a:
            return None
        empty = np.flatnonzero((servers.count[a:b] == 0) & (self.room(c, loaded=u > 0) >= u - ROUNDING))
        if not len(empty):
            return None
        awake = table.awake[c] * table.watt_cost[p] if u > 0 else 0.0
        s = a + int(empty[0])
        return (self._opening(p) + awake, s) if self._within_limits(c, s, u) else None

    def _opening(self, p: int) -> float:
        """J of one more server of a pool, those that the prices of its room pay for anyway left out."""
        more = self.servers.cost_of_one_more(p)
        return max(0.0, more - self._paid[p]) if self.servers.occupied[p] < self._target[p] else more

    def may_add(self, m: int) -> bool:
        """Whether the model may have one more replica."""
        return len(self.servers.homes[m]) < self.servers.table.highest[m]

    def place_work(self, m: int, work: float) -> float:
        """Place so much work of a model where it costs least; the work for which there was no room.

        Whole on a server where that is possible, else in pieces, largest first; first on its own replicas.
        """
        while work > 0:
            rest = self._grow(m, work)
            if rest <= 0:
                return 0.0
            work = rest
            if not self.may_add(m):
                return work
            placed = self._place_once(m, work)
            if placed is None:
                return work
            work = 0.0 if placed >= work * (1 - ROUNDING) else work - placed
        return 0.0

    def _grow(self, m: int, work: float) -> float:
        """Give work to replicas that stand, least energy first; what is left."""
        servers, table = self.servers, self.servers.table
        for s, c in sorted(servers.homes[m].items(), key=lambda home: (self.energy[home[1]], home[0])):
            if table.mu[c] <= 0:
                continue
            room = min(float(servers.limit[s]), table.rho[c]) - float(servers.load[s])
            if room <= ROUNDING:
                continue
            u = min(room, work / table.mu[c])
            u = servers.spare(c, s, u) if servers.limits else u
            if u <= ROUNDING:
                continue
            servers.change(m, s, servers.share[m][s] + u)
            if u >= work / table.mu[c]:
                return 0.0
            work -= u * table.mu[c]
        return work

    def _place_once(self, m: int, work: float) -> float | None:
        """Add one replica for as much of the work as costs least a unit of work; how much, None where there is no room."""
        servers, table = self.servers, self.servers.table
        whole = self._whole(m, work)
        last = table.highest[m] - len(servers.homes[m]) <= 1
        chosen: _Option | None
        if whole is not None and (last or servers.residents[whole[2]]):
            chosen = whole
        else:
            piece = self._piece(m, work, by_size=last)
            if whole is None or (piece is not None and piece[0] < whole[0] and not last):
                chosen = piece if piece is not None else whole
            else:
                chosen = whole
        if chosen is None:
            return None
        _, c, s, u = chosen
        servers.put(c, s, u)
        return min(work, u * table.mu[c])

    def _whole(self, m: int, work: float) -> _Option | None:
        """The server for all of the work at the least price."""
        found: tuple[float, int, int, float] | None = None
        table = self.servers.table
        for c in self.carriers(m):
            u = work / table.mu[c]
            base = self.price[c] * u + self.rent[c]
            if found is not None and base >= found[0]:
                if self.price[c] * u >= found[0]:
                    break
                continue
            if u > table.rho[c] * (1 + ROUNDING):
                continue
            u = min(u, table.rho[c])
            option = self.best(c, u)
            if option is not None and (found is None or base + option[0] < found[0]):
                found = (base + option[0], c, option[1], u)
            opening = base + self._opening(table.pool[c])
            if found is None or opening + table.awake[c] * table.watt_cost[table.pool[c]] < found[0]:
                option = self.fresh(c, u)
                if option is not None and (found is None or base + option[0] < found[0]):
                    found = (base + option[0], c, option[1], u)
        return None if found is None else (found[0] / work, *found[1:])

    def _piece(self, m: int, work: float, *, by_size: bool) -> _Option | None:
        """The server for a part of the work at the least price a unit of work, or (`by_size`) for the largest part."""
        found: tuple[float, int, int, float] | None = None
        servers, table = self.servers, self.servers.table
        for c in self.carriers(m):
            if found is not None and not by_size and self._per_work[c] >= found[0]:
                break
            p = table.pool[c]
            a, b = servers.start[p], servers.start[p + 1]
            if a == b:
                continue
            room = self.room(c)
            used = servers.count[a:b] > 0
            for s, opening in self._pieces(c, room, used):
                u = min(float(room[s - a]), work / table.mu[c])
                u = servers.spare(c, s, u) if servers.limits and u > 0 else u
                if u <= min(LEAST_PIECE, 0.5 * work / table.mu[c]):
                    continue
                rise = max(0.0, table.awake[c] - float(servers.awake[s])) * table.watt_cost[p]
                price = self._per_work[c] + (opening + rise + self.rent[c]) / (u * table.mu[c])
                price = -u * table.mu[c] if by_size else price
                if found is None or price < found[0]:
                    found = (price, c, s, u)
        return found

    def _pieces(self, c: int, room: Floats, used: Bools) -> list[tuple[int, float]]:
        """(server, J of opening it): the one in use with the most room that the candidate would not spoil, and a fresh one."""
        servers, p = self.servers, self.servers.table.pool[c]
        a = servers.start[p]
        found = []
        if servers.occupied[p]:
            limit = servers.limit[a : a + len(room)]
            spoilt = np.where(np.isfinite(limit), np.maximum(limit - servers.table.rho[c], 0.0), 0.0)
            k = int(np.argmax(np.where(used & (room > 0), room - spoilt, -np.inf)))
            if room[k] > 0 and used[k]:
                found.append((a + k, 0.0))
        if servers.occupied[p] < len(room):
            k = int(np.argmax(np.where(used, -np.inf, room)))
            if room[k] > 0 and not used[k]:
                found.append((a + k, self._opening(p)))
        return found

    def fill_piece(self, c: int, u: float, spare: float = 0.0) -> tuple[int, float] | None:
        """(server in use, busy share) for a part of a load, as large as fits; None where no part is worth a replica."""
        servers = self.servers
        p = servers.table.pool[c]
        a, b = servers.start[p], servers.start[p + 1]
        if (
            a == b
            or not servers.occupied[p]
            or servers.table.highest[servers.table.model[c]] - len(servers.homes[servers.table.model[c]]) < 2
        ):
            return None
        room = self.room(c)
        for s, _ in self._pieces(c, room, servers.count[a:b] > 0)[:1]:
            piece = min(u, float(room[s - a]) - spare)
            if servers.residents[s] and piece >= max(LEAST_PIECE, 0.1 * u) and self._within_limits(c, s, piece):
                return s, piece
        return None

    def hold(self, m: int, preferred: list[int] | None = None) -> bool:
        """Place a replica that carries nothing where it costs least; whether there was room."""
        if not self.may_add(m):
            return False
        found: tuple[float, int, int] | None = None
        for c in preferred if preferred is not None else self.holders(m):
            option = self.best(c, 0.0)
            if option is None or (self.rent[c] + self._opening(self.servers.table.pool[c]) < self.rent[c] + option[0]):
                fresh = self.fresh(c, 0.0)
                option = fresh if option is None or (fresh is not None and fresh[0] < option[0]) else option
            if option is not None and (found is None or self.rent[c] + option[0] < found[0]):
                found = (self.rent[c] + option[0], c, option[1])
        if found is None:
            return False
        self.servers.put(found[1], found[2], 0.0)
        return True

    def place_all(self, m: int) -> float:
        """Place what the model still lacks, load and least replicas; the work for which there was no room."""
        servers, table = self.servers, self.servers.table
        lacking = table.demand[m] - servers.served(m)
        rest = self.place_work(m, lacking) if lacking > table.demand[m] * 1e-9 else 0.0
        while len(servers.homes[m]) < table.lowest[m] and self.hold(m):
            pass
        return rest
