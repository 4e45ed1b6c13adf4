"""Cluster names: answers for `<service>.<namespace>.svc.cluster.local` and what stands before it, over UDP and TCP.

Other names do not exist here: the cluster's network has no way out.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from collections.abc import Callable
from typing import cast

from dnslib import CNAME, QTYPE, RCODE, RR, SRV, A, DNSHeader, DNSRecord
from dnslib.dns import DNSError

from ergon.local.network.services import Service, ServiceTable

DOMAIN = ("svc", "cluster", "local")
_TTL_SECONDS = 5
_UDP_BYTES = 1232
_TCP_IDLE_SECONDS = 10.0

Lookup = Callable[[str, str], Service | None]


def answer(query: bytes, table: ServiceTable) -> bytes:
    """The answer to one DNS message; empty for what is no query at all."""
    try:
        request = DNSRecord.parse(query)
    except (DNSError, IndexError, struct.error):
        return b""
    reply = DNSRecord(DNSHeader(id=request.header.id, qr=1, aa=1, ra=1, rd=request.header.rd), q=request.q)
    records = resolve(str(request.q.qname), QTYPE[request.q.qtype], table.find)
    if records is None:
        reply.header.rcode = RCODE.NXDOMAIN
    for record in records or []:
        reply.add_answer(record)
    return bytes(reply.pack())


def resolve(name: str, kind: str, find: Lookup) -> list[RR] | None:
    """Records for a name; an empty list when the name exists without that kind, None when there is no such name."""
    labels = [label.lower() for label in name.rstrip(".").split(".")]
    if tuple(labels[-3:]) != DOMAIN:
        return None
    rest = labels[:-3]
    if len(rest) == 2:
        return _service(name, rest[0], rest[1], kind, find)
    if len(rest) == 3:
        return _endpoint(name, rest[0], find(rest[2], rest[1]), kind)
    if len(rest) == 4 and rest[0].startswith("_") and rest[1] == "_tcp":
        return _port(name, rest[0][1:], find(rest[3], rest[2]), kind)
    return None


def _service(name: str, service_name: str, namespace: str, kind: str, find: Lookup) -> list[RR] | None:
    service = find(namespace, service_name)
    if service is None:
        return None
    if service.external_name:
        return [RR(name, QTYPE.CNAME, rdata=CNAME(service.external_name), ttl=_TTL_SECONDS)]
    if service.address:
        return _addresses(name, [service.address], kind)
    every = sorted({address for found in service.addresses().values() for address in found})
    if not every:
        return None
    random.shuffle(every)
    return _addresses(name, every, kind)


def _endpoint(name: str, hostname: str, service: Service | None, kind: str) -> list[RR] | None:
    if service is None or service.address:
        return None
    by_host = service.addresses()
    found = by_host.get(hostname) if hostname else None
    if found is None:
        found = {address for addresses in by_host.values() for address in addresses if address.replace(".", "-") == hostname}
    return _addresses(name, sorted(found), kind) if found else None


def _port(name: str, port_name: str, service: Service | None, kind: str) -> list[RR] | None:
    if service is None or port_name not in service.ports:
        return None
    if kind not in ("SRV", "ANY"):
        return []
    target = ".".join((service.name, service.namespace, *DOMAIN))
    return [RR(name, QTYPE.SRV, rdata=SRV(0, 100, service.ports[port_name], target), ttl=_TTL_SECONDS)]


def _addresses(name: str, addresses: list[str], kind: str) -> list[RR]:
    if kind not in ("A", "ANY"):
        return []
    return [RR(name, QTYPE.A, rdata=A(address), ttl=_TTL_SECONDS) for address in addresses]


class DnsProtocol(asyncio.DatagramProtocol):
    """The UDP side; what does not fit is truncated, so that the client asks again over TCP."""

    def __init__(self, table: ServiceTable) -> None:
        self._table = table
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str | bytes, int]) -> None:
        reply = answer(data, self._table)
        if not reply or self._transport is None:
            return
        if len(reply) > _UDP_BYTES:
            cut = DNSRecord.parse(reply).truncate()
            reply = bytes(cut.pack())
        self._transport.sendto(reply, address)


async def serve_stream(table: ServiceTable, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The TCP side: length-prefixed messages until the client is silent or gone."""
    with contextlib.suppress(asyncio.IncompleteReadError, TimeoutError, OSError):
        while True:
            async with asyncio.timeout(_TCP_IDLE_SECONDS):
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                reply = answer(await reader.readexactly(length), table)
            writer.write(struct.pack("!H", len(reply)) + reply)
            await writer.drain()
    writer.close()
