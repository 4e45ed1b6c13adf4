"""What the examples tell other systems: what alerts fire on, and of what Argo CD knows the health."""

import re

import pytest
import yaml
from tests.install.chart import ROOT, Object, of_kind, render


def alert(name: str) -> Object:
    """One rule of the example."""
    rules = yaml.safe_load((ROOT / "examples" / "monitoring" / "alerts.yaml").read_text())["spec"]["groups"][0]["rules"]
    return next(rule for rule in rules if rule["alert"] == name)


def test_argo_cd_knows_the_health_of_every_kind() -> None:
    data = yaml.safe_load((ROOT / "examples" / "gitops" / "argocd" / "argocd-cm.yaml").read_text())["data"]
    kinds = {crd["spec"]["names"]["kind"] for crd in of_kind(render(), "CustomResourceDefinition")}
    assert set(data) == {f"resource.customizations.health.ergon.dev_{kind}" for kind in kinds}


@pytest.mark.parametrize(
    ("known", "loaded", "asleep", "scaled_to_zero", "fires"),
    [(3, 3, 0, 0, False), (3, 2, 0, 0, True), (3, 2, 1, 0, False), (3, 2, 0, 1, False), (3, 1, 1, 0, True), (0, 0, 0, 0, False)],
)
def test_models_that_should_be_loaded_and_are_not_are_told_and_no_others(
    known: int, loaded: int, asleep: int, scaled_to_zero: int, fires: bool
) -> None:
    counts = {"known": known, "loaded": loaded, "asleep": asleep, "scaled_to_zero": scaled_to_zero}
    rule = alert("ErgonModelsNotLoaded")
    arithmetic = re.sub(r'max\(ergon_models\{state="(\w+)"\}\)', lambda found: str(counts[found[1]]), rule["expr"])
    assert re.fullmatch(r"[\d\s+>-]+", arithmetic)
    assert eval(arithmetic) is fires
