"""What is built is taken by a real API server, under the restricted Pod Security Standard, and taken again without a change."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from ergon.engine.cache import Cache, PoolRecord
from ergon.engine.pools import PoolWriter
from ergon.kube.builders import endpoint_slices, key_secret_name, model_service, server_statefulset
from ergon.kube.client import KubeClient
from ergon.kube.errors import Conflict, Invalid, NotFound
from ergon.kube.keys import KeyMaterial
from tests.kube.objects import SETTINGS, Object, model_objects, pool_objects, pool_spec

pytestmark = pytest.mark.cluster


@pytest.fixture
async def restricted(kube: KubeClient, namespace: str) -> str:
    """A namespace whose pods must meet the restricted standard."""
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
    await kube.patch_merge("v1", "Namespace", namespace, None, {"metadata": {"labels": labels}})
    return namespace


def pods(objects: list[Object]) -> list[Object]:
    """The pods that the StatefulSets among the objects would make, to be judged by admission now."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**obj["spec"]["template"]["metadata"], "name": "x", "namespace": obj["metadata"]["namespace"]},
            "spec": obj["spec"]["template"]["spec"],
        }
        for obj in objects
        if obj["kind"] == "StatefulSet"
    ]


@pytest.mark.parametrize(
    "accelerator",
    [{"class": "gpu"}, {"class": "cpu"}, {"class": "tpu", "perServer": 4}, {"class": "npu", "resourceName": "x.io/n"}],
)
async def test_a_pool_s_objects_are_taken(kube: KubeClient, restricted: str, accelerator: Object) -> None:
    objects = pool_objects(pool_spec(accelerator=accelerator, maxModels=1), restricted)
    for obj in objects:
        taken = await kube.apply(obj, dry_run=True)
        assert taken["metadata"]["name"] == obj["metadata"]["name"]
    for pod in pods(objects):
        await kube.create(pod, dry_run=True)


async def test_a_pool_s_secret_that_is_deleted_is_made_anew(
    kube: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ergon.engine.pools.KEYS_AGAIN_SECONDS", 0.0)
    pools = PoolWriter(kube, Cache(), replace(SETTINGS, namespace=namespace), lambda: "")
    record = PoolRecord("edge", "uid", 1, None, None, None, {}, (), deleting=False)
    no_owner: Any = None
    await pools._know_keys(record, no_owner)
    first = pools.keys["edge"]
    await pools._know_keys(record, no_owner)
    assert pools.keys["edge"] == first
    name = key_secret_name("edge")
    await kube.delete("v1", "Secret", name, namespace)
    await pools._know_keys(record, no_owner)
    assert pools.keys["edge"] != first
    assert KeyMaterial.from_secret(await kube.get("v1", "Secret", name, namespace)) == pools.keys["edge"]
    last = pools.keys["edge"]
    await kube.patch_merge("v1", "Secret", name, namespace, {"data": {"ergon-key": None}})
    await pools._know_keys(record, no_owner)
    assert pools.keys["edge"] == last, "what cannot be read is no key"


async def test_servers_start_from_what_is_built(kube: KubeClient, restricted: str) -> None:
    """Real Triton and real rclone, from the arguments, probes, volumes and keys as built."""
    spec = pool_spec(accelerator={"class": "cpu"}, memory="256Mi", disk="1Gi")
    for obj in pool_objects(spec, restricted):
        obj["metadata"].pop("ownerReferences")
        await kube.apply({**obj, "spec": {**obj["spec"], "replicas": 1}} if obj["kind"] == "StatefulSet" else obj)
    async with asyncio.timeout(120):
        while True:
            (pod,) = await kube.list_all("v1", "Pod", restricted) or [{}]
            conditions = {c["type"]: c["status"] for c in (pod.get("status") or {}).get("conditions") or ()}
            if conditions.get("Ready") == "True":
                break
            await asyncio.sleep(0.2)
    assert pod["metadata"]["name"] == "ergon-l4-0"
    assert {c["name"]: c["restartCount"] for c in pod["status"]["containerStatuses"]} == {"triton": 0, "store": 0}


async def test_a_model_s_objects_are_taken(kube: KubeClient, namespace: str) -> None:
    for obj in model_objects(namespace):
        taken = await kube.apply(obj, dry_run=True)
        assert taken["kind"] == obj["kind"]


async def test_applying_the_same_again_writes_nothing(kube: KubeClient, namespace: str) -> None:
    for obj in model_objects(namespace, routes=False):
        del obj["metadata"]["ownerReferences"]  # the owner is made up, so the children would be collected at once
        first, second = await kube.apply(obj), await kube.apply(obj)
        assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


async def test_endpoints_that_leave_are_gone_from_the_slice(kube: KubeClient, namespace: str) -> None:
    (full,) = [obj for obj in model_objects(namespace, routes=False) if obj["kind"] == "EndpointSlice"]
    (empty,) = endpoint_slices(namespace, "ner", [])
    for obj in (full, empty):
        obj["metadata"].pop("ownerReferences", None)
    assert len((await kube.apply(full))["endpoints"]) == 2
    assert not (await kube.apply(empty)).get("endpoints")


async def test_a_newer_operator_leaves_the_set_as_it_is(kube: KubeClient, namespace: str) -> None:
    settings = replace(SETTINGS, namespace=namespace)
    held = await kube.apply(server_statefulset("l4", pool_spec(), settings, 0))
    newer = replace(settings, store_image="docker.io/rclone/rclone:9", load_threads=16)
    for _ in range(2):
        after = await kube.apply(server_statefulset("l4", pool_spec(), newer, 0, held=held))
        assert after["metadata"]["generation"] == held["metadata"]["generation"]
    edited = await kube.apply(server_statefulset("l4", pool_spec(disk="1Gi"), newer, 0, held=after))
    assert edited["metadata"]["generation"] == held["metadata"]["generation"] + 1
    assert edited["spec"]["template"]["spec"]["containers"][1]["image"] == "docker.io/rclone/rclone:9"


async def test_a_template_that_the_cluster_refuses_is_told_by_a_dry_run(kube: KubeClient, namespace: str) -> None:
    spec = pool_spec(template={"spec": {"containers": [{"name": "triton", "resources": {"limits": {"cpu": "many"}}}]}})
    with pytest.raises(Invalid, match="quantit"):
        await kube.apply(server_statefulset("l4", spec, replace(SETTINGS, namespace=namespace), 0), dry_run=True)
    spec = pool_spec(template={"spec": {"nodeSelectr": {"a": "b"}}})
    with pytest.raises(Invalid, match="nodeSelectr: field not declared in schema"):
        await kube.apply(server_statefulset("l4", spec, replace(SETTINGS, namespace=namespace), 0), dry_run=True)


async def test_the_life_of_an_object(kube: KubeClient, namespace: str) -> None:
    service = model_service(namespace, "ner")
    created = await kube.create(service)
    with pytest.raises(Conflict, match="already exists"):
        await kube.create(service)
    with pytest.raises(Conflict, match=r"metadata\.uid"):
        await kube.apply({**service, "metadata": {**service["metadata"], "uid": "another"}})
    operations = [{"op": "test", "path": "/metadata/uid", "value": "another"}, {"op": "remove", "path": "/metadata/labels"}]
    with pytest.raises(Invalid):
        await kube.patch_json("v1", "Service", "ner", namespace, operations)
    assert not await kube.delete("v1", "Service", "ner", namespace, uid="another")
    assert await kube.find("v1", "Service", "ner", namespace) is not None
    assert await kube.delete("v1", "Service", "ner", namespace, uid=created["metadata"]["uid"])
    assert not await kube.delete("v1", "Service", "ner", namespace)
    assert await kube.find("v1", "Service", "ner", namespace) is None
    with pytest.raises(NotFound):
        await kube.get("v1", "Service", "ner", namespace)


async def test_lists_longer_than_a_chunk_are_whole(kube: KubeClient, namespace: str) -> None:
    for number in range(7):
        await kube.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{number}", "namespace": namespace}})
    listed = await kube.list_all("v1", "ConfigMap", namespace, chunk=3)
    assert {f"c{number}" for number in range(7)} <= {item["metadata"]["name"] for item in listed}
    assert all(item["kind"] == "ConfigMap" for item in listed)
