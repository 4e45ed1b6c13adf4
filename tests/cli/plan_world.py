"""A small fleet in files, and `ergon plan` on it, as a person runs it."""

import copy
import json
from pathlib import Path
from typing import Any

import typer
import yaml
from click.testing import Result
from typer.testing import CliRunner

from ergon.cli.plan import plan

Object = dict[str, Any]

APP = typer.Typer(pretty_exceptions_enable=False)
APP.command()(plan)


def pool(name: str = "processors", **spec: Any) -> Object:
    """Two servers of processors that take every namespace: 50 W idle on a host of 100 W, 250 W busy."""
    return {
        "apiVersion": "ergon.dev/v1alpha1",
        "kind": "AcceleratorPool",
        "metadata": {"name": name},
        "spec": {
            "accelerator": {"class": "cpu"},
            "memory": "4Gi",
            "servers": {"max": 2},
            "namespaces": {},
            "power": {"hostWatts": 100, "idleWatts": 50, "busyWatts": 250},
            "pricePerServerHour": 2,
            "carbon": {"gramsPerKilowattHour": 400},
            **spec,
        },
    }


def model(name: str = "ner", namespace: str = "team-a", memory: str = "1Gi", **spec: Any) -> Object:
    """A model that a whole server serves 100 times a second."""
    variant = {
        "name": "cpu",
        "accelerators": ["cpu"],
        "backend": "python",
        "source": {"uri": "file:///ner"},
        "memory": memory,
        "profiles": [{"accelerator": "cpu", "batch": 8, "requestsPerSecond": 100, "latency": "20ms", "watts": 250}],
    }
    return {
        "apiVersion": "ergon.dev/v1alpha1",
        "kind": "SpecializedModel",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"task": "test", "variants": [variant], **spec},
    }


def with_variant(obj: Object, **fields: Any) -> Object:
    """The model with fields of its first variant replaced."""
    changed = copy.deepcopy(obj)
    changed["spec"]["variants"][0] |= fields
    return changed


def write(path: Path, *objects: Any) -> str:
    """Objects as one stream of YAML; the path as text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump_all(objects))
    return str(path)


def demand(path: Path, **work: Any) -> str:
    """A demand of models in namespace team-a; the path as text."""
    return write(path, {"models": {f"team-a/{name}": figure for name, figure in work.items()}})


def run(*arguments: str, stdin: str | None = None) -> Result:
    """`ergon plan` with these arguments."""
    return CliRunner().invoke(APP, list(arguments), input=stdin)


def planned(*arguments: str, code: int = 0) -> Object:
    """The JSON of `ergon plan`, which must end with `code`."""
    done = run(*arguments, "-o", "json")
    assert done.exit_code == code, (done.exit_code, done.stderr, done.exception)
    found: Object = json.loads(done.stdout)
    return found


def lines(done: Result) -> list[str]:
    """What stands on stderr."""
    return done.stderr.splitlines()
