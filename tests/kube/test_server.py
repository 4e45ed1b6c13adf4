"""The pool's StatefulSet: its arguments, its security, its overlay, and what makes its pods out of date."""

import contextlib
import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.kube.builders import TEMPLATE_HASH, TemplateRefused, server_statefulset, template_hash
from tests.kube.objects import SETTINGS, Object, pool_spec


def built(**changes: Any) -> Object:
    return server_statefulset("l4", pool_spec(**changes), SETTINGS, 3)


def pod(**changes: Any) -> Object:
    spec: Object = built(**changes)["spec"]["template"]["spec"]
    return spec


def container(name: str, **changes: Any) -> Object:
    return next(c for c in pod(**changes)["containers"] if c["name"] == name)


def restricted_problems(spec: Object) -> list[str]:
    """What the restricted Pod Security Standard objects to (the rules of its published table that can apply here)."""
    problems = []
    context = spec.get("securityContext", {})
    problems += ["seccomp"] if context.get("seccompProfile", {}).get("type") != "RuntimeDefault" else []
    problems += ["root"] if not context.get("runAsNonRoot") or context.get("runAsUser") == 0 else []
    problems += [key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    kinds = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    problems += [f"volume {v['name']}" for v in spec["volumes"] if not set(v) - {"name"} <= kinds]
    for item in [*spec["containers"], *spec.get("initContainers", [])]:
        own = item.get("securityContext", {})
        problems += [f"{item['name']} privileged"] if own.get("privileged") else []
        problems += [f"{item['name']} escalates"] if own.get("allowPrivilegeEscalation") is not False else []
        problems += [f"{item['name']} capabilities"] if own.get("capabilities", {}).get("drop") != ["ALL"] else []
        problems += [f"{item['name']} host port"] if any("hostPort" in port for port in item.get("ports", [])) else []
    return problems


@pytest.mark.parametrize("accelerator", [{"class": "gpu"}, {"class": "cpu"}, {"class": "npu", "resourceName": "x.example/npu"}])
def test_pods_meet_the_restricted_standard(accelerator: Object) -> None:
    assert restricted_problems(pod(accelerator=accelerator)) == []


def test_pods_have_no_account_and_write_only_where_they_must() -> None:
    spec = pod()
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    for item in spec["containers"]:
        assert item["securityContext"]["readOnlyRootFilesystem"] is True
    mounts = {c["name"]: {m["mountPath"]: m for m in c["volumeMounts"]} for c in spec["containers"]}
    assert mounts["triton"]["/models"]["readOnly"] is True
    assert "readOnly" not in mounts["store"]["/models"]
    assert "/etc/ergon" in mounts["store"]
    assert "/etc/ergon" not in mounts["triton"]
    assert mounts["triton"]["/tmp"]["name"] != mounts["store"]["/tmp"]["name"]


def test_the_set_is_parallel_and_replaced_only_by_hand() -> None:
    spec = built()["spec"]
    assert (spec["podManagementPolicy"], spec["updateStrategy"], spec["replicas"]) == ("Parallel", {"type": "OnDelete"}, 3)
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    assert labels["app.kubernetes.io/name"] == "ergon-server"
    assert labels["ergon.dev/pool"] == "l4"


def test_triton_listens_on_its_pod_address_and_keeps_its_admin_apis() -> None:
    args = container("triton", triton={"args": ["--log-verbose=1"]})["args"]
    assert args[0] == "tritonserver"
    assert args[-1] == "--log-verbose=1"
    for flag in ("--http-address", "--grpc-address", "--metrics-address"):
        assert f"{flag}=$(POD_IP)" in args
    for flag in ("--http-restricted-api", "--grpc-restricted-protocol"):
        assert f"{flag}=model-repository,shared-memory,trace,logging:ergon-key=$(ERGON_KEY)" in args
    assert "--strict-readiness=false" in args
    assert "--grpc-max-connection-age=60000" in args  # milliseconds
    assert container("triton")["env"][0]["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"


def test_secrets_stand_in_no_argument() -> None:
    text = json.dumps(built())
    assert "secretKeyRef" in text
    for item in pod()["containers"]:
        assert not any("pass" in argument.lower() for argument in item["args"])


def test_a_pod_may_finish_before_it_is_killed() -> None:
    spec = server_statefulset("l4", pool_spec(), replace(SETTINGS, exit_timeout_seconds=50), 1)["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] > 50
    assert "--exit-timeout-secs=50" in spec["containers"][0]["args"]


@pytest.mark.parametrize(
    ("accelerator", "resources"),
    [
        ({"class": "gpu"}, {"limits": {"nvidia.com/gpu": "1"}}),
        ({"class": "gpu", "perServer": 2}, {"limits": {"nvidia.com/gpu": "2"}}),
        ({"class": "tpu", "perServer": 4}, {"limits": {"google.com/tpu": "4"}}),
        ({"class": "npu", "resourceName": "vendor.example/npu"}, {"limits": {"vendor.example/npu": "1"}}),
        ({"class": "gpu", "resourceName": "none"}, {}),
        ({"class": "cpu"}, {"requests": {"memory": "22Gi"}}),
    ],
)
def test_a_server_asks_for_its_accelerators(accelerator: Object, resources: Object) -> None:
    assert container("triton", accelerator=accelerator, maxModels=1)["resources"] == resources


def test_volumes_are_as_large_as_the_pool_says() -> None:
    volumes = {v["name"]: v for v in pod(disk="7Gi", sharedMemory="64Mi")["volumes"]}
    assert volumes["models"]["emptyDir"] == {"sizeLimit": "7Gi"}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Mi"}


def test_node_autoscalers_are_asked_not_to_disrupt() -> None:
    annotations = built()["spec"]["template"]["metadata"]["annotations"]
    assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert annotations["karpenter.sh/do-not-disrupt"] == "true"


def test_the_output_is_the_same_every_time() -> None:
    assert json.dumps(built()) == json.dumps(built())


SOURCES = {
    "volumes": [{"name": "sources", "hostPath": {"path": "/srv/models"}}],
    "containers": [{"name": "store", "volumeMounts": [{"name": "sources", "mountPath": "/sources", "readOnly": True}]}],
}


@pytest.mark.parametrize(
    "overlay",
    [
        {"nodeSelector": {"gpu": "l4", "env": "prod"}, "tolerations": [{"operator": "Exists"}], "priorityClassName": "high"},
        {"containers": [{"name": "triton", "resources": {"requests": {"cpu": "4"}}, "env": [{"name": "X", "value": "y"}]}]},
        {"containers": [{"name": "exporter", "image": "x"}], "imagePullSecrets": [{"name": "registry"}]},
        {"containers": [{"name": "store", "image": "mirror.example/rclone:1"}]},
        {"terminationGracePeriodSeconds": 300, "securityContext": {"runAsUser": 4321}},
        {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "l4"}]},
        SOURCES,
    ],
)
def test_templates_that_are_taken(overlay: Object) -> None:
    merged = pod(template={"spec": overlay})
    assert {"triton", "store"} <= {c["name"] for c in merged["containers"]}
    for key in set(overlay) - {"containers", "volumes", "securityContext"}:
        assert merged[key] == overlay[key]


def _in_container(name: str, **fields: Any) -> Object:
    return {"spec": {"containers": [{"name": name, **fields}]}}


WORDS = ("containers", "volumes", "name", "env", "volumeMounts", "labels", "annotations", "secret", "projected", "$patch")
REFUSED: dict[str, tuple[Object, str]] = {
    "account": ({"spec": {"serviceAccountName": "ergon"}}, "serviceAccountName"),
    "old account": ({"spec": {"serviceAccount": "ergon"}}, "serviceAccount"),
    "token": ({"spec": {"automountServiceAccountToken": True}}, "automountServiceAccountToken"),
    "no token said": ({"spec": {"automountServiceAccountToken": None}}, "automountServiceAccountToken"),
    "projected token": (
        {"spec": {"volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "x"}}]}}]}},
        "volumes[t]",
    ),
    "host network": ({"spec": {"hostNetwork": True}}, "hostNetwork"),
    "shared processes": ({"spec": {"shareProcessNamespace": True}}, "shareProcessNamespace"),
    "name of the host": ({"spec": {"hostname": "x"}}, "hostname"),
    "grace": ({"spec": {"terminationGracePeriodSeconds": 5}}, "terminationGracePeriodSeconds"),
    "label": ({"metadata": {"labels": {"ergon.dev/pool": "other"}}}, "ergon.dev/pool"),
    "prefix": ({"metadata": {"annotations": {"ergon.dev/x": "y"}}}, "ergon.dev/x"),
    "hash": ({"metadata": {"annotations": {"ergon.dev/y": "z"}}}, "ergon.dev/y"),
    "name": ({"metadata": {"name": "x"}}, "metadata.name"),
    "no triton": (_in_container("triton", **{"$patch": "delete"}), "triton cannot be removed"),
    "arguments": (_in_container("triton", args=["tritonserver"]), "set spec.triton.args"),
    "image": (_in_container("triton", image="x"), "set spec.triton.image"),
    "command": (_in_container("triton", command=["sh"]), "command"),
    "store arguments": (_in_container("store", args=["rcd", "--rc-no-auth"]), "args"),
    "key": (_in_container("triton", env=[{"name": "ERGON_KEY", "value": "x"}]), "ERGON_KEY"),
    "sources in triton": (
        _in_container("triton", volumeMounts=[{"name": "models", "mountPath": "/sources", "readOnly": True}]),
        "/sources",
    ),
    "sources writable": (_in_container("store", volumeMounts=[{"name": "models", "mountPath": "/sources"}]), "/sources"),
    "sources below in triton": (
        _in_container("triton", volumeMounts=[{"name": "models", "mountPath": "//sources/./a", "readOnly": True}]),
        "/sources",
    ),
    "models from elsewhere": (
        _in_container("triton", volumeMounts=[{"name": "tmp", "mountPath": "/models"}]),
        "/models is Ergon's and cannot be changed; change the volume models itself",
    ),
    "store without its volume": (
        _in_container("store", volumeMounts=[{"mountPath": "/models", "$patch": "delete"}]),
        "/models is Ergon's",
    ),
    "models writable": (_in_container("side", volumeMounts=[{"name": "models", "mountPath": "/m"}]), "read-only"),
    "certificate elsewhere": (_in_container("triton", volumeMounts=[{"name": "tls", "mountPath": "/t"}]), "store's alone"),
    "secret elsewhere": (
        {"spec": {"volumes": [{"name": "k", "secret": {"secretName": "ergon-l4-keys"}}]}},
        "ergon-l4-keys",
    ),
    "another pool's secret": (
        _in_container(
            "side", env=[{"name": "K", "valueFrom": {"secretKeyRef": {"name": "ergon-other-keys", "key": "ergon-key"}}}]
        ),
        "ergon-other-keys",
    ),
    "all of a secret": (_in_container("triton", envFrom=[{"secretRef": {"name": "ergon-l4-keys"}}]), "ergon-l4-keys"),
    "own certificate replaced": (
        {"spec": {"volumes": [{"name": "tls", "secret": {"secretName": "ergon-other-keys"}}]}},
        "volumes[tls]",
    ),
    "shape": ({"spec": {"containers": "none"}}, "containers"),
    "inner shape": ({"spec": {"volumes": [{"name": "v", "projected": "none"}]}}, "shape"),
    "inner list": (_in_container("side", volumeMounts="none"), "containers[side].volumeMounts"),
    "field": ({"sepc": {}}, "spec.template.sepc"),
    "size": ({"metadata": {"annotations": {"a": "x" * 70000}}}, "65536"),
}


@pytest.mark.parametrize(("template", "says"), REFUSED.values(), ids=REFUSED)
def test_templates_that_are_refused(template: Object, says: str) -> None:
    with pytest.raises(TemplateRefused) as error:
        built(template=template)
    assert says in str(error.value)
    assert str(error.value).startswith("spec.template")
    assert "\n" not in str(error.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*WORDS, "x"]), inner, max_size=4),
    max_leaves=15,
)


@given(st.dictionaries(st.sampled_from(["metadata", "spec"]), JSON))
def test_any_template_is_taken_or_refused_in_one_sentence(template: Object) -> None:
    with contextlib.suppress(TemplateRefused):
        merged = built(template=template)["spec"]["template"]
        assert merged["spec"]["automountServiceAccountToken"] is False
        assert "serviceAccountName" not in merged["spec"]


def test_an_operator_that_is_upgraded_makes_no_pod_out_of_date() -> None:
    upgraded = replace(SETTINGS, store_image="docker.io/rclone/rclone:9", load_threads=16, connection_age_seconds=5)
    before, after = (server_statefulset("l4", pool_spec(), settings, 3) for settings in (SETTINGS, upgraded))
    assert before["spec"]["template"]["spec"] != after["spec"]["template"]["spec"]
    for place in ("metadata", "spec"):
        hashes = [
            (obj["metadata"] if place == "metadata" else obj["spec"]["template"]["metadata"])["annotations"][TEMPLATE_HASH]
            for obj in (before, after)
        ]
        assert hashes[0] == hashes[1] == template_hash(pool_spec())


def test_a_newer_operator_keeps_the_template_that_stands_until_the_pool_is_edited() -> None:
    newer = replace(SETTINGS, store_image="docker.io/rclone/rclone:9")
    held = built()
    held["spec"]["template"]["metadata"]["creationTimestamp"] = None  # as the API server shows it
    kept = server_statefulset("l4", pool_spec(), newer, 5, held=held)
    assert kept["spec"]["template"] == built()["spec"]["template"]
    assert kept["spec"]["replicas"] == 5
    edited = server_statefulset("l4", pool_spec(disk="1Gi"), newer, 5, held=held)
    assert edited["spec"]["template"]["spec"]["containers"][1]["image"] == "docker.io/rclone/rclone:9"
    for strange in ({}, {"spec": {}}, {"spec": {"template": {"metadata": {}}}}):
        assert server_statefulset("l4", pool_spec(), SETTINGS, 3, held=strange) == built()


@pytest.mark.parametrize(
    ("changes", "out_of_date"),
    [
        ({"triton": {"image": "x"}}, True),
        ({"triton": {"args": ["--log-verbose=1"]}}, True),
        ({"disk": "1Gi"}, True),
        ({"sharedMemory": "1Gi"}, True),
        ({"template": {"metadata": {"annotations": {"restarted": "today"}}}}, True),
        ({"accelerator": {"class": "gpu", "product": "NVIDIA-L4", "perServer": 2}}, True),
        ({"memory": "1Gi"}, False),
        ({"servers": {"max": 3}}, False),
        ({"triton": {"backends": ["python"]}}, False),
        ({"power": {"idleWatts": 5}}, False),
    ],
)
def test_a_pod_is_out_of_date_when_its_pool_says_something_else_about_pods(changes: Object, out_of_date: bool) -> None:
    assert (template_hash(pool_spec(**changes)) != template_hash(pool_spec())) is out_of_date


def test_building_changes_nothing_that_was_given() -> None:
    spec = pool_spec(template={"spec": copy.deepcopy(SOURCES)})
    before = spec.model_dump()
    server_statefulset("l4", spec, SETTINGS, 1)
    assert spec.model_dump() == before
