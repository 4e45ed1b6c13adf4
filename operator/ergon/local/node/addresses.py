"""Addresses for nodes and pods, all on the cluster's own loopback device."""

from __future__ import annotations

import ipaddress

from ergon.local.state import POD_NETWORK

_FIRST_NODE = 10
_RESERVED = 256


def node_address(index: int) -> str:
    """The address of the node with this number."""
    return str(ipaddress.ip_address("10.243.0.0") + _FIRST_NODE + index)


class PodAddresses:
    """Hands out pod addresses in a ring, so that a freed one is not reused soon."""

    def __init__(self) -> None:
        network = ipaddress.ip_network(POD_NETWORK)
        self._base = network.network_address
        self._size = network.num_addresses
        self._next = _RESERVED
        self._taken: set[str] = set()

    def take(self) -> str:
        """A free address; raises RuntimeError when tens of thousands are taken."""
        for _ in range(self._size):
            address = str(self._base + self._next)
            self._next = self._next + 1 if self._next + 2 < self._size else _RESERVED
            if address not in self._taken and not address.endswith((".0", ".255")):
                self._taken.add(address)
                return address
        raise RuntimeError("no pod address is free")

    def free(self, address: str) -> None:
        """Give an address back."""
        self._taken.discard(address)
