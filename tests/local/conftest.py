"""A namespace of the test's own on the session's cluster."""

import itertools
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.local.kube import Kube

_COUNT = itertools.count()


@pytest.fixture
def kube(cluster: Any) -> Iterator[Kube]:
    """kubectl in a fresh namespace, whose default service account is there; deleted afterwards."""
    namespace = f"local-{os.getpid()}-{next(_COUNT)}"
    found = Kube(cluster.name, cluster.kubeconfig, namespace)
    found.kubectl("create", "namespace", namespace)
    deadline = time.monotonic() + 20
    while not found.get("serviceaccount", "default"):
        assert time.monotonic() < deadline, json.dumps(found.get("namespace", namespace))
        time.sleep(0.05)
    yield found
    found.kubectl("delete", "pods", "--all", "--force", "--grace-period=0", check=False)
    found.kubectl("delete", "namespace", namespace, "--wait=false")
    found.reader.close()
