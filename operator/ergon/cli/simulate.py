"""`ergon simulate`: what a fleet would have drawn, and answered in time, over a trace."""

from typing import Annotated

import typer

from ergon.cli.choices import Balance, ModeName, Output, PolicyName


def simulate(
    fleet: Annotated[
        list[str],
        typer.Option(
            "--fleet", "-f", metavar="PATH", help="A file or folder with pools, models, namespaces and budgets; repeatable."
        ),
    ],
    trace: Annotated[
        list[str],
        typer.Option(
            metavar="FILE",
            help="CSV, plain or .gz: time_s,model[,input_tokens,output_tokens], a line a request; or time_s,model,requests_per_s,"
            " a line a step; repeatable.",
        ),
    ],
    policy: Annotated[
        list[PolicyName] | None, typer.Option(help="A way of running the fleet; repeatable. Default: ergon.")
    ] = None,
    general: Annotated[
        str | None, typer.Option(metavar="MODEL", help="namespace/name of the model that serves every task under general.")
    ] = None,
    mode: Annotated[
        ModeName | None,
        typer.Option(help="requests: each one, exactly, with latencies. rate: as a flow, for weeks. Default: as the trace is."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all that is drawn by chance.")] = 0,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Begin here, such as 2d or 3600; what comes before is only learnt from."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="End here.")] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="How results are printed.")] = Output.TABLE,
    report: Annotated[str | None, typer.Option(metavar="FILE", help="Write a page with plots, which needs no network.")] = None,
    balance: Annotated[
        Balance, typer.Option(help="How the gateway chooses among ready replicas: as Envoy does by default, or as Traefik does.")
    ] = Balance.LEAST_REQUESTS,
    fetch_rate: Annotated[float, typer.Option(min=0.001, help="GB/s at which a server fetches a model.")] = 1.0,
    load_rate: Annotated[float, typer.Option(min=0.001, help="GB/s at which Triton loads one, after 2 s.")] = 1.0,
    step: Annotated[float, typer.Option(min=1, max=3600, help="Seconds of a step of rate mode, and of the plots.")] = 60.0,
    operator_namespace: Annotated[
        str, typer.Option(help="The operator's namespace: pools that name no namespaces take its models only.")
    ] = "ergon-system",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Namespace of models that name none.")] = "default",
) -> None:
    """Simulate a fleet over a trace of requests or rates, under one policy or several, side by side.

    Ends with 0, or with 1 where the input is wrong.
    """
    # Imported here, since every other command would else wait for the solver and the API's models.
    from ergon.cli.simulate_flow import Request, answer

    request = Request(
        fleet=tuple(fleet),
        traces=tuple(trace),
        policies=tuple(dict.fromkeys(policy or [PolicyName.ERGON])),
        general=general,
        mode=mode,
        seed=seed,
        start=start,
        until=until,
        output=output,
        report=report,
        balance=balance,
        fetch_rate=fetch_rate,
        load_rate=load_rate,
        step_seconds=step,
        operator_namespace=operator_namespace,
        default_namespace=namespace,
    )
    raise typer.Exit(answer(request))
