"""`ergon crds`: print, write, compare."""

from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from ergon.cli.crds import crds

APP = typer.Typer()
APP.command()(crds)
RUNNER = CliRunner()
NAMES = [
    "ergon.dev_acceleratorpools.yaml",
    "ergon.dev_energybudgets.yaml",
    "ergon.dev_specializedmodels.yaml",
    "ergon.dev_taskroutes.yaml",
]


def test_they_are_printed_as_one_stream() -> None:
    printed = RUNNER.invoke(APP, [])
    assert printed.exit_code == 0
    kinds = [document["spec"]["names"]["kind"] for document in yaml.safe_load_all(printed.stdout)]
    assert kinds == ["AcceleratorPool", "SpecializedModel", "EnergyBudget", "TaskRoute"]


def test_what_was_written_compares_equal(tmp_path: Path) -> None:
    assert RUNNER.invoke(APP, ["--output", str(tmp_path / "new")]).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == NAMES
    assert RUNNER.invoke(APP, ["--check", str(tmp_path / "new")]).exit_code == 0


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (NAMES[0], "kind: Other\n", "differs"),
        (NAMES[1], None, "is missing"),
        ("ergon.dev_gone.yaml", "x", "belongs to no kind"),
    ],
)
def test_a_difference_is_named_and_fails(tmp_path: Path, name: str, text: str | None, says: str) -> None:
    RUNNER.invoke(APP, ["--output", str(tmp_path)])
    if text is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(text)
    checked = RUNNER.invoke(APP, ["--check", str(tmp_path)])
    assert checked.exit_code == 1
    assert name in checked.stderr
    assert says in checked.stderr
    assert len(checked.stderr.strip().splitlines()) == 1
