"""The fleet of the cluster that runs, as documents: what people declared, and in statuses where replicas stand."""

import asyncio

from ergon.cli.cluster import patient_client
from ergon.cli.plan_files import Unreadable
from ergon.fleet.documents import Document
from ergon.fleet.types import ModelKey
from ergon.kube.errors import KubeError, NotFound

_KINDS = (
    ("ergon.dev/v1alpha1", "AcceleratorPool"),
    ("ergon.dev/v1alpha1", "SpecializedModel"),
    ("ergon.dev/v1alpha1", "EnergyBudget"),
    ("v1", "Namespace"),
)


def read_cluster(context: str | None) -> list[Document]:
    """Pools, models, budgets and namespaces of the cluster. Raises Unreadable."""
    try:
        return asyncio.run(_read(context))
    except NotFound:
        raise Unreadable("the cluster does not know Ergon's kinds; install Ergon first, or plan files with -f") from None
    except KubeError as error:
        reason = " ".join(error.message.split())[:300]
        raise Unreadable(f"the cluster cannot be read: {reason}; or plan files with -f") from None


def asleep(documents: list[Document]) -> set[ModelKey]:
    """The models that sleep now, as their statuses say: the plan gives those no replica until somebody asks for them."""
    return {
        ModelKey(obj["metadata"]["namespace"], obj["metadata"]["name"])
        for obj in (document.content for document in documents)
        if obj.get("kind") == "SpecializedModel"
        and any(
            condition.get("type") == "Ready" and condition.get("reason") == "Asleep"
            for condition in (obj.get("status") or {}).get("conditions") or ()
        )
    }


async def _read(context: str | None) -> list[Document]:
    async with await patient_client(context) as client:
        listed = await asyncio.gather(*(client.list_all(api_version, kind) for api_version, kind in _KINDS))
    return [Document("cluster", item) for items in listed for item in items]
