"""What the chart makes, for everything an installer may choose."""

import re

import pytest
import yaml
from tests.install.chart import CHART, NAMESPACE, VALUES, Object, component, of_kind, render, render_text, run_helm

from ergon.gateway.server import ROUTES_ALONE

CLUSTER_SCOPED = {
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "AcceleratorPool",
}


def operator_pod(objects: list[Object]) -> Object:
    (deployment,) = of_kind(component(objects, "operator"), "Deployment")
    return deployment["spec"]["template"]


def gateway_pods(objects: list[Object]) -> list[Object]:
    return [deployment["spec"]["template"] for deployment in of_kind(component(objects, "gateway"), "Deployment")]


def names(objects: list[Object]) -> set[str]:
    return {item["metadata"]["name"] for item in objects}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_helm_lint_finds_nothing(values: Object) -> None:
    done = run_helm("lint", "--strict", str(CHART), values=values)
    assert done.returncode == 0, done.stdout


def test_every_object_is_labelled_and_namespaced(rendered: list[Object]) -> None:
    for item in rendered:
        where = f"{item['kind']} {item['metadata']['name']}"
        assert item["metadata"]["labels"]["app.kubernetes.io/part-of"] == "ergon", where
        assert ("namespace" in item["metadata"]) == (item["kind"] not in CLUSTER_SCOPED), where


def test_no_two_objects_have_one_name(rendered: list[Object]) -> None:
    keys = [(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in rendered]
    assert len(keys) == len(set(keys))


def test_rendering_twice_gives_the_same() -> None:
    assert render_text(VALUES["everything"]) == render_text(VALUES["everything"])


def test_templates_ask_nothing_of_the_cluster_and_roll_no_dice() -> None:
    for path in (CHART / "templates").iterdir():
        found = re.search(
            r"\b(lookup|rand\w+|genCA|genSignedCert|genSelfSignedCert|genPrivateKey|uuidv4|now|helm\.sh/hook)\b", path.read_text()
        )
        assert found is None, f"{path.name} uses {found}"


def test_the_operator_binds_to_its_own_address(rendered: list[Object]) -> None:
    (container,) = operator_pod(rendered)["spec"]["containers"]
    assert container["args"][:2] == ["run", "--address=$(POD_IP)"]
    fields = {item["name"]: item["valueFrom"]["fieldRef"]["fieldPath"] for item in container["env"] if "valueFrom" in item}
    assert fields == {"POD_IP": "status.podIP", "POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace"}


def test_the_gateway_binds_to_its_own_address_and_finds_the_leader() -> None:
    (pod,) = gateway_pods(render(VALUES["everything"]))
    (container,) = pod["spec"]["containers"]
    assert container["args"][:4] == [
        "gateway",
        "--host=$(POD_IP)",
        f"--wake-url=http://fleet-leader.{NAMESPACE}:8082/wake",
        "--wake-token-file=/var/run/secrets/ergon/token",
    ]
    (volume,) = [volume for volume in pod["spec"]["volumes"] if "projected" in volume]
    (source,) = volume["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == "ergon-operator"
    assert {"name": volume["name"], "mountPath": "/var/run/secrets/ergon", "readOnly": True} in container["volumeMounts"]
    leader = next(item for item in of_kind(render(VALUES["everything"]), "Service") if item["metadata"]["name"] == "fleet-leader")
    assert "selector" not in leader["spec"]


def test_a_gateway_s_ports_are_those_of_models() -> None:
    service = next(item for item in of_kind(render(), "Service") if item["metadata"]["name"] == "ergon-gateway")
    assert [(port["name"], port["port"]) for port in service["spec"]["ports"]] == [("http", 8000), ("grpc", 8001)]
    (pod,) = gateway_pods(render())
    assert [port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]] == [8000, 8001, 8080]


def test_without_a_gateway_there_is_nothing_of_it() -> None:
    objects = render(VALUES["no-gateway"])
    assert component(objects, "gateway") == []
    assert not [name for name in names(objects) if "leader" in name or "gateway" in name]
    (container,) = operator_pod(objects)["spec"]["containers"]
    assert not [arg for arg in container["args"] if re.match("--(gateway-service|leader)", arg)]


def test_a_gateway_scales_by_its_cpu() -> None:
    objects = component(render(VALUES["scaled-gateway"]), "gateway")
    (deployment,) = of_kind(objects, "Deployment")
    assert "replicas" not in deployment["spec"]
    assert deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"]
    (scaler,) = of_kind(objects, "HorizontalPodAutoscaler")
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (2, 5)
    assert len(of_kind(objects, "PodDisruptionBudget")) == 1


def test_routes_are_on_the_gateway_api_under_a_path_of_their_own() -> None:
    (route,) = of_kind(render(VALUES["gateway-api"]), "HTTPRoute")
    assert route["spec"]["rules"][0]["matches"] == [{"path": {"type": "PathPrefix", "value": "/routes"}}]
    (rewrite,) = route["spec"]["rules"][0]["filters"]
    assert rewrite["urlRewrite"]["path"]["replacePrefixMatch"] == f"/{ROUTES_ALONE}"
    assert route["spec"]["parentRefs"][0]["namespace"] == "edge"
    assert of_kind(render(), "HTTPRoute") == []


def test_memory_is_bounded_and_the_processor_is_not(rendered: list[Object]) -> None:
    (container,) = operator_pod(rendered)["spec"]["containers"]
    assert container["resources"]["limits"] == {"memory": container["resources"]["requests"]["memory"]}


def test_two_replicas_stand_by_each_other() -> None:
    for name in ("operator", "gateway"):
        objects = component(render(), name)
        (deployment,) = of_kind(objects, "Deployment")
        assert deployment["spec"]["replicas"] == 2
        assert len(of_kind(objects, "PodDisruptionBudget")) == 1


def test_one_replica_can_be_drained() -> None:
    assert of_kind(render({"replicas": 1, "gateway": {"replicas": 1}}), "PodDisruptionBudget") == []


def test_selectors_find_their_own_pods_only(rendered: list[Object]) -> None:
    for name, pods in (("operator", [operator_pod(rendered)]), ("gateway", gateway_pods(rendered))):
        objects = component(rendered, name)
        selectors = [item["spec"]["selector"]["matchLabels"] for item in of_kind(objects, "Deployment", "PodDisruptionBudget")]
        selectors += [item["spec"]["selector"] for item in of_kind(objects, "Service") if "selector" in item["spec"]]
        selectors += [item["spec"]["podSelector"]["matchLabels"] for item in of_kind(objects, "NetworkPolicy")]
        for selector in selectors:
            assert pods
            assert selector.items() <= pods[0]["metadata"]["labels"].items()
            assert selector["app.kubernetes.io/component"] == name


def test_uninstalling_keeps_crds_and_pools() -> None:
    kept = of_kind(render(VALUES["pools"]), "CustomResourceDefinition", "AcceleratorPool")
    assert names(kept) >= {"cpu", "more", "acceleratorpools.ergon.dev"}
    for item in kept:
        assert item["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_nothing_else_is_kept() -> None:
    for item in render():
        if item["kind"] != "CustomResourceDefinition":
            assert "helm.sh/resource-policy" not in item["metadata"].get("annotations", {})


def test_crds_can_be_left_out_or_given_up() -> None:
    assert of_kind(render(VALUES["crds-off"]), "CustomResourceDefinition") == []
    for crd in of_kind(render(VALUES["crds-not-kept"]), "CustomResourceDefinition"):
        assert crd["metadata"]["annotations"] == {"argocd.argoproj.io/sync-wave": "-5"}


def test_a_digest_wins_over_the_tag() -> None:
    values = {"image": {"repository": "example.com/ergon", "tag": "9", "digest": "sha256:" + "a" * 64}}
    (container,) = operator_pod(render(values))["spec"]["containers"]
    assert container["image"] == "example.com/ergon@sha256:" + "a" * 64


def test_what_is_chosen_reaches_the_operator() -> None:
    (container,) = operator_pod(render(VALUES["everything"]))["spec"]["containers"]
    assert container["args"][2:] == [
        "--port=8080",
        "--namespace=$(POD_NAMESPACE)",
        "--identity=$(POD_NAME)",
        "--log-format=text",
        "--log-level=debug",
        "--qps=100",
        "--burst=200",
        "--store-image=registry.example.com/rclone:1.75",
        "--connection-age=30",
        "--improve-after=90",
        "--plan-every=30",
        "--stabilise=120",
        "--prometheus-url=http://prometheus.monitoring:9090",
        "--hint-zones",
        "--allow-private-addresses",
        "--gateway=ergon-gateway/ergon",
        "--gateway-service=fleet-gateway",
        "--leader-service=fleet-leader",
        "--scraper-namespace=monitoring",
        "--log-level=info",
    ]


def test_operator_and_gateway_have_an_environment_of_their_own() -> None:
    objects = render(VALUES["everything"])
    pods = (operator_pod(objects), *gateway_pods(objects))
    (mine, theirs) = ({item["name"] for item in pod["spec"]["containers"][0]["env"] if "value" in item} for pod in pods)
    assert (mine, theirs) == ({"TZ"}, {"OF"})


def test_the_catalogue_is_told_of_every_kind() -> None:
    told = yaml.safe_load(yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]["artifacthub.io/crds"])
    kinds = {(crd["spec"]["names"]["kind"], crd["metadata"]["name"]) for crd in of_kind(render(), "CustomResourceDefinition")}
    assert {(item["kind"], item["name"]) for item in told} == kinds


def test_nothing_private_is_reached_by_default() -> None:
    (container,) = operator_pod(render())["spec"]["containers"]
    assert not [arg for arg in container["args"] if re.match("--(allow|gateway=|watch|scraper)", arg)]


def test_a_closed_network_leaves_what_the_operator_needs() -> None:
    ports = {}
    for name in ("operator", "gateway"):
        (policy,) = of_kind(component(render(VALUES["closed-network"]), name), "NetworkPolicy")
        ports[name] = [port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]]
    assert ports == {
        "operator": [53, 53, 6443, 8000, 8001, 8002, 5572, 8080, 4317],
        "gateway": [53, 53, 6443, 8000, 8001, 8082],
    }


def test_prometheus_finds_operators_and_gateways_and_is_let_in_to_both() -> None:
    values = VALUES["service-monitor"] | VALUES["closed-network"]
    objects = render(values)
    (services,), (pods,) = of_kind(objects, "ServiceMonitor"), of_kind(objects, "PodMonitor")
    (endpoint,), (port,) = services["spec"]["endpoints"], pods["spec"]["podMetricsEndpoints"]
    (pod,) = gateway_pods(objects)
    assert pods["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    opened = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
    assert opened[port["port"]] == 8080
    assert (port["path"], port["interval"]) == (endpoint["path"], endpoint["interval"]) == ("/metrics", "30s")
    for monitor in (services, pods):
        assert monitor["metadata"]["labels"]["release"] == "prometheus"
    for name in ("operator", "gateway"):
        (policy,) = of_kind(component(objects, name), "NetworkPolicy")
        (rule,) = [rule for rule in policy["spec"]["ingress"] if rule["ports"][0]["port"] == 8080]
        assert values["networkPolicy"]["metricsFrom"][0] in rule["from"]
    assert of_kind(render({**values, "gateway": {"enabled": False}}), "PodMonitor") == []


def test_only_gateways_may_ask_to_wake_a_model() -> None:
    (policy,) = of_kind(component(render(), "operator"), "NetworkPolicy")
    (rule,) = [rule for rule in policy["spec"]["ingress"] if rule["ports"][0]["port"] == 8082]
    (pod,) = gateway_pods(render())
    assert rule["from"][0]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


def test_who_may_ask_the_gateway_is_the_installer_s_to_say() -> None:
    def peers(values: Object) -> Object | None:
        (policy,) = of_kind(component(render(values), "gateway"), "NetworkPolicy")
        return next(rule for rule in policy["spec"]["ingress"] if rule["ports"][0]["port"] == 8000).get("from")

    assert peers(VALUES["defaults"]) is None
    assert peers(VALUES["scaled-gateway"]) == [{"namespaceSelector": {"matchLabels": {"asks": "models"}}}]


def test_names_fit_where_a_release_is_called_something_else() -> None:
    done = run_helm("template", "a" * 53, str(CHART))
    assert done.returncode == 0, done.stderr
    assert max(len(line.split()[-1]) for line in done.stdout.splitlines() if re.match(r"  name: ", line)) <= 63
    assert NAMESPACE in done.stdout
