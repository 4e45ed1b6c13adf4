"""`ergon profile`: measure a model on a real server, and print operating points to paste into its YAML."""

from pathlib import Path
from typing import Annotated

import typer

from ergon.cli.choices import PointsOutput


def profile(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="namespace/name, or the name of one in namespace default.")],
    url: Annotated[
        str,
        typer.Option(
            envvar="ERGON_GATEWAY",
            help="Where to ask it, such as http://127.0.0.1:8080: a server, its Service or a Gateway. Default: inside the "
            "cluster the server itself.",
        ),
    ] = "",
    server: Annotated[
        str, typer.Option(metavar="POOL-N", help="Which of its servers, inside the cluster. Default: the first.")
    ] = "",
    request: Annotated[
        Path | None,
        typer.Option(
            "--request",
            "-r",
            metavar="FILE",
            help="A typical request (KServe v2 JSON). Default: one made up from the model's inputs, which may be far from yours.",
        ),
    ] = None,
    most: Annotated[int, typer.Option("--max-in-flight", min=1, max=4096, help="Requests at once, at most.")] = 64,
    seconds: Annotated[float, typer.Option(min=0.2, help="Length of one of the 3 to 10 windows of a step.")] = 2.0,
    tokens: Annotated[
        float,
        typer.Option(
            min=0, help="For generative models: work of the request, in output tokens + inputWeight x input tokens. 0: requests."
        ),
    ] = 0.0,
    watts: Annotated[
        float, typer.Option(min=0, help="Watts of the server's accelerators while busy, by your meter. 0: leave it out.")
    ] = 0.0,
    output: Annotated[PointsOutput, typer.Option("--output", "-o", help="How the points are printed.")] = PointsOutput.YAML,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
) -> None:
    """Measure a model: throughput and latency with 1, 2, 4, … requests in flight, until more brings nothing.

    The model must be Ready, and for figures that mean something alone on its server: nobody else should ask it, or its
    neighbours, meanwhile. Ends with 0, or with 1 where it could not be measured.
    """
    # Imported here, since every other command would else wait for the API's models and the HTTP client.
    from ergon.cli.profile_flow import Request, answer

    wanted = Request(
        model=model,
        url=url,
        server=server,
        request_path=request,
        most=most,
        window_seconds=seconds,
        tokens=tokens,
        watts=watts,
        as_json=output is PointsOutput.JSON,
        context=context,
    )
    raise typer.Exit(answer(wanted))
