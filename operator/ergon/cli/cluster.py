"""The API server of the cluster that a person's kubeconfig names, for commands that a person waits for."""

import logging

from ergon.kube.client import KubeClient
from ergon.kube.pace import Pace

PATIENCE_SECONDS = 10.0
"""A person waits: an API server that does not answer in this time is said to be gone."""


async def patient_client(context: str | None) -> KubeClient:
    """A client to be used in `async with`. Raises KubeError where there is no usable configuration."""
    logging.getLogger("kubernetes").setLevel(logging.ERROR)  # it warns of what the error says in full
    pace = Pace(attempt_seconds=PATIENCE_SECONDS, total_seconds=PATIENCE_SECONDS)
    return await KubeClient.from_environment(context=context, pace=pace)
