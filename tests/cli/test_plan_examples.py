"""The seed's fleet in examples/: it plans, says where its figures are from, and the documents show what the command prints."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from ergon.planning import Reason
from tests.cli.plan_world import APP, Object, run

ROOT = Path(__file__).parents[2]
SEED = ROOT / "examples" / "seed-fleet"
DEMAND = str(SEED / "demand.yaml")


def planned(*arguments: str) -> Object:
    done = run(*arguments, "-o", "json")
    assert done.exit_code == 0, done.stderr
    assert done.stderr == ""
    found: Object = json.loads(done.stdout)
    return found


def alone() -> Object:
    files = [option for name in ("pools", "namespaces", "general") for option in ("-f", str(SEED / f"{name}.yaml"))]
    return planned(*files, "--demand", str(SEED / "demand-general-alone.yaml"))


def test_the_fleet_serves_its_demand() -> None:
    plan = planned("-f", str(SEED), "--demand", DEMAND)
    assert len(plan["models"]) == 9
    assert set(plan["servers"]) == {"h100", "l4", "v5e", "xeon", "edge"}
    assert not any(plan["unserved"].values())
    assert plan["missingReplicas"] == {}
    assert {placement["provenance"] for placement in plan["placements"]} == {"profile"}


def test_the_general_model_alone_draws_several_times_as_much() -> None:
    """What the READMEs say in words; the figures themselves stand in their tables."""
    ratio = alone()["watts"] / planned("-f", str(SEED), "--demand", DEMAND)["watts"]
    assert 8 < ratio < 20


def test_its_demand_is_that_of_the_fleet() -> None:
    """Generative work token for token; a text of 384 tokens counts 38.4, a label 10 and extracted fields 40 tokens out."""
    of = yaml.safe_load((SEED / "demand.yaml").read_text())["models"]
    generative = sum(work for name, work in of.items() if "7b" in name or "70b" in name)
    labelled = sum(of[name] for name in ("support/ticket-routing", "support/sentiment", "branches/personal-data"))
    whole = generative + labelled * (38.4 + 10) + of["documents/invoice-fields"] * (38.4 + 40)
    said = yaml.safe_load((SEED / "demand-general-alone.yaml").read_text())["models"]
    assert said == {"engineering/llama-3-1-70b": pytest.approx(whole, rel=0.01)}


@pytest.mark.parametrize("name", ["pools", "encoders", "generative", "general"])
def test_every_figure_stands_beside_a_source_or_the_word_assumed(name: str) -> None:
    for document in (SEED / f"{name}.yaml").read_text().split("\n---\n"):
        if "watts" in document.lower():
            assert re.search(r"MLPerf|ML\.ENERGY|arXiv|[Aa]ssumed|parameters of yours", (SEED / f"{name}.yaml").read_text())
            assert "#" in document, document[:200]


def test_what_is_copied_is_credited() -> None:
    notice = (SEED / "NOTICE").read_text()
    for credit in ("ML.ENERGY", "Apache License 2.0", "trademark of MLCommons", "CC-BY-4.0", "Splitwise"):
        assert credit in notice


def test_kustomize_applies_all_files_but_the_demand() -> None:
    listed = set(yaml.safe_load((SEED / "kustomization.yaml").read_text())["resources"])
    there = {path.name for path in SEED.glob("*.yaml")}
    assert listed == there - {"kustomization.yaml", "demand.yaml", "demand-general-alone.yaml"}


@pytest.mark.parametrize("path", ["README.md", "examples/seed-fleet/README.md"])
def test_documents_show_what_the_command_prints(path: str) -> None:
    assert "$ ergon plan -f examples/seed-fleet" in (ROOT / path).read_text()
    command = [sys.executable, str(ROOT / "scripts" / "consoles.py"), "--check", str(ROOT / path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_user_documents_name_every_reason_and_option() -> None:
    text = (ROOT / "docs" / "planning.md").read_text()
    assert [str(reason) for reason in Reason if str(reason) not in text] == []
    command = typer.main.get_command(APP)
    options = {name for option in command.params for name in option.opts if "completion" not in name}
    assert "--diff" in options
    assert [name for name in sorted(options) if f"`{name}" not in text] == []
