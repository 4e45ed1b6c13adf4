"""The tables of `ergon plan`: what a person finds in them, and that they stay readable."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from ergon.cli.plan_rows import model_rows, number, places, pool_rows
from ergon.cli.plan_table import print_plan
from ergon.fleet.types import Fleet, ModelKey, Replica, ServerKey
from ergon.planning import Plan
from tests.cli.plan_world import demand, model, pool, run, with_variant, write

WIDTH = 100


def replica(name: str, pool: str, ordinal: int) -> Replica:
    return Replica(ModelKey("team-a", name), "cpu", ServerKey(pool, ordinal))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.01234, "0.0123"), (12.345, "12.3"), (99.96, "100"), (123.4, "123"), (1234567.8, "1,234,568"), (-0.5, "-0.5")],
)
def test_figures_have_three_digits_and_thousands_apart(value: float, text: str) -> None:
    assert number(value) == text


def test_places_are_short() -> None:
    assert places([]) == ""
    standing = [replica("ner", "l4", ordinal) for ordinal in (5, 0, 1, 2)] + [replica("ner", "xeon", 0)]
    assert places(standing) == "l4 0-2,5; xeon 0"


def test_a_table_holds_pools_models_and_totals(tmp_path: Path) -> None:
    path = write(
        tmp_path / "f.yaml", pool(), pool("spare", servers={"max": 0}), model(), model("idle", autoscaling={"minReplicas": 0})
    )
    done = run("-f", path, "--demand", demand(tmp_path / "d.yaml", ner=12.5))
    assert done.exit_code == 0
    assert done.stderr == ""
    text = done.stdout
    assert ["processors", "1", "of", "2", "1", "12%", "25%", "175", "2", "70"] in [line.split() for line in text.splitlines()]
    assert ["spare", "0", "of", "0", "0", "-", "-", "0", "0", "0"] in [line.split() for line in text.splitlines()]
    assert ["team-a/ner", "processors", "0", "cpu", "1", "12.5", "12%", "25"] in [line.split() for line in text.splitlines()]
    assert "    processors: LeastEnergy, 12.5 work/s for 25 W" in text
    assert ["team-a/idle", "-", "-", "0", "0", "-", "0"] in [line.split() for line in text.splitlines()]
    assert "    no demand, and minReplicas is 0" in text
    assert "175 W, 2 an hour, 70 g CO2 an hour; planned in 0." in text
    assert "no plan that serves as much takes less than " in text


def test_it_fits_and_is_plain_where_no_terminal_is(tmp_path: Path) -> None:
    longest = model("m" * 63, "n" * 63)
    longest["spec"]["variants"][0]["name"] = "v" * 63
    path = write(tmp_path / "f.yaml", pool("p" * 40), longest, model(replicas=9))
    for options in ((), ("--explain", "m" * 63), ("--explain", "ner")):
        done = run("-f", path, *options)
        assert done.exit_code == 3
        assert max(map(len, done.stdout.splitlines())) <= WIDTH
        assert "\x1b" not in done.stdout
        assert not [line for line in done.stdout.splitlines() if line != line.rstrip()]


def test_what_is_short_stands_first_with_the_reason(tmp_path: Path) -> None:
    path = write(
        tmp_path / "f.yaml",
        pool(),
        pool("tiny", memory="1Mi"),
        model("busy", priority=900),
        model("low", priority=10),
        model("high", priority=200, memory="9Gi"),
        model("many", priority=100, replicas=5),
    )
    done = run("-f", path, "--demand", demand(tmp_path / "d.yaml", busy=100, low=500))
    assert done.exit_code == 3
    rows = [line for line in done.stdout.splitlines() if line.startswith("team-a/")]
    assert [row.split()[0] for row in rows] == ["team-a/high", "team-a/many", "team-a/low", "team-a/busy"]
    assert "1 replica missing: " in done.stdout
    assert "3 replicas missing: " in done.stdout
    assert "of 500 work/s not served: " in done.stdout
    assert "MemoryTooSmall on processors, tiny" in done.stdout
    assert "demand of 1 models is not all served and 4 replicas are missing" in done.stdout


def test_the_nearest_misses_are_told_of_many_pools(tmp_path: Path) -> None:
    gpus = [pool(f"gpu-{n}", accelerator={"class": "gpu"}) for n in range(5)]
    closed = pool("closed", namespaces={"matchLabels": {"a": "b"}})
    path = write(tmp_path / "f.yaml", *gpus, closed, pool(memory="1Mi"), model())
    text = " ".join(run("-f", path).stdout.split())
    reasons = "MemoryTooSmall on processors; NamespaceNotAllowed on closed; AcceleratorMismatch on gpu-0, gpu-1, gpu-2 and 2 more"
    assert f"1 replica missing: {reasons}" in text


def test_a_model_without_any_pool_says_so(tmp_path: Path) -> None:
    done = run("-f", write(tmp_path / "f.yaml", model()))
    assert done.exit_code == 3
    assert "1 replica missing: there is no pool" in done.stdout


def test_a_thousand_models_stay_readable(tmp_path: Path) -> None:
    objects = [pool(servers={"max": 40}), *(model(f"m{n:03}", memory="16Mi") for n in range(1000)), model("big", memory="9Gi")]
    path = write(tmp_path / "f.yaml", *objects)
    text = run("-f", path).stdout
    assert len(text.splitlines()) < 100
    assert text.index("team-a/big") < text.index("team-a/m000")
    assert "and 961 more; --limit 0 or -o json shows all" in text
    assert run("-f", path, "--limit", "0").stdout.count("team-a/") == 1001
    assert "and 1000 more; " in run("-f", path, "--limit", "1").stdout


def test_more_models_in_trouble_than_fit_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "f.yaml", pool(), *(model(f"m{n}", memory="9Gi") for n in range(5)))
    assert "and 3 more, 3 of them in trouble; " in run("-f", path, "--limit", "2").stdout


def test_all_alternatives_of_a_model_are_explained_chosen_first(tmp_path: Path) -> None:
    path = write(tmp_path / "f.yaml", pool("a", memory="1Mi"), pool("b"), pool("c", accelerator={"class": "gpu"}), model())
    text = run("-f", path, "--demand", demand(tmp_path / "d.yaml", ner=5), "--explain", "ner").stdout
    assert text.startswith("team-a/ner: 5 work/s, on b 0\n")
    verdicts = [line.split()[:4] for line in text.splitlines()[2:5]]
    assert verdicts[0] == ["b", "cpu", "Chosen", "LeastEnergy"]
    assert sorted(verdicts[1:]) == [["a", "cpu", "Rejected", "MemoryTooSmall"], ["c", "cpu", "Rejected", "AcceleratorMismatch"]]


def test_limits_that_cannot_be_held_and_notes_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    fleet = Fleet(pools=(), models=(), namespaces={}, operator_namespace="ergon-system")
    made = Plan(over_limit_watts={"site": 123.0}, notes=("the solver gave no answer [in time]",))
    print_plan(fleet, made, 0.1, limit=40, notes=made.notes, change=None)
    text = capsys.readouterr().out
    assert "over limit: EnergyBudget site cannot be held, by 123 W above 95 % of its limit" in text
    assert "note: the solver gave no answer [in time]" in text


def test_a_watt_limit_that_cannot_be_held_comes_from_files(tmp_path: Path) -> None:
    budget = {"apiVersion": "ergon.dev/v1alpha1", "kind": "EnergyBudget", "metadata": {"name": "site"}}
    path = write(tmp_path / "f.yaml", pool(servers={"min": 2, "max": 2}), model(), {**budget, "spec": {"limits": {"watts": 200}}})
    done = run("-f", path)
    assert "over limit: EnergyBudget site cannot be held, by 110 W above 95 % of its limit" in done.stdout


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "f.yaml", pool(power={}), with_variant(model(), profiles=[]))
    text = " ".join(run("-f", path).stdout.split())
    assert "energy assumed: no operating point for processors" in text
    assert "note: no --demand: every model counts as without requests" in text
    assert "note: no spec.power in processors: what runs there counts as hardly any watts" in text


def test_pools_sum_up_to_the_whole(tmp_path: Path) -> None:
    from dataclasses import replace

    from ergon.cli.plan_files import read_paths
    from ergon.fleet.documents import read_fleet
    from ergon.planning import plan

    objects = [pool("a"), pool("b", power={"idleWatts": 9, "scaleIn": False}), *(model(f"m{n}") for n in range(6))]
    documents = read_paths([write(tmp_path / "f.yaml", *objects)]).documents
    read = read_fleet(documents, operator_namespace="ergon-system").fleet
    fleet = replace(read, demand={found.key: 40.0 for found in read.models})
    made = plan(fleet)
    rows = pool_rows(fleet, made)
    assert sum(row.watts for row in rows) == pytest.approx(made.watts)
    assert sum(row.price_per_hour for row in rows) == pytest.approx(made.price_per_hour)
    assert sum(row.grams_per_hour for row in rows) == pytest.approx(made.grams_per_hour)
    assert sum(row.replicas for row in rows) == sum(row.replicas for row in model_rows(fleet, made))


def test_a_terminal_gets_colours(tmp_path: Path) -> None:
    path = write(tmp_path / "f.yaml", pool(), model(replicas=9))
    ergon = str(Path(sys.executable).with_name("ergon"))
    main, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    done = subprocess.Popen([ergon, "plan", "-f", path], stdout=terminal, stderr=subprocess.PIPE, env=environment)
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(main, 65536):
            shown += part
    except OSError:  # what Linux says at the end of a terminal
        pass
    assert done.wait(timeout=60) == 3
    assert done.stderr is not None
    done.stderr.close()
    os.close(main)
    assert b"\x1b[1;31m" in shown
