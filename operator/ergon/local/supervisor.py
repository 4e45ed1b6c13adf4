"""The one daemon of a running cluster: `python -m ergon.local.supervisor CLUSTER`, started by `up`.

Outside it holds the loopback ports and the namespaces' pid 1; when it ends, by whatever means, the kernel ends everything inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import os
import signal
import sys

from ergon.local import manager, namespaces
from ergon.local.relay import serve_outside
from ergon.local.state import (
    NODE_NETWORK,
    POD_NETWORK,
    SERVICE_NETWORK,
    ClusterRecord,
    Layout,
    LocalError,
    process_start,
)


def networks() -> list[tuple[str, int]]:
    """The first address of each network with the network's prefix length: all of each becomes local to the cluster."""
    found = []
    for text in (NODE_NETWORK, POD_NETWORK, SERVICE_NETWORK):
        network = ipaddress.ip_network(text)
        found.append((str(network.network_address + 1), network.prefixlen))
    return found


def _init(layout: Layout, record: ClusterRecord) -> None:
    """The life of pid 1 inside: furnish the namespaces, start the manager, reap."""
    namespaces.prepare(networks(), layout.resolv_conf)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            asyncio.run(manager.run(layout, record))
            status = 0
        finally:
            os._exit(status)
    namespaces.reap_until_exit(child)


async def _outside(layout: Layout, record: ClusterRecord, child: int, init_pid: int) -> None:
    """Carry connections until the cluster ends or we are told to end it."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    descriptor = os.pidfd_open(child)
    loop.add_reader(descriptor, over.set)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    servers = await serve_outside(layout.sockets, record.api_port, record.gateway_port)
    await over.wait()
    loop.remove_reader(descriptor)
    for server in servers:
        server.close()
    with contextlib.suppress(ProcessLookupError):
        os.kill(init_pid, signal.SIGKILL)
    os.close(descriptor)


def main() -> None:
    """Run until the cluster ends; SIGTERM ends it."""
    layout = Layout.of(sys.argv[1])
    loaded = ClusterRecord.load(layout.record)
    if loaded is None:
        raise LocalError(f"{layout.record} cannot be read")
    record: ClusterRecord = loaded
    layout.resolv_conf.write_text(namespaces.resolver_configuration("default"))
    child, init_pid = namespaces.spawn_init(lambda: _init(layout, record))
    pid = os.getpid()
    record = dataclasses.replace(record, supervisor_pid=pid, init_pid=init_pid, supervisor_start=process_start(pid))
    record.save(layout.record)
    asyncio.run(_outside(layout, record, child, init_pid))
    os.waitpid(child, 0)


if __name__ == "__main__":
    try:
        main()
    except LocalError as error:
        sys.exit(f"ergon: {error}")
