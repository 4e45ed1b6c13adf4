"""Where each kind lives in the API: group, version, plural and scope. Pure."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote


@dataclass(frozen=True)
class Resource:
    """One kind as the API server addresses it."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of a collection, an object or a subresource. Without a namespace: the collection of all namespaces."""
        root = f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"
        parts = [root]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        elif self.namespaced and name:
            raise ValueError(f"{self.kind} {name} needs a namespace")
        parts.append(self.plural)
        parts += [quote(part, safe="") for part in (name, subresource) if part]
        return "/".join(parts)


def _of(api_version: str, plurals: dict[str, str], *, namespaced: bool = True) -> list[Resource]:
    return [Resource(api_version, kind, plural, namespaced) for kind, plural in plurals.items()]


_RESOURCES = [
    *_of(
        "v1",
        {
            "Pod": "pods",
            "Service": "services",
            "Secret": "secrets",
            "ConfigMap": "configmaps",
            "ServiceAccount": "serviceaccounts",
            "PersistentVolumeClaim": "persistentvolumeclaims",
        },
    ),
    *_of("v1", {"Node": "nodes", "Namespace": "namespaces"}, namespaced=False),
    *_of("apps/v1", {"StatefulSet": "statefulsets", "Deployment": "deployments"}),
    *_of("policy/v1", {"PodDisruptionBudget": "poddisruptionbudgets"}),
    *_of("networking.k8s.io/v1", {"NetworkPolicy": "networkpolicies"}),
    *_of("discovery.k8s.io/v1", {"EndpointSlice": "endpointslices"}),
    *_of("coordination.k8s.io/v1", {"Lease": "leases"}),
    *_of("events.k8s.io/v1", {"Event": "events"}),
    *_of("gateway.networking.k8s.io/v1", {"Gateway": "gateways", "HTTPRoute": "httproutes"}),
    *_of("gateway.networking.k8s.io/v1", {"GatewayClass": "gatewayclasses"}, namespaced=False),
    *_of("rbac.authorization.k8s.io/v1", {"Role": "roles", "RoleBinding": "rolebindings"}),
    *_of(
        "rbac.authorization.k8s.io/v1",
        {"ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings"},
        namespaced=False,
    ),
    *_of("authorization.k8s.io/v1", {"SelfSubjectAccessReview": "selfsubjectaccessreviews"}, namespaced=False),
    *_of("authentication.k8s.io/v1", {"TokenReview": "tokenreviews"}, namespaced=False),
    *_of("apiextensions.k8s.io/v1", {"CustomResourceDefinition": "customresourcedefinitions"}, namespaced=False),
    *_of("ergon.dev/v1alpha1", {"AcceleratorPool": "acceleratorpools", "EnergyBudget": "energybudgets"}, namespaced=False),
    *_of("ergon.dev/v1alpha1", {"SpecializedModel": "specializedmodels", "TaskRoute": "taskroutes"}),
]
_BY_KIND = {(resource.api_version, resource.kind): resource for resource in _RESOURCES}


def resource_of(api_version: str, kind: str) -> Resource:
    """The resource of a kind. Raises ValueError for a kind that Ergon has no business with."""
    try:
        return _BY_KIND[api_version, kind]
    except KeyError:
        raise ValueError(f"Ergon does not know the kind {kind} of {api_version}") from None


def name_of(obj: dict[str, Any]) -> str:
    """`kind namespace/name` of an object, for messages."""
    metadata = obj.get("metadata") or {}
    parts = [part for part in (metadata.get("namespace"), metadata.get("name") or metadata.get("generateName")) if part]
    return f"{obj.get('kind', 'object')} {'/'.join(parts)}"
