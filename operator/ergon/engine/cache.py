"""What the API server last said, parsed: the edge fills it, the loop reads it. Everything runs in one event loop, so no locks."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ergon.api.budget import EnergyBudgetSpec
from ergon.api.parse import InvalidObject, parse_budget, parse_model, parse_pool
from ergon.api.pool import AcceleratorPoolSpec
from ergon.engine.cached_pods import POOL_LABEL, NodeRecord, PodRecord, node_record, pod_record
from ergon.engine.cached_routes import GatewayPod, RouteRecord, gateway_pods, route_record
from ergon.fleet.build import build_model, build_pool
from ergon.fleet.types import Model, ModelKey, Pool, ServerKey
from ergon.reconcile.observed import Refusal

Object = dict[str, Any]

MODEL_LABEL = "ergon.dev/model"
NAMESPACE_LABEL = "ergon.dev/namespace"
CHILD_KINDS = ("Service", "EndpointSlice", "HTTPRoute")


@dataclass(slots=True)
class ModelRecord:
    """One SpecializedModel: what it says, or why it cannot be understood, and the status it has now."""

    key: ModelKey
    uid: str
    generation: int
    resource_version: str
    model: Model | None
    refusal: Refusal | None
    status: Object
    task: str = ""
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def may_sleep(self) -> bool:
        """Whether it says that it needs no replica while nobody asks."""
        return self.model is not None and self.model.min_replicas == 0 and self.model.fixed_replicas is None


@dataclass(slots=True)
class PoolRecord:
    """One AcceleratorPool. `spec` and `pool` are None where it cannot be understood."""

    name: str
    uid: str
    generation: int
    spec: AcceleratorPoolSpec | None
    pool: Pool | None
    refusal: Refusal | None
    status: Object
    finalizers: tuple[str, ...]
    deleting: bool


@dataclass(slots=True)
class BudgetRecord:
    """One EnergyBudget. `spec` is None where it cannot be understood."""

    name: str
    uid: str
    generation: int
    spec: EnergyBudgetSpec | None
    refusal: Refusal | None
    status: Object


@dataclass
class Cache:
    """All objects the operator cares for, by identity, and what has changed since the loop last looked."""

    models: dict[ModelKey, ModelRecord] = field(default_factory=dict)
    pools: dict[str, PoolRecord] = field(default_factory=dict)
    budgets: dict[str, BudgetRecord] = field(default_factory=dict)
    routes: dict[ModelKey, RouteRecord] = field(default_factory=dict)
    gateways: tuple[GatewayPod, ...] = ()
    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)
    terminating: set[str] = field(default_factory=set)
    nodes: dict[str, NodeRecord] = field(default_factory=dict)
    pods: dict[ServerKey, PodRecord] = field(default_factory=dict)
    statefulsets: dict[str, Object] = field(default_factory=dict)
    children: dict[ModelKey, dict[tuple[str, str], Object]] = field(default_factory=dict)
    dirty_models: set[ModelKey] = field(default_factory=set)
    dirty_pools: set[str] = field(default_factory=set)
    dirty_budgets: set[str] = field(default_factory=set)
    dirty_routes: set[ModelKey] = field(default_factory=set)
    plan_version: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _versions: dict[str, int] = field(default_factory=dict)
    _held: dict[str, dict[tuple[str, str], Object]] = field(default_factory=dict)
    _gateway_slices: dict[str, Object] = field(default_factory=dict)

    # What the edge calls

    def put(self, kind: str, obj: Object) -> None:
        """Take in an object as the API server shows it, unless a newer one is held; unknown kinds are ignored."""
        uid, version = obj["metadata"].get("uid", ""), str(obj["metadata"].get("resourceVersion", ""))
        if version.isdecimal():
            if int(version) < self._versions.get(uid, 0):
                return
            self._versions[uid] = int(version)
        self._held.setdefault(kind, {})[_name_of(obj)] = _stub(obj)
        match kind:
            case "SpecializedModel":
                self._put_model(obj)
            case "AcceleratorPool":
                self._put_pool(obj)
            case "EnergyBudget":
                self._put_budget(obj)
            case "TaskRoute":
                self._put_route(obj)
            case "GatewaySlice":
                self._gateway_slices[obj["metadata"]["name"]] = obj
                self._count_gateways()
            case "Namespace":
                self._put_namespace(obj)
            case "Node":
                self._put_node(obj)
            case "Pod":
                self._put_pod(obj)
            case "StatefulSet":
                if pool := _label(obj, POOL_LABEL):
                    self.statefulsets[pool] = _slim(obj)
                    self.wake(pools=[pool])
            case _ if kind in CHILD_KINDS:
                if (key := _model_of(obj)) is not None:
                    self.children.setdefault(key, {})[kind, obj["metadata"]["name"]] = _slim(obj)
                    self.wake(models=[key])

    def drop(self, kind: str, obj: Object) -> None:
        """Forget an object that is gone, unless another one has its name by now."""
        uid, name = obj["metadata"].get("uid", ""), obj["metadata"]["name"]
        self._versions.pop(uid, None)
        held = self._held.get(kind, {}).get(_name_of(obj))
        if held is None or held["metadata"]["uid"] != uid:
            return
        del self._held[kind][_name_of(obj)]
        match kind:
            case "SpecializedModel":
                key = ModelKey(obj["metadata"]["namespace"], name)
                if self.models.pop(key, None) is not None:
                    self.wake(models=[key], routes=self.routes_of(key.namespace), plan=True)
            case "AcceleratorPool":
                if self.pools.pop(name, None) is not None:
                    self.wake(pools=[name], plan=True)
            case "EnergyBudget":
                self.budgets.pop(name, None)
                self.wake(budgets=[name], plan=True)
            case "TaskRoute":
                self.routes.pop(ModelKey(obj["metadata"]["namespace"], name), None)
                self.wake(routes=self.routes_of(obj["metadata"]["namespace"]))
            case "GatewaySlice":
                self._gateway_slices.pop(name, None)
                self._count_gateways()
            case "Namespace":
                self.namespaces.pop(name, None)
                self.terminating.discard(name)
                self.wake(plan=True)
            case "Node":
                self.nodes.pop(name, None)
                self.wake(pools=self.pools, plan=True)
            case "Pod":
                self._drop_pod(obj)
            case "StatefulSet":
                if (pool := _label(obj, POOL_LABEL)) and self.statefulsets.pop(pool, None) is not None:
                    self.wake(pools=[pool])
            case _ if kind in CHILD_KINDS:
                key_of_child = _model_of(obj)
                if key_of_child is not None and self.children.get(key_of_child, {}).pop((kind, name), None) is not None:
                    self.wake(models=[key_of_child])

    def wake(
        self,
        *,
        models: Iterable[ModelKey] = (),
        pools: Iterable[str] = (),
        budgets: Iterable[str] = (),
        routes: Iterable[ModelKey] = (),
        plan: bool = False,
    ) -> None:
        """Have the loop look at these again; `plan`: what a plan is made from has changed."""
        self.dirty_models.update(models)
        self.dirty_pools.update(pools)
        self.dirty_budgets.update(budgets)
        self.dirty_routes.update(routes)
        if plan:
            self.plan_version += 1
        self.changed.set()

    def uids(self, kind: str) -> set[str]:
        """The uids of all objects held of a kind."""
        return {held["metadata"]["uid"] for held in self._held.get(kind, {}).values()}

    def missing(self, kind: str, listed: Iterable[Object]) -> list[Object]:
        """Objects that are held but were not listed: their deletion was never told (kopf relists without saying so)."""
        uids = {obj["metadata"]["uid"] for obj in listed}
        return [held for held in self._held.get(kind, {}).values() if held["metadata"]["uid"] not in uids]

    # Parsing, kind by kind

    def _put_model(self, obj: Object) -> None:
        metadata = obj["metadata"]
        key = ModelKey(metadata["namespace"], metadata["name"])
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            return self.drop("SpecializedModel", obj)
        old = self.models.get(key)
        if old is not None and old.resource_version == metadata.get("resourceVersion"):
            return None
        generation = int(metadata.get("generation", 0))
        same_spec = old is not None and old.uid == metadata["uid"] and old.generation == generation
        if same_spec and old is not None:
            old.resource_version = metadata.get("resourceVersion", "")
            old.status = obj.get("status") or {}
            labels = dict(metadata.get("labels") or {})
            self.wake(models=[key], routes=self.routes_of(key.namespace) if labels != old.labels else ())
            old.labels = labels
            return None
        model, refusal, task = _parsed_model(key, metadata["uid"], generation, obj)
        self.models[key] = ModelRecord(
            key,
            metadata["uid"],
            generation,
            metadata.get("resourceVersion", ""),
            model,
            refusal,
            obj.get("status") or {},
            task,
            dict(metadata.get("labels") or {}),
        )
        self.wake(models=[key], routes=self.routes_of(key.namespace), plan=True)
        return None

    def _put_route(self, obj: Object) -> None:
        record = route_record(obj)
        old = self.routes.get(record.key)
        self.routes[record.key] = record
        changed = old is None or old.generation != record.generation
        self.wake(routes=self.routes_of(record.key.namespace) if changed else [record.key])

    def routes_of(self, namespace: str) -> list[ModelKey]:
        """A namespace's routes: each may lean on its models and on its other routes."""
        return [key for key in self.routes if key.namespace == namespace]

    def _count_gateways(self) -> None:
        pods = gateway_pods(self._gateway_slices.values())
        if pods != self.gateways:
            self.gateways = pods
            self.wake(models=(key for key, record in self.models.items() if record.may_sleep), routes=self.routes)

    def _put_pool(self, obj: Object) -> None:
        metadata = obj["metadata"]
        name, deleting = metadata["name"], bool(metadata.get("deletionTimestamp"))
        old = self.pools.get(name)
        parsed = parse_pool(obj)
        refusal = Refusal("InvalidSpec", parsed.message) if isinstance(parsed, InvalidObject) else None
        spec = None if isinstance(parsed, InvalidObject) else parsed
        generation = int(metadata.get("generation", 0))
        labels = dict(metadata.get("labels") or {})
        pool = None if spec is None else build_pool(name, metadata["uid"], generation, labels, spec, deleting=deleting)
        self.pools[name] = PoolRecord(
            name,
            metadata["uid"],
            generation,
            spec,
            pool,
            refusal,
            obj.get("status") or {},
            tuple(metadata.get("finalizers") or ()),
            deleting,
        )
        changed = (
            old is None or old.pool != pool or (old.pool is not None and pool is not None and old.pool.labels != pool.labels)
        )
        self.wake(pools=[name], plan=changed)

    def _put_budget(self, obj: Object) -> None:
        metadata = obj["metadata"]
        name, generation, old = metadata["name"], int(metadata.get("generation", 0)), self.budgets.get(metadata["name"])
        parsed = parse_budget(obj)
        refusal = Refusal("InvalidSpec", parsed.message) if isinstance(parsed, InvalidObject) else None
        spec = None if isinstance(parsed, InvalidObject) else parsed
        self.budgets[name] = BudgetRecord(name, metadata["uid"], generation, spec, refusal, obj.get("status") or {})
        self.wake(budgets=[name], plan=old is None or old.spec != spec)

    def _put_namespace(self, obj: Object) -> None:
        name = obj["metadata"]["name"]
        labels = dict(obj["metadata"].get("labels") or {})
        going = bool(obj["metadata"].get("deletionTimestamp"))
        changed = self.namespaces.get(name) != labels or going != (name in self.terminating)
        self.namespaces[name] = labels
        (self.terminating.add if going else self.terminating.discard)(name)
        if changed:
            self.wake(plan=True)

    def _put_node(self, obj: Object) -> None:
        record = node_record(obj)
        if self.nodes.get(record.name) != record:
            self.nodes[record.name] = record
            self.wake(pools=self.pools, plan=True)

    def _put_pod(self, obj: Object) -> None:
        record = pod_record(obj)
        if record is None:
            return
        old = self.pods.get(record.key)
        if old == record:
            return
        self.pods[record.key] = record
        self.wake(pools=[record.key.pool], plan=old is None or old.deleting != record.deleting or old.uid != record.uid)

    def _drop_pod(self, obj: Object) -> None:
        for key, pod in list(self.pods.items()):
            if pod.uid == obj["metadata"]["uid"]:
                del self.pods[key]
                self.wake(pools=[key.pool], plan=True)


def _parsed_model(key: ModelKey, uid: str, generation: int, obj: Object) -> tuple[Model | None, Refusal | None, str]:
    """The model, what is against it, and its task."""
    parsed = parse_model(obj)
    if isinstance(parsed, InvalidObject):
        return None, Refusal("InvalidSpec", parsed.message), ""
    return build_model(key, uid, generation, parsed), None, parsed.task


def _name_of(obj: Object) -> tuple[str, str]:
    return obj["metadata"].get("namespace") or "", obj["metadata"]["name"]


def _stub(obj: Object) -> Object:
    """As much of an object as it takes to forget it."""
    metadata = obj["metadata"]
    return {"metadata": {part: metadata[part] for part in ("namespace", "name", "uid", "labels") if part in metadata}}


def _label(obj: Object, name: str) -> str:
    return str((obj["metadata"].get("labels") or {}).get(name, ""))


def _model_of(obj: Object) -> ModelKey | None:
    name = _label(obj, MODEL_LABEL)
    namespace = obj["metadata"].get("namespace")
    return ModelKey(namespace, name) if name and namespace else None


def _slim(obj: Object) -> Object:
    """Without the field ownership record, which is most of an object's size and nothing the loop reads."""
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "metadata": metadata}
