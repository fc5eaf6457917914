"""Where a request came from, if a front end passed it on: what that says counts only if the operator trusts it.

Each of a chain of front ends adds to `X-Forwarded-For` the address that it was asked from, so that the list is read
from its end: the first address that is no trusted front end is the client's. What stands before it the client may have
made up. `X-Real-IP` counts where there is no such list. `X-Forwarded-Proto` and `X-Forwarded-Host` are lists of the
same order, or what the outermost front end set.

`Forwarded` (RFC 7239) is not read: front ends that do not know it pass on what a client wrote there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address

_HOST = re.compile(r"[A-Za-z0-9._-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?")
#: Front ends behind each other; what is longer is no list that they made.
_MOST = 32


@dataclass(frozen=True, slots=True)
class Origin:
    """The client behind a front end: its address, whether it used TLS, and the `host[:port]` that it asked.

    `host` is None where the front end left the `Host` header as it was.
    """

    address: str
    secure: bool
    host: str | None = None


class TrustedProxies:
    """The front ends that are believed: `networks` are addresses or networks, such as 10.0.0.0/8.

    A front end on a Unix socket is believed as well, since the socket's permissions say who may use it.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ip_network(network, strict=False) for network in networks]

    def trust(self, address: Address) -> bool:
        """Whether this is the address of a trusted front end."""
        return any(address in network for network in self._networks)

    def origin(self, peer: str | None, secure: bool, values: Callable[[str], Sequence[str]]) -> Origin | None:
        """The client of a request from `peer` (None for a Unix socket), or None if that is no trusted front end.

        `secure` tells whether the connection from there uses TLS, and `values` gives all headers of a name.
        """
        nearest = None if peer is None else parse_address(peer)
        if peer is not None and (nearest is None or not self.trust(nearest)):
            return None
        client, hops = self._client(_list(values("X-Forwarded-For")))
        if client is None:
            client = parse_address("".join(_list(values("X-Real-IP"))[-1:])) or nearest
        scheme = _at(_list(values("X-Forwarded-Proto")), hops)
        host = _at(_list(values("X-Forwarded-Host")), hops)
        return Origin(
            address="-" if client is None else str(client),
            secure=secure if scheme is None else scheme.lower() == "https",
            host=host if host is not None and _HOST.fullmatch(host) else None,
        )

    def _client(self, chain: Sequence[str]) -> tuple[Address | None, int]:
        """The client's address, and the number of front ends in the list that stand behind it."""
        found: Address | None = None
        for hops, text in enumerate(reversed(chain)):
            address = parse_address(text)
            if address is None:
                # The trusted one before it says that it was asked by something without an address.
                return found, max(hops - 1, 0)
            found = address
            if not self.trust(address):
                return found, hops
        return found, max(len(chain) - 1, 0)


def parse_address(text: str) -> Address | None:
    """An IP address, with or without a port; an IPv4 address in the clothes of IPv6 is one of IPv4. None for others."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _list(values: Sequence[str]) -> list[str]:
    """The items of a list in any number of headers, the last of too many."""
    return [item.strip() for item in ",".join(values).split(",") if item.strip()][-_MOST:]


def _at(items: Sequence[str], hops: int) -> str | None:
    """The item that belongs to the client, or the first where there are fewer."""
    return items[max(len(items) - 1 - hops, 0)] if items else None
