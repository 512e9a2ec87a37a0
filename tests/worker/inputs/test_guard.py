"""Which machines a caller's URL may make this server talk to."""

import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from ssl import create_default_context
from typing import Any

import httpcore
import pytest

from tests.worker.inputs.web import Clock, Web
from worker.inputs.guard import (
    CONNECT_SECONDS,
    READ_SECONDS,
    AllowList,
    Deadline,
    GuardedBackend,
    Refused,
    is_public,
)

PRIVATE = """
    0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 127.0.0.1 127.255.255.254 168.63.129.16 169.254.169.254 172.16.0.1
    172.31.255.255 192.0.0.8 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.1
    203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
    :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:a9fe:a9fe 64:ff9b::7f00:1 64:ff9b:1::1 100::1
    2001::1 2001:db8::1 2002:7f00:1:: 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fec0::1 ff02::1
"""
PUBLIC = """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 172.15.255.255
    172.32.0.0 191.255.255.255 192.169.0.0 223.255.255.255 ::ffff:8.8.8.8 2606:4700::1111 2a00:1450::1
"""


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    yield web
    web.close()


@pytest.mark.parametrize("address", PRIVATE.split())
def test_private_and_special_addresses_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC.split())
def test_public_addresses_are(address: str) -> None:
    assert is_public(ip_address(address))


def connect(host: str, port: int, allow: str = "") -> None:
    backend = GuardedBackend(AllowList.parse(allow), Deadline(5))
    backend.connect_tcp(host, port).close()


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "::1"),
        *("::ffff:7f00:1", "169.254.169.254", "10.0.0.1"),
    ],
)
def test_ways_to_write_this_machine_are_refused(host: str, web: Web) -> None:
    with pytest.raises(Refused):
        connect(host, 80)
    assert web.seen == []


def answers(monkeypatch: pytest.MonkeyPatch, *rounds: list[str]) -> list[str]:
    """Makes each name lookup answer with the next of `rounds`; returns the names that were looked up."""
    left, asked = list(rounds), []

    def getaddrinfo(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        if host in ("127.0.0.1", "93.184.216.34"):
            found = [host]
        else:
            asked.append(host)
            found = left.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr("worker.inputs.guard.socket.getaddrinfo", getaddrinfo)
    return asked


def test_one_private_answer_among_public_ones_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, ["93.184.216.34", "127.0.0.1"])
    with pytest.raises(Refused):
        connect("mixed.test", 80)


@pytest.mark.parametrize("host", ["10.0.0.1", "2130706433", "::1"])
def test_private_address_is_refused_before_anything_is_opened(host: str) -> None:
    with pytest.raises(Refused):
        AllowList.parse("").judge_literal(host, 80)
    AllowList.parse("0.0.0.0/0, ::/0").judge_literal(host, 8080)


def test_name_is_not_looked_up_before_something_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def lookup(host: str, port: int, **options: Any) -> Any:
        assert options["flags"] & socket.AI_NUMERICHOST
        return real(host, port, **options)

    monkeypatch.setattr("worker.inputs.guard.socket.getaddrinfo", lookup)
    AllowList.parse("").judge_literal("localhost", 80)


def test_name_is_resolved_once_and_the_judged_address_is_used(
    monkeypatch: pytest.MonkeyPatch, web: Web
) -> None:
    connected: list[str] = []

    def connect_tcp(self: object, host: str, port: int, timeout: float) -> httpcore.NetworkStream:
        connected.append(host)
        raise httpcore.ConnectError

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect_tcp)
    asked = answers(monkeypatch, ["93.184.216.34", "2606:4700::1111"], ["127.0.0.1"])
    with pytest.raises(httpcore.ConnectError):
        connect("rebinding.test", 80)
    assert asked == ["rebinding.test"]
    assert connected == ["93.184.216.34", "2606:4700::1111"]


@pytest.mark.parametrize(
    ("addresses", "port"),
    [
        (["127.0.0.1", "10.0.0.1"], 80),
        (["10.0.0.1", "127.0.0.1"], 80),
        (["127.0.0.1", "93.184.216.34"], 8080),
    ],
)
def test_one_excepted_answer_excepts_no_other(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str], port: int
) -> None:
    answers(monkeypatch, addresses)
    with pytest.raises(Refused):
        connect("mixed.test", port, "127.0.0.0/8")


@pytest.mark.parametrize("port", [22, 25, 6379, 8080])
def test_public_hosts_are_reached_on_web_ports_only(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    answers(monkeypatch, ["93.184.216.34"])
    with pytest.raises(Refused):
        connect("public.test", port)


@pytest.mark.parametrize(
    "allow", ["127.0.0.1", "127.0.0.0/8", "127.0.0.9/8", "pictures.test", "other, PICTURES.test ,x"]
)
def test_operators_exceptions_hold_on_any_port(monkeypatch: pytest.MonkeyPatch, web: Web, allow: str) -> None:
    answers(monkeypatch, ["127.0.0.1"])
    connect("pictures.test", web.port, allow)


@pytest.mark.parametrize("allow", ["10.0.0.0/8", "pictures.example", "test", ""])
def test_exception_for_another_host_does_not_help(
    monkeypatch: pytest.MonkeyPatch, web: Web, allow: str
) -> None:
    answers(monkeypatch, ["127.0.0.1"])
    with pytest.raises(Refused):
        connect("pictures.test", web.port, allow)


class NotedStream(httpcore.NetworkStream):
    """A connection on which nothing is sent; notes how long each call may take."""

    def __init__(self) -> None:
        self.timeouts: list[float | None] = []

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self.timeouts.append(timeout)
        return b""

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.timeouts.append(timeout)

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        self.timeouts.append(timeout)
        return self


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(
    ("call", "longest"),
    [
        (lambda stream: stream.read(1), READ_SECONDS),
        (lambda stream: stream.write(b"x"), READ_SECONDS),
        (lambda stream: stream.start_tls(create_default_context()), CONNECT_SECONDS),
    ],
)
def test_no_wait_on_a_connection_outlives_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
    tls: bool,
    call: Callable[[httpcore.NetworkStream], object],
    longest: float,
) -> None:
    clock, noted = Clock(), NotedStream()

    def connect_tcp(self: object, host: str, port: int, timeout: float) -> httpcore.NetworkStream:
        noted.timeouts.append(timeout)
        return noted

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect_tcp)
    backend = GuardedBackend(AllowList.parse("127.0.0.1"), Deadline(30, clock))
    stream = backend.connect_tcp("127.0.0.1", 80)
    if tls:
        stream = stream.start_tls(create_default_context())
    call(stream)
    clock.now += 29.5
    call(stream)
    backend.connect_tcp("127.0.0.1", 80)
    assert noted.timeouts == [CONNECT_SECONDS] * (1 + tls) + [longest, 0.5, 0.5]
    clock.now += 0.5
    for late in (call, lambda _: backend.connect_tcp("127.0.0.1", 80)):
        with pytest.raises(httpcore.ReadTimeout):
            late(stream)
    assert len(noted.timeouts) == 4 + tls
