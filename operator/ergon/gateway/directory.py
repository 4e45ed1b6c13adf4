"""What the gateway knows: models, routes and where models answer, as the API server last said. Nothing here asks anybody.

An outage of the API server leaves it as it was. What depends on several objects is put together when it is asked for, and kept
until one of them changes.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ergon.gateway.routes import Model, Route, model_of, route_of

Object = Mapping[str, Any]
MODEL, ROUTE, SLICE = "SpecializedModel", "TaskRoute", "EndpointSlice"
KINDS = (MODEL, ROUTE, SLICE)
_MODEL_LABEL, _ASLEEP_LABEL = "ergon.dev/model", "ergon.dev/asleep"


class Directory:
    """Kept by `put`, `drop` and `replace`; read by everything else. `listeners` are called with the served name of a model of
    which something changed."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[str], None]] = []
        self._objects: dict[str, dict[tuple[str, str], Object]] = {kind: {} for kind in KINDS}
        self._models: dict[str, dict[str, Model]] = {}
        """By namespace and name."""
        self._routes: dict[tuple[str, str], Route] = {}
        self._slices: dict[str, dict[tuple[str, str], Object]] = {}
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._asleep: set[str] = set()

    # Reading

    def model(self, served: str) -> Model | None:
        """A model by its served name."""
        namespace, _, name = served.partition(".")
        return self._models.get(namespace, {}).get(name)

    def addresses(self, served: str) -> tuple[str, ...]:
        """IP addresses of the servers on which a model answers."""
        return self._addresses.get(served, ())

    def asleep(self, served: str) -> bool:
        """Whether a model sleeps: by its condition, or because its Service points at gateways."""
        if self._addresses.get(served):
            return False
        model = self.model(served)
        return served in self._asleep or (model is not None and model.asleep)

    def route(self, namespace: str, name: str) -> Route | None:
        """A route with its candidates."""
        key = (namespace, name)
        found = self._routes.get(key)
        if found is None and (obj := self._objects[ROUTE].get(key)) is not None:
            found = self._routes[key] = route_of(obj, self._models.get(namespace, {}).values())
        return found

    def routes(self) -> list[Route]:
        """All routes."""
        return [route for key in sorted(self._objects[ROUTE]) if (route := self.route(*key)) is not None]

    def names(self, kind: str) -> set[tuple[str, str]]:
        """Namespace and name of every object of a kind."""
        return set(self._objects[kind])

    def all_addresses(self) -> set[str]:
        """IP addresses of all servers that some model answers on."""
        return {address for addresses in self._addresses.values() for address in addresses}

    # Keeping

    def put(self, kind: str, obj: Object) -> None:
        """An object is new or has changed."""
        key = _key(obj)
        self._objects[kind][key] = obj
        if kind == MODEL:
            self._put_model(model_of(obj))
        elif kind == ROUTE:
            self._routes.pop(key, None)
        elif served := _served(obj):
            self._slices.setdefault(served, {})[key] = obj
            self._reckon(served)

    def drop(self, kind: str, obj: Object) -> None:
        """An object is gone."""
        self._forget(kind, _key(obj))

    def replace(self, kind: str, objects: Iterable[Object], namespace: str | None = None) -> None:
        """All objects of a kind, in one namespace or all, listed anew: what is not among them is gone."""
        listed = {_key(obj): obj for obj in objects}
        for key in self._objects[kind].keys() - listed.keys():
            if namespace is None or key[0] == namespace:
                self._forget(kind, key)
        for key, obj in listed.items():
            if _version(self._objects[kind].get(key)) != _version(obj):
                self.put(kind, obj)

    def _forget(self, kind: str, key: tuple[str, str]) -> None:
        obj = self._objects[kind].pop(key, None)
        if obj is None:
            return
        if kind == MODEL:
            served = f"{key[0]}.{key[1]}"
            self._models.get(key[0], {}).pop(key[1], None)
            self._without_routes_of(key[0])
            self._tell(served)
        elif kind == ROUTE:
            self._routes.pop(key, None)
        elif served := _served(obj):
            self._slices.get(served, {}).pop(key, None)
            self._reckon(served)

    def _put_model(self, model: Model) -> None:
        of_namespace = self._models.setdefault(model.namespace, {})
        before = of_namespace.get(model.name)
        of_namespace[model.name] = model
        if before is None or (before.task, before.labels, before.quality) != (model.task, model.labels, model.quality):
            self._without_routes_of(model.namespace)
        if before != model:
            self._tell(model.served)

    def _without_routes_of(self, namespace: str) -> None:
        for key in [key for key in self._routes if key[0] == namespace]:
            del self._routes[key]

    def _reckon(self, served: str) -> None:
        """Where a model answers, from all its slices."""
        slices = self._slices.get(served, {}).values()
        servers = [piece for piece in slices if not _sleeps(piece)]
        found = tuple(sorted({address for piece in servers for address in _ready_addresses(piece)}))
        if found:
            self._addresses[served] = found
        else:
            self._addresses.pop(served, None)
        if any(_sleeps(piece) for piece in slices):
            self._asleep.add(served)
        else:
            self._asleep.discard(served)
        if not slices:
            self._slices.pop(served, None)
        self._tell(served)

    def _tell(self, served: str) -> None:
        for listener in self.listeners:
            listener(served)


def _key(obj: Object) -> tuple[str, str]:
    metadata = obj.get("metadata") or {}
    return str(metadata.get("namespace", "")), str(metadata.get("name", ""))


def _version(obj: Object | None) -> Any:
    return None if obj is None else (obj.get("metadata") or {}).get("resourceVersion")


def _labels(obj: Object) -> Mapping[str, str]:
    return (obj.get("metadata") or {}).get("labels") or {}


def _served(obj: Object) -> str:
    """The model it belongs to: of its own namespace, whatever its labels say, so that nobody can take another's requests."""
    model = _labels(obj).get(_MODEL_LABEL)
    return f"{_key(obj)[0]}.{model}" if model else ""


def _sleeps(obj: Object) -> bool:
    return _labels(obj).get(_ASLEEP_LABEL) == "true"


def _ready_addresses(obj: Object) -> list[str]:
    found = []
    for endpoint in obj.get("endpoints") or ():
        # Absent means ready (discovery.k8s.io/v1, EndpointConditions).
        if (endpoint.get("conditions") or {}).get("ready") is not False:
            found += [str(address) for address in (endpoint.get("addresses") or ())[:1]]
    return found
