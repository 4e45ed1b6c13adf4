"""What a model is reached by: a Service, its EndpointSlices, and routes on the Gateway."""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ergon.kube.builders.common import Object, Owner, metadata, model_labels
from ergon.kube.builders.server import GRPC_PORT, HTTP_PORT
from ergon.kube.builders.settings import GatewaySettings

SLICE_SIZE = 100
SLICE_MANAGER = "ergon.dev"
ASLEEP_LABEL = "ergon.dev/asleep"
ROUTE_HEADER = "ergon-model"
GRPC_SERVICE = "inference.GRPCInferenceService"


@dataclass(frozen=True, order=True)
class Endpoint:
    """A server on which the model is ready. `namespace` is the pod's own, the operator's."""

    pod: str
    pod_uid: str
    ip: str
    namespace: str
    node: str = ""
    zone: str = ""


def model_service(namespace: str, name: str, owner: Owner | None = None) -> Object:
    """The Service of the model's name. No selector: who is ready is Ergon's to say, by EndpointSlices."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(name, namespace, model_labels(namespace, name), owner),
        "spec": {
            "type": "ClusterIP",
            "ports": [
                {"name": "http", "port": HTTP_PORT, "targetPort": HTTP_PORT, "protocol": "TCP", "appProtocol": "http"},
                {
                    "name": "grpc",
                    "port": GRPC_PORT,
                    "targetPort": GRPC_PORT,
                    "protocol": "TCP",
                    "appProtocol": "kubernetes.io/h2c",
                },
            ],
        },
    }


def endpoint_slices(
    namespace: str,
    name: str,
    endpoints: Iterable[Endpoint],
    owner: Owner | None = None,
    *,
    hint_zones: bool = False,
    asleep: bool = False,
) -> list[Object]:
    """The model's slices: at most 100 endpoints each, in pod order, at least one (empty where nothing is ready).

    Slices of the model that are not among these are to be deleted. `hint_zones` keeps traffic within its zone where every
    endpoint's zone is known; off, since a plan counts on replicas sharing a model's demand evenly. `asleep`: the endpoints are
    the gateway's pods, which wake the model; a label tells them from servers.
    """
    ordered = sorted(endpoints)
    by_family = {
        "IPv4": [endpoint for endpoint in ordered if ipaddress.ip_address(endpoint.ip).version == 4],
        "IPv6": [endpoint for endpoint in ordered if ipaddress.ip_address(endpoint.ip).version == 6],
    }
    hinted = hint_zones and all(endpoint.zone for endpoint in ordered)
    more = {ASLEEP_LABEL: "true"} if asleep else {}
    slices = []
    for family, members in by_family.items():
        # A dot cannot stand in a model's name, so no two models' slices can meet.
        prefix = name if family == "IPv4" else f"{name}.ipv6"
        chunks = [members[start : start + SLICE_SIZE] for start in range(0, len(members), SLICE_SIZE)]
        slices += [
            _slice(namespace, name, f"{prefix}-{number}", family, chunk, owner, hinted, more)
            for number, chunk in enumerate(chunks)
        ]
    return slices or [_slice(namespace, name, f"{name}-0", "IPv4", [], owner, False, more)]


def _slice(
    namespace: str,
    model: str,
    name: str,
    family: str,
    members: Sequence[Endpoint],
    owner: Owner | None,
    hinted: bool,
    more: Mapping[str, str],
) -> Object:
    labels = {
        **model_labels(namespace, model),
        **more,
        "kubernetes.io/service-name": model,
        "endpointslice.kubernetes.io/managed-by": SLICE_MANAGER,
    }
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata(name, namespace, labels, owner),
        "addressType": family,
        "ports": [
            {"name": "http", "port": HTTP_PORT, "protocol": "TCP", "appProtocol": "http"},
            {"name": "grpc", "port": GRPC_PORT, "protocol": "TCP", "appProtocol": "kubernetes.io/h2c"},
        ],
        "endpoints": [_endpoint(member, hinted) for member in members],
    }


def _endpoint(member: Endpoint, hinted: bool) -> Object:
    return {
        "addresses": [member.ip],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "targetRef": {"kind": "Pod", "namespace": member.namespace, "name": member.pod, "uid": member.pod_uid},
        **({"nodeName": member.node} if member.node else {}),
        **({"zone": member.zone} if member.zone else {}),
        **({"hints": {"forZones": [{"name": member.zone}]}} if hinted else {}),
    }


def http_route(namespace: str, name: str, gateway: GatewaySettings, owner: Owner | None = None) -> Object:
    """The model on the Gateway: by the path that KServe v2 clients use anyway, and for gRPC by a header that names the model.

    One HTTPRoute for both: the Gateway API lets no GRPCRoute share a listener's host names with an HTTPRoute.
    """
    served = f"{namespace}.{name}"
    by_path = {"path": {"type": "PathPrefix", "value": f"/v2/models/{served}"}}
    by_header = {
        "path": {"type": "PathPrefix", "value": f"/{GRPC_SERVICE}"},
        "headers": [{"type": "Exact", "name": ROUTE_HEADER, "value": served}],
    }
    parent = {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "namespace": gateway.namespace,
        "name": gateway.name,
        **({"sectionName": gateway.section} if gateway.section else {}),
    }
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata(name, namespace, model_labels(namespace, name), owner),
        "spec": {
            "parentRefs": [parent],
            **({"hostnames": list(gateway.hostnames)} if gateway.hostnames else {}),
            "rules": [_rule(name, by_path, HTTP_PORT), _rule(name, by_header, GRPC_PORT)],
        },
    }


def _rule(service: str, match: Object, port: int) -> Object:
    return {"matches": [match], "backendRefs": [{"group": "", "kind": "Service", "name": service, "port": port, "weight": 1}]}
