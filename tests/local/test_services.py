"""Service addresses and names, the Gateway and the way in from outside, on a running cluster."""

import time
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.local.kube import Kube, job, pod, server, service

pytestmark = pytest.mark.cluster

_ASKS = """
import sys, urllib.request
print(sorted({urllib.request.urlopen(sys.argv[1], timeout=5).read().decode() for _ in range(40)}))
"""


def test_a_service_name_reaches_every_ready_pod(kube: Kube) -> None:
    labels = {"app": "web"}
    refusing = {"exec": {"command": ["false"]}, "periodSeconds": 1}
    idle = pod("idle", "sleep", "600", labels=labels, readinessProbe=refusing)
    kube.apply(server("one", "one", labels), server("two", "two", labels), idle, service("web", labels))
    kube.ready("one")
    kube.ready("two")
    kube.until("service", "web", lambda _: len(_endpoints(kube, "web")) == 2)
    for name in ("web", f"web.{kube.namespace}", f"web.{kube.namespace}.svc.cluster.local"):
        client = f"asks-{len(name)}"
        kube.apply(pod(client, "python3", "-c", _ASKS, f"http://{name}", spec={"restartPolicy": "Never"}))
        assert kube.output(client) == "['one', 'two']\n"
    outside = kube.inside("curl", "-s", "-m", "5", f"http://web.{kube.namespace}").stdout
    assert outside in ("one", "two")


def _endpoints(kube: Kube, name: str) -> list[str]:
    found = kube.kubectl(
        *("get", "endpointslices", f"--selector=kubernetes.io/service-name={name}"),
        "--output=jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}{.addresses[0]} {end}",
    )
    return found.split()


def test_a_service_without_ready_pods_refuses_at_once(kube: Kube) -> None:
    kube.apply(service("empty", {"app": "nobody"}))
    script = """
    start=$(date +%s); curl -s -m 10 http://empty || code=$?
    test $(( $(date +%s) - start )) -lt 5; echo $code
    """
    kube.apply(job("refused", script))
    assert kube.output("refused") == "7\n"


def test_a_service_follows_its_pods(kube: Kube) -> None:
    labels = {"app": "web"}
    kube.apply(server("one", "one", labels), service("web", labels))
    kube.ready("one")
    kube.apply(server("two", "two", labels))
    kube.ready("two")
    kube.kubectl("delete", "pod", "one", "--wait=true")
    answers = {kube.inside("curl", "-s", "-m", "5", f"http://web.{kube.namespace}").stdout for _ in range(3)}
    assert answers == {"two"}


def test_headless_names_give_the_pods(kube: Kube) -> None:
    labels = {"app": "web"}
    kube.apply(server("one", "one", labels), service("web", labels, clusterIP="None"))
    address = kube.ready("one")["status"]["podIP"]
    kube.until("service", "web", lambda _: _endpoints(kube, "web"))
    kube.apply(job("looks", "getent hosts web | cut -d' ' -f1"))
    assert kube.output("looks").strip() == address


def test_the_gateway_answers_on_a_loopback_port_soon_after_a_route(kube: Kube, cluster: Any) -> None:
    labels = {"app": "web"}
    kube.apply(server("one", "through the gateway", labels), service("web", labels))
    kube.ready("one")
    kube.apply(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "web"},
            "spec": {
                "parentRefs": [{"name": "ergon", "namespace": "ergon-gateway"}],
                "rules": [
                    {
                        "matches": [{"path": {"type": "PathPrefix", "value": f"/{kube.namespace}"}}],
                        "backendRefs": [{"name": "web", "port": 80}],
                    }
                ],
            },
        }
    )
    deadline = time.monotonic() + 10
    while (answer := _get(f"{cluster.gateway}/{kube.namespace}")) != "through the gateway":
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)


def _get(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return f"status {error.code}"


def test_many_services_answer(kube: Kube) -> None:
    labels = {"app": "web"}
    kube.apply(server("one", "one", labels), *(service(f"web-{number}", labels) for number in range(60)))
    kube.ready("one")
    script = "for n in 0 17 42 59; do curl -s -m 5 --retry 5 --retry-connrefused --retry-delay 1 http://web-$n; echo; done"
    kube.apply(job("asks", script))
    assert kube.output("asks").split() == ["one"] * 4
