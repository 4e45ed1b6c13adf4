"""Which hosts a source may name: none that lead into the node, the cloud's metadata service or the API server. Pure.

This judges what is written, before a name is resolved. A name that resolves to such an address later (DNS rebinding), and an
HTTP redirect to one, are not seen here: a network policy on the servers' egress closes those.
"""

import ipaddress
import re
from collections.abc import Collection

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LOCAL_NAMES = re.compile(
    r"(.*\.)?localhost|(.*\.)?localdomain|ip6-localhost|ip6-loopback"
    r"|kubernetes(\.default(\.svc(\..+)?)?)?|metadata(\.google\.internal|\.azure\.internal)?|instance-data(\..+)?"
)
# Outside of the link-local range, and each reachable from a machine of its cloud.
_METADATA = {
    ipaddress.ip_address("100.100.100.200"): "Alibaba Cloud",
    ipaddress.ip_address("168.63.129.16"): "Azure",
    ipaddress.ip_address("192.0.0.192"): "Oracle Cloud",
    ipaddress.ip_address("fd20:ce::254"): "Google Cloud",
}
_HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")


def host_refusal(host: str, api_server_addresses: Collection[str] = ()) -> str | None:
    """Why a source may not name this host (a name, an IPv4 address, or an IPv6 address without brackets); None if it may."""
    host = host.lower().rstrip(".")
    if host in {address.lower() for address in api_server_addresses}:
        return "is the Kubernetes API server"
    address = _parsed(host)
    if address is None:
        return _name_refusal(host)
    return _address_refusal(address, {known for text in api_server_addresses if (known := _parsed(text)) is not None})


def _parsed(text: str) -> _Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _name_refusal(host: str) -> str | None:
    if not _HOST_NAME.fullmatch(host):
        return "is not a host name"
    if _NUMBER.fullmatch(host.rsplit(".", 1)[-1]):
        return "is an address in an unusual form"  # 127.1, 0x7f000001, 2130706433: resolvers read them as addresses
    if _LOCAL_NAMES.fullmatch(host):
        return "is a name of this machine, of the cloud's metadata service or of the API server"
    return None


def _address_refusal(address: _Address, api_server: Collection[_Address]) -> str | None:
    if address in api_server:
        return "is the Kubernetes API server"
    if isinstance(address, ipaddress.IPv6Address):
        embedded = address.ipv4_mapped or address.sixtofour or _carried(address)
        if embedded is not None:
            return _address_refusal(embedded, api_server)
        if address in ipaddress.ip_network("fd00:ec2::/32"):
            return "is the cloud's metadata service"
    if address in _METADATA:
        return f"is the metadata service of {_METADATA[address]}"
    if address.is_loopback or address.is_unspecified:
        return "is an address of the machine itself"
    if address.is_link_local:
        return "is a link-local address, where clouds keep their metadata service"
    if address.is_multicast or address == ipaddress.ip_address("255.255.255.255"):
        return "is not the address of one host"
    return None


_CARRIERS = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"), ipaddress.ip_network("::/96"))


def _carried(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address in the last 32 bits, where NAT64 or the old compatible form put one; ::1 and :: carry none."""
    if int(address) < 2 or not any(address in carrier for carrier in _CARRIERS):
        return None
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
