"""`ergon plan` on files: what it prints as JSON and YAML, and with which exit code it ends."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.plan_world import Object, demand, lines, model, planned, pool, run, with_variant, write

KEYS = [
    *("placements", "servers", "unserved", "missingReplicas", "overLimitWatts", "watts", "pricePerHour", "gramsPerHour"),
    *("lowerBoundWatts", "gap", "seconds", "models"),
]


@pytest.fixture
def fleet(tmp_path: Path) -> str:
    """A folder with a pool and a model."""
    write(tmp_path / "fleet" / "pools" / "cpu.yaml", pool())
    write(tmp_path / "fleet" / "models.yaml", model())
    return str(tmp_path / "fleet")


def test_the_json_is_that_of_the_contract(fleet: str, tmp_path: Path) -> None:
    plan = planned("-f", fleet, "--demand", demand(tmp_path / "demand.yaml", ner=12.5))
    assert list(plan) == KEYS
    assert plan["placements"] == [
        {
            "model": "team-a/ner",
            "variant": "cpu",
            "pool": "processors",
            "server": 0,
            "requestsPerSecond": pytest.approx(12.5),
            "busyShare": pytest.approx(0.125),
            "memoryBytes": 2**30,
            "batch": 8,
            "provenance": "profile",
        }
    ]
    assert plan["servers"] == {"processors": 1}
    assert plan["unserved"] == {"team-a/ner": 0.0}
    assert plan["missingReplicas"] == {}
    assert plan["overLimitWatts"] == {}
    assert plan["watts"] == pytest.approx(100 + 50 + 0.125 * 200)
    assert plan["pricePerHour"] == pytest.approx(2)
    assert plan["gramsPerHour"] == pytest.approx(175 / 1000 * 400)
    assert 0 < plan["lowerBoundWatts"] <= plan["watts"] + 1e-6
    assert plan["gap"] == pytest.approx(plan["watts"] / plan["lowerBoundWatts"] - 1)
    assert plan["seconds"] >= 0
    (alternative,) = plan["models"]["team-a/ner"]["alternatives"]
    assert list(alternative) == ["pool", "variant", "verdict", "reason", "message"]
    assert (alternative["pool"], alternative["variant"], alternative["verdict"]) == ("processors", "cpu", "Chosen")


def test_yaml_says_the_same(fleet: str, tmp_path: Path) -> None:
    arguments = ["-f", fleet, "--demand", demand(tmp_path / "demand.yaml", ner=12.5)]
    read = yaml.safe_load(run(*arguments, "-o", "yaml").stdout)
    expected = planned(*arguments)
    assert {**read, "seconds": 0} == {**expected, "seconds": 0}
    assert list(read) == KEYS


def test_the_order_of_files_and_documents_does_not_matter(tmp_path: Path) -> None:
    objects = [pool("a"), pool("b"), *(model(f"m{n}", replicas=2) for n in range(4))]
    one = write(tmp_path / "one.yaml", *objects)
    for number, obj in enumerate(reversed(objects)):
        write(tmp_path / "many" / f"{number}.yaml", obj)
    first, second = planned("-f", one), planned("-f", str(tmp_path / "many"))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


def test_objects_come_from_several_paths_lists_json_and_stdin(tmp_path: Path) -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": [model("a"), model("b")]}
    (tmp_path / "list.json").write_text(json.dumps(listed))
    done = run("-f", str(tmp_path / "list.json"), "-f", "-", "-o", "json", stdin=yaml.safe_dump_all([pool(), model("c")]))
    assert done.exit_code == 0, done.stderr
    assert list(json.loads(done.stdout)["models"]) == ["team-a/a", "team-a/b", "team-a/c"]


def test_min_replicas_of_zero_without_demand_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "f.yaml", pool(), model(autoscaling={"minReplicas": 0}))
    plan = planned("-f", path)
    assert plan["placements"] == []
    assert plan["servers"] == {"processors": 0}
    assert plan["watts"] == 0
    assert plan["gap"] == 0
    assert len(planned("-f", path, "--demand", demand(tmp_path / "d.yaml", ner=1))["placements"]) == 1


@pytest.mark.parametrize(
    ("namespaces", "placed"),
    [({"matchLabels": {"team": "a"}}, 1), ({"matchLabels": {"kubernetes.io/metadata.name": "team-a"}}, 1), (None, 0)],
)
def test_namespaces_are_read_with_their_labels(tmp_path: Path, namespaces: Any, placed: int) -> None:
    named = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a", "labels": {"team": "a"}}}
    path = write(tmp_path / "f.yaml", named, pool(namespaces=namespaces), model())
    plan = planned("-f", path, code=0 if placed else 3)
    assert len(plan["placements"]) == placed


def test_pools_without_namespaces_take_the_operators(tmp_path: Path) -> None:
    path = write(tmp_path / "f.yaml", pool(namespaces=None), model(namespace="ergon-system"), model(namespace="other"))
    for options, kept in (([], "ergon-system/ner"), (["--operator-namespace", "other"], "other/ner")):
        plan = planned("-f", path, *options, code=3)
        assert [placement["model"] for placement in plan["placements"]] == [kept]


def test_a_namespace_can_be_given_to_models_that_name_none(tmp_path: Path) -> None:
    nameless = model()
    del nameless["metadata"]["namespace"]
    path = write(tmp_path / "f.yaml", pool(), nameless)
    assert list(planned("-f", path)["models"]) == ["default/ner"]
    assert list(planned("-f", path, "-n", "team-b")["models"]) == ["team-b/ner"]


def test_demand_beyond_all_servers_is_a_shortfall_and_exit_3(fleet: str, tmp_path: Path) -> None:
    plan = planned("-f", fleet, "--demand", demand(tmp_path / "d.yaml", ner=200), code=3)
    served = sum(placement["requestsPerSecond"] for placement in plan["placements"])
    assert served == pytest.approx(140)  # two servers, busy for 0.7 of the time
    assert plan["unserved"]["team-a/ner"] == pytest.approx(60)
    assert plan["missingReplicas"] == {}


def test_replicas_without_a_server_are_missing_and_exit_3(tmp_path: Path) -> None:
    path = write(tmp_path / "f.yaml", pool(), model(replicas=5), model("big", memory="5Gi"))
    plan = planned("-f", path, code=3)
    assert plan["missingReplicas"] == {"team-a/big": 1, "team-a/ner": 3}
    assert plan["models"]["team-a/big"]["alternatives"][0]["reason"] == "MemoryTooSmall"


@pytest.mark.parametrize(("objects", "code"), [([pool()], 0), ([model()], 3), ([model(replicas=0)], 0)])
def test_a_fleet_without_pools_or_models_is_planned_too(tmp_path: Path, objects: list[Object], code: int) -> None:
    plan = planned("-f", write(tmp_path / "f.yaml", *objects), code=code)
    assert plan["placements"] == []
    assert plan["watts"] == 0


def test_one_broken_model_of_many_is_reported_and_the_rest_is_planned(tmp_path: Path) -> None:
    broken = with_variant(model("broken"), memory="600MB")
    path = write(tmp_path / "f.yaml", pool(), *(model(f"m{n}", memory="1Mi") for n in range(50)), broken)
    plan = planned("-f", path, "--demand", demand(tmp_path / "d.yaml", m0=1, broken=5), code=1)
    assert len(plan["placements"]) == 50
    (line,) = lines(run("-f", path))
    said = (
        f"ergon: {path}, document 52: SpecializedModel team-a/broken: spec.variants[0].memory: '600MB' is not a quantity; write "
    )
    assert line.startswith(said)


def test_bad_input_goes_before_a_shortfall(tmp_path: Path) -> None:
    assert run("-f", write(tmp_path / "f.yaml", model(), {**pool(), "spec": {}})).exit_code == 1


def test_the_plan_of_its_own_result_moves_nothing(fleet: str, tmp_path: Path) -> None:
    write(tmp_path / "fleet" / "more.yaml", *(model(f"m{n}") for n in range(3)))
    wanted = demand(tmp_path / "d.yaml", ner=30, m0=20)
    current = tmp_path / "current.json"
    current.write_text(run("-f", fleet, "--demand", wanted, "-o", "json").stdout)
    again = planned("-f", fleet, "--demand", wanted, "--current", str(current))
    before = json.loads(current.read_text())
    assert [(p["model"], p["server"]) for p in again["placements"]] == [(p["model"], p["server"]) for p in before["placements"]]
    current.write_text(run("-f", fleet, "--demand", wanted, "-o", "yaml").stdout)
    assert planned("-f", fleet, "--demand", wanted, "--current", str(current))["servers"] == again["servers"]


def test_what_stands_stays_where_moving_saves_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "f.yaml", pool("a"), pool("b"), model())
    for name in ("a", "b"):
        standing = {"placements": [{"model": "team-a/ner", "variant": "cpu", "pool": name, "server": 0}]}
        plan = planned("-f", path, "--current", write(tmp_path / "current.yaml", standing))
        assert [placement["pool"] for placement in plan["placements"]] == [name]


def test_a_current_plan_may_name_what_is_gone(tmp_path: Path) -> None:
    gone = [
        {"model": "team-a/gone", "variant": "cpu", "pool": "processors", "server": 0},
        {"model": "team-a/ner", "variant": "gone", "pool": "processors", "server": 0},
        {"model": "team-a/ner", "variant": "cpu", "pool": "gone", "server": 0},
        {"model": "team-a/ner", "variant": "cpu", "pool": "processors", "server": 99},
    ]
    path = write(tmp_path / "f.yaml", pool(), model())
    plan = planned("-f", path, "--current", write(tmp_path / "current.yaml", {"placements": gone}))
    assert [(placement["pool"], placement["server"]) for placement in plan["placements"]] == [("processors", 0)]


def test_weights_choose_what_is_saved(tmp_path: Path) -> None:
    frugal = pool("frugal", pricePerServerHour=9, power={"hostWatts": 10, "idleWatts": 5, "busyWatts": 20})
    path = write(tmp_path / "f.yaml", frugal, pool("cheap", pricePerServerHour=1), model())
    wanted = ("-f", path, "--demand", demand(tmp_path / "d.yaml", ner=10))
    assert planned(*wanted)["servers"] == {"cheap": 0, "frugal": 1}
    assert planned(*wanted, "--weight-energy", "0", "--weight-price", "1")["servers"] == {"cheap": 1, "frugal": 0}
    assert planned(*wanted, "--weight-energy", "0", "--weight-grams", "1")["servers"] == {"cheap": 0, "frugal": 1}


def test_without_demand_that_is_said_where_it_disturbs_nothing(fleet: str) -> None:
    done = run("-f", fleet, "-o", "json")
    json.loads(done.stdout)
    assert [line for line in lines(done) if "no --demand" in line]


def test_a_reader_that_goes_away_is_no_error(fleet: str) -> None:
    ergon = str(Path(sys.executable).with_name("ergon"))
    done = subprocess.run(
        ["bash", "-c", f'"{ergon}" plan -f "{fleet}" -o json | head -c 1'],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == "{"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("modules", "needless"),
    [
        ("ergon.cli.main", "highspy numpy aiohttp pydantic cryptography kopf"),
        # `ergon local exec` stands before every command that scripts and tests run inside a cluster.
        ("ergon.cli.main, ergon.local.cli", "highspy numpy aiohttp pydantic cryptography kopf yaml"),
    ],
)
def test_a_command_loads_what_it_needs_only(modules: str, needless: str) -> None:
    code = f"import {modules}, sys; print(*sorted(set({needless.split()}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


def test_every_command_is_listed_and_a_near_miss_is_told() -> None:
    ergon = str(Path(sys.executable).with_name("ergon"))
    shown = subprocess.run([ergon, "--help"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert all(f" {name} " in shown for name in ("run", "plan", "crds", "local"))
    missed = subprocess.run([ergon, "plann"], capture_output=True, text=True, check=False, timeout=60)
    assert missed.returncode == 2
    assert "plan" in missed.stderr.replace("plann", "")
