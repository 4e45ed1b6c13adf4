"""Asks Prometheus what pools draw and how dirty their electricity is, again and again; what cannot be had is said once."""

import asyncio
import logging
import time

from ergon.energy.meters import Reading
from ergon.engine.cache import Cache
from ergon.engine.energy import POOL_READING, TICK_SECONDS, EnergyKeeper
from ergon.telemetry.power_sources import PowerSources, SourceError

log = logging.getLogger("ergon.energy")


class SourceReader:
    """Reads for every pool that names a query: its power where its source is Prometheus, and its carbon intensity."""

    def __init__(self, cache: Cache, energy: EnergyKeeper, sources: PowerSources) -> None:
        self._cache, self._energy, self._sources = cache, energy, sources
        self._problems: dict[str, str] = {}
        self._asked: dict[str, str] = {}

    async def run(self) -> None:
        """Until cancelled. A round that fails is logged, and the next one comes."""
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("reading power and carbon failed; it is tried again in %g s", TICK_SECONDS)
            await asyncio.sleep(TICK_SECONDS)

    async def look(self) -> None:
        """Ask every query once."""
        await asyncio.gather(*(self._power(*named) for named in self._power_queries()))
        await asyncio.gather(*(self._carbon(*named) for named in self._carbon_queries()))

    def _power_queries(self) -> list[tuple[str, str]]:
        specs = {name: record.spec.power for name, record in self._cache.pools.items() if record.spec is not None}
        for name in self._energy.pool_readings.keys() - specs.keys():
            del self._energy.pool_readings[name]
        return [
            (name, power.prometheus.query)
            for name, power in specs.items()
            if power.source == "Prometheus" and power.prometheus is not None
        ]

    def _carbon_queries(self) -> list[tuple[str, str]]:
        specs = {name: record.spec.carbon for name, record in self._cache.pools.items() if record.spec is not None}
        queries = {name: carbon.prometheus.query for name, carbon in specs.items() if carbon.prometheus is not None}
        for name in [name for name in self._energy.intensity if self._asked.get(name) != queries.get(name)]:
            del self._energy.intensity[name]  # another query's answer, or that of none any more
        self._asked = queries
        return list(queries.items())

    async def _power(self, pool: str, query: str) -> None:
        """A pool's watts; without an answer the ledger assumes what the profile says, and marks it so."""
        watts = await self._ask(f"power of pool {pool}", query)
        self._energy.pool_readings[pool] = Reading() if watts is None else Reading(watts={POOL_READING: watts})

    async def _carbon(self, pool: str, query: str) -> None:
        """A pool's grams of CO2 a kilowatt-hour; without an answer the last one holds, or else the pool's own figure."""
        grams = await self._ask(f"carbon intensity of pool {pool}", query)
        if grams is not None:
            self._energy.intensity[pool] = grams

    async def _ask(self, what: str, query: str) -> float | None:
        try:
            value = await self._sources.prometheus(query, time.time())
        except SourceError as error:
            if self._problems.get(what) != str(error):
                self._problems[what] = str(error)
                log.warning("the %s is not known: %s", what, error)
            return None
        if self._problems.pop(what, None) is not None:
            log.info("the %s is known again", what)
        return value
