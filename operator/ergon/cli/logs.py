"""How a long-running command says what it does: its two options, and what comes of them."""

from typing import Annotated

import typer

LogFormat = Annotated[str, typer.Option("--log-format", envvar="ERGON_LOG_FORMAT", help="json or text.")]
LogLevel = Annotated[str, typer.Option("--log-level", envvar="ERGON_LOG_LEVEL", help="debug, info, warning or error.")]


def begin(log_format: str, log_level: str) -> None:
    """Send all logs to standard error. Raises typer.BadParameter for a format or a level that there is none of."""
    if log_format not in ("json", "text"):
        raise typer.BadParameter("write json or text", param_hint="--log-format")
    if log_level.lower() not in ("debug", "info", "warning", "error"):
        raise typer.BadParameter("write debug, info, warning or error", param_hint="--log-level")
    from ergon.telemetry import logs

    logs.configure(log_format, log_level)
