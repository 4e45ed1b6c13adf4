"""`ergon local`: a cluster of one's own on this machine.

What only one command needs is imported there: `exec` is called often, by scripts and tests, and shall start quickly.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from ergon.local import lifecycle, namespaces
from ergon.local.state import ClusterRecord, Layout, LocalError


class _Group(TyperGroup):
    """Says what is wrong in one line and ends with the error's exit status, wherever the commands are mounted."""

    def invoke(self, ctx: Any) -> Any:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        try:
            return super().invoke(ctx)
        except LocalError as error:
            Console(stderr=True, highlight=False, soft_wrap=True).print(f"ergon: {error}", markup=False)
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            if error.strerror is None or isinstance(error, BrokenPipeError):
                raise
            words = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
            Console(stderr=True, highlight=False, soft_wrap=True).print(f"ergon: {words}", markup=False)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Group, help="A cluster of your own on this machine: real parts, no root, nothing left behind.", no_args_is_help=True
)
node_app = typer.Typer(help="Stop and start nodes, to see what a lost machine does.", no_args_is_help=True)
app.add_typer(node_app, name="node")

Name = Annotated[str, typer.Option("--name", help="Which cluster; several can run side by side.", envvar="ERGON_CLUSTER")]


def main() -> None:
    """Run the command line."""
    app()


@app.command()
def up(
    name: Name = "local",
    models: Annotated[
        Path | None,
        typer.Option("--models", file_okay=False, help="The folder that pods see as model sources.", envvar="ERGON_MODELS"),
    ] = None,
) -> None:
    """Bring the cluster up; again is harmless."""
    from ergon.local.progress import Progress

    layout = Layout.of(name)
    record, started = lifecycle.up(layout, models.expanduser().resolve() if models else None, Progress())
    out = Console(soft_wrap=True, highlight=False)
    out.print(
        f"Cluster {name} is {'up' if started else 'up already'}: API server on port {record.api_port}, "
        f"Gateway on {record.gateway_url}, models in {record.models}"
    )
    option = "" if name == "local" else f" --name {name}"
    out.print(f'Now run: eval "$(ergon local env{option})"')


@app.command()
def down(name: Name = "local") -> None:
    """Take the cluster down: no process, mount or file stays but the cache and your models."""
    existed = lifecycle.down(Layout.of(name))
    typer.echo(f"Cluster {name} is {'down' if existed else 'not up'}.")


@app.command()
def status(name: Name = "local") -> None:
    """Show components, nodes, pods, ports and versions."""
    from ergon.local import report

    layout = Layout.of(name)
    report.print_status(layout, lifecycle.running(layout), lifecycle.read_health(layout), Console())


@app.command()
def logs(
    what: Annotated[str, typer.Argument(help="A component (see status), or a pod as NAME or NAMESPACE/NAME.")] = "",
    name: Name = "local",
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Where the pod is. Default: wherever one of its name is.")
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    lines: Annotated[int, typer.Option("--tail", help="How many of the last lines.")] = 50,
) -> None:
    """Show the log of a component or of a pod; without a name, the last words of every component."""
    from ergon.local import report

    layout = Layout.of(name)
    if not what:
        if not report.print_last_words(layout):
            lifecycle.running(layout)
    elif not namespace and "/" not in what and report.component_log(layout, what).exists():
        report.print_log(report.component_log(layout, what), lines, follow)
    else:
        record = lifecycle.running(layout)
        place = f"{namespace}/{what}" if namespace else what
        namespace, pod = report.find_pod(layout, place)
        kubectl = Path(record.triton_environment) / "venv" / "bin" / "kubectl"
        target = ["--namespace", namespace, "logs", pod, "--all-containers", "--prefix", f"--tail={lines}"]
        arguments = ["kubectl", "--kubeconfig", str(layout.kubeconfig), *target, *(["--follow"] if follow else [])]
        os.execv(kubectl, arguments)


@app.command()
def env(name: Name = "local") -> None:
    """Print the variables that point kubectl and clients at the cluster."""
    from ergon.local import triton_env

    layout = Layout.of(name)
    record = lifecycle.running(layout)
    for key, value in _variables(layout, record).items():
        typer.echo(f"export {key}={shlex.quote(value)}")
    if shutil.which("kubectl") is None:
        typer.echo(f'export PATH="$PATH":{shlex.quote(str(triton_env.programs(Path(record.triton_environment))))}')


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def exec(context: typer.Context, name: Name = "local") -> None:
    """Run a command inside the cluster's network, where Service names and pod addresses work: `exec -- curl …`."""
    layout = Layout.of(name)
    record = lifecycle.running(layout)
    if not context.args:
        raise LocalError("exec needs a command: ergon local exec -- CMD")
    os.environ["ERGON_GATEWAY"] = lifecycle.INNER_GATEWAY
    os.environ["ERGON_MODELS"] = record.models
    raise typer.Exit(namespaces.run_inside(record.init_pid, layout, context.args))


@node_app.command("stop")
def node_stop(node: str, name: Name = "local") -> None:
    """Let a node fall silent and kill its pods' processes, as a power cut would."""
    lifecycle.control_node(Layout.of(name), "stop", node)


@node_app.command("start")
def node_start(node: str, name: Name = "local") -> None:
    """Bring a stopped or deleted node back."""
    lifecycle.control_node(Layout.of(name), "start", node)


def _variables(layout: Layout, record: ClusterRecord) -> dict[str, str]:
    return {
        "ERGON_CLUSTER": layout.name,
        "KUBECONFIG": str(layout.kubeconfig),
        "ERGON_GATEWAY": record.gateway_url,
        "ERGON_MODELS": record.models,
    }
