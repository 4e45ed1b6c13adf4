"""manifests/ is what the chart renders, and the chart's CRDs are those of crds/."""

import subprocess
import sys
import tomllib

import pytest
import yaml
from tests.install.chart import CHART, ROOT, Object, of_kind
from tests.install.conftest import Kubectl


def kustomize(kubectl: Kubectl, path: str) -> list[Object]:
    done = kubectl("kustomize", str(ROOT / "manifests" / path))
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def test_manifests_are_what_the_chart_renders() -> None:
    script = ROOT / "scripts" / "render-manifests"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_chart_and_package_are_of_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (chart["version"], chart["appVersion"]) == (project["version"], project["version"])


def test_the_charts_crds_are_the_projects() -> None:
    ours = {path.name: path.read_text() for path in (ROOT / "crds").glob("*.yaml")}
    charts = {path.name: path.read_text() for path in (CHART / "files" / "crds").glob("*.yaml")}
    assert ours
    assert charts == ours


@pytest.mark.cluster
def test_the_default_overlay_holds_crds_and_operator_and_no_pool(kubectl: Kubectl) -> None:
    objects = kustomize(kubectl, "overlays/default")
    assert len(of_kind(objects, "CustomResourceDefinition")) == len(list((ROOT / "crds").glob("*.yaml")))
    assert {item["metadata"]["name"] for item in of_kind(objects, "Deployment")} == {"ergon", "ergon-gateway"}
    assert of_kind(objects, "AcceleratorPool") == []


@pytest.mark.cluster
def test_kustomize_crds_and_defaults_say_nothing_of_helm(kubectl: Kubectl) -> None:
    for path in ("crds", "overlays/default", "overlays/local"):
        assert "helm" not in yaml.safe_dump_all(kustomize(kubectl, path)).lower()


@pytest.mark.cluster
def test_the_local_overlay_serves_through_the_gateway_from_four_pools(kubectl: Kubectl) -> None:
    objects = kustomize(kubectl, "overlays/local")
    deployment, gateway = sorted(of_kind(objects, "Deployment"), key=lambda item: item["metadata"]["name"])
    assert gateway["spec"]["replicas"] == 1
    args = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    assert {"--gateway=ergon-gateway/ergon", "--allow-private-addresses", "--log-format=text"} <= set(args)
    pools = {item["metadata"]["name"]: item for item in of_kind(objects, "AcceleratorPool")}
    assert set(pools) == {"cpu", "gpu", "tpu", "npu"}
    for name, pool in pools.items():
        assert pool["metadata"]["labels"]["ergon.dev/simulated"] == ("false" if name == "cpu" else "true")
        assert pool["spec"]["template"]["spec"]["nodeSelector"] == {"ergon.dev/accelerator": name}
        (container,) = pool["spec"]["template"]["spec"]["containers"]
        assert container["name"] == "store"
        assert container["volumeMounts"] == [{"name": "sources", "mountPath": "/sources", "readOnly": True}]
