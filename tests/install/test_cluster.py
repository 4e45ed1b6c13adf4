"""What is installed, judged by a real API server: its schemas, its Pod Security admission, its authorizer."""

import copy
import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from tests.install.chart import CHART, POOL, ROOT, VALUES, Object, Values, component, of_kind, render, run_helm
from tests.install.conftest import Kubectl
from tests.reader import Reader

pytestmark = pytest.mark.cluster

ACCOUNT = "system:serviceaccount:{namespace}:ergon"
# Kinds whose CustomResourceDefinitions come with other projects.
FOREIGN = {"ServiceMonitor", "PodMonitor", "PrometheusRule", "Application", "OCIRepository", "HelmRelease", "Kustomization"}


def dump(objects: list[Object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def known(objects: list[Object]) -> list[Object]:
    return [item for item in objects if item["kind"] not in FOREIGN]


def dry_run(kubectl: Kubectl, objects: list[Object]) -> None:
    done = kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--filename=-", stdin=dump(objects))
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr


@pytest.fixture(scope="module")
def ready(kubectl: Kubectl) -> Iterator[Kubectl]:
    """The kinds, and the namespaces that are named, the operator's with Pod Security `restricted`."""
    kinds = kubectl("apply", "--server-side", "--force-conflicts", "--kustomize", str(ROOT / "manifests" / "crds"))
    assert kinds.returncode == 0, kinds.stderr
    established = kubectl(
        "wait", "--for=condition=Established", "crd", "--selector=app.kubernetes.io/part-of=ergon", "--timeout=30s"
    )
    assert established.returncode == 0, established.stderr
    levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    labels = {"install-restricted": levels, "team-a": {}, "team-b": {}, "edge": {}}
    made = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n, "labels": x}} for n, x in labels.items()]
    done = kubectl("apply", "--server-side", "--filename=-", stdin=dump(made))
    assert done.returncode == 0, done.stderr
    yield kubectl
    kubectl("delete", "namespace", *labels, "--wait=false", "--ignore-not-found")


_TAKEN: set[str] = set()
"""What the API server has taken. The kinds' definitions are most of what it is asked for, and the same for nearly all values."""


@pytest.mark.parametrize("name", VALUES)
def test_the_api_server_takes_every_object_without_a_warning(ready: Kubectl, name: str) -> None:
    objects = {json.dumps(item, sort_keys=True): item for item in known(render(VALUES[name], namespace="install-restricted"))}
    asked = [item for text, item in objects.items() if text not in _TAKEN]
    if asked:  # without definitions, nothing is there that is not there with them
        dry_run(ready, asked)
    _TAKEN.update(objects)


@pytest.mark.parametrize("who", ["operator", "gateway"])
def test_its_pod_meets_the_restricted_standard(ready: Kubectl, who: str) -> None:
    objects = component(render(VALUES["everything"], namespace="install-restricted"), who)
    accounts = of_kind(objects, "ServiceAccount")
    assert ready("apply", "--server-side", "--filename=-", stdin=dump(accounts)).returncode == 0
    (deployment,) = of_kind(objects, "Deployment")
    template = deployment["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": who, "namespace": "install-restricted"},
        "spec": {key: value for key, value in template["spec"].items() if key != "priorityClassName"},
    }
    dry_run(ready, [pod])
    # The admission is real: the same pod with one privilege more is refused.
    privileged = copy.deepcopy(pod)
    privileged["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    refused = ready("apply", "--server-side", "--dry-run=server", "--filename=-", stdin=dump([privileged]))
    assert refused.returncode != 0
    assert 'violates PodSecurity "restricted' in refused.stderr


def can(reader: Reader, account: str, verb: str, resource: str, namespace: str = "", name: str = "") -> bool:
    """Whether the authorizer lets an account do it. `resource` is plural.group, with `/status` for the subresource."""
    path, _, subresource = resource.partition("/")
    plural, _, group = path.partition(".")
    wish = {"verb": verb, "group": group, "resource": plural, "subresource": subresource, "namespace": namespace, "name": name}
    return reader.allowed(wish, account, "system:serviceaccounts", "system:authenticated")


@pytest.fixture(scope="module")
def rights(ready: Kubectl, cluster: Any) -> Iterator[Reader]:
    """Two installs' roles for real: one for all namespaces, one for team-a and team-b; who asks what they allow."""
    wide = render(
        VALUES["gateway-api"]
        | {
            "sourceSecretNamespaces": ["team-a"],
            "gateway": {"sampleNamespaces": ["team-a"]},
            "fullnameOverride": "wide",
            "rbac": {"aggregate": False},
            "serviceAccount": {"name": "ergon"},
        },
        namespace="install-restricted",
    )
    narrow = render(
        VALUES["namespaced"] | {"fullnameOverride": "narrow", "rbac": {"aggregate": False}, "serviceAccount": {"name": "ergon"}},
        namespace="edge",
    )
    roles = of_kind(wide + narrow, "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "ServiceAccount")
    done = ready("apply", "--server-side", "--filename=-", stdin=dump(roles))
    assert done.returncode == 0, done.stderr
    reader = Reader(cluster.kubeconfig)
    yield reader
    reader.close()
    ready("delete", "--ignore-not-found", "--filename=-", stdin=dump(roles))


MAY_EVERYWHERE = [
    ("list", "specializedmodels.ergon.dev"),
    ("patch", "specializedmodels.ergon.dev/status"),
    ("patch", "acceleratorpools.ergon.dev"),
    ("patch", "acceleratorpools.ergon.dev/status"),
    ("watch", "nodes"),
    ("create", "services"),
    ("delete", "endpointslices.discovery.k8s.io"),
    ("patch", "httproutes.gateway.networking.k8s.io"),
    ("watch", "taskroutes.ergon.dev"),
    ("patch", "taskroutes.ergon.dev/status"),
    ("create", "tokenreviews.authentication.k8s.io"),
    ("create", "events.events.k8s.io"),
]
MAY_NOWHERE = [
    ("patch", "specializedmodels.ergon.dev"),
    ("patch", "taskroutes.ergon.dev"),
    ("delete", "specializedmodels.ergon.dev"),
    ("delete", "acceleratorpools.ergon.dev"),
    ("create", "acceleratorpools.ergon.dev"),
    ("list", "secrets"),
    ("get", "secrets"),
    ("delete", "services"),
    ("list", "pods"),
    ("create", "pods"),
    ("patch", "nodes"),
    ("delete", "nodes"),
    ("get", "configmaps"),
    ("create", "clusterrolebindings.rbac.authorization.k8s.io"),
    ("patch", "customresourcedefinitions.apiextensions.k8s.io"),
]


def test_the_operator_may_do_its_work_everywhere(rights: Reader) -> None:
    account = ACCOUNT.format(namespace="install-restricted")
    assert [pair for pair in MAY_EVERYWHERE if not can(rights, account, *pair)] == []


def test_and_nothing_else(rights: Reader) -> None:
    account = ACCOUNT.format(namespace="install-restricted")
    assert [pair for pair in MAY_NOWHERE if can(rights, account, *pair)] == []


def test_the_gateway_reads_what_it_routes_by_and_writes_nothing(rights: Reader) -> None:
    account = "system:serviceaccount:install-restricted:wide-gateway"
    for kind in ("specializedmodels.ergon.dev", "taskroutes.ergon.dev", "endpointslices.discovery.k8s.io"):
        assert can(rights, account, "watch", kind)
        assert not can(rights, account, "patch", kind)
    for verb, kind in (("get", "secrets"), ("list", "pods"), ("create", "tokenreviews.authentication.k8s.io")):
        assert not can(rights, account, verb, kind)
    assert can(rights, account, "get", "configmaps", namespace="team-a")
    assert not can(rights, account, "list", "configmaps", namespace="team-a")
    assert not can(rights, account, "get", "configmaps", namespace="team-b")


def test_servers_are_made_in_its_own_namespace_only(rights: Reader) -> None:
    account, own = ACCOUNT.format(namespace="install-restricted"), "install-restricted"
    pairs = [
        ("create", "statefulsets.apps"),
        ("delete", "pods"),
        ("create", "secrets"),
        ("create", "networkpolicies.networking.k8s.io"),
    ]
    assert [pair for pair in pairs if not can(rights, account, *pair, namespace=own)] == []
    assert [pair for pair in pairs if can(rights, account, *pair, namespace="team-a")] == []
    assert not can(rights, account, "list", "secrets", namespace=own)
    assert can(rights, account, "update", "leases.coordination.k8s.io", namespace=own, name="ergon")
    assert not can(rights, account, "update", "leases.coordination.k8s.io", namespace=own, name="another")


def test_sources_are_read_where_the_installer_says(rights: Reader) -> None:
    account = ACCOUNT.format(namespace="install-restricted")
    assert can(rights, account, "get", "secrets", namespace="team-a")
    assert not can(rights, account, "list", "secrets", namespace="team-a")
    assert not can(rights, account, "get", "secrets", namespace="team-b")


def test_a_namespaced_operator_sees_its_namespaces_and_no_other(rights: Reader) -> None:
    account = ACCOUNT.format(namespace="edge")
    for namespace in ("team-a", "team-b"):
        assert can(rights, account, "watch", "specializedmodels.ergon.dev", namespace=namespace)
        assert can(rights, account, "create", "services", namespace=namespace)
    for verb, resource in [
        ("list", "specializedmodels.ergon.dev"),
        ("create", "services"),
        ("get", "endpointslices.discovery.k8s.io"),
    ]:
        assert not can(rights, account, verb, resource, namespace="install-restricted")
    for resource in ("acceleratorpools.ergon.dev", "energybudgets.ergon.dev", "namespaces"):
        assert can(rights, account, "watch", resource)
    assert not can(rights, account, "list", "nodes")


def documents(path: str) -> list[Object]:
    """The objects of a file. A demand is none: it is for `ergon plan`."""
    return [document for document in yaml.safe_load_all((ROOT / path).read_text()) if document and "kind" in document]


EXAMPLES = sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / "examples").rglob("*.yaml") if "examples/models/" not in str(path)
)


@pytest.mark.parametrize("path", [*EXAMPLES, "manifests/overlays/local/pools.yaml"])
def test_every_example_applies(ready: Kubectl, path: str) -> None:
    objects = known(documents(path))
    named = {item["metadata"]["namespace"] for item in objects if "namespace" in item["metadata"]}
    made = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in sorted(named)]
    if made:
        # Not deleted afterwards: others may use a namespace of that name.
        assert ready("apply", "--server-side", "--filename=-", stdin=dump(made)).returncode == 0
    if objects:
        dry_run(ready, objects)


def test_the_seed_fleet_applies_as_a_whole(ready: Kubectl) -> None:
    folder = ROOT / "examples" / "seed-fleet"
    spaces = dump(documents("examples/seed-fleet/namespaces.yaml"))
    assert ready("apply", "--server-side", "--filename=-", stdin=spaces).returncode == 0
    done = ready("apply", "--server-side", "--dry-run=server", "--kustomize", str(folder))
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    kinds = {line.partition("/")[0] for line in done.stdout.splitlines()}
    assert kinds == {"namespace", "acceleratorpool.ergon.dev", "specializedmodel.ergon.dev"}
    assert len(done.stdout.splitlines()) == sum(
        len(documents(str(path.relative_to(ROOT)))) - (path.stem == "kustomization") for path in folder.glob("*.yaml")
    )


def model(name: str, **spec: object) -> Object:
    variant = {"name": "cpu", "accelerators": ["cpu"], "backend": "python", "source": {"uri": "file:///a"}, "memory": "1Mi"}
    return {
        "apiVersion": "ergon.dev/v1alpha1",
        "kind": "SpecializedModel",
        "metadata": {"name": name, "namespace": "install-limits"},
        "spec": {"task": "test", "variants": [variant], **spec},
    }


@pytest.fixture(scope="module")
def limited(ready: Kubectl) -> Iterator[Kubectl]:
    """The example policy in force, and a namespace that allows priority 300 and four replicas."""
    labels = {"ergon.dev/max-priority": "300", "ergon.dev/max-min-replicas": "4"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "install-limits", "labels": labels}}
    policy, binding = documents("examples/policy.yaml")
    # Here only, since other tests share the cluster.
    only = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "install-limits"}}}
    objects = [namespace, policy, {**binding, "spec": {**binding["spec"], "matchResources": only}}]
    done = ready("apply", "--server-side", "--filename=-", stdin=dump(objects))
    assert done.returncode == 0, done.stderr
    # A policy takes effect when the server has read it, which nothing reports: ask until it refuses.
    for _ in range(200):
        if denied(ready, model("probe", priority=1000)):
            break
    else:
        pytest.fail("the policy does not take effect")
    yield ready
    ready("delete", "--wait=false", "--ignore-not-found", "--filename=-", stdin=dump(objects[::-1]))


def denied(kubectl: Kubectl, item: Object) -> str:
    """The reason for which the object is refused; empty where it is taken."""
    done: subprocess.CompletedProcess[str] = kubectl(
        "apply", "--server-side", "--dry-run=server", "--filename=-", stdin=dump([item])
    )
    return done.stderr.strip() if done.returncode != 0 else ""


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({}, ""),
        ({"priority": 300, "autoscaling": {"minReplicas": 4}}, ""),
        ({"priority": 301}, "spec.priority is 301, this namespace allows 300 (label ergon.dev/max-priority)"),
        ({"autoscaling": {"minReplicas": 5}}, "spec.autoscaling.minReplicas is 5, this namespace allows 4"),
        ({"replicas": 5}, "spec.replicas is 5, this namespace allows 4"),
    ],
)
def test_the_example_policy_limits_priority_and_replicas(limited: Kubectl, spec: Object, said: str) -> None:
    answer = denied(limited, model("one", **spec))
    assert said in answer if said else answer == ""


def test_the_example_policy_limits_kubectl_scale_too(limited: Kubectl) -> None:
    assert limited("apply", "--server-side", "--filename=-", stdin=dump([model("scaled")])).returncode == 0
    target = ("--namespace=install-limits", "specializedmodels/scaled")
    assert limited("scale", *target, "--replicas=4").returncode == 0
    refused = limited("scale", *target, "--replicas=5")
    assert refused.returncode != 0
    assert "spec.replicas is 5" in refused.stderr


@pytest.fixture
def release(ready: Kubectl, cluster: Any) -> Iterator[Callable[..., str]]:
    """helm against the cluster, for one release whose operator never starts: others may have one."""
    values = {"crds": {"enabled": False}, "rbac": {"aggregate": False}, "nodeSelector": {"install-test": "no-such-node"}}

    def run(action: str, more: Values | None = None) -> str:
        target = [action, "ergon-install-test", f"--kubeconfig={cluster.kubeconfig}"]
        if action == "uninstall":
            done = run_helm(*target, namespace="install-restricted")
        else:
            done = run_helm(*target, str(CHART), values=values | (more or {}), namespace="install-restricted")
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield run
    ready("delete", "acceleratorpool", "install-kept", "--ignore-not-found", "--wait=false")


def test_uninstalling_leaves_pools_and_nothing_else(release: Callable[..., str], ready: Kubectl) -> None:
    pools = {"pools": [{"name": "install-kept", "spec": POOL}]}
    assert "There is no pool in this release yet" in release("install")
    release("upgrade", pools)
    assert "install-kept" in release("uninstall")
    assert ready("get", "acceleratorpool", "install-kept").returncode == 0
    kinds = "deployment,service,serviceaccount,role,rolebinding,poddisruptionbudget,networkpolicy"
    ours = "--selector=app.kubernetes.io/instance=ergon-install-test"
    assert ready("get", kinds, "--namespace=install-restricted", ours, "--output=name").stdout == ""
