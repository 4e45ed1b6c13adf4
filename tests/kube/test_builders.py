"""What stands beside a pool's servers, and what a model is reached by."""

import base64
import json
from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from ergon.kube.builders import (
    Endpoint,
    disruption_budget,
    endpoint_slices,
    headless_service,
    http_route,
    key_secret,
    model_labels,
    model_service,
    network_policy,
    pool_selector,
)
from ergon.kube.keys import KeyMaterial
from ergon.store import addresses
from tests.kube.objects import (
    ENDPOINTS,
    GATEWAY,
    MATERIAL,
    MODEL_OWNER,
    POOL_OWNER,
    SETTINGS,
    Object,
    model_objects,
    pool_objects,
    pool_spec,
)


def test_every_child_goes_with_its_owner() -> None:
    for objects, owner in ((pool_objects(pool_spec()), POOL_OWNER), (model_objects(), MODEL_OWNER)):
        for obj in objects:
            (reference,) = obj["metadata"]["ownerReferences"]
            assert (reference["kind"], reference["name"], reference["uid"]) == (owner.kind, owner.name, owner.uid)
            assert reference["controller"] is True
            assert "blockOwnerDeletion" not in reference
            assert obj["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "ergon"


def test_the_headless_service_names_pods_that_are_not_ready_too() -> None:
    spec = headless_service("l4", SETTINGS)["spec"]
    assert (spec["clusterIP"], spec["publishNotReadyAddresses"]) == ("None", True)
    assert {port["name"]: port["port"] for port in spec["ports"]} == {"http": 8000, "grpc": 8001, "metrics": 8002, "store": 5572}


def test_no_server_is_ever_evicted() -> None:
    spec = disruption_budget("l4", SETTINGS)["spec"]
    assert (spec["maxUnavailable"], spec["selector"]["matchLabels"]) == (0, pool_selector("l4"))


def test_the_secret_holds_the_material_and_gives_it_back() -> None:
    secret = key_secret("l4", SETTINGS, MATERIAL)
    assert set(secret["data"]) == {"ergon-key", "rclone-user", "rclone-password", "tls.crt", "tls.key"}
    assert base64.b64decode(secret["data"]["ergon-key"]).decode() == MATERIAL.admin_key
    assert KeyMaterial.from_secret(secret) == MATERIAL


def rules(policy: Object, port: int) -> list[Object]:
    return [rule for rule in policy["spec"]["ingress"] if port in [item["port"] for item in rule["ports"]]]


def test_only_the_operator_and_named_scrapers_reach_metrics_and_store() -> None:
    policy = network_policy("l4", SETTINGS)
    for port in (8000, 8001):
        assert "from" not in rules(policy, port)[0]
    (metrics,), (store,) = rules(policy, 8002), rules(policy, 5572)
    labels = {"app.kubernetes.io/name": "ergon", "app.kubernetes.io/component": "operator"}
    operator = {"podSelector": {"matchLabels": labels}}
    assert store["from"] == [operator]
    assert metrics["from"] == [
        operator,
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},
            "podSelector": {"matchLabels": {"app": "prometheus"}},
        },
    ]


def test_servers_do_not_reach_the_cloud_s_identity_service() -> None:
    blocks = [
        item["ipBlock"]
        for rule in network_policy("l4", SETTINGS)["spec"]["egress"]
        for item in rule.get("to", ())
        if "ipBlock" in item
    ]
    open_to = [(ip_network(block["cidr"]), [ip_network(left_out) for left_out in block["except"]]) for block in blocks]

    def reached(text: str) -> bool:
        address = ip_address(text)
        return any(address in inside and not any(address in out for out in left_out) for inside, left_out in open_to)

    known = [str(address) for address in addresses._METADATA]  # what a source may not name, its servers may not reach
    for identity in (*known, "169.254.169.254", "169.254.170.23", "fe80::a9fe:a9fe", "fd00:ec2::254", "fd00:ec2::23"):
        assert addresses.host_refusal(identity), identity
        assert not reached(identity), identity
    for elsewhere in ("10.0.0.1", "100.100.2.136", "8.8.8.8", "2600::1", "fd00:1::1"):
        assert reached(elsewhere), elsewhere
    assert len(blocks) == 2
    for inside, left_out in open_to:  # the API server refuses an exception that is not within its block
        assert all(out.version == inside.version and out.num_addresses < inside.num_addresses for out in left_out)


def test_the_service_selects_nothing_by_itself() -> None:
    service = model_service("finance", "ner")
    assert "selector" not in service["spec"]
    assert service["metadata"]["name"] == "ner"
    ports = {port["name"]: (port["port"], port["appProtocol"]) for port in service["spec"]["ports"]}
    assert ports == {"http": (8000, "http"), "grpc": (8001, "kubernetes.io/h2c")}


def test_labels_never_carry_the_joined_name() -> None:
    labels = model_labels("n" * 63, "m" * 63)
    assert labels["ergon.dev/namespace"] == "n" * 63
    assert labels["ergon.dev/model"] == "m" * 63
    assert all(len(value) <= 63 for value in labels.values())


def test_a_slice_names_the_very_pod() -> None:
    (found,) = endpoint_slices("finance", "ner", ENDPOINTS)
    assert found["metadata"]["name"] == "ner-0"
    assert found["metadata"]["labels"]["kubernetes.io/service-name"] == "ner"
    assert found["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == "ergon.dev"
    first = found["endpoints"][0]
    assert first["addresses"] == ["10.244.0.1"]
    assert first["targetRef"] == {"kind": "Pod", "namespace": "ergon-system", "name": "ergon-l4-0", "uid": "uid-0"}
    assert (first["nodeName"], first["zone"]) == ("node-a", "zone-a")
    assert "hints" not in first


def test_zones_are_hinted_only_when_asked_and_all_are_known() -> None:
    (hinted,) = endpoint_slices("finance", "ner", ENDPOINTS, hint_zones=True)
    assert [e["hints"]["forZones"][0]["name"] for e in hinted["endpoints"]] == ["zone-a", "zone-b"]
    unknown = Endpoint("ergon-cpu-0", "uid-9", "10.244.0.9", "ergon-system")
    (unhinted,) = endpoint_slices("finance", "ner", [*ENDPOINTS, unknown], hint_zones=True)
    assert not any("hints" in endpoint for endpoint in unhinted["endpoints"])


def test_a_model_without_a_server_keeps_one_empty_slice() -> None:
    (empty,) = endpoint_slices("finance", "ner", [])
    assert (empty["endpoints"], empty["addressType"], empty["metadata"]["name"]) == ([], "IPv4", "ner-0")


def test_address_families_have_slices_of_their_own() -> None:
    both = [*ENDPOINTS, Endpoint("ergon-l4-2", "uid-2", "fd00::1", "ergon-system")]
    found = {s["metadata"]["name"]: s["addressType"] for s in endpoint_slices("finance", "ner", both)}
    assert found == {"ner-0": "IPv4", "ner.ipv6-0": "IPv6"}


@given(st.lists(st.integers(0, 2000), unique=True, max_size=350), st.randoms())
def test_slices_hold_each_endpoint_once_in_any_order_of_asking(numbers: list[int], chance: object) -> None:
    endpoints = [Endpoint(f"pod-{n:05}", f"uid-{n}", f"10.244.{n // 250}.{n % 250 + 1}", "ergon-system") for n in numbers]
    slices = endpoint_slices("finance", "ner", endpoints)
    shuffled = list(endpoints)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert json.dumps(endpoint_slices("finance", "ner", shuffled)) == json.dumps(slices)
    named = [endpoint["targetRef"]["uid"] for found in slices for endpoint in found["endpoints"]]
    assert sorted(named) == sorted(endpoint.pod_uid for endpoint in endpoints)
    assert all(len(found["endpoints"]) <= 100 for found in slices)
    assert len(slices) == max(1, -(-len(endpoints) // 100))


def test_the_route_leads_from_the_gateway_to_the_service_for_http_and_grpc() -> None:
    route = http_route("finance", "ner", GATEWAY)
    http, grpc = route["spec"]["rules"]
    assert http["matches"] == [{"path": {"type": "PathPrefix", "value": "/v2/models/finance.ner"}}]
    assert grpc["matches"] == [
        {
            "path": {"type": "PathPrefix", "value": "/inference.GRPCInferenceService"},
            "headers": [{"type": "Exact", "name": "ergon-model", "value": "finance.ner"}],
        }
    ]
    assert [(b["name"], b["port"]) for rule in (http, grpc) for b in rule["backendRefs"]] == [("ner", 8000), ("ner", 8001)]
    assert [(p["namespace"], p["name"]) for p in route["spec"]["parentRefs"]] == [("ergon-system", "gateway")]
