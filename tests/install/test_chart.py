"""What the chart makes, for everything an installer may choose."""

import re

import pytest
from tests.install.chart import CHART, NAMESPACE, VALUES, Object, of_kind, render, render_text, run_helm

CLUSTER_SCOPED = {
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "AcceleratorPool",
}


def operator_pod(objects: list[Object]) -> Object:
    (deployment,) = of_kind(objects, "Deployment")
    return deployment["spec"]["template"]


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


def test_memory_is_bounded_and_the_processor_is_not(rendered: list[Object]) -> None:
    (container,) = operator_pod(rendered)["spec"]["containers"]
    assert container["resources"]["limits"] == {"memory": container["resources"]["requests"]["memory"]}


def test_two_replicas_stand_by_each_other() -> None:
    objects = render()
    (deployment,) = of_kind(objects, "Deployment")
    assert deployment["spec"]["replicas"] == 2
    assert len(of_kind(objects, "PodDisruptionBudget")) == 1


def test_one_replica_can_be_drained() -> None:
    assert of_kind(render({"replicas": 1}), "PodDisruptionBudget") == []


def test_selectors_find_the_operator_only(rendered: list[Object]) -> None:
    labels = operator_pod(rendered)["metadata"]["labels"]
    (deployment,) = of_kind(rendered, "Deployment")
    selectors = [deployment["spec"]["selector"]["matchLabels"]]
    selectors += [item["spec"]["selector"] for item in of_kind(rendered, "Service")]
    selectors += [item["spec"]["selector"]["matchLabels"] for item in of_kind(rendered, "PodDisruptionBudget")]
    selectors += [item["spec"]["podSelector"]["matchLabels"] for item in of_kind(rendered, "NetworkPolicy")]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert selector["app.kubernetes.io/component"] == "operator"


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
        "--log-level=info",
    ]


def test_nothing_private_is_reached_by_default() -> None:
    (container,) = operator_pod(render())["spec"]["containers"]
    assert not [arg for arg in container["args"] if re.match("--(allow|gateway|watch)", arg)]


def test_a_closed_network_leaves_what_the_operator_needs() -> None:
    (policy,) = of_kind(render(VALUES["closed-network"]), "NetworkPolicy")
    ports = [port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]]
    assert ports == [53, 53, 6443, 8000, 8001, 8002, 5572, 4317]


def test_names_fit_where_a_release_is_called_something_else() -> None:
    done = run_helm("template", "a" * 53, str(CHART))
    assert done.returncode == 0, done.stderr
    assert max(len(line.split()[-1]) for line in done.stdout.splitlines() if re.match(r"  name: ", line)) <= 63
    assert NAMESPACE in done.stdout
