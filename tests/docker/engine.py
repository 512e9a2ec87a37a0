"""A Docker engine of the tests' own, with base images made from Debian, that leaves nothing behind.

Needs root, apt-get and Debian's `docker.io` and `mmdebstrap`. Neither firewall nor docker0 is touched: images
are built on the host's network, and the containers' own network is the one of compose.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SITE_PACKAGES = "/site"
START_SECONDS = 60.0

ENTRYPOINT = """#!/bin/sh
# Stands in for the official image's: it drops root only where the command itself is redis-server.
set -e
case "$1" in -* | *.conf) set -- redis-server "$@" ;; esac
exec "$@"
"""

PYTHON_BASE = """FROM debian:root
COPY ca-certificates.crt /etc/ssl/certs/
RUN ln -s /usr/bin/python3.11 /usr/local/bin/python && ln -s /usr/bin/pip3 /usr/local/bin/pip \\
    && printf '[global]\\ncert = /etc/ssl/certs/ca-certificates.crt\\n' >/etc/pip.conf
"""

REDIS_BASE = """FROM debian:root
RUN install -d -o redis -g redis /data
WORKDIR /data
COPY docker-entrypoint.sh /usr/local/bin/
ENTRYPOINT ["docker-entrypoint.sh"]
"""


def missing() -> str | None:
    """What an engine cannot be started without here, as a reason to skip."""
    if os.getuid() != 0:
        return "a Docker engine of the tests' own is started by root alone"
    for command in ("dockerd", "mmdebstrap", "apt-get"):
        if shutil.which(command) is None:
            return f"no {command} here; apt-get install docker.io mmdebstrap"
    return None


class NoEngine(Exception):
    """This machine, or what it can reach, has no room for an engine of the tests' own."""


class Engine:
    """A running dockerd, and the one folder in which it keeps everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # /usr/bin first: a client from elsewhere may want plugins that are not here.
        self.env: dict[str, str] = os.environ | {
            "PATH": f"/usr/bin:{os.environ['PATH']}",
            "DOCKER_HOST": f"unix://{folder}/docker.sock",
            "DOCKER_CONFIG": f"{folder}/config",
            "DOCKER_BUILDKIT": "1",
        }

    def docker(
        self, *words: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> str:
        """What the client prints. Raises AssertionError with what it said when it fails."""
        done = self.try_docker(*words, cwd=cwd, env=env)
        assert done.returncode == 0, f"docker {' '.join(map(str, words))}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def try_docker(
        self, *words: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = ["docker", *map(str, words)]
        return subprocess.run(
            command, cwd=cwd, env={**self.env, **(env or {})}, capture_output=True, text=True
        )

    def inspect(self, name: str) -> dict[str, Any]:
        (found,) = json.loads(self.docker("inspect", name))
        return dict(found)

    def build(self, target: str, context: Path) -> None:
        self.docker("build", "--network=host", "--target", target, "--tag", f"zturbo-{target}", context)


@contextmanager
def running_engine() -> Iterator[Engine]:
    """With `python:3.11-slim-bookworm` and `redis:8-alpine` as stand-ins made from Debian, and Compose.

    Raises NoEngine.
    """
    folder = Path(tempfile.mkdtemp(prefix="zturbo-docker-"))
    engine = Engine(folder)
    daemon: subprocess.Popen[bytes] | None = None
    try:
        _bring_compose(folder)
        with (folder / "dockerd.log").open("wb") as log:
            paths = {"data-root": "data", "exec-root": "run", "pidfile": "pid"}
            daemon = subprocess.Popen(
                [
                    "dockerd",
                    f"--host={engine.env['DOCKER_HOST']}",
                    *(f"--{name}={folder / path}" for name, path in paths.items()),
                    *("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        _wait_for(engine, daemon)
        _make_bases(engine)
        yield engine
    finally:
        if daemon is not None:
            daemon.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(START_SECONDS)
        _unmount_below(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _unmount_below(folder: Path) -> None:
    """What dockerd leaves mounted, the innermost first."""
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for path in reversed(mounted):
        if path.startswith(f"{folder}/"):
            subprocess.run(["umount", path], capture_output=True)


def _wait_for(engine: Engine, daemon: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + START_SECONDS
    while engine.try_docker("version").returncode:
        if daemon.poll() is not None or time.monotonic() > end:
            raise NoEngine(f"dockerd does not start: {(engine.folder / 'dockerd.log').read_text()[-500:]}")
        time.sleep(0.2)


def _bring_compose(folder: Path) -> None:
    """Compose 2, which Debian 12 has not: the next release's package, unpacked, not installed."""
    plugins, debs, lists = folder / "config/cli-plugins", folder / "debs", folder / "apt/lists"
    for each in (plugins, debs, lists / "partial"):
        each.mkdir(parents=True)
    sources = folder / "apt/sources.list"
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    sources.write_text(f"deb [signed-by={key}] {_archive()} trixie main\n")
    settings = {"sourcelist": sources, "sourceparts": "-"}
    apt = ["apt-get", "-qq", "-o", f"Dir::State::lists={lists}"]
    for name, value in settings.items():
        apt += ["-o", f"Dir::Etc::{name}={value}"]
    _run([*apt, "update"], debs)
    _run([*apt, "download", "docker-compose"], debs)
    (package,) = debs.glob("docker-compose_*.deb")
    _run(["dpkg-deb", "--extract", str(package), str(debs / "unpacked")], debs)
    (plugin,) = (debs / "unpacked").rglob("cli-plugins/docker-compose")
    shutil.move(plugin, plugins / "docker-compose")
    shutil.rmtree(debs)


def _archive() -> str:
    """Where this machine's own packages come from."""
    for file in sorted(Path("/etc/apt").rglob("*.sources")):
        for line in file.read_text().splitlines():
            if line.startswith("URIs: "):
                return line.split()[1]
    for file in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt").rglob("*.list"))):
        for line in file.read_text().splitlines() if file.exists() else ():
            if line.startswith("deb "):
                return next(word for word in line.split() if "://" in word)
    raise AssertionError("no archive of Debian packages is named in /etc/apt")


def _make_bases(engine: Engine) -> None:
    """One Debian root for both: Python's image and that of Redis differ in a few lines."""
    bases = engine.folder / "bases"
    bases.mkdir()
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", bases)
    entrypoint = bases / "docker-entrypoint.sh"
    entrypoint.write_text(ENTRYPOINT)
    entrypoint.chmod(0o755)
    packages = "python3.11-venv,python3-pip,python3-dev,ca-certificates,redis-server"
    root = bases / "root.tar"
    _run(
        [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            f"--include={packages}",
            "bookworm",
            str(root),
            _archive(),
        ],
        bases,
    )
    engine.docker("import", "--change", 'CMD ["python3"]', root, "debian:root")
    root.unlink()
    for tag, text in (("python:3.11-slim-bookworm", PYTHON_BASE), ("redis:8-alpine", REDIS_BASE)):
        (bases / "Dockerfile").write_text(text)
        engine.docker("build", "--network=host", "--tag", tag, bases)


def _run(command: list[str], cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise NoEngine(f"{' '.join(command)}: {(done.stdout + done.stderr)[-500:]}")
