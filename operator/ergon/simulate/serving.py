"""What executes on servers in request mode: batches, generations, and how those on one server share its time.

A batch wants all of its server's time, a generation the share of its largest rate that its requests in flight make. Where they
want more than one server's time together, all are slowed alike. So one event a server is enough, the next completion, on a clock
(`virtual`) that grows by seconds of unhindered work.
"""

import math
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from ergon.simulate.world import Asked, Replica, Server, Timer

_SAME = 1e-9

Event = tuple[float, int, int, Server | Callable[[float], None]]
"""When, in which order of those at the same time, the server's event (-1: a function to call), and what."""


class Serving:
    """All servers' executions, on the run's heap of events. `answer(came, latency, asked)` and `refuse(asked)` are told what
    came of each request, `later(at, call)` has something called.
    """

    def __init__(
        self,
        heap: list[Event],
        order: "count[int]",
        later: Timer,
        answer: Callable[[float, float, int], None],
        refuse: Callable[[int], None],
    ) -> None:
        self._heap, self._order, self._later, self._answer, self._refuse = heap, order, later, answer, refuse

    def advance(self, server: Server, now: float) -> None:
        """Give what executes on a server its time and power up to now."""
        passed = now - server.last
        server.last = now
        if passed <= 0 or not (server.batches or server.flowing):
            return
        given = passed * server.speed
        server.virtual += given
        server.awake_joules += server.awake * passed
        server.execution_joules += server.slope * given
        for replica in server.flowing:
            in_flight, place = replica.in_flight, replica.place
            replica.virtual += replica.rate * given
            replica.busy_seconds += place.share[in_flight] * given
            replica.joules += place.slope_watts[in_flight] * given

    def schedule(self, server: Server, now: float) -> None:
        """Find the server's speed and power anew, and its next completion."""
        wanted, slope, awake, soonest = 0.0, 0.0, 0.0, math.inf
        batches = server.batches
        if batches:
            wanted = float(len(batches))
            soonest = batches[0][0] - server.virtual
            for _, _, replica, size, _ in batches:
                place = replica.place
                slope += place.slope_watts[size]
                if place.awake_watts > awake:
                    awake = place.awake_watts
        for replica in server.flowing:
            place, in_flight = replica.place, replica.in_flight
            wanted += place.share[in_flight]
            slope += place.slope_watts[in_flight]
            if place.awake_watts > awake:
                awake = place.awake_watts
            left = (replica.flow[0][0] - replica.virtual) / replica.rate
            if left < soonest:
                soonest = left
        server.speed = speed = 1.0 / wanted if wanted > 1.0 else 1.0
        server.slope, server.awake = slope, awake
        server.event += 1
        if soonest < math.inf:
            heappush(self._heap, (now + (soonest if soonest > 0 else 0.0) / speed, next(self._order), server.event, server))

    def send(self, replica: Replica, now: float) -> None:
        """Begin an execution of what waits, up to the largest batch; the server's time is up to date."""
        place, waiting, server = replica.place, replica.waiting, replica.server
        limit = place.queue.timeout_seconds
        if limit:
            while waiting and now - waiting[0][0] > limit:
                replica.outstanding -= 1
                self._refuse(waiting.popleft()[2])
        size = len(waiting)
        if not size:
            return
        if size <= place.max_batch:
            batch = list(waiting)
            waiting.clear()
        else:
            size = place.max_batch
            batch = [waiting.popleft() for _ in range(size)]
        replica.running += 1
        heappush(server.batches, (server.virtual + place.seconds[size], next(self._order), replica, size, batch))

    def send_later(self, replica: Replica, at: float) -> None:
        """Begin what waits at a time, where nothing has begun it by then."""
        if replica.timer >= at:
            return
        replica.timer = at

        def due(now: float) -> None:
            if replica.waiting and replica.running < replica.place.queue.instances:
                self.advance(replica.server, now)
                self.refill(replica, now)
                self.schedule(replica.server, now)

        self._later(at, due)

    def refill(self, replica: Replica, now: float) -> None:
        """Begin what can begin, now that an instance or a place is free."""
        place, waiting = replica.place, replica.waiting
        if place.continuous:
            limit = place.queue.timeout_seconds
            while waiting and replica.in_flight < place.max_batch:
                first = waiting.popleft()
                if limit and now - first[0] > limit:
                    replica.outstanding -= 1
                    self._refuse(first[2])
                else:
                    self.admit(replica, first, now)
            return
        delay = place.queue.delay_seconds
        while waiting and replica.running < place.queue.instances:
            if delay and len(waiting) < place.max_batch and now < waiting[0][0] + delay - _SAME:
                self.send_later(replica, waiting[0][0] + delay)
                return
            self.send(replica, now)

    def admit(self, replica: Replica, request: Asked, now: float) -> None:
        """Take a request into the running generation; its first token comes at the latency of so many in flight."""
        came, work, asked = request
        place, server = replica.place, replica.server
        replica.in_flight = in_flight = replica.in_flight + 1
        if in_flight == 1 and replica not in server.flowing:
            server.flowing.append(replica)
        replica.rate = place.work_rate[in_flight] / in_flight
        heappush(replica.flow, (replica.virtual + work, asked))
        self._answer(came, now - came + place.answer_seconds[in_flight] / server.speed, asked)

    def complete(self, server: Server, now: float) -> None:
        """Something on a server is done: answer it, and begin what waits."""
        self.advance(server, now)
        batches, done = server.batches, server.virtual + _SAME
        while batches and batches[0][0] <= done:
            _, _, replica, size, batch = heappop(batches)
            place = replica.place
            seconds = place.seconds[size]
            replica.running -= 1
            replica.busy_seconds += seconds
            replica.joules += seconds * place.slope_watts[size]
            later = place.answer_seconds[size] - seconds
            if later > _SAME:
                answered = replica.answered
                while answered and answered[0][0] <= now:
                    replica.outstanding -= answered.popleft()[1]
                answered.append((now + later, size))
            else:
                replica.outstanding -= size
            answer = self._answer
            for came, _, asked in batch:
                answer(came, now - came + later, asked)
            if replica.waiting:
                self.refill(replica, now)
        for replica in tuple(server.flowing):
            flow, reached = replica.flow, replica.virtual * (1 + 1e-12) + _SAME
            while flow and flow[0][0] <= reached:
                heappop(flow)
                replica.in_flight -= 1
                replica.outstanding -= 1
            if replica.waiting:
                self.refill(replica, now)
            if replica.in_flight:
                replica.rate = replica.place.work_rate[replica.in_flight] / replica.in_flight
            else:
                server.flowing.remove(replica)
        self.schedule(server, now)

    def joules(self, replica: Replica) -> float:
        """Execution joules of a replica, those of what executes at this moment by the part that is done."""
        joules = replica.joules
        server = replica.server
        for ends, _, owner, size, _ in server.batches:
            if owner is replica:
                done = owner.place.seconds[size] - (ends - server.virtual)
                joules += done * owner.place.slope_watts[size]
        return joules
