"""Carries out what was decided for a replica: drains at once, everything else as a job on its server."""

import asyncio
import logging

from ergon.engine import jobs
from ergon.engine.effects import Effects
from ergon.engine.server import ServerAgent
from ergon.engine.servers import Servers
from ergon.fleet.types import ModelKey
from ergon.reconcile.decide import Action, BringUp, Cancel, Remove, Repair, StartDrain, StopDrain, Unload
from ergon.reconcile.observed import Drain, Job, JobKind, JobPhase

log = logging.getLogger("ergon.actions")


class Executor:
    """Starts jobs; a replica has at most one, so a decision made again while it runs changes nothing."""

    def __init__(self, servers: Servers, effects: Effects) -> None:
        self._servers = servers
        self._effects = effects

    def carry_out(self, key: ModelKey, action: Action) -> None:
        """Begin one action. Returns at once."""
        agent = self._servers.agent(action.server.key)
        if agent is None or agent.pod.uid != action.server.pod_uid:
            return
        facts = agent.fact(key)
        now = asyncio.get_running_loop().time()
        match action:
            case StartDrain():
                log.info("%s on %s leaves traffic and drains: %s", key, agent.key, action.why)
                facts.drain = Drain(now, now, 0)
                agent.poke()
                self._effects.changed(key)
            case StopDrain():
                log.info("%s on %s is wanted again", key, agent.key)
                facts.drain = None
                self._effects.changed(key)
            case Cancel():
                if facts.task is not None and not facts.task.cancelling():
                    log.info("%s on %s: the job under way is stopped: %s", key, agent.key, action.why)
                    facts.task.cancel()
            case _ if facts.job is not None:
                return
            case BringUp():
                log.info("%s variant %s is brought up on %s: %s", key, action.variant.name, agent.key, action.why)
                facts.drain = None
                job = Job(JobKind.BRING_UP, action.variant.load_revision, JobPhase.QUEUED)
                self._start(agent, key, job, jobs.bring_up(agent, key, action.variant, self._effects))
            case Repair():
                job = Job(JobKind.BRING_UP, action.variant.load_revision, JobPhase.LOADING)
                self._start(agent, key, job, jobs.repair(agent, key, action.variant, self._effects))
            case Unload():
                asked = f"; {action.still_asked} requests still came" if action.still_asked else ""
                log.info("%s is unloaded from %s: %s%s", key, agent.key, action.why, asked)
                if action.still_asked:
                    message = (
                        f"unloaded from {agent.key} at the end of drainTimeout while {action.still_asked} requests still came"
                    )
                    self._effects.tell(key, "Warning", "DrainTimedOut", message)
                self._start(agent, key, Job(JobKind.UNLOAD, "", JobPhase.QUEUED), jobs.unload(agent, key, self._effects))
            case Remove():
                self._start(agent, key, Job(JobKind.REMOVE, "", JobPhase.QUEUED), jobs.remove(agent, key, self._effects))

    def _start(self, agent: ServerAgent, key: ModelKey, job: Job, work: jobs.Work) -> None:
        jobs.start(agent, key, job, work, self._effects)
        agent.poke()
