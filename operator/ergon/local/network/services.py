"""The table of Services and their endpoints that the proxy and the name server read; no I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]
SERVICE_LABEL = "kubernetes.io/service-name"


@dataclass(frozen=True)
class Endpoint:
    """One address of a service port. `serving` alone is used only when no endpoint is ready, as kube-proxy does."""

    address: str
    port: int
    ready: bool
    serving: bool = False
    hostname: str = ""


@dataclass(frozen=True)
class ServicePort:
    """A TCP port that a cluster address listens on."""

    address: str
    port: int


@dataclass
class Service:
    """One Service with what its slices say."""

    namespace: str
    name: str
    address: str = ""
    """The cluster address; empty for a headless service."""
    external_name: str = ""
    exists: bool = False
    publish_not_ready: bool = False
    ports: dict[str, int] = field(default_factory=dict)
    """Port numbers by port name, TCP only."""
    slices: dict[str, dict[str, list[Endpoint]]] = field(default_factory=dict)
    """Endpoints by port name, by slice."""

    def endpoints(self, port_name: str) -> list[Endpoint]:
        """Those a new connection may go to: the ready ones, else the ones that still serve while they terminate."""
        found = [endpoint for ports in self.slices.values() for endpoint in ports.get(port_name, [])]
        ready = [endpoint for endpoint in found if endpoint.ready]
        return ready or [endpoint for endpoint in found if endpoint.serving]

    def addresses(self) -> dict[str, set[str]]:
        """Ready addresses by host name (empty for none), over all ports: what a headless name answers."""
        found: dict[str, set[str]] = {}
        for ports in self.slices.values():
            for endpoints in ports.values():
                for endpoint in endpoints:
                    if endpoint.ready or self.publish_not_ready:
                        found.setdefault(endpoint.hostname, set()).add(endpoint.address)
        return found


class ServiceTable:
    """All services; `changed` is called with each service whose ports or endpoints may differ now."""

    def __init__(self, changed: Callable[[Service], None]) -> None:
        self._changed = changed
        self._services: dict[tuple[str, str], Service] = {}
        self._slice_owners: dict[str, tuple[str, str]] = {}

    def find(self, namespace: str, name: str) -> Service | None:
        found = self._services.get((namespace, name))
        return found if found is not None and found.exists else None

    def service_changed(self, old: Object | None, new: Object | None) -> None:
        """Informer callback for Services."""
        item = new or old
        assert item is not None
        service = self._entry(item["metadata"]["namespace"], item["metadata"]["name"])
        spec = item["spec"]
        service.exists = new is not None
        address = spec.get("clusterIP", "") if new else ""
        service.address = "" if address == "None" else address
        service.external_name = spec.get("externalName", "") if new else ""
        service.publish_not_ready = bool(spec.get("publishNotReadyAddresses"))
        service.ports = {
            port.get("name", ""): port["port"]
            for port in (spec.get("ports") or [] if new else [])
            if port.get("protocol", "TCP") == "TCP"
        }
        self._settle(service)

    def slice_changed(self, old: Object | None, new: Object | None) -> None:
        """Informer callback for EndpointSlices."""
        item = new or old
        assert item is not None
        namespace, name = item["metadata"]["namespace"], item["metadata"]["name"]
        key = f"{namespace}/{name}"
        before = self._slice_owners.pop(key, None)
        owner = (item["metadata"].get("labels") or {}).get(SERVICE_LABEL)
        if before is not None and (new is None or before != (namespace, owner)):
            service = self._entry(*before)
            service.slices.pop(key, None)
            self._settle(service)
        if new is None or owner is None or item.get("addressType") != "IPv4":
            return
        self._slice_owners[key] = (namespace, owner)
        service = self._entry(namespace, owner)
        service.slices[key] = endpoints_of(item)
        self._settle(service)

    def _entry(self, namespace: str, name: str) -> Service:
        return self._services.setdefault((namespace, name), Service(namespace, name))

    def _settle(self, service: Service) -> None:
        self._changed(service)
        if not service.exists and not service.slices:
            self._services.pop((service.namespace, service.name), None)


def endpoints_of(item: Object) -> dict[str, list[Endpoint]]:
    """The endpoints of an EndpointSlice by port name; a slice without ports gives its addresses under an empty name."""
    ports = [port for port in item.get("ports") or [] if port.get("protocol", "TCP") == "TCP"]
    numbers = [(port.get("name") or "", port.get("port") or 0) for port in ports] or [("", 0)]
    found: dict[str, list[Endpoint]] = {name: [] for name, _ in numbers}
    for endpoint in item.get("endpoints") or []:
        conditions = endpoint.get("conditions") or {}
        ready = conditions.get("ready") is not False
        serving = ready if conditions.get("serving") is None else bool(conditions["serving"])
        for name, number in numbers:
            for address in endpoint["addresses"][:1]:
                found[name].append(Endpoint(address, number, ready, serving, endpoint.get("hostname") or ""))
    return found
