"""`ergon crds`: the CustomResourceDefinitions, printed, written to a folder, or compared with what stands there."""

from pathlib import Path
from typing import Annotated

import typer

from ergon.api.crd import crd_documents, file_name, render_yaml


def crds(
    output: Annotated[
        Path | None, typer.Option(file_okay=False, help="Write one file a kind into this folder instead of printing.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option(help="Only compare with the files in this folder; exit 1 where one differs.")
    ] = None,
) -> None:
    """Print the CustomResourceDefinitions of Ergon as YAML."""
    rendered = {file_name(document): render_yaml(document) for document in crd_documents()}
    if check is not None:
        _compare(rendered, check)
    elif output is not None:
        output.mkdir(parents=True, exist_ok=True)
        for name, text in rendered.items():
            (output / name).write_text(text)
            typer.echo(f"wrote {output / name}")
    else:
        typer.echo("---\n".join(rendered.values()), nl=False)


def _compare(rendered: dict[str, str], folder: Path) -> None:
    problems = [f"{folder / name} is missing" for name in rendered if not (folder / name).is_file()]
    problems += [
        f"{folder / name} differs from the models in operator/ergon/api; run: ergon crds --output {folder}"
        for name, text in rendered.items()
        if (folder / name).is_file() and (folder / name).read_text() != text
    ]
    problems += [
        f"{path} belongs to no kind; delete it" for path in sorted(folder.glob("ergon.dev_*.yaml")) if path.name not in rendered
    ]
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(1)
