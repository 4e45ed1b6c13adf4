"""Pods on process nodes: what they see, how they live, how they end."""

import time

import pytest

from tests.local.kube import Kube, container, is_ready, job, pod, server

pytestmark = pytest.mark.cluster


def test_a_pod_sees_its_volumes_secrets_and_itself(kube: Kube) -> None:
    kube.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "1", "b": "2"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"key": "hidden"}},
    )
    script = """
    cat /etc/ergon/deep/a /etc/ergon/only/key; echo
    stat -Lc %a /etc/ergon/only/key
    echo $KEY $POD_IP $(hostname) $UID
    cat /data/from-init; echo
    df --output=size -B1M /dev/shm | tail -1
    test -e /data/sub/x && echo sub
    touch /data/x 2>/dev/null || echo read-only
    touch /usr/x 2>/dev/null || echo host is read-only
    readlink /var/run
    """
    mounts = [
        {"name": "map", "mountPath": "/etc/ergon/deep"},
        {"name": "secret", "mountPath": "/etc/ergon/only"},
        {"name": "data", "mountPath": "/data", "readOnly": True},
        {"name": "memory", "mountPath": "/dev/shm"},
    ]
    spec = {
        "volumes": [
            {"name": "map", "configMap": {"name": "m"}},
            {"name": "secret", "secret": {"secretName": "s", "defaultMode": 0o400}},
            {"name": "data", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        ],
        "initContainers": [
            {
                "name": "first",
                "image": "python",
                "command": ["sh", "-c", "printf init >/data/from-init; touch /data/sub/x"],
                "volumeMounts": [
                    {"name": "data", "mountPath": "/data"},
                    {"name": "data", "mountPath": "/data/sub", "subPath": "sub"},
                ],
            }
        ],
    }
    env = [
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    kube.apply(job("sees", script, spec, volumeMounts=mounts, env=env))
    lines = kube.output("sees").split("\n")
    address = kube.get("pod", "sees")["status"]["podIP"]
    assert lines[:3] == ["1hidden", "400", f"hidden {address} sees"]
    assert [line.strip() for line in lines[3:9]] == ["init", "16", "sub", "read-only", "host is read-only", "/run"]


def test_a_pods_token_has_its_service_accounts_rights(kube: Kube) -> None:
    role = "rbac.authorization.k8s.io"
    kube.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}},
        {
            "apiVersion": f"{role}/v1",
            "kind": "Role",
            "metadata": {"name": "reader"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}],
        },
        {
            "apiVersion": f"{role}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "reader"},
            "roleRef": {"apiGroup": role, "kind": "Role", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "reader"}],
        },
    )
    script = """
    D=/var/run/secrets/kubernetes.io/serviceaccount
    for what in pods secrets; do
      curl -s -o /dev/null -w "%{http_code} " --cacert $D/ca.crt -H "Authorization: Bearer $(cat $D/token)" \
        https://kubernetes.default.svc/api/v1/namespaces/$(cat $D/namespace)/$what
    done
    """
    kube.apply(job("asks", script, {"serviceAccountName": "reader"}))
    assert kube.output("asks").split() == ["200", "403"]


def test_no_token_where_none_is_wanted(kube: Kube) -> None:
    kube.apply(job("bare", "ls /var/run/secrets/kubernetes.io 2>/dev/null || echo none", {"automountServiceAccountToken": False}))
    assert kube.output("bare") == "none\n"


def test_a_container_is_the_user_it_asks_for(kube: Kube) -> None:
    context = {"runAsUser": 1000, "runAsGroup": 3000, "readOnlyRootFilesystem": True}
    kube.apply(
        job("user", "id -u; id -g; touch /here 2>/dev/null || echo no; ls /proc | grep -c '^[0-9]'", securityContext=context),
        pod("root", "true", spec={"securityContext": {"runAsNonRoot": True}}),
    )
    lines = kube.output("user").split()
    assert lines[:3] == ["1000", "3000", "no"]
    assert int(lines[3]) < 10, "it sees processes that are not its own"
    waiting = kube.until("pod", "root", lambda found: "waiting" in container(found)["state"] if found.get("status") else False)
    assert "runAsNonRoot" in container(kube.until("pod", "root", _config_error))["state"]["waiting"]["message"], waiting


def _config_error(found: dict) -> bool:
    statuses = found.get("status", {}).get("containerStatuses") or [{}]
    return statuses[0].get("state", {}).get("waiting", {}).get("reason") == "CreateContainerConfigError"


def test_a_missing_secret_keeps_a_pod_waiting_until_it_is_there(kube: Kube) -> None:
    env = [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "later", "key": "k"}}}]
    kube.apply(job("waits", "echo $KEY", env=env))
    assert 'secret "later" not found' in container(kube.until("pod", "waits", _config_error))["state"]["waiting"]["message"]
    kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "later"}, "stringData": {"k": "came"}})
    assert kube.output("waits") == "came\n"


def test_an_unknown_image_says_which_are_known(kube: Kube) -> None:
    kube.apply(pod("other", image="nginx:1"))

    def backs_off(found: dict) -> bool:
        statuses = found.get("status", {}).get("containerStatuses") or [{}]
        return statuses[0].get("state", {}).get("waiting", {}).get("reason") in ("ErrImagePull", "ImagePullBackOff")

    message = container(kube.until("pod", "other", backs_off))["state"]["waiting"]["message"]
    assert "'nginx'" in message
    assert "nvcr.io/nvidia/tritonserver" in message


def test_a_container_that_fails_starts_again_at_once_and_then_backs_off(kube: Kube) -> None:
    kube.apply(pod("fails", "sh", "-c", "echo run $(hostname); echo why >/dev/termination-log; exit 3"))

    def backs_off(found: dict) -> bool:
        statuses = found.get("status", {}).get("containerStatuses") or [{}]
        return statuses[0].get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff"

    found = container(kube.until("pod", "fails", backs_off))
    assert found["restartCount"] == 1
    assert found["state"]["waiting"]["message"].startswith("back-off 10s")
    assert (found["lastState"]["terminated"]["exitCode"], found["lastState"]["terminated"]["message"]) == (3, "why\n")
    assert kube.kubectl("logs", "fails", "--previous").startswith("run fails")


def test_a_failed_liveness_probe_restarts_the_container(kube: Kube) -> None:
    probe = {"exec": {"command": ["test", "-e", "/tmp/alive"]}, "periodSeconds": 1, "failureThreshold": 2}
    kube.apply(pod("dies", "sh", "-c", "touch /tmp/alive; sleep 2; rm /tmp/alive; sleep 600", livenessProbe=probe))
    found = kube.until("pod", "dies", lambda item: item.get("status", {}).get("containerStatuses", [{}])[0].get("restartCount"))
    assert container(found)["lastState"]["terminated"]["exitCode"] == 137


def test_readiness_comes_and_goes_without_restart(kube: Kube) -> None:
    probe = {"exec": {"command": ["test", "-e", "/data/ready"]}, "periodSeconds": 1, "failureThreshold": 1}
    mounts = [{"name": "data", "mountPath": "/data"}]
    spec = {"volumes": [{"name": "data", "emptyDir": {}}]}
    script = "sleep 1; touch /data/ready; sleep 3; rm /data/ready; sleep 600"
    kube.apply(pod("wavers", "sh", "-c", script, spec=spec, readinessProbe=probe, volumeMounts=mounts))
    kube.ready("wavers")
    found = kube.until("pod", "wavers", lambda item: not is_ready(item))
    assert container(found)["restartCount"] == 0


def test_a_startup_probe_holds_the_others_back(kube: Kube) -> None:
    startup = {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 30}
    liveness = {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 1}
    kube.apply(pod("slow", "sh", "-c", "sleep 3; touch /tmp/up; sleep 600", startupProbe=startup, livenessProbe=liveness))
    assert container(kube.ready("slow"))["restartCount"] == 0


def test_a_pod_that_heeds_sigterm_goes_at_once(kube: Kube) -> None:
    script = "trap 'echo bye; exit 0' TERM; while :; do sleep 0.1; done"
    kube.apply(pod("heeds", "sh", "-c", script, spec={"terminationGracePeriodSeconds": 60}))
    kube.ready("heeds")
    begun = time.monotonic()
    kube.kubectl("delete", "pod", "heeds", "--wait=true", "--timeout=45s")
    assert time.monotonic() - begun < 45


def test_a_pod_that_does_not_is_killed_with_all_its_processes(kube: Kube) -> None:
    marker = f"31{time.time_ns() % 10**7}"
    script = f"trap '' TERM; setsid sleep {marker} & while :; do sleep 0.1; done"
    kube.apply(pod("deaf", "sh", "-c", script, spec={"terminationGracePeriodSeconds": 3}))
    kube.ready("deaf")
    assert marker in kube.inside("ps", "ax").stdout
    begun = time.monotonic()
    kube.kubectl("delete", "pod", "deaf", "--wait=true", "--timeout=30s")
    assert time.monotonic() - begun >= 2.5
    assert marker not in kube.inside("ps", "ax").stdout


def test_logs_are_followed_and_cut(kube: Kube) -> None:
    kube.apply(job("talks", "for i in 1 2 3 4 5; do echo line $i; sleep 0.2; done"))
    kube.until("pod", "talks", lambda item: item.get("status", {}).get("phase") in ("Running", "Succeeded"))
    assert kube.kubectl("logs", "--follow", "talks").split("\n")[:5] == [f"line {number}" for number in range(1, 6)]
    assert kube.kubectl("logs", "--tail=2", "talks") == "line 4\nline 5\n"
    assert "line 5" in kube.local("logs", f"{kube.namespace}/talks").stdout
    assert "line 5" in kube.local("logs", "talks").stdout
    assert "line 5" in kube.local("logs", "talks", "-n", kube.namespace).stdout
    elsewhere = kube.local("logs", "talks", "-n", "default")
    assert elsewhere.returncode == 1
    assert "no pod in namespace default is called 'talks'" in elsewhere.stderr


def test_a_followed_log_ends_with_the_last_words(kube: Kube) -> None:
    kube.apply(job("hurries", "sleep 1; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; done"))
    kube.until("pod", "hurries", lambda item: item.get("status", {}).get("phase") in ("Running", "Succeeded"))
    assert kube.kubectl("logs", "--follow", "hurries").endswith("line 3000\n")


def test_a_sidecar_starts_before_and_ends_after(kube: Kube) -> None:
    mounts = [{"name": "data", "mountPath": "/data"}]
    sidecar = {
        "name": "side",
        "image": "python",
        "restartPolicy": "Always",
        "command": ["sh", "-c", "touch /data/up; exec sleep 600"],
        "startupProbe": {"exec": {"command": ["test", "-e", "/data/up"]}, "periodSeconds": 1},
        "volumeMounts": mounts,
    }
    spec = {"initContainers": [sidecar], "volumes": [{"name": "data", "emptyDir": {}}]}
    kube.apply(job("beside", "ls /data", spec, volumeMounts=mounts))
    assert kube.output("beside") == "up\n"


def test_a_changed_config_map_reaches_the_running_pod(kube: Kube) -> None:
    def config(value: str) -> dict:
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": value}}

    kube.apply(config("old"))
    spec = {"volumes": [{"name": "map", "configMap": {"name": "m"}}]}
    script = "until grep -q new /map/a; do sleep 0.2; done; cat /map/a"
    kube.apply(job("hears", script, spec, volumeMounts=[{"name": "map", "mountPath": "/map"}]))
    kube.until("pod", "hears", lambda item: item.get("status", {}).get("phase") == "Running")
    kube.apply(config("new"))
    assert kube.output("hears") == "new"


def test_the_models_folder_is_the_nodes_sources(kube: Kube, cluster: object) -> None:
    (cluster.models / "hello").write_text("from the person's folder")  # type: ignore[attr-defined]
    spec = {"volumes": [{"name": "sources", "hostPath": {"path": "/var/lib/ergon/sources"}}]}
    mounts = [{"name": "sources", "mountPath": "/sources", "readOnly": True}]
    kube.apply(job("reads", "cat /sources/hello; touch /sources/x || echo; test ! -e /sources/x", spec, volumeMounts=mounts))
    assert kube.output("reads").startswith("from the person's folder")


def test_a_claimed_volume_of_a_local_folder(kube: Kube) -> None:
    volume = f"sources-{kube.namespace}"
    common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    kube.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {**common, "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/var/lib/ergon/sources"}},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "sources"},
            "spec": {**common, "volumeName": volume, "resources": {"requests": {"storage": "1Gi"}}},
        },
    )
    spec = {"volumes": [{"name": "sources", "persistentVolumeClaim": {"claimName": "sources"}}]}
    kube.apply(job("claims", "test -d /sources && echo there", spec, volumeMounts=[{"name": "sources", "mountPath": "/sources"}]))
    assert kube.output("claims") == "there\n"
    kube.kubectl("delete", "persistentvolume", volume, "--wait=false")


def test_a_server_pod_starts_fast(kube: Kube) -> None:
    kube.apply(server("first", "one"))
    found = kube.ready("first")
    assert container(found)["started"] is True
