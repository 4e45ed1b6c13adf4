"""What can be wrong in what `ergon plan` is given: one line on stderr that says what and where, exit 1, never a traceback."""

from pathlib import Path
from typing import Any

import pytest

from tests.cli.plan_world import Object, lines, model, planned, pool, run, with_variant, write

NAN = float("nan")


@pytest.fixture
def fleet(tmp_path: Path) -> str:
    """A pool and a model in one file."""
    return write(tmp_path / "fleet.yaml", pool(), model())


def refused(*arguments: str) -> str:
    """The one line on stderr; nothing was planned."""
    done = run(*arguments)
    assert done.exit_code == 1, done.stdout
    assert done.stdout == ""
    (line,) = lines(done)
    assert line.startswith("ergon: ")
    return line


def test_paths_that_are_not_there(tmp_path: Path) -> None:
    assert "absent.yaml: cannot be read (No such file or directory)" in refused("-f", str(tmp_path / "absent.yaml"))


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    assert f"{tmp_path}: no AcceleratorPool and no SpecializedModel is there" in refused("-f", str(tmp_path))


@pytest.mark.parametrize("text", ["", "# nothing\n", "kind: Deployment\napiVersion: apps/v1\n", "3\n"])
def test_files_without_a_fleet(tmp_path: Path, text: str) -> None:
    (tmp_path / "f.yaml").write_text(text)
    assert "no AcceleratorPool and no SpecializedModel is there" in refused("-f", str(tmp_path))


def test_a_file_that_is_no_yaml_is_reported_and_the_rest_is_planned(fleet: str, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("a: [1\nb: 2\n")
    plan = planned("-f", str(tmp_path), code=1)
    assert len(plan["placements"]) == 1
    (line,) = lines(run("-f", str(tmp_path)))
    assert line.startswith(f"ergon: {tmp_path}/broken.yaml, document 1: is not valid YAML: ")
    assert "(line 2)" in line


@pytest.mark.parametrize(
    ("obj", "says"),
    [
        (with_variant(model("x"), gpu=True), "SpecializedModel team-a/x: spec.variants[0].gpu: unknown field; correct its name"),
        (model("x", repliacs=3), "SpecializedModel team-a/x: spec.repliacs: unknown field"),
        ({**model("x"), "sepc": {}}, "SpecializedModel team-a/x: sepc: unknown field"),
        (pool("p", power={"idleWats": 3}), "AcceleratorPool p: spec.power.idleWats: unknown field"),
        (model(), "SpecializedModel team-a/ner: it is there twice, first in "),
        (pool(), "AcceleratorPool processors: it is there twice, first in "),
        (model("x", autoscaling={"minReplicas": 3, "maxReplicas": 2}), "maxReplicas is below minReplicas"),
        (pool("p", servers={"min": 3, "max": 2}), "spec.servers: min is above max"),
        (model("x", priority="high"), "SpecializedModel team-a/x: spec.priority: must be a valid integer"),
        (model("x", priority=NAN), "SpecializedModel team-a/x: spec.priority: "),
        (pool("p", power={"idleWatts": NAN}), "AcceleratorPool p: spec.power.idleWatts: "),
        (pool("p", memory="22GB"), "AcceleratorPool p: spec.memory: '22GB' is not a quantity"),
        (model("X"), "SpecializedModel team-a/X: metadata.name: 'X' must be lower-case"),
        ({**model("x"), "spec": None}, "SpecializedModel team-a/x: spec: must be a map"),
        ({**model("x"), "apiVersion": "ergon.dev/v2"}, "SpecializedModel team-a/x: apiVersion: must be ergon.dev/v1alpha1"),
        ({"apiVersion": "ergon.dev/v1alpha1", "kind": "EnergyBudget", "metadata": {"name": "b"}, "spec": {}}, "EnergyBudget b: "),
    ],
)
def test_a_broken_object_is_one_line_and_the_rest_is_planned(fleet: str, tmp_path: Path, obj: Object, says: str) -> None:
    path = write(tmp_path / "wrong.yaml", obj)
    plan = planned("-f", fleet, "-f", path, code=1)
    assert [placement["model"] for placement in plan["placements"]] == ["team-a/ner"]
    (line,) = [line for line in lines(run("-f", fleet, "-f", path)) if "note:" not in line]
    assert line.startswith(f"ergon: {path}, document 1: ")
    assert says in line


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"models": {"team-a/nre": 1}}, "models.team-a/nre: there is no such model"),
        ({"models": {"ner": 1}}, 'models.ner: a model is named "namespace/name"'),
        ({"models": {"team-a/ner": NAN}}, "models.team-a/ner: is not a number"),
        ({"models": {"team-a/ner": float("inf")}}, "models.team-a/ner: is more than"),
        ({"models": {"team-a/ner": -1}}, "models.team-a/ner: -1 is negative"),
        ({"models": {"team-a/ner": "many"}}, "models.team-a/ner: 'many' is not a number"),
        ({"team-a/ner": 1}, "must be a map such as {models:"),
        ([1], "must be a map such as {models:"),
    ],
)
def test_a_wrong_demand_stops_before_planning(fleet: str, tmp_path: Path, content: Any, says: str) -> None:
    path = write(tmp_path / "demand" / "d.yaml", content)
    assert refused("-f", fleet, "--demand", path).startswith(f"ergon: {path}: {says}")


def test_every_wrong_line_of_a_demand_is_named(fleet: str, tmp_path: Path) -> None:
    path = write(tmp_path / "demand" / "d.yaml", {"models": {"a/b": 1, "team-a/ner": -1}})
    done = run("-f", fleet, "--demand", path)
    assert done.exit_code == 1
    assert len(lines(done)) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "document 1: is not valid YAML"),
        ("", "holds 0 documents, where one is read"),
        ("{}\n---\n{}", "holds 2 documents, where one is read"),
        ("{}", "placements: must be a list"),
        ("placements: [1]", "placements[0]: needs model"),
        ("placements: [{model: ner, variant: v, pool: p, server: 0}]", "placements[0]: needs model"),
        ("placements: [{model: a/b, variant: v, pool: p, server: -1}]", "placements[0]: needs model"),
        ("placements: [{model: a/b, variant: v, pool: p, server: true}]", "placements[0]: needs model"),
    ],
)
def test_a_wrong_current_plan_stops_before_planning(fleet: str, tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "current.json"
    path.write_text(text)
    assert says in refused("-f", fleet, "--current", str(path))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--weight-energy", "-1"], "--weight-energy: -1.0 is no weight"),
        (["--weight-price", "nan"], "--weight-price: nan is no weight"),
        (["--weight-grams", "inf"], "--weight-grams: inf is no weight"),
        (["--weight-energy", "0"], "are all 0"),
        (["--explain", "nre"], "--explain nre: there is no such model"),
        (["--demand", "/absent/demand.yaml"], "/absent/demand.yaml: cannot be read"),
        (["--current", "/absent/current.json"], "/absent/current.json: cannot be read"),
        (["--diff", "/absent"], "/absent: cannot be read"),
    ],
)
def test_options_that_make_no_sense(fleet: str, options: list[str], says: str) -> None:
    assert says in refused("-f", fleet, *options)


def test_a_name_in_two_namespaces_is_explained_by_its_full_name(tmp_path: Path) -> None:
    path = write(tmp_path / "f.yaml", pool(), model(), model(namespace="team-b"))
    assert "--explain ner: 2 models have that name; give namespace/name" in refused("-f", path, "--explain", "ner")


def test_where_no_cluster_answers_that_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    config = {"apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": [cluster], "contexts": [context]}
    path = write(tmp_path / "config", {**config, "users": [{"name": "u", "user": {}}]})
    monkeypatch.setattr("ergon.cli.cluster.PATIENCE_SECONDS", 0.3)
    monkeypatch.setenv("KUBECONFIG", path)
    assert "the cluster cannot be read: " in refused()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    assert "set KUBECONFIG or pass --context; or plan files with -f" in refused()
