"""How the application is served: by HTTPS where a certificate is named, not at all where it is no good."""

import ssl
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from app.cli import cli
from app.cli.exits import Exit
from app.config import Settings
from app.main import create_app
from tests.support.certificates import Certificate, make_certificate
from tests.support.http_api import DOCUMENTED_INPUT, SUBMIT, served


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("key_apart", [True, False])
def test_port_with_a_certificate_speaks_https_and_says_so_in_its_urls(
    settings: Settings, certificate: Certificate, key_apart: bool
) -> None:
    files = (certificate.cert, certificate.key) if key_apart else (certificate.both, None)
    settings = settings.model_copy(update=dict(zip(("tls_cert", "tls_key"), files, strict=True)))
    with served(create_app(settings), settings) as base:
        context = ssl.create_default_context(cafile=certificate.authority)
        answer = httpx.post(base + SUBMIT, json=DOCUMENTED_INPUT, verify=context)
        assert base.startswith("https://127.0.0.1:")
        assert answer.json()["status_url"].startswith(f"{base}/v1/requests/")
        with pytest.raises(httpx.TransportError):
            httpx.get(base.replace("https", "http") + "/healthz")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--tls-cert", "none.pem"), "No such file"),
        (("--tls-cert", "words.pem"), "cannot be used"),
        (("--tls-cert", "server.crt"), "cannot be used"),
        (("--tls-cert", "server.crt", "--tls-key", "locked.key"), "without a password"),
        (("--tls-key", "server.key"), "only with --tls-cert"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "api"])
def test_certificate_that_cannot_be_used_ends_the_command_with_the_reason(
    certificate: Certificate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    arguments: tuple[str, ...],
    sentence: str,
) -> None:
    monkeypatch.chdir(certificate.cert.parent)
    monkeypatch.setenv("ZTURBO_DATA_DIR", str(tmp_path))
    ran = CliRunner().invoke(cli, [command, "--port", "0", *arguments])
    assert ran.exit_code == Exit.CONFIG
    assert sentence in ran.stderr
