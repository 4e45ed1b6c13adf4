"""`ergon top` and `ergon explain`: what runs, what it takes, and why, as the cluster's statuses say."""

from typing import Annotated

import typer

from ergon.cli.choices import Order, Output, Shown

Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig.")]


def top(
    shown: Annotated[Shown, typer.Argument(metavar="[all|models|pools|budgets]", help="What to show.")] = Shown.ALL,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Models of this namespace only. Default: of all.")] = "",
    sort: Annotated[
        Order, typer.Option(help="Models by watts, joules a request, demand (most first), or by name.")
    ] = Order.WATTS,
    limit: Annotated[int, typer.Option(min=0, help="Models in the table; 0: all.")] = 40,
    output: Annotated[Output, typer.Option("--output", "-o", help="How it is printed.")] = Output.TABLE,
    context: Context = None,
) -> None:
    """Show watts, joules a request and demand of models, pools and budgets.

    Figures are those of the statuses: means over minutes, rounded, rewritten when they change by a fifth; the live ones are
    metrics.
    """
    from ergon.cli.top_flow import show_top

    raise typer.Exit(show_top(shown.value, namespace, sort.value, limit, as_json=output is Output.JSON, context=context))


def explain(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="namespace/name, or the name of one in namespace default.")],
    context: Context = None,
) -> None:
    """Say of a model why it is here, why not there, and why it has so many replicas."""
    from ergon.cli.top_flow import show_explanation

    raise typer.Exit(show_explanation(model, context))
