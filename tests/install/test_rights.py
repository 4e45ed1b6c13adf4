"""What the chart lets the operator do: written out, and no more than it needs."""

import pytest
from tests.install.chart import NAMESPACE, ROOT, VALUES, Object, component, of_kind, render

DOCUMENT = (ROOT / "docs" / "security.md").read_text()
READ = {"get", "list", "watch"}


def roles(objects: list[Object], who: str = "operator") -> list[Object]:
    """The roles that are bound to the operator, or the gateway (those for people are bound by the cluster)."""
    objects = component(objects, who)
    bound = {(item["roleRef"]["kind"], item["roleRef"]["name"]) for item in of_kind(objects, "RoleBinding", "ClusterRoleBinding")}
    return [item for item in of_kind(objects, "Role", "ClusterRole") if (item["kind"], item["metadata"]["name"]) in bound]


def test_no_wildcards_no_escalation(rendered: list[Object]) -> None:
    for role in of_kind(rendered, "Role", "ClusterRole"):
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], role["metadata"]["name"]
            assert not set(rule["verbs"]) & {"escalate", "bind", "impersonate"}
            assert "nonResourceURLs" not in rule
            assert not any(
                "*" in resource or resource in {"pods/exec", "serviceaccounts/token"} for resource in rule["resources"]
            )


def test_the_document_tells_of_every_right() -> None:
    told = DOCUMENT.partition("## The operator's rights")[2].partition("\n## ")[0].lower()
    rules = [rule for role in roles(render(VALUES["defaults"])) for rule in role["rules"] if rule["apiGroups"] != ["ergon.dev"]]
    for resource in {resource for rule in rules for resource in rule["resources"]}:
        assert resource.removesuffix("s") in told, resource
    for name in {name for rule in rules for name in rule.get("resourceNames", ()) if name != "ergon"}:
        assert f"`{name}`" in told


@pytest.mark.parametrize("who", ["operator", "gateway"])
def test_every_binding_is_to_its_own_account(rendered: list[Object], who: str) -> None:
    objects = component(rendered, who)
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        (account,) = of_kind(objects, "ServiceAccount")
        (subject,) = binding["subjects"]
        assert subject == {"kind": "ServiceAccount", "name": account["metadata"]["name"], "namespace": NAMESPACE}


def test_the_gateway_only_reads_and_secrets_never(rendered: list[Object]) -> None:
    granted = {
        (resource, verb)
        for role in roles(rendered, "gateway")
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    read = {(resource, verb) for resource in ("specializedmodels", "taskroutes", "endpointslices") for verb in READ}
    assert granted - {("configmaps", "get")} in (read, set())


def test_samples_are_read_only_where_the_installer_says() -> None:
    assert not [role for role in roles(render(), "gateway") if role["kind"] == "Role"]
    (samples,) = [role for role in roles(render(VALUES["scaled-gateway"]), "gateway") if role["kind"] == "Role"]
    assert samples["metadata"]["namespace"] == "team-a"
    assert samples["rules"] == [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]


def test_tokens_are_reviewed_only_where_there_is_a_gateway() -> None:
    def reviews(values: Object) -> bool:
        return any("tokenreviews" in rule["resources"] for role in roles(render(values)) for rule in role["rules"])

    assert reviews(VALUES["defaults"])
    assert not reviews(VALUES["no-gateway"])


def test_secrets_are_read_only_where_the_installer_says(rendered: list[Object]) -> None:
    for role in roles(rendered):
        for rule in role["rules"]:
            if "secrets" in rule["resources"]:
                assert role["kind"] == "Role"
                if role["metadata"]["namespace"] != NAMESPACE:
                    assert rule == {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
    everywhere = {role["metadata"]["namespace"] for role in roles(render()) if role["kind"] == "Role"}
    assert everywhere == {NAMESPACE}


def test_namespaced_the_cluster_shows_pools_budgets_and_namespaces_only() -> None:
    cluster = [role for role in roles(render(VALUES["namespaced"])) if role["kind"] == "ClusterRole"]
    granted = {
        (resource, verb) for role in cluster for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
    }
    read = {(resource, verb) for resource in ("acceleratorpools", "energybudgets", "namespaces") for verb in READ}
    finalizer = {("acceleratorpools", "patch")}
    written = {("acceleratorpools/status", "patch"), ("energybudgets/status", "patch")}
    assert granted == read | finalizer | written | {("tokenreviews", "create")}


def test_namespaced_each_namespace_has_a_role() -> None:
    models = [role for role in roles(render(VALUES["namespaced"])) if role["metadata"]["name"] == "ergon-models"]
    assert {(role["kind"], role["metadata"]["namespace"]) for role in models} == {("Role", "team-a"), ("Role", "team-b")}


@pytest.mark.parametrize("enabled", [True, False])
def test_routes_only_with_a_gateway(enabled: bool) -> None:
    groups = {
        group
        for role in roles(render({"gatewayApi": {"enabled": enabled}}))
        for rule in role["rules"]
        for group in rule["apiGroups"]
    }
    assert ("gateway.networking.k8s.io" in groups) == enabled


def test_people_get_the_kinds_through_the_clusters_own_roles() -> None:
    people = {
        role["metadata"]["name"]: role
        for role in of_kind(render(), "ClusterRole")
        if role["metadata"]["name"].endswith(("view", "edit"))
    }
    assert people["ergon-view"]["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert all(set(rule["verbs"]) <= READ for rule in people["ergon-view"]["rules"])
    assert "rbac.authorization.k8s.io/aggregate-to-view" not in people["ergon-edit"]["metadata"]["labels"]
    assert not any("acceleratorpools" in rule["resources"] for rule in people["ergon-edit"]["rules"])
    assert not any(
        role["metadata"]["name"].endswith(("view", "edit"))
        for role in of_kind(render({"rbac": {"aggregate": False}}), "ClusterRole")
    )
