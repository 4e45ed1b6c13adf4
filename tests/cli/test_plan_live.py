"""`kubectl ergon plan`: the fleet of the cluster that runs."""

import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from ergon.cli.plan_files import read_value
from ergon.kube.client import KubeClient
from tests.cli.plan_world import Object, demand, model, pool
from tests.kube.cluster import Cluster

pytestmark = pytest.mark.cluster
BIN = Path(sys.executable).parent


def kubectl(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    """kubectl with the cluster's admin account; it finds `kubectl-ergon` beside this Python."""
    program = shutil.which("kubectl") or str(BIN / "kubectl")
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "KUBECONFIG": str(cluster.kubeconfig)}
    return subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60)


async def test_the_cluster_is_planned_as_it_stands(cluster: Cluster, kube: KubeClient, namespace: str, tmp_path: Path) -> None:
    name = f"p-{uuid.uuid4().hex[:8]}"
    only_here = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    # No server may run, so that an operator in the cluster has nothing to do for it; the plan then says what is short.
    made: Object = pool(name, servers={"max": 0}, namespaces=only_here)
    await kube.create(made)
    try:
        await kube.create(model("idle", namespace, autoscaling={"minReplicas": 0}))
        sleeper = model("asleep", namespace, autoscaling={"minReplicas": 0})
        await kube.create(sleeper)
        says = {"type": "Ready", "status": "True", "reason": "Asleep", "message": ""}
        status: Object = {"conditions": [{**says, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
        del sleeper["spec"]
        await kube.apply_status({**sleeper, "status": status})
        done = kubectl(cluster, "ergon", "plan", "-o", "json")
        assert done.returncode == 3, done.stderr
        plan = json.loads(done.stdout)
        assert plan["servers"][name] == 0
        alternatives = {item["pool"]: item for item in plan["models"][f"{namespace}/idle"]["alternatives"]}
        assert alternatives[name]["reason"] == "NoRoom"
        assert plan["missingReplicas"][f"{namespace}/idle"] == 1  # it does not sleep yet
        assert f"{namespace}/asleep" not in plan["missingReplicas"]
        table = kubectl(cluster, "ergon", "plan", "--explain", f"{namespace}/idle")
        assert "1 replica missing: " in table.stdout
        wrong = demand(tmp_path / "demand.yaml", nobody=1)
        assert "there is no such model" in kubectl(cluster, "ergon", "plan", "--demand", wrong).stderr
    finally:
        await kube.patch_merge("ergon.dev/v1alpha1", "AcceleratorPool", name, None, {"metadata": {"finalizers": None}})
        await kube.delete("ergon.dev/v1alpha1", "AcceleratorPool", name)


_VALUES = """
[1e6, 1.5e-3, .5, 5., -2, 0x1F, 010, 1_000, 0b11, "1e6", 1:30, 1.2.3, 2026-11-24, 2026-11-24T00:00:00Z, yes, No, on, true, ~,
null, +1, -.5, '', 0o17, 1e, e6, "yes", =, 09, 0.10, 1__0]
"""


async def test_values_are_those_that_kubectl_reads(cluster: Cluster, kube: KubeClient, namespace: str, tmp_path: Path) -> None:
    text = json.dumps(model("values", namespace)).replace('"memory"', '"config": {"parameters": VALUES}, "memory"')
    path = tmp_path / "f.yaml"
    path.write_text("# so that it is read as YAML\n" + text.replace("VALUES", " ".join(_VALUES.split())))
    done = kubectl(cluster, "create", "--dry-run=server", "--output=json", f"--filename={path}")
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout)["spec"]["variants"][0]["config"]["parameters"]
    ours = read_value(str(path))["spec"]["variants"][0]["config"]["parameters"]
    assert [(isinstance(value, str), value) for value in ours] == [(isinstance(value, str), value) for value in theirs]


async def test_files_are_planned_without_asking_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [pool(), model()]}))
    done = kubectl(cluster, "ergon", "plan", "-f", str(path), "-o", "json")
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["models"]) == ["team-a/ner"]
