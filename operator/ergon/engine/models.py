"""What is written to the API server for one model: its Service, EndpointSlices and routes, its status, its events."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ergon.api.conditions import merge
from ergon.api.types import API_VERSION
from ergon.engine.cache import Cache, ModelRecord
from ergon.engine.cached_routes import GatewayPod
from ergon.engine.compare import covers
from ergon.engine.queue import KeyedQueue
from ergon.engine.settings import Settings
from ergon.fleet.types import ModelKey
from ergon.kube import builders
from ergon.kube.client import KubeClient
from ergon.kube.errors import Conflict, Forbidden, Invalid, NotFound
from ergon.kube.events import EventRecorder
from ergon.reconcile.figures import keep, same_wording
from ergon.reconcile.observed import Refusal, ServerView
from ergon.reconcile.status import Fact

log = logging.getLogger("ergon.models")
Object = dict[str, Any]

STATUS_SECONDS = 1.0
"""Between two writes of one model's status, and before its first, unless its Ready changes for more than a moment."""
PASSING_A_SECOND = 100
"""In a storm what is on its way waits a second longer for so many models in the queue: what is final gets through first."""

TAKEN_SECONDS = 30.0
"""Between two looks whether a name that somebody else has is free."""

_PASSING = {"Planning", "Queued", "Downloading", "Loading", "WaitingForServer", "NotPlaced", "NotLoaded"}
"""Reasons of Ready=False that pass by themselves: the status shows them, no event does."""


class _Taken(Exception):
    """Somebody else has the name of a child; the text says which, for a person."""


@dataclass(slots=True)
class Wish:
    """What should stand in the API server for a model. Without facts the status is left as it is.

    `gateways`: the pods that its traffic goes to while no server answers; None: it has none of them.
    """

    endpoints: tuple[ServerView, ...] = ()
    facts: list[Fact] = field(default_factory=list)
    body: Object = field(default_factory=dict)
    placed: bool = False
    gateways: tuple[GatewayPod, ...] | None = None


class ModelWriter:
    """Brings the API server to what was last wished for each model; writes nothing where it says so already."""

    def __init__(
        self,
        client: KubeClient,
        cache: Cache,
        settings: Settings,
        events: EventRecorder,
        now_text: Callable[[], str],
        now_seconds: Callable[[], float],
        look_again: Callable[[ModelKey, float], None],
    ) -> None:
        self._client = client
        self._cache = cache
        self._settings = settings
        self._events = events
        self._now_text = now_text
        self._now = now_seconds
        self._look_again = look_again
        self._wishes: dict[ModelKey, Wish] = {}
        self._written_at: dict[ModelKey, float] = {}
        self.name_taken: dict[ModelKey, str] = {}
        self.route_problem: dict[ModelKey, str] = {}
        self.queue: KeyedQueue[ModelKey] = KeyedQueue(self._sync, 24, "write")

    def wish(self, key: ModelKey, wish: Wish) -> None:
        """Take over what should stand; it is written soon where it differs."""
        record = self._cache.models.get(key)
        if record is None:
            return
        self._wishes[key] = wish
        if self._differs(record, wish):
            self.queue.add(key)

    def forget(self, key: ModelKey) -> None:
        """The model is gone: what it leaves in the API server goes too."""
        self._wishes.pop(key, None)
        self._written_at.pop(key, None)
        self.name_taken.pop(key, None)
        self.route_problem.pop(key, None)
        if self._cache.children.get(key):
            self.queue.add(key)

    def answering(self, key: ModelKey) -> int:
        """Servers that a model's Service should point at, by what was last wished."""
        wish = self._wishes.get(key)
        return len(wish.endpoints) if wish is not None else 0

    def kept_pod_uids(self, key: ModelKey) -> frozenset[str]:
        """Pods that the model's EndpointSlices name now."""
        return frozenset(
            str(uid)
            for (kind, _), obj in self._cache.children.get(key, {}).items()
            if kind == "EndpointSlice"
            for endpoint in obj.get("endpoints") or ()
            if (uid := (endpoint.get("targetRef") or {}).get("uid"))
        )

    def _differs(self, record: ModelRecord, wish: Wish) -> bool:
        if self._status(record, wish) != record.status:
            return True
        held, wanted = self._cache.children.get(record.key, {}), self._children(record, wish)
        return any(not covers(held.get(_identity(obj)), obj) for obj in wanted) or bool(self._surplus(record.key, wanted))

    def _children(self, record: ModelRecord, wish: Wish) -> list[Object]:
        namespace, name = record.key
        owner = builders.Owner("SpecializedModel", name, record.uid)
        endpoints = [
            builders.Endpoint(s.pod_name, s.pod_uid, s.ip, self._settings.operator_namespace, s.node, s.zone)
            for s in wish.endpoints
        ]
        asleep = wish.gateways is not None and not endpoints
        if asleep:
            endpoints = [builders.Endpoint(g.name, g.uid, g.ip, g.namespace, g.node, g.zone) for g in wish.gateways or ()]
        held = self._cache.children.get(record.key, {})
        # Where somebody else had a name of ours, all are asked for, to see when it is free.
        taken = record.key in self.name_taken
        if not (wish.placed or endpoints or held or taken):
            return []  # what stands nowhere needs no name, and 10,000 such models would cost 20,000 writes
        children = [builders.model_service(namespace, name, owner)]
        gateway = self._settings.gateway
        # With a Gateway the slice stands before the route, empty at first: a route to a Service without any is refused.
        if endpoints or gateway is not None or taken or any(kind == "EndpointSlice" for kind, _ in held):
            hint_zones = self._settings.hint_zones and not asleep
            children += builders.endpoint_slices(namespace, name, endpoints, owner, hint_zones=hint_zones, asleep=asleep)
        if gateway is not None:
            children.append(builders.http_route(namespace, name, gateway, owner))
        return children

    def _surplus(self, key: ModelKey, wanted: list[Object]) -> list[Object]:
        names = {_identity(obj) for obj in wanted}
        held = self._cache.children.get(key, {})
        return [obj for identity, obj in held.items() if identity[0] == "EndpointSlice" and identity not in names]

    async def _sync(self, key: ModelKey) -> None:
        record, wish = self._cache.models.get(key), self._wishes.get(key)
        if record is None:
            await self._clear_left_behind(key)
        if record is None or wish is None:
            return
        try:
            await self._clear_predecessor(record)
            refused = await self._sync_all_children(record, wish)
            if self._cache.models.get(key) is record:
                await self._sync_status(record, wish)
            if refused is not None:
                raise refused
        except NotFound:
            return  # the model or its namespace went away meanwhile
        except Forbidden as error:
            if key.namespace not in self._cache.terminating:
                raise error

    async def _sync_all_children(self, record: ModelRecord, wish: Wish) -> Exception | None:
        """The children; what the API server has against them is told in the status and handed back, to be tried again."""
        try:
            if children := self._children(record, wish):
                await self._own_service(record, children[0])
                await self._sync_children(record, children)
                if self.name_taken.pop(record.key, None) is not None:
                    self._cache.wake(models=[record.key])
        except _Taken as taken:
            self._say_taken(record.key, str(taken))
        except (Invalid, Forbidden) as error:
            if record.key.namespace not in self._cache.terminating:
                self._say_route(record.key, f"its Service or EndpointSlices were refused: {error.message}"[:500])
            return error
        return None

    async def _clear_left_behind(self, key: ModelKey) -> None:
        """Delete the children of a model that is gone.

        Kubernetes would too, by their owner, but its collector learns of new kinds only every 30 s, and until then a name
        that nobody answers for would go on resolving.
        """
        if await self._client.find(API_VERSION, "SpecializedModel", key.name, key.namespace) is None:
            await self._clear(key, lambda owner: True)

    async def _clear_predecessor(self, record: ModelRecord) -> None:
        """Delete children of a deleted model of the same name now, rather than wait until garbage collection gets to them."""
        await self._clear(record.key, lambda owner: owner != record.uid)

    async def _clear(self, key: ModelKey, gone: Callable[[str], bool]) -> None:
        """Delete those children of which every owner that is a model is gone."""
        for (kind, name), held in list(self._cache.children.get(key, {}).items()):
            owners = [o for o in held["metadata"].get("ownerReferences") or () if o.get("kind") == "SpecializedModel"]
            if owners and all(gone(owner["uid"]) for owner in owners):
                await self._client.delete(held["apiVersion"], kind, name, key.namespace, uid=held["metadata"]["uid"])
                self._cache.drop(kind, held)

    async def _own_service(self, record: ModelRecord, service: Object) -> None:
        """Make sure that the Service of the model's name is ours. Raises _Taken where somebody else has it."""
        if self._cache.children.get(record.key, {}).get(_identity(service)) is None:
            try:
                held = await self._client.create(service)
            except Conflict:
                held = await self._ours(record, service)
            self._cache.put("Service", held)

    async def _ours(self, record: ModelRecord, wanted: Object) -> Object:
        """What stands under a child's name, which is the model's by owner or label. Raises _Taken where it is not."""
        kind, name = _identity(wanted)
        held = await self._client.get(wanted["apiVersion"], kind, name, record.key.namespace)
        owners = [o.get("uid") for o in held["metadata"].get("ownerReferences") or ()]
        if record.uid not in owners and (held["metadata"].get("labels") or {}).get("ergon.dev/model") != record.key.name:
            raise _Taken(f"{kind} {name} in namespace {record.key.namespace} is not Ergon's: rename one of the two")
        return held

    async def _applied(self, record: ModelRecord, wanted: Object) -> Object:
        """A child as it should be, where nobody else has its name. Raises _Taken.

        What is not known to be ours is applied without force, so that what others wrote stands in the way. To create it would
        not do: fields of a create outlive the applies that leave them out, such as the label of a sleeping model's slices.
        """
        if _identity(wanted) in self._cache.children.get(record.key, {}):
            return await self._client.apply(wanted)
        try:
            return await self._client.apply(wanted, force=False)
        except Conflict:
            await self._ours(record, wanted)
            return await self._client.apply(wanted)

    async def _sync_children(self, record: ModelRecord, children: list[Object]) -> None:
        for obj in children:
            held = self._cache.children.get(record.key, {}).get(_identity(obj))
            if covers(held, obj):
                continue
            try:
                self._cache.put(obj["kind"], await self._applied(record, obj))
                if obj["kind"] == "HTTPRoute" and self.route_problem.pop(record.key, None) is not None:
                    self._cache.wake(models=[record.key])
            except _Taken as taken:
                if obj["kind"] != "HTTPRoute":
                    raise
                self._say_route(record.key, str(taken))
                self._look_again(record.key, self._now() + TAKEN_SECONDS)
            except (Invalid, Forbidden, NotFound) as error:
                if record.key.namespace in self._cache.terminating or obj["kind"] != "HTTPRoute":
                    raise
                self._say_route(record.key, f"{obj['kind']} was refused: {error.message}"[:500])
        for obj in self._surplus(record.key, children):
            await self._client.delete("discovery.k8s.io/v1", "EndpointSlice", obj["metadata"]["name"], record.key.namespace)
            self._cache.drop("EndpointSlice", obj)

    def _say_route(self, key: ModelKey, problem: str) -> None:
        if self.route_problem.get(key) != problem:
            self.route_problem[key] = problem
            self._cache.wake(models=[key])

    def _say_taken(self, key: ModelKey, problem: str) -> None:
        if self.name_taken.get(key) != problem:
            self.name_taken[key] = problem
            self._cache.wake(models=[key])
        self._look_again(key, self._now() + TAKEN_SECONDS)

    def route_message(self, key: ModelKey) -> str:
        """What the API server or the Gateway has against the model's routes; empty where nothing."""
        if key in self.route_problem:
            return self.route_problem[key]
        for (kind, _), obj in self._cache.children.get(key, {}).items():
            if kind == "HTTPRoute":
                for parent in (obj.get("status") or {}).get("parents") or ():
                    for condition in parent.get("conditions") or ():
                        passing = condition["reason"] == "BackendNotFound"  # the Gateway has yet to see the Service
                        if condition["type"] in ("Accepted", "ResolvedRefs") and condition["status"] == "False" and not passing:
                            return f"the Gateway refuses its {kind}: {condition['reason']}: {condition.get('message', '')}"[:500]
        return ""

    def refusal(self, key: ModelKey) -> Refusal | None:
        """Why the model cannot be served under its name, if somebody else has it."""
        return Refusal("NameTaken", self.name_taken[key]) if key in self.name_taken else None

    def _status(self, record: ModelRecord, wish: Wish) -> Object:
        """The status as it should be, with the times of the present one where nothing changed."""
        now = self._now_text()
        previous = record.status
        if not wish.facts:
            return previous
        status = {
            **wish.body,
            "observedGeneration": record.generation,
            "conditions": merge(previous.get("conditions") or (), wish.facts, generation=record.generation, now=now),
            "placements": keep_since(wish.body.get("placements", []), previous.get("placements") or (), now),
            "alternatives": keep_figures(wish.body.get("alternatives", []), previous.get("alternatives") or []),
        }
        for part in ("demand", "energy"):
            if part in status:
                status[part] = dict(keep(status[part], previous.get(part)))
        if _same(status, previous):
            return previous
        return status

    async def _sync_status(self, record: ModelRecord, wish: Wish) -> None:
        status = self._status(record, wish)
        if status == record.status:
            return
        now = self._now()
        at = self._written_at.setdefault(record.key, now) + STATUS_SECONDS + self.queue.depth / PASSING_A_SECOND
        if now < at and not _pressing(record.status, status):
            self._look_again(record.key, at)
            return
        self._written_at[record.key] = now
        key = record.key
        answer = await self._client.apply_status(
            {
                "apiVersion": API_VERSION,
                "kind": "SpecializedModel",
                "metadata": {"name": key.name, "namespace": key.namespace},
                "status": status,
            }
        )
        self._tell(record, status)
        if self._cache.models.get(key) is record:
            record.status = answer.get("status") or {}

    def _tell(self, record: ModelRecord, status: Object) -> None:
        """One event where Ready changed its status or its reason."""
        before, after = _ready(record.status), _ready(status)
        if after is None or before == after:
            return
        if after[0] != "True" and after[1] in _PASSING:
            return
        normal = after[0] == "True" and after[1] != "OldRevisionServes"
        message = next(c["message"] for c in status["conditions"] if c["type"] == "Ready")
        self._events.record(
            model_reference(record.key, record.uid),
            "Normal" if normal else "Warning",
            after[1],
            message or after[1],
        )


def model_reference(key: ModelKey, uid: str) -> Object:
    """A model as the subject of an event."""
    return {
        "apiVersion": API_VERSION,
        "kind": "SpecializedModel",
        "metadata": {"namespace": key.namespace, "name": key.name, "uid": uid},
    }


def keep_since(placements: list[Object], previous: Iterable[Object], now: str) -> list[Object]:
    """Placements with `since`: that of the previous one while variant and state are the same."""
    before = {(p["pool"], p["server"]): p for p in previous}
    result = []
    for placement in placements:
        old = before.get((placement["pool"], placement["server"]), {})
        same = old.get("state") == placement["state"] and old.get("variant") == placement["variant"]
        result.append({**placement, "since": old.get("since", now) if same else now})
    return result


def keep_figures(alternatives: list[Object], previous: list[Object]) -> list[Object]:
    """The previous alternatives while they say the same but for figures: those are live in `ergon plan`, not here."""
    verdicts = ("pool", "variant", "verdict", "reason")
    same = [[a.get(v) for v in verdicts] for a in alternatives] == [[a.get(v) for v in verdicts] for a in previous]
    told = same and all(
        same_wording(new.get("message", ""), old.get("message", "")) for new, old in zip(alternatives, previous, strict=True)
    )
    return previous if told else alternatives


def _same(status: Object, previous: Object) -> bool:
    return covers(previous, status) and len(previous.get("conditions") or ()) == len(status["conditions"])


def _identity(obj: Object) -> tuple[str, str]:
    return obj["kind"], obj["metadata"]["name"]


def _pressing(before: Object, after: Object) -> bool:
    """Whether a person should hear of it at once: Ready changed, and not from one state that passes by itself to another."""
    old, new = _ready(before), _ready(after)
    return old != new and not (new is not None and new[1] in _PASSING and (old is None or old[0] != "True"))


def _ready(status: Object) -> tuple[str, str] | None:
    return next(((c["status"], c["reason"]) for c in status.get("conditions") or () if c["type"] == "Ready"), None)
