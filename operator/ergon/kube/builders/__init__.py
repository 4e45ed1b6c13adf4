"""Child objects of pools and models as plain dicts: pure, typed on the way in, the same bytes for the same input.

In: parsed specs, names and settings. Out: objects ready for server-side apply, or TemplateRefused.
"""

from ergon.kube.builders.common import Owner, key_secret_name, model_labels, pool_labels, pool_selector, server_set_name
from ergon.kube.builders.model import Endpoint, endpoint_slices, http_route, model_service
from ergon.kube.builders.pool import disruption_budget, headless_service, key_secret, network_policy
from ergon.kube.builders.server import TEMPLATE_HASH, pod_template, server_statefulset, template_hash
from ergon.kube.builders.settings import GatewaySettings, Scraper, ServerSettings
from ergon.kube.builders.template import TemplateRefused

__all__ = [
    "TEMPLATE_HASH",
    "Endpoint",
    "GatewaySettings",
    "Owner",
    "Scraper",
    "ServerSettings",
    "TemplateRefused",
    "disruption_budget",
    "endpoint_slices",
    "headless_service",
    "http_route",
    "key_secret",
    "key_secret_name",
    "model_labels",
    "model_service",
    "network_policy",
    "pod_template",
    "pool_labels",
    "pool_selector",
    "server_set_name",
    "server_statefulset",
    "template_hash",
]
