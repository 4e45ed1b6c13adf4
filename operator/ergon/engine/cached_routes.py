"""What the cache holds of TaskRoutes, and of the pods of the gateway that serves them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ergon.api.parse import InvalidObject, parse_route
from ergon.api.route import TaskRouteSpec
from ergon.fleet.types import ModelKey
from ergon.reconcile.observed import Refusal

Object = dict[str, Any]


@dataclass(slots=True)
class RouteRecord:
    """One TaskRoute. `spec` is None where it cannot be understood."""

    key: ModelKey
    uid: str
    generation: int
    spec: TaskRouteSpec | None
    refusal: Refusal | None
    status: Object


@dataclass(frozen=True, slots=True, order=True)
class GatewayPod:
    """A pod of the gateway that is ready."""

    name: str
    uid: str
    ip: str
    namespace: str
    node: str = ""
    zone: str = ""


def route_record(obj: Object) -> RouteRecord:
    """A TaskRoute as the API server shows it."""
    metadata, parsed = obj["metadata"], parse_route(obj)
    key = ModelKey(metadata["namespace"], metadata["name"])
    generation, status = int(metadata.get("generation", 0)), obj.get("status") or {}
    if isinstance(parsed, InvalidObject):
        return RouteRecord(key, metadata["uid"], generation, None, Refusal("InvalidSpec", parsed.message), status)
    return RouteRecord(key, metadata["uid"], generation, parsed, None, status)


def gateway_pods(slices: Iterable[Object]) -> tuple[GatewayPod, ...]:
    """The ready pods that the EndpointSlices of the gateway's Service name; Kubernetes keeps those up to date."""
    found: dict[str, GatewayPod] = {}
    for piece in slices:
        for endpoint in piece.get("endpoints") or ():
            target, addresses = endpoint.get("targetRef") or {}, endpoint.get("addresses") or ()
            if addresses and target.get("uid") and (endpoint.get("conditions") or {}).get("ready", True) is not False:
                # A pod of two families stands in two slices: one address is enough to reach it.
                found.setdefault(
                    target["uid"],
                    GatewayPod(
                        target.get("name", ""),
                        target["uid"],
                        addresses[0],
                        target.get("namespace", ""),
                        endpoint.get("nodeName") or "",
                        endpoint.get("zone") or "",
                    ),
                )
    return tuple(sorted(found.values()))
