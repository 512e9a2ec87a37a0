"""A caller's URL to bytes over real HTTP on loopback, which the tests allow as an operator would."""

import gzip
import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.worker.inputs.web import Clock, Handler, Web
from worker.errors import FetchError
from worker.inputs.fetch import Limits, fetch
from worker.inputs.guard import AllowList, Deadline

LOOPBACK = "127.0.0.1"
READ_BYTES = 65_536
"""What one read of httpcore takes at most."""


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    yield web
    web.close()


def get(url: str, max_bytes: int = 1_000_000, seconds: float = 5, allow: str = LOOPBACK) -> bytes:
    body = bytearray()
    fetch(url, "image_url", Limits(max_bytes, seconds), AllowList.parse(allow), body.extend)
    return bytes(body)


def refusal(url: str, **options: Any) -> str:
    with pytest.raises(FetchError) as caught:
        get(url, **options)
    message = str(caught.value)
    assert message.startswith("image_url: ")
    assert LOOPBACK not in message
    return message


def test_body_is_fetched_as_asked_for(web: Web) -> None:
    url = web.on("/a%20b/c.png", lambda call: call.reply(b"pixels"))
    assert get(f"{url}?size=1&token=%2F") == b"pixels"
    (call,) = web.seen
    assert call.path == "/a%20b/c.png?size=1&token=%2F"
    assert call.headers["Host"] == f"127.0.0.1:{web.port}"
    assert call.headers["Accept-Encoding"] == "identity"


def test_characters_beyond_ascii_are_encoded(web: Web) -> None:
    web.on("/f%C3%BCchse.png", lambda call: call.reply(b"pixels"))
    assert get(f"{web.url}/füchse.png") == b"pixels"


def test_body_without_a_length_is_fetched(web: Web) -> None:
    def chunked(call: Handler) -> None:
        call.reply(b"3\r\npix\r\n3\r\nels\r\n0\r\n\r\n", Content_Length="", Transfer_Encoding="chunked")

    assert get(web.on("/", chunked)) == b"pixels"


def test_proxy_of_the_environment_is_not_used(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert get(web.on("/", lambda call: call.reply(b"pixels"))) == b"pixels"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(web: Web, status: int) -> None:
    web.on("/end", lambda call: call.reply(b"pixels"))
    assert get(web.on("/start", lambda call: call.redirect("end", status))) == b"pixels"


def test_three_redirects_are_followed_and_no_more(web: Web) -> None:
    web.on("/0", lambda call: call.reply(b"pixels"))
    for number in range(1, 5):
        web.on(f"/{number}", lambda call, number=number: call.redirect(f"/{number - 1}"))
    assert get(f"{web.url}/3") == b"pixels"
    assert "more than 3 times" in refusal(f"{web.url}/4")


@pytest.mark.parametrize(
    "target",
    [
        *("http://127.0.0.2/", "http://[::1]/", "http://169.254.169.254/latest/meta-data/"),
        *("http://2130706434/", "http://0x7f000002/", "http://[::ffff:7f00:2]/", "//10.0.0.1/"),
    ],
)
def test_redirect_to_a_private_host_is_refused(web: Web, target: str) -> None:
    message = refusal(web.on("/", lambda call: call.redirect(target)))
    assert "does not fetch from" in message


def test_private_host_and_unknown_name_read_the_same(web: Web) -> None:
    private = refusal(f"{web.url}/", allow="")
    assert private == refusal("http://no-such-host.invalid/")
    assert web.seen == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://127.0.0.1/a.png", "https:// or http://"),
        ("file:///etc/passwd", "https:// or http://"),
        ("http://user:secret@127.0.0.1/a.png", "user name or password"),
        ("http://127.0.0.1\\@example.com/a.png", "user name or password"),
        ("http://127.0.0.1\\a.png", "not a URL"),
        ("http://exa mple.com/", "not a URL"),
        ("http://example.com/\r\nHost: x", "not a URL"),
        ("http://127.0.0.1:99999/", "not a URL"),
        ("http:///a.png", "not a URL"),
        ("http://[::1", "not a URL"),
        ("http://" + "a" * 70 + ".com/", "not a URL"),
        ("http://[::1%" + "a" * 70 + "]/", "not a URL"),
        ("http://[::1%1]/", "not a URL"),
        ("http://127.0.0.1/\ud800", "not a URL"),
    ],
)
def test_urls_that_are_not_fetched(url: str, reason: str) -> None:
    assert reason in refusal(url)


@pytest.mark.parametrize(
    "target",
    [
        *("file:///etc/passwd", "gopher://127.0.0.1/", "http://u@127.0.0.1/"),
        *("http://[", "//[::1%" + "a" * 70 + "]/", "http://[x]/"),
    ],
)
def test_redirect_to_what_is_not_fetched_is_refused(web: Web, target: str) -> None:
    refusal(web.on("/", lambda call: call.redirect(target)))


def test_redirect_that_names_no_target_is_refused(web: Web) -> None:
    assert "redirects to nowhere" in refusal(web.on("/", lambda call: call.reply(status=302)))


def test_answer_that_is_no_success_is_told_by_its_number(web: Web) -> None:
    message = refusal(web.on("/", lambda call: call.reply(b"a secret page", 404)))
    assert "404" in message
    assert "secret" not in message


def test_body_of_the_largest_size_is_fetched_and_a_larger_one_is_not_begun(web: Web) -> None:
    url = web.on("/", lambda call: call.reply(bytes(1000)))
    assert get(url, max_bytes=1000) == bytes(1000)
    chunks: list[bytes] = []
    with pytest.raises(FetchError, match="larger"):
        fetch(url, "image_url", Limits(999, 5), AllowList.parse(LOOPBACK), chunks.append)
    assert chunks == []


@pytest.mark.parametrize("honest", [True, False])
def test_large_body_is_cut_short(web: Web, honest: bool) -> None:
    sent = 0

    def endless(call: Handler) -> None:
        nonlocal sent
        call.reply(Content_Length=str(10**9) if honest else "", Connection="close")
        for _ in range(1000):
            call.wfile.write(bytes(100_000))
            sent += 100_000

    assert "larger than 0.2 MB" in refusal(web.on("/", endless), max_bytes=200_000)
    assert sent < 50_000_000


def test_compressed_body_is_refused(web: Web) -> None:
    bomb = gzip.compress(bytes(1_000_000))
    url = web.on("/", lambda call: call.reply(bomb, Content_Encoding="gzip"))
    assert "compresses" in refusal(url)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What the deadline of a fetch goes by."""
    clock = Clock()
    monkeypatch.setattr("worker.inputs.fetch.Deadline", partial(Deadline, clock=clock))
    return clock


def test_slow_body_does_not_stretch_the_deadline(web: Web, clock: Clock) -> None:
    body = bytes(10 * READ_BYTES)
    url = web.on("/", lambda call: call.reply(body))
    received = 0

    def slow(chunk: bytes) -> None:
        nonlocal received
        received += len(chunk)
        clock.now += 3

    with pytest.raises(FetchError, match="in time"):
        fetch(url, "image_url", Limits(len(body), 10), AllowList.parse(LOOPBACK), slow)
    assert 0 < received <= 4 * READ_BYTES


def test_slow_headers_do_not_stretch_the_deadline(web: Web, clock: Clock) -> None:
    def late(call: Handler) -> None:
        clock.now += 11
        # More than what one read takes, so that there is another.
        call.reply(b"pixels", **{f"X-{number}": "x" * 1000 for number in range(80)})

    assert "in time" in refusal(web.on("/", late), seconds=10)


def test_body_that_is_cut_off_is_an_error(web: Web) -> None:
    def cut(call: Handler) -> None:
        call.reply(b"pix", Content_Length="1000", Connection="close")
        call.close_connection = True

    assert "cut off" in refusal(web.on("/", cut))


def test_connection_that_is_lost_is_an_error(web: Web) -> None:
    def reset(call: Handler) -> None:
        call.reply(b"pix", Content_Length="1000")
        # Closed with nothing lingering, a connection is reset.
        call.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        call.close_connection = True
        call.rfile.close()
        call.connection.close()

    assert "connection was lost" in refusal(web.on("/", reset))


def test_what_is_not_http_is_an_error(web: Web) -> None:
    def gibberish(call: Handler) -> None:
        call.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        call.close_connection = True

    assert "not HTTP" in refusal(web.on("/", gibberish))


def test_nobody_listening_is_an_error() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
    assert "no connection" in refusal(f"http://127.0.0.1:{port}/")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificate")
    path = tmp_path / "pictures.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "2", "-subj", "/CN=pictures.test", "-addext", "subjectAltName=DNS:pictures.test"),
            *("-keyout", str(path), "-out", str(tmp_path / "certificate.pem")),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + (tmp_path / "certificate.pem").read_text())
    return path


@pytest.fixture
def tls_web(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    web = Web(certificate)
    web.on("/", lambda call: call.reply(b"pixels"))
    web.on("/down", lambda call: call.redirect(f"http://pictures.test:{web.port}/"))
    entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "", (LOOPBACK, web.port))
    monkeypatch.setattr("worker.inputs.guard.socket.getaddrinfo", lambda *_, **__: [entry])
    yield web
    web.close()


def trust(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr("worker.inputs.fetch.tls", lambda: context)


def test_certificate_is_checked_against_the_name_in_the_url(
    tls_web: Web, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "certificate" in refusal(f"https://pictures.test:{tls_web.port}/"), "nobody vouches for it"
    trust(certificate, monkeypatch)
    assert get(f"https://pictures.test:{tls_web.port}/") == b"pixels"
    assert "certificate" in refusal(f"https://other.test:{tls_web.port}/")


def test_redirect_from_https_to_http_is_refused(
    tls_web: Web, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust(certificate, monkeypatch)
    assert "less safe" in refusal(f"https://pictures.test:{tls_web.port}/down")
