"""The fleet of the cluster that runs, as documents: what people declared, and in statuses where replicas stand."""

import asyncio
import logging

from ergon.cli.plan_files import Unreadable
from ergon.fleet.documents import Document
from ergon.kube.client import KubeClient
from ergon.kube.errors import KubeError, NotFound
from ergon.kube.pace import Pace

_KINDS = (
    ("ergon.dev/v1alpha1", "AcceleratorPool"),
    ("ergon.dev/v1alpha1", "SpecializedModel"),
    ("ergon.dev/v1alpha1", "EnergyBudget"),
    ("v1", "Namespace"),
)
PATIENCE_SECONDS = 10.0
"""A person waits: an API server that does not answer in this time is said to be gone."""


def read_cluster(context: str | None) -> list[Document]:
    """Pools, models, budgets and namespaces of the cluster. Raises Unreadable."""
    logging.getLogger("kubernetes").setLevel(logging.ERROR)  # it warns of what the error says in full
    try:
        return asyncio.run(_read(context))
    except NotFound:
        raise Unreadable("the cluster does not know Ergon's kinds; install Ergon first, or plan files with -f") from None
    except KubeError as error:
        reason = " ".join(error.message.split())[:300]
        raise Unreadable(f"the cluster cannot be read: {reason}; or plan files with -f") from None


async def _read(context: str | None) -> list[Document]:
    pace = Pace(attempt_seconds=PATIENCE_SECONDS, total_seconds=PATIENCE_SECONDS)
    async with await KubeClient.from_environment(context=context, pace=pace) as client:
        listed = await asyncio.gather(*(client.list_all(api_version, kind) for api_version, kind in _KINDS))
    return [Document("cluster", item) for items in listed for item in items]
