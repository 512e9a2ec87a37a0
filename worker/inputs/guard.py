"""Which machines a caller's URL may make this server talk to; decided where the socket is opened.

The host is resolved once, every answer is judged, and the connection goes to a judged address, so neither
redirects nor a name that changes its address get around it. Ranges are listed rather than asked of
`ipaddress.is_global`, which takes several special ranges for global (Python 3.11: 64:ff9b::/96, 2002::/16).
"""

import socket
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import httpcore

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0
PUBLIC_PORTS = (80, 443)

PRIVATE_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier NAT, and some clouds' services
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host
        "169.254.0.0/16",  # link-local: the clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
PUBLIC_V6 = IPv6Network("2000::/3")
PRIVATE_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # Teredo and other protocols
        "2001:db8::/32",
        "2002::/16",  # 6to4: an IPv4 address in disguise
        "3fff::/20",
    )
)


class Refused(Exception):
    """This host, or the port on it, is not to be talked to.

    The sentence and `entry` are for the operator alone: they tell of addresses.
    """

    def __init__(self, sentence: str, entry: str) -> None:
        super().__init__(sentence)
        self.entry = entry
        """What ZTURBO_ALLOW_HOSTS would have to name."""


@dataclass(frozen=True)
class AllowList:
    """The operator's exceptions (ZTURBO_ALLOW_HOSTS): host names, addresses and networks."""

    hosts: frozenset[str]
    networks: tuple[Network, ...]

    @classmethod
    def parse(cls, text: str) -> "AllowList":
        hosts, networks = set(), []
        for entry in (part.strip().lower() for part in text.split(",")):
            try:
                networks.append(ip_network(entry, strict=False))
            except ValueError:
                hosts.add(entry)
        return cls(frozenset(hosts - {""}), tuple(networks))

    def judge(self, host: str, port: int, addresses: list[Address]) -> None:
        """Raises Refused unless `host`, which has these addresses, may be talked to on `port`."""
        listed = [any(address in network for network in self.networks) for address in addresses]
        if host.lower() in self.hosts or all(listed):
            return
        for ours, address in zip(listed, addresses, strict=True):
            if not ours and not is_public(address):
                network = private_network(address)
                where = f"in {network}" if network else "no public address"
                named = "" if host == str(address) else f"{address}, "
                raise Refused(f"{host} is {named}{where}", str(network or address))
        if port not in PUBLIC_PORTS:
            raise Refused(f"port {port} is neither 80 nor 443", host)

    def judge_literal(self, host: str, port: int) -> None:
        """Raises Refused for an address, in any notation, that may not be talked to.

        A name is not looked up: what it means is judged where the socket is opened.
        """
        try:
            addresses = _resolve(host, port, socket.AI_NUMERICHOST)
        except OSError:
            return
        self.judge(host, port, addresses)

    def look_up(self, host: str, port: int) -> list[Address]:
        """The addresses of `host`, once they are judged. Raises Refused, and OSError when it has none."""
        addresses = _resolve(host, port)
        self.judge(host, port, addresses)
        return addresses


def private_network(address: Address) -> IPv4Network | None:
    """Which of the private ranges an IPv4 address lies in."""
    if isinstance(address, IPv6Address):
        return private_network(address.ipv4_mapped) if address.ipv4_mapped else None
    return next((network for network in PRIVATE_V4 if address in network), None)


def is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return private_network(address) is None
    if address.ipv4_mapped:
        return is_public(address.ipv4_mapped)
    return address in PUBLIC_V6 and not any(address in network for network in PRIVATE_V6)


class Deadline:
    """The end of all waiting on one fetch."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def left(self, at_most: float) -> float:
        """Seconds that one wait may take. Raises httpcore.ReadTimeout when none is left."""
        left = self._end - self._clock()
        if left <= 0:
            raise httpcore.ReadTimeout("deadline")
        return min(left, at_most)


class GuardedBackend(httpcore.NetworkBackend):
    """Opens connections to allowed machines only, and lets none outlive the deadline.

    `connect_tcp` raises Refused, or OSError when the host has no address.
    """

    def __init__(self, allowed: AllowList, deadline: Deadline) -> None:
        self._allowed = allowed
        self._deadline = deadline
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = self._allowed.look_up(host, port)
        for address in addresses[:-1]:
            try:
                return self._connect(address, port)
            except httpcore.ConnectError:
                continue
        return self._connect(addresses[-1], port)

    def _connect(self, address: Address, port: int) -> httpcore.NetworkStream:
        stream = self._sockets.connect_tcp(str(address), port, self._deadline.left(CONNECT_SECONDS))
        return _TimedStream(stream, self._deadline)


def _resolve(host: str, port: int, flags: int = 0) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    # An IPv6 answer may carry a scope ("fe80::1%eth0"), which is judged as the address it is.
    return list(dict.fromkeys(ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))


class _TimedStream(httpcore.NetworkStream):
    """A stream on which a slow sender cannot stretch the deadline byte by byte."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left(READ_SECONDS))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.left(READ_SECONDS))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, self._deadline.left(CONNECT_SECONDS))
        return _TimedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
