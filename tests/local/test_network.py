"""Service tables, cluster names and the carrying of bytes."""

import asyncio
import contextlib
import functools
from pathlib import Path

import dnslib
import pytest

from ergon.local.network.dns import answer, serve_stream
from ergon.local.network.proxy import ServiceProxy
from ergon.local.network.services import Service, ServiceTable
from ergon.local.streams import PipeListener


def service(name: str, address: str = "10.96.5.5", **spec: object) -> dict:
    ports = [{"name": "http", "port": 8000}, {"name": "dns", "port": 53, "protocol": "UDP"}]
    return {"metadata": {"namespace": "ns", "name": name}, "spec": {"clusterIP": address, "ports": ports, **spec}}


def endpoint_slice(name: str, owner: str, *endpoints: dict, port: int = 8080) -> dict:
    return {
        "metadata": {"namespace": "ns", "name": name, "labels": {"kubernetes.io/service-name": owner}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": list(endpoints),
    }


def endpoint(address: str, *, ready: bool | None = True, serving: bool | None = None, hostname: str = "") -> dict:
    return {"addresses": [address], "conditions": {"ready": ready, "serving": serving}, "hostname": hostname}


def table_of(*items: dict) -> ServiceTable:
    table = ServiceTable(lambda _: None)
    for item in items:
        (table.slice_changed if "endpoints" in item else table.service_changed)(None, item)
    return table


def addresses(table: ServiceTable, name: str) -> list[str]:
    found = table.find("ns", name)
    assert found is not None
    return sorted(endpoint.address for endpoint in found.endpoints("http"))


def ask(table: ServiceTable, name: str, kind: str = "A") -> tuple[str, list[str]]:
    reply = dnslib.DNSRecord.parse(answer(dnslib.DNSRecord.question(name, kind).pack(), table))
    return dnslib.RCODE[reply.header.rcode], sorted(str(record.rdata) for record in reply.rr)


def test_only_ready_endpoints_take_connections() -> None:
    table = table_of(service("a"), endpoint_slice("s", "a", endpoint("10.244.1.1"), endpoint("10.244.1.2", ready=False)))
    assert addresses(table, "a") == ["10.244.1.1"]


def test_readiness_that_is_not_said_counts_as_ready() -> None:
    assert addresses(table_of(service("a"), endpoint_slice("s", "a", endpoint("10.244.1.1", ready=None))), "a") == ["10.244.1.1"]


def test_terminating_endpoints_serve_when_there_is_no_other() -> None:
    leaving = endpoint("10.244.1.2", ready=False, serving=True)
    table = table_of(service("a"), endpoint_slice("s", "a", leaving))
    assert addresses(table, "a") == ["10.244.1.2"]
    table.slice_changed(None, endpoint_slice("t", "a", endpoint("10.244.1.3")))
    assert addresses(table, "a") == ["10.244.1.3"]


def test_slices_before_their_service_and_slices_that_move() -> None:
    table = table_of(endpoint_slice("s", "a", endpoint("10.244.1.1")), service("a"), service("b"))
    assert addresses(table, "a") == ["10.244.1.1"]
    table.slice_changed(None, endpoint_slice("s", "b", endpoint("10.244.1.1")))
    assert (addresses(table, "a"), addresses(table, "b")) == ([], ["10.244.1.1"])
    table.slice_changed(endpoint_slice("s", "b"), None)
    assert addresses(table, "b") == []


def test_udp_ports_are_not_proxied() -> None:
    found = table_of(service("a")).find("ns", "a")
    assert found is not None
    assert found.ports == {"http": 8000}


@pytest.mark.parametrize("name", ["a.ns.svc.cluster.local", "A.NS.svc.cluster.local."])
def test_a_service_is_known_by_name(name: str) -> None:
    assert ask(table_of(service("a")), name) == ("NOERROR", ["10.96.5.5"])


def test_a_name_without_that_kind_is_no_error() -> None:
    assert ask(table_of(service("a")), "a.ns.svc.cluster.local", "AAAA") == ("NOERROR", [])


@pytest.mark.parametrize(
    "name", ["b.ns.svc.cluster.local", "a.other.svc.cluster.local", "a.ns", "example.org", "svc.cluster.local"]
)
def test_other_names_do_not_exist(name: str) -> None:
    assert ask(table_of(service("a")), name)[0] == "NXDOMAIN"


def test_a_deleted_service_is_forgotten() -> None:
    table = table_of(service("a"))
    table.service_changed(service("a"), None)
    assert ask(table, "a.ns.svc.cluster.local")[0] == "NXDOMAIN"


def test_headless_names_are_the_ready_pods() -> None:
    pods = (endpoint("10.244.1.1", hostname="a-0"), endpoint("10.244.1.2", hostname="a-1", ready=False), endpoint("10.244.1.3"))
    table = table_of(service("a", "None"), endpoint_slice("s", "a", *pods))
    assert ask(table, "a.ns.svc.cluster.local") == ("NOERROR", ["10.244.1.1", "10.244.1.3"])
    assert ask(table, "a-0.a.ns.svc.cluster.local") == ("NOERROR", ["10.244.1.1"])
    assert ask(table, "10-244-1-3.a.ns.svc.cluster.local") == ("NOERROR", ["10.244.1.3"])
    assert ask(table, "a-1.a.ns.svc.cluster.local")[0] == "NXDOMAIN"


def test_ports_external_names_and_noise() -> None:
    table = table_of(service("a"), service("out", "", externalName="example.org"))
    assert ask(table, "_http._tcp.a.ns.svc.cluster.local", "SRV") == ("NOERROR", ["0 100 8000 a.ns.svc.cluster.local."])
    assert ask(table, "out.ns.svc.cluster.local", "A") == ("NOERROR", ["example.org."])
    assert answer(b"\x00\x01noise", table) == b""


async def test_names_over_tcp() -> None:
    server = await asyncio.start_server(functools.partial(serve_stream, table_of(service("a"))), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    question = dnslib.DNSRecord.question("a.ns.svc.cluster.local")
    reply = await asyncio.to_thread(question.send, "127.0.0.1", port, tcp=True, timeout=5)
    assert [str(record.rdata) for record in dnslib.DNSRecord.parse(reply).rr] == ["10.96.5.5"]
    server.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        data = await reader.read()
        writer.write(data[::-1])
        await writer.drain()
    writer.close()


async def test_a_pipe_carries_all_and_passes_half_closes_on(tmp_path: Path) -> None:
    path = str(tmp_path / "far")
    far = await asyncio.start_unix_server(echo, path)
    loop = asyncio.get_running_loop()

    async def dial(protocol: asyncio.Protocol) -> None:
        await loop.create_unix_connection(lambda: protocol, path)

    near = await loop.create_server(PipeListener(dial), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*near.sockets[0].getsockname())
    data = bytes(range(256)) * 40_000
    writer.write(data)
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 20) == data[::-1]
    writer.close()
    near.close()
    far.close()


async def test_a_far_side_that_refuses_resets_the_near_one(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()

    async def dial(protocol: asyncio.Protocol) -> None:
        await loop.create_unix_connection(lambda: protocol, str(tmp_path / "nobody"))

    near = await loop.create_server(PipeListener(dial), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*near.sockets[0].getsockname())
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 5)
    writer.close()
    near.close()


async def settled() -> None:
    """Until the pipes have closed what the test has ended."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=5)
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_service_address_listens_only_while_it_has_endpoints() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    free = await asyncio.start_server(greet, "127.0.0.1", 0)
    service_port = free.sockets[0].getsockname()[1]
    free.close()
    await free.wait_closed()
    proxy = ServiceProxy()
    runner = asyncio.create_task(proxy.run())
    table = ServiceTable(proxy.update)
    table.service_changed(None, service("a", "127.0.0.1", ports=[{"name": "http", "port": service_port}]))

    async def greeting() -> bytes:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", service_port)
            found = await reader.read()
            writer.close()
            await writer.wait_closed()
        except ConnectionError:
            return b"refused"
        return found

    async def until(expected: bytes) -> None:
        async with asyncio.timeout(5):
            while True:
                if await greeting() == expected:
                    return
                await asyncio.sleep(0)

    await until(b"refused")
    table.slice_changed(None, endpoint_slice("s", "a", endpoint("127.0.0.1"), port=port))
    await until(b"hello")
    table.slice_changed(None, endpoint_slice("s", "a", endpoint("127.0.0.1", ready=False), port=port))
    await until(b"refused")
    runner.cancel()
    await asyncio.gather(runner, return_exceptions=True)
    server.close()
    await settled()


def test_a_service_without_address_wants_no_listener() -> None:
    assert Service("ns", "a").endpoints("http") == []


async def test_a_service_address_that_was_taken_is_listened_on_once_it_is_free() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port, service_port = server.sockets[0].getsockname()[1], taken.sockets[0].getsockname()[1]
    proxy = ServiceProxy()
    runner = asyncio.create_task(proxy.run())
    table = ServiceTable(proxy.update)
    table.service_changed(None, service("a", "127.0.0.1", ports=[{"name": "http", "port": service_port}]))
    table.slice_changed(None, endpoint_slice("s", "a", endpoint("127.0.0.1"), port=port))
    await settled()
    taken.close()
    await taken.wait_closed()

    async def until(greeting: bytes) -> None:
        async with asyncio.timeout(5):
            while True:
                found = b"refused"
                with contextlib.suppress(ConnectionError):
                    reader, writer = await asyncio.open_connection("127.0.0.1", service_port)
                    found = await reader.read()
                    writer.close()
                    await writer.wait_closed()
                if found == greeting:
                    return
                await asyncio.sleep(0.05)

    await until(b"hello")
    table.slice_changed(None, endpoint_slice("s", "a", endpoint("127.0.0.1", ready=False), port=port))
    await until(b"refused")
    runner.cancel()
    await asyncio.gather(runner, return_exceptions=True)
    server.close()
    await settled()
