"""What `ergon run` is told at start, as the operator then has it."""

import pytest
from typer.testing import CliRunner

from ergon.cli import run as command
from ergon.cli.main import app
from ergon.engine.settings import Settings
from ergon.kube.builders import network_policy


@pytest.mark.parametrize(("arguments", "namespaces"), [([], []), (["monitoring", "team-a"], ["monitoring", "team-a"])])
def test_pods_of_named_namespaces_may_read_triton_s_metrics(
    arguments: list[str], namespaces: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Settings] = []

    async def run(settings: Settings, *_: object) -> int:
        told.append(settings)
        return 0

    monkeypatch.setattr(command, "_run", run)
    monkeypatch.setattr(command, "begin", lambda *_: None)  # the logs of this process stay pytest's
    done = CliRunner().invoke(app, ["run", *(f"--scraper-namespace={name}" for name in arguments)])
    assert done.exit_code == 0, done.output
    rules = network_policy("l4", told[0].servers)["spec"]["ingress"]
    operator, *scrapers = next(rule["from"] for rule in rules if rule["ports"][0]["port"] == 8002)
    assert "namespaceSelector" not in operator
    every_pod = {"matchLabels": {}}
    assert scrapers == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}, "podSelector": every_pod}
        for name in namespaces
    ]
