"""`ergon plan --diff`: what a change would move and cost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cli.plan_world import demand, lines, model, planned, pool, run, with_variant, write


def both(tmp_path: Path, old: list[object], new: list[object]) -> list[str]:
    return ["-f", write(tmp_path / "new" / "f.yaml", *new), "--diff", str(Path(write(tmp_path / "old" / "f.yaml", *old)).parent)]


def test_without_a_change_nothing_moves(tmp_path: Path) -> None:
    objects = [pool(), model("a"), model("b", replicas=2)]
    done = run(*both(tmp_path, objects, objects))
    assert done.exit_code == 0
    assert "no replica moves" in done.stdout
    assert "0 loads, 0 unloads, 0 reloads" in done.stdout


def test_a_new_model_is_a_load_and_its_cost_stands_beside_it(tmp_path: Path) -> None:
    arguments = both(tmp_path, [pool(), model("a")], [pool(), model("a"), model("b")])
    wanted = demand(tmp_path / "d.yaml", a=10, b=20)
    found = planned(*arguments, "--demand", wanted)["diff"]
    assert found["loads"] == [{"model": "team-a/b", "variant": "cpu", "pool": "processors", "server": 0}]
    assert (found["unloads"], found["reloads"]) == ([], [])
    assert found["watts"] == {"before": pytest.approx(170), "after": pytest.approx(210)}
    assert found["gramsPerHour"] == {"before": pytest.approx(68), "after": pytest.approx(84)}
    assert found["pools"]["processors"]["servers"] == {"before": 1, "after": 1}
    assert found["pools"]["processors"]["watts"] == found["watts"]
    text = run(*arguments, "--demand", wanted).stdout
    assert text.startswith(
        "Against the base:\n  load   team-a/b cpu on processors-0\n  pool processors: 170 -> 210 W, 1 -> 1 servers\n"
    )
    assert "in all: 1 loads, 0 unloads, 0 reloads; 170 -> 210 W, 2 -> 2 an hour, 68 -> 84 g CO2 an hour" in text


def test_without_it_the_output_has_no_such_key(tmp_path: Path) -> None:
    assert "diff" not in planned("-f", write(tmp_path / "f.yaml", pool(), model()))


def test_models_and_pools_come_and_go(tmp_path: Path) -> None:
    found = planned(*both(tmp_path, [pool("a"), model("x")], [pool("b"), model("y")]))["diff"]
    assert [load["model"] for load in found["loads"]] == ["team-a/y"]
    assert [unload["model"] for unload in found["unloads"]] == ["team-a/x"]
    assert found["pools"]["a"]["servers"] == {"before": 1, "after": 0}
    assert found["pools"]["b"]["servers"] == {"before": 0, "after": 1}


def test_what_stays_where_it_is_does_not_move_for_nothing(tmp_path: Path) -> None:
    old = [pool("a"), pool("b"), *(model(f"m{n}") for n in range(4))]
    found = planned(*both(tmp_path, old, [*old, model("new")]))["diff"]
    assert [load["model"] for load in found["loads"]] == ["team-a/new"]
    assert found["unloads"] == []


def test_new_content_loads_again_in_place(tmp_path: Path) -> None:
    newer = with_variant(model(), source={"uri": "file:///ner", "revision": "2"})
    arguments = both(tmp_path, [pool(), model()], [pool(), newer])
    found = planned(*arguments)["diff"]
    assert found["reloads"] == [{"model": "team-a/ner", "variant": "cpu", "pool": "processors", "server": 0}]
    assert (found["loads"], found["unloads"]) == ([], [])
    assert "reload team-a/ner cpu on processors-0" in run(*arguments).stdout


def test_a_shortfall_that_comes_or_goes_is_shown(tmp_path: Path) -> None:
    small, large = [pool(servers={"max": 1}), model(replicas=2)], [pool(), model(replicas=2)]
    wanted = demand(tmp_path / "d.yaml", ner=100)
    worse = planned(*both(tmp_path, large, small), "--demand", wanted, code=3)["diff"]
    assert worse["missingReplicas"] == {"team-a/ner": {"before": 0, "after": 1}}
    assert worse["unserved"] == {"team-a/ner": {"before": 0, "after": pytest.approx(30)}}
    done = run(*both(tmp_path, small, large), "--demand", wanted)
    assert done.exit_code == 0
    assert "team-a/ner: 30 -> 0 work/s not served" in done.stdout
    assert "team-a/ner: 1 -> 0 replicas missing" in done.stdout


def test_a_broken_base_is_told_and_does_not_fail_the_change_that_mends_it(tmp_path: Path) -> None:
    arguments = both(tmp_path, [pool(), with_variant(model(), memory="1GB")], [pool(), model()])
    done = run(*arguments, "--demand", demand(tmp_path / "d.yaml", ner=1))
    assert done.exit_code == 0
    (line,) = lines(done)
    assert line.startswith("ergon: base: ")
    assert "SpecializedModel team-a/ner: spec.variants[0].memory" in line


def test_an_empty_base_is_where_a_fleet_begins(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    path = write(tmp_path / "new" / "f.yaml", pool(), model())
    found = planned("-f", path, "--diff", str(tmp_path / "old"))["diff"]
    assert len(found["loads"]) == 1
    assert found["watts"]["before"] == 0


def test_demand_may_name_what_only_one_side_has(tmp_path: Path) -> None:
    arguments = both(tmp_path, [pool(), model("old")], [pool(), model("new")])
    found = planned(*arguments, "--demand", demand(tmp_path / "d.yaml", old=10, new=20))["diff"]
    assert found["watts"] == {"before": pytest.approx(170), "after": pytest.approx(190)}


def test_the_base_starts_from_the_current_plan(tmp_path: Path) -> None:
    objects = [pool("a"), pool("b"), model()]
    standing = {"placements": [{"model": "team-a/ner", "variant": "cpu", "pool": "b", "server": 0}]}
    current = write(tmp_path / "current.yaml", standing)
    assert planned(*both(tmp_path, objects, objects), "--current", current)["servers"] == {"a": 0, "b": 1}


def test_many_moves_are_cut_in_the_table_only(tmp_path: Path) -> None:
    new = [pool(), *(model(f"m{n}", memory="1Mi") for n in range(60))]
    arguments = both(tmp_path, [pool()], new)
    assert "and 20 more moves; --limit 0 or -o json shows all" in run(*arguments).stdout
    assert len(planned(*arguments)["diff"]["loads"]) == 60


def test_the_base_may_be_a_dump_of_the_cluster(tmp_path: Path) -> None:
    placement = {"pool": "b", "server": 0, "variant": "cpu", "state": "Ready"}
    standing = {**model(), "status": {"placements": [placement], "replicas": 1}}
    live = {"apiVersion": "v1", "kind": "List", "items": [pool("a"), pool("b"), standing]}
    found = planned(*both(tmp_path, [live], [pool("a"), pool("b"), model(), model("new")]))
    assert [load["model"] for load in found["diff"]["loads"]] == ["team-a/new"]
    assert found["servers"] == {"a": 0, "b": 1}


@pytest.mark.parametrize(("replicas", "code"), [(1, 0), (9, 3)])
def test_the_documented_workflow_does_what_it_says(tmp_path: Path, replicas: int, code: int) -> None:
    """Its script is run as GitHub runs it; `docker` stands for the image, whose entry point is `ergon`."""
    text = (Path(__file__).parents[2] / "docs" / "planning.md").read_text()
    workflow = yaml.safe_load(text.split("# .github/workflows/plan.yaml")[1].split("```")[0])
    script = workflow["jobs"]["plan"]["steps"][-1]["run"]
    write(tmp_path / "base" / "fleet" / "f.yaml", pool(), model())
    write(tmp_path / "change" / "fleet" / "f.yaml", pool(), model(), model("new", replicas=replicas))
    demand(tmp_path / "change" / "demand.yaml", ner=1)
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    ergon = Path(sys.executable).with_name("ergon")
    docker.write_text(f'#!/bin/bash\nwhile [[ $1 != ghcr.io/* ]]; do shift; done\nexec "{ergon}" "${{@:2}}"\n')
    docker.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{docker.parent}:{os.environ['PATH']}",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, done.stderr
    summary = (tmp_path / "summary").read_text()
    assert summary.startswith("~~~\nAgainst the base:\n  load   team-a/new cpu on processors-0\n")
    assert ("7 replicas missing" in summary) == (code == 3)
    assert summary.endswith("~~~\n")
