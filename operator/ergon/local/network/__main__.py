"""The network process: `python -m ergon.local.network CLUSTER`, started inside the cluster's namespaces."""

from __future__ import annotations

import asyncio
import functools
import logging
import resource
import signal
import sys

from ergon.local.kubeclient import Api, Informer
from ergon.local.network.dns import DnsProtocol, serve_stream
from ergon.local.network.proxy import ServiceProxy
from ergon.local.network.services import ServiceTable
from ergon.local.state import DNS_ADDRESS, Layout

_DNS_PORT = 53


async def _run(name: str) -> None:
    layout = Layout.of(name)
    proxy = ServiceProxy()
    table = ServiceTable(proxy.update)
    loop = asyncio.get_running_loop()
    datagrams, _ = await loop.create_datagram_endpoint(lambda: DnsProtocol(table), local_addr=(DNS_ADDRESS, _DNS_PORT))
    streams = await asyncio.start_server(functools.partial(serve_stream, table), DNS_ADDRESS, _DNS_PORT)
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    async with Api(layout.pki / "node-agent.kubeconfig") as api:
        work = [
            Informer(api, "/api/v1/services", table.service_changed).run(),
            Informer(api, "/apis/discovery.k8s.io/v1/endpointslices", table.slice_changed).run(),
            proxy.run(),
        ]
        tasks = [asyncio.create_task(item) for item in work]
        await stopped.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    streams.close()
    datagrams.close()


def main() -> None:
    """Serve until SIGTERM; every service port costs a descriptor, so take all that are allowed."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_run(sys.argv[1]))


main()
