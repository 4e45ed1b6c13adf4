"""`ergon plan`: what a fleet would look like, from files before they are applied, or of the cluster that runs."""

from typing import Annotated

import typer

from ergon.cli.choices import PlanOutput


def plan(
    filename: Annotated[
        list[str] | None,
        typer.Option(
            "--filename",
            "-f",
            metavar="PATH",
            help="A file or a folder (recursive) with pools, models, budgets and namespaces, or - for stdin; may be repeated. "
            "Default: those of the cluster that the kubeconfig names.",
        ),
    ] = None,
    demand: Annotated[
        str | None,
        typer.Option(metavar="FILE", help='Work per second by model: {models: {"namespace/name": 12.5}}; absent is 0.'),
    ] = None,
    current: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The plan that stands, as `-o json` wrote it: a better one must earn its moves."),
    ] = None,
    diff: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Show what changes against the fleet in this file or folder: moves, watts, shortfall."),
    ] = None,
    output: Annotated[PlanOutput, typer.Option("--output", "-o", help="How the plan is printed.")] = PlanOutput.TABLE,
    explain: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="Show all alternatives of this model (namespace/name); may be repeated."),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Models in the table, those in trouble first; 0: all.")] = 40,
    weight_energy: Annotated[float, typer.Option(help="What a watt counts for.")] = 1.0,
    weight_price: Annotated[float, typer.Option(help="What a unit of price per hour counts for.")] = 0.0,
    weight_grams: Annotated[float, typer.Option(help="What a gram of CO2 per hour counts for.")] = 0.0,
    operator_namespace: Annotated[
        str, typer.Option(help="The operator's namespace: pools that name no namespaces take its models only.")
    ] = "ergon-system",
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Namespace of models that name none, as in kubectl apply -n.")
    ] = "default",
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig to read the cluster by, without -f.")] = None,
) -> None:
    """Plan a fleet: which model on which servers, what it draws, and why.

    Ends with 0, with 1 where some of the input is wrong (the rest is planned), with 3 where demand or replicas cannot be served.
    """
    # Imported here, since every other command would else wait for the solver and the API's models.
    from ergon.cli.plan_flow import Request, answer

    request = Request(
        paths=tuple(filename or ()),
        demand_path=demand,
        current_path=current,
        base_path=diff,
        output=output,
        explained=tuple(explain or ()),
        limit=limit,
        weights=(weight_energy, weight_price, weight_grams),
        operator_namespace=operator_namespace,
        default_namespace=namespace,
        context=context,
    )
    raise typer.Exit(answer(request))
