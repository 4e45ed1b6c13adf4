"""The command line: `ergon` and `kubectl ergon`."""

import sys

import typer

from ergon import __version__
from ergon.cli.plan import plan
from ergon.cli.run import run
from ergon.cli.simulate import simulate

app = typer.Typer(
    name="ergon",
    help="Ergon serves fleets of specialised models on Kubernetes: each on the fitting accelerator, for the least energy.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def top(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    """What holds for all commands."""
    if version:
        typer.echo(f"ergon {__version__}")
        raise typer.Exit


app.command()(run)
app.command()(plan)
app.command()(simulate)


def _mount() -> None:
    """Commands whose dependencies an operator image may lack are mounted where those are there."""
    from ergon.cli.crds import crds

    app.command()(crds)
    try:
        from ergon.local.cli import app as local
    except ImportError:
        return
    app.add_typer(local, name="local")


def main() -> None:
    """Entry point: errors are one line."""
    _mount()
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
