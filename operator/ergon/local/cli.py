"""`ergon local`: a cluster of one's own on this machine."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ergon.local import lifecycle, namespaces
from ergon.local.progress import Progress
from ergon.local.state import ClusterRecord, Layout, LocalError

app = typer.Typer(help="A cluster of your own on this machine: real parts, no root, nothing left behind.", no_args_is_help=True)
node_app = typer.Typer(help="Stop and start nodes, to see what a lost machine does.", no_args_is_help=True)
app.add_typer(node_app, name="node")

Name = Annotated[str, typer.Option("--name", help="Which cluster; several can run side by side.")]


def main() -> None:
    """Run the command line; what is wrong is one line, not a traceback."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        app(standalone_mode=True)
    except LocalError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"ergon: {error}", markup=False)
        sys.exit(error.exit_code)


@app.command()
def up(
    name: Name = "local",
    models: Annotated[
        Path | None, typer.Option("--models", help="The folder that pods see as model sources (ERGON_MODELS).")
    ] = None,
) -> None:
    """Bring the cluster up; again is harmless."""
    layout = Layout.of(name)
    record, started = lifecycle.up(layout, _models(models), Progress())
    out = Console(soft_wrap=True, highlight=False)
    out.print(
        f"Cluster {name} is {'up' if started else 'up already'}: API server on port {record.api_port}, "
        f"Gateway on {record.gateway_url}, models in {record.models}"
    )
    out.print(f'Now run: eval "$(ergon local env{"" if name == "local" else f" --name {name}"})"')


@app.command()
def down(name: Name = "local") -> None:
    """Take the cluster down: no process, mount or file stays but the cache and your models."""
    existed = lifecycle.down(Layout.of(name))
    Console().print(f"Cluster {name} is {'down' if existed else 'not up'}.")


@app.command()
def env(name: Name = "local") -> None:
    """Print the variables that point kubectl and clients at the cluster."""
    layout = Layout.of(name)
    record = lifecycle.running(layout)
    for key, value in _variables(layout, record).items():
        typer.echo(f"export {key}={shlex.quote(value)}")
    programs = Path(sys.executable).parent
    if str(programs) not in os.environ.get("PATH", "").split(":"):
        typer.echo(f'export PATH={shlex.quote(str(programs))}:"$PATH"')


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def exec(context: typer.Context, name: Name = "local") -> None:
    """Run a command inside the cluster's network, where Service names and pod addresses work: `exec -- curl …`."""
    layout = Layout.of(name)
    record = lifecycle.running(layout)
    if not context.args:
        raise LocalError("exec needs a command: ergon local exec -- CMD")
    os.environ.update({key: value for key, value in _variables(layout, record).items() if key != "ERGON_GATEWAY"})
    os.environ["ERGON_GATEWAY"] = lifecycle.INNER_GATEWAY
    sys.exit(namespaces.run_inside(record.init_pid, layout, context.args))


@node_app.command("stop")
def node_stop(node: str, name: Name = "local") -> None:
    """Let a node fall silent and kill its pods' processes, as a power cut would."""
    lifecycle.control_node(Layout.of(name), "stop", node)


@node_app.command("start")
def node_start(node: str, name: Name = "local") -> None:
    """Bring a stopped or deleted node back."""
    lifecycle.control_node(Layout.of(name), "start", node)


@app.command()
def status(name: Name = "local") -> None:
    """Show components, ports and how they do."""
    layout = Layout.of(name)
    record = lifecycle.running(layout)
    health = lifecycle.read_health(layout)
    table = Table("component", "state", "pid", "restarts")
    for component in health.get("components", []):
        state = "running" if component["running"] else "not running"
        table.add_row(component["name"], state, str(component["pid"] or "-"), str(component["restarts"]))
    console = Console()
    console.print(f"cluster {record.name}: {health.get('phase')}")
    console.print(table)


def _models(given: Path | None) -> Path | None:
    chosen = given or (Path(os.environ["ERGON_MODELS"]) if os.environ.get("ERGON_MODELS") else None)
    return chosen.expanduser().resolve() if chosen else None


def _variables(layout: Layout, record: ClusterRecord) -> dict[str, str]:
    return {"KUBECONFIG": str(layout.kubeconfig), "ERGON_GATEWAY": record.gateway_url, "ERGON_MODELS": record.models}
