"""What a real API server makes of the kinds: what it takes, refuses, fills in and shows."""

import asyncio
import json
import subprocess
import uuid
from typing import Any

import pytest
import yaml

from ergon.api.crd import crd_documents, render_yaml
from ergon.kube.client import KubeClient
from ergon.kube.errors import Invalid
from tests.api.corpus import MODEL, POOL, REFUSED, VALID, Object, Refused, changed
from tests.kube.cluster import Cluster

pytestmark = pytest.mark.cluster


def kubectl(cluster: Cluster, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = ["kubectl", "--kubeconfig", str(cluster.kubeconfig), *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
async def pool(kube: KubeClient) -> Any:
    """A pool that may run no server, so that a running operator has nothing to do for it."""
    name = f"p-{uuid.uuid4().hex[:8]}"
    yield await kube.create(changed(POOL, ("metadata.name", name), ("spec.servers", {"max": 0})))
    await kube.patch_merge("ergon.dev/v1alpha1", "AcceleratorPool", name, None, {"metadata": {"finalizers": None}})
    await kube.delete("ergon.dev/v1alpha1", "AcceleratorPool", name)


def test_the_kinds_install_without_a_warning(cluster: Cluster) -> None:
    text = "---\n".join(render_yaml(document) for document in crd_documents())
    done = kubectl(cluster, "apply", "--server-side", "--force-conflicts", "--field-manager=tests", "--filename=-", stdin=text)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower()


@pytest.mark.parametrize("obj", VALID.values(), ids=VALID)
async def test_valid_objects_are_taken(kube: KubeClient, obj: Object) -> None:
    taken = await kube.create(obj, dry_run=True)
    assert taken["metadata"]["name"] == obj["metadata"]["name"]


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
async def test_invalid_objects_are_refused_with_the_field(kube: KubeClient, refused: Refused) -> None:
    with pytest.raises(Invalid) as error:
        await kube.create(refused.obj, dry_run=True)
    assert refused.says in error.value.message
    assert error.value.code == 422


async def test_what_an_older_version_took_can_still_have_a_status_and_go(cluster: Cluster, kube: KubeClient) -> None:
    """A pool with a name and a size that the kinds now refuse: the operator says so, and releases it when it is deleted."""
    kind, old = ("ergon.dev/v1alpha1", "AcceleratorPool"), changed(REFUSED["pool-name-reserved"].obj, ("spec.memory", "600m"))

    def install(document: Object) -> None:
        manager = ("--server-side", "--force-conflicts", "--field-manager=tests")
        done = kubectl(cluster, "apply", *manager, "--filename=-", stdin=render_yaml(document))
        assert done.returncode == 0, done.stderr

    async def taken() -> bool:
        try:
            await kube.create(old, dry_run=True)
        except Invalid:
            return False
        return True

    async def until_taken(wanted: bool) -> None:
        async with asyncio.timeout(30):
            while await taken() is not wanted:  # noqa: ASYNC110 - the API server tells nobody when a kind is in force
                await asyncio.sleep(0.1)

    now = next(document for document in crd_documents() if document["spec"]["names"]["kind"] == kind[1])
    install(_without_rules(now))
    try:
        await until_taken(True)
        await kube.create(changed(old, ("spec.servers", {"max": 0})))
    finally:
        install(now)
    await until_taken(False)
    condition = {"type": "Accepted", "status": "False", "reason": "InvalidSpec", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    name = old["metadata"]["name"]
    status = {"apiVersion": kind[0], "kind": kind[1], "metadata": {"name": name}, "status": {"conditions": [condition]}}
    assert (await kube.apply_status(status, field_manager="tests"))["status"]["conditions"][0]["reason"] == "InvalidSpec"
    for finalizers in (["ergon.dev/tests"], None):
        await kube.patch_merge(*kind, name, None, {"metadata": {"finalizers": finalizers}})
    assert await kube.delete(*kind, name)


def _without_rules(value: Any) -> Any:
    """A kind as if it had no rules, only a structure."""
    if isinstance(value, dict):
        return {key: _without_rules(child) for key, child in value.items() if key != "x-kubernetes-validations"}
    return [_without_rules(child) for child in value] if isinstance(value, list) else value


@pytest.mark.parametrize("where", ["spec.fastest", "spec.variants.0.gpu", "spec.slo.p99"])
def test_an_unknown_field_is_refused_by_name(cluster: Cluster, kube: KubeClient, where: str) -> None:
    obj = changed(MODEL, (where, True))
    done = kubectl(cluster, "create", "--dry-run=server", "--filename=-", stdin=yaml.safe_dump(obj))
    assert done.returncode != 0
    assert f'unknown field "{where.replace(".0.", "[0].")}"' in done.stderr


async def test_the_class_of_a_pool_stays(kube: KubeClient, pool: Object) -> None:
    name = pool["metadata"]["name"]
    with pytest.raises(Invalid, match="make a new pool"):
        await kube.patch_merge("ergon.dev/v1alpha1", "AcceleratorPool", name, None, {"spec": {"accelerator": {"class": "cpu"}}})
    changed_pool = await kube.patch_merge("ergon.dev/v1alpha1", "AcceleratorPool", name, None, {"spec": {"maxModels": 3}})
    assert changed_pool["spec"]["maxModels"] == 3


async def test_defaults_stand_in_the_object(kube: KubeClient, pool: Object, namespace: str) -> None:
    assert pool["spec"]["servers"] == {"min": 0, "max": 0}
    assert pool["spec"]["disk"] == "100Gi"
    assert pool["spec"]["power"]["source"] == "Profile"
    assert pool["spec"]["triton"]["image"].startswith("nvcr.io/nvidia/tritonserver:")
    assert "namespaces" not in pool["spec"]  # absent and {} mean different things
    model = await kube.create(changed(VALID["model-least"], ("metadata.namespace", namespace)), dry_run=True)
    assert model["spec"]["priority"] == 100
    assert model["spec"]["autoscaling"] == {"minReplicas": 1, "idleAfter": "10m"}
    assert model["spec"]["slo"] == {"percentile": 95}
    assert "replicas" not in model["spec"]


async def test_free_form_fields_are_kept(kube: KubeClient) -> None:
    pool = await kube.create(VALID["pool-template"], dry_run=True)
    assert pool["spec"]["template"] == VALID["pool-template"]["spec"]["template"]
    model = await kube.create(VALID["model-config"], dry_run=True)
    assert model["spec"]["variants"][0]["config"]["instance_group"] == [{"count": 2, "kind": "KIND_CPU"}]


async def test_scaling_works_beside_autoscaling(cluster: Cluster, kube: KubeClient, namespace: str) -> None:
    await kube.create(changed(MODEL, ("metadata.namespace", namespace)))
    done = kubectl(cluster, "scale", "sm/golden-ner", "--namespace", namespace, "--replicas=3")
    assert done.returncode == 0, done.stderr
    model = await kube.get("ergon.dev/v1alpha1", "SpecializedModel", "golden-ner", namespace)
    assert model["spec"]["replicas"] == 3
    assert model["spec"]["autoscaling"]["maxReplicas"] == 8


async def test_the_status_is_a_matter_of_its_own_and_columns_show_it(cluster: Cluster, kube: KubeClient, namespace: str) -> None:
    model = await kube.create(
        changed(MODEL, ("metadata.namespace", namespace), ("spec.replicas", 2), ("status", {"replicas": 9}))
    )
    assert "status" not in model
    condition = {"type": "Ready", "status": "True", "reason": "Ready", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    placement = {"pool": "l4", "server": 0, "variant": "cpu-int8", "state": "Ready"}
    status = {"replicas": 2, "readyReplicas": 1, "selector": "ergon.dev/model=golden-ner", "placements": [placement]}
    written = await kube.apply_status(
        {
            "apiVersion": MODEL["apiVersion"],
            "kind": MODEL["kind"],
            "metadata": {"name": "golden-ner", "namespace": namespace},
            "status": {**status, "conditions": [condition]},
        },
        field_manager="tests",
    )
    assert written["metadata"]["generation"] == model["metadata"]["generation"]
    shown = kubectl(cluster, "get", "sm", "golden-ner", "--namespace", namespace).stdout.splitlines()
    assert shown[0].split() == ["NAME", "TASK", "READY", "REASON", "POOL", "REPLICAS", "READY", "REPLICAS", "AGE"]
    assert shown[1].split()[:7] == ["golden-ner", "entity-extraction", "True", "Ready", "l4", "2", "1"]
    scale = json.loads(
        kubectl(
            cluster, "get", "--raw", f"/apis/ergon.dev/v1alpha1/namespaces/{namespace}/specializedmodels/golden-ner/scale"
        ).stdout
    )
    assert scale["spec"] == {"replicas": 2}
    assert scale["status"] == {"replicas": 2, "selector": "ergon.dev/model=golden-ner"}


async def test_fields_can_be_selected(kube: KubeClient, pool: Object, namespace: str) -> None:
    await kube.create(changed(MODEL, ("metadata.namespace", namespace)))
    kinds = ("ergon.dev/v1alpha1", "SpecializedModel", namespace)
    assert len(await kube.list_all(*kinds, field_selector="spec.task=entity-extraction")) == 1
    assert await kube.list_all(*kinds, field_selector="spec.task=code") == []
    pools = await kube.list_all("ergon.dev/v1alpha1", "AcceleratorPool", field_selector="spec.accelerator.class=gpu")
    assert pool["metadata"]["name"] in [found["metadata"]["name"] for found in pools]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("sm.spec.variants.source.uri", "A Triton model directory"),
        ("ap.spec.power.hostWatts", "accelerators not counted"),
        ("ebud.spec.limits", "What the scope may use; at least one"),
        ("sm.status.conditions.reason", "CamelCase"),
    ],
)
def test_kubectl_explains_every_field(cluster: Cluster, kube: KubeClient, path: str, says: str) -> None:
    assert says in " ".join(kubectl(cluster, "explain", path).stdout.split())


def test_short_names_and_the_category_list_the_kinds(cluster: Cluster, kube: KubeClient, pool: Object) -> None:
    for what in ("ap,sm,ebud", "ergon"):
        done = kubectl(cluster, "get", what)
        assert done.returncode == 0, done.stderr
        assert pool["metadata"]["name"] in done.stdout
