"""A pool's pods as its story sees them, and for how long they have been as they are."""

from collections.abc import Callable, Container, Mapping

from ergon.engine.cache import Cache, PoolRecord
from ergon.engine.cached_pods import PodRecord
from ergon.engine.server import ServerAgent
from ergon.engine.servers import Servers
from ergon.kube.builders import template_hash
from ergon.kube.keys import KeyMaterial
from ergon.reconcile.pools import AWAY_SECONDS, PodView

_NOTHING_RUNS = {"Pending", "Failed", "Succeeded"}


class Pods:
    """Looks at pods, their nodes and their agents. `now`: monotonic seconds; `template_refused`: pools that are not rolled;
    `keys`: by pool, those that new pods start with.

    Times count from when this process first saw a pod so: those in its conditions are by a clock that may differ from ours.
    """

    def __init__(
        self,
        cache: Cache,
        servers: Servers,
        template_refused: Container[str],
        keys: Mapping[str, KeyMaterial],
        now: Callable[[], float],
    ) -> None:
        self._cache, self._servers = cache, servers
        self._template_refused, self._keys = template_refused, keys
        self._now = now
        self._unscheduled_at: dict[tuple[str, str], float] = {}
        self._down_at: dict[str, float] = {}
        self._back_at: dict[str, float] = {}

    def forget_the_gone(self) -> None:
        """Of pods that are no more nothing is remembered."""
        uids = {pod.uid for pod in self._cache.pods.values()}
        self._unscheduled_at = {key: at for key, at in self._unscheduled_at.items() if key[0] in uids}
        self._down_at = {uid: at for uid, at in self._down_at.items() if uid in uids}
        self._back_at = {uid: at for uid, at in self._back_at.items() if uid in uids}

    def of(self, record: PoolRecord) -> tuple[PodView, ...]:
        """All pods of a pool that can be understood, by ordinal."""
        return tuple(self._view(record, self._cache.pods[key]) for key in sorted(self._cache.pods) if key.pool == record.name)

    def _view(self, record: PoolRecord, pod: PodRecord) -> PodView:
        assert record.spec is not None
        node, agent = self._cache.nodes.get(pod.node), self._servers.agent(pod.key)
        answering = agent is not None and agent.answering
        up = (pod.ready or answering) and not (agent is not None and agent.refused)
        return PodView(
            ordinal=pod.key.ordinal,
            uid=pod.uid,
            name=pod.name,
            ready=pod.ready,
            deleting=pod.deleting,
            cordoned=node is not None and node.unschedulable,
            outdated=bool(pod.template_hash)
            and pod.template_hash != template_hash(record.spec)
            and record.name not in self._template_refused,
            old_keys=agent is not None and (agent.refused or agent.keys != self._keys.get(record.name, agent.keys)),
            condemned=agent.condemned if agent is not None else "",
            holds_models=_holds_models(pod, agent),
            unscheduled_seconds=self._unscheduled_seconds(pod),
            up=up,
            down_seconds=self._down_seconds(pod, up=up),
            back_seconds=self._now() - self._back_at[pod.uid] if pod.uid in self._back_at else None,
            node_lost=self._node_lost(pod.node) and not answering,
            problem=pod.problem,
        )

    def _unscheduled_seconds(self, pod: PodRecord) -> float | None:
        if not pod.unscheduled_since:
            return None
        now = self._now()
        return now - self._unscheduled_at.setdefault((pod.uid, pod.unscheduled_since), now)

    def _down_seconds(self, pod: PodRecord, *, up: bool) -> float:
        """For how long it was not up, though it should be: one that waits for a node or is only being started is not down."""
        now = self._now()
        starting = pod.phase == "Pending" and (not pod.problem or bool(pod.unscheduled_since))
        if up or starting:
            if now - self._down_at.pop(pod.uid, now) >= AWAY_SECONDS and up:
                self._back_at[pod.uid] = now
            return 0.0
        return now - self._down_at.setdefault(pod.uid, now)

    def _node_lost(self, name: str) -> bool:
        """Whether a node is gone or silent. A namespaced installation reads no nodes, and takes none for lost."""
        node = self._cache.nodes.get(name)
        return bool(name and self._cache.nodes) and (node is None or not node.ready)


def _holds_models(pod: PodRecord, agent: ServerAgent | None) -> bool:
    """Whether a pod has anything of a model, as far as is known: one that is not read may, unless it has never run or is ending.

    That it is not Ready says nothing of it: after an outage of the API server all pods are not, and serve.
    """
    answering = agent is not None and agent.answering
    if not (pod.ready or answering) and (pod.deleting or pod.phase in _NOTHING_RUNS):
        return False
    return agent is None or not agent.synced or agent.holds_models
