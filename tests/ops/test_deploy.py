"""docs/deploy.md as it is written: the systemd unit, and nginx before the real server."""

import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.main import get_command

from app.cli import cli
from app.config import Settings
from app.main import create_app
from tests.support.certificate import make_certificate
from tests.support.http_api import DOCUMENTED_INPUT, SUBMIT, picture_uri, served
from tests.support.processes import free_port, wait_for

GUIDE = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()
KEY = "caller-key"


def block(language: str) -> str:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, flags=re.DOTALL | re.MULTILINE)[0]


def test_every_setting_and_command_that_is_named_exists() -> None:
    settings = {f"ZTURBO_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"\bZTURBO_[A-Z_]*[A-Z]", GUIDE)) <= settings
    commands = get_command(cli).commands  # type: ignore[attr-defined]
    named = re.findall(r"\bzturbo (?:--)?([a-z]+)((?: (?:io|gpu|all))?)", GUIDE)
    for name, argument in named:
        commands[name].make_context(name, argument.split())


def test_unit_is_clean_for_systemd(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd here")
    unit = tmp_path / "zturbo.service"
    unit.write_text(block("ini").replace("/opt/zturbo/bin/zturbo", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_unit_leaves_time_to_drain() -> None:
    match = re.search(r"^TimeoutStopSec=(\d+)$", block("ini"), flags=re.MULTILINE)
    assert match
    assert int(match[1]) > Settings.model_fields["drain_seconds"].default + 30


@pytest.fixture
def proxied(redis_url: str, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client that trusts the certificate of nginx, which runs the guide's block before the real API."""
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if nginx is None or shutil.which("openssl") is None:
        pytest.skip("no nginx here, or no openssl")
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path,
        redis_url=redis_url,
        api_keys=f"caller:{KEY}",
        trusted_proxies="127.0.0.1",
    )
    certificate, port = make_certificate(tmp_path, "127.0.0.1"), free_port()
    with served(create_app(settings), settings) as url:
        server = block("nginx").replace("listen 443 ", f"listen 127.0.0.1:{port} ")
        server = server.replace("http://127.0.0.1:8000", url)
        server = server.replace("/etc/ssl/pictures.crt", str(certificate))
        server = server.replace("/etc/ssl/pictures.key", str(certificate.with_suffix(".key")))
        configuration = tmp_path / "nginx.conf"
        configuration.write_text(
            # Else its workers are somebody who may not write here.
            ("user root; " if os.getuid() == 0 else "")
            + f"daemon off; pid {tmp_path}/nginx.pid; events {{}} http {{ access_log off;\n"
            f"client_body_temp_path {tmp_path}/body; proxy_temp_path {tmp_path}/proxy;\n{server} }}"
        )
        process = subprocess.Popen([nginx, "-p", tmp_path, "-e", "stderr", "-c", configuration])
        trusting = ssl.create_default_context(cafile=str(certificate))
        client = httpx.Client(
            base_url=f"https://127.0.0.1:{port}",
            verify=trusting,
            headers={"Authorization": f"Bearer {KEY}", "Host": "pictures.example.com"},
            trust_env=False,
        )
        try:
            wait_for(lambda: _answers(client))
            yield client
        finally:
            client.close()
            process.terminate()
            process.wait()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").is_success
    except httpx.TransportError:
        return False


def test_behind_nginx_urls_are_those_of_the_caller_and_streams_come_at_once(proxied: httpx.Client) -> None:
    submitted = proxied.post(SUBMIT, json=DOCUMENTED_INPUT).json()
    assert submitted["status_url"].startswith("https://pictures.example.com/v1/requests/")
    # Nobody works the request off: what comes is sent before the stream ends.
    with proxied.stream("GET", f"/v1/requests/{submitted['request_id']}/events") as stream:
        assert next(stream.iter_lines()) == "event: status"


def test_nginx_takes_what_the_server_takes(proxied: httpx.Client) -> None:
    large = DOCUMENTED_INPUT | {"image_url": picture_uri(10_000_000)}
    assert proxied.post(SUBMIT, json=large).status_code == 200
