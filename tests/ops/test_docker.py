"""The Dockerfile and the compose file, as far as they can be held without a Docker engine.

They are linted, compared with the compose specification's schema, and every path, command, variable and
health check in them is looked up in this repository.
"""

import re
import shlex
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.exceptions import TyperException
from typer.main import get_command

from app.cli import cli
from app.config import Settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
COMPOSE = ROOT / "docker-compose.yml"
SECRETS = {"ZTURBO_API_KEYS": "me:key", "REDIS_PASSWORD": "password"}


def instructions() -> list[tuple[str, str, str]]:
    """(stage, instruction, its text) of the Dockerfile, continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found, stage = [], ""
    for line in text.splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            stage = rest.split()[-1] if word == "FROM" else stage
            found.append((stage, word, rest.strip()))
    return found


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return loaded


SERVICES = compose()["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


def parse(words: list[str]) -> None:
    """Reads the words as our command line does, without running the command; raises what it raises."""
    assert words[0] == "zturbo"
    group = get_command(cli)
    group.commands[words[1]].make_context(words[1], words[2:])


def test_dockerfile_is_clean_for_hadolint() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint has no wheel for this platform")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True)
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


def test_compose_file_fits_the_compose_schema() -> None:
    schema = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    command = [sys.executable, "-m", "check_jsonschema", "--schemafile", str(schema), str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_that_is_copied_is_in_the_repository_and_in_the_build_context() -> None:
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [
        source
        for _, word, rest in instructions()
        if word == "COPY"
        for source in shlex.split(rest)[:-1]
        if not source.startswith("--")
    ]
    assert len(copied) > 5
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in let_in, source


def test_every_stage_that_is_named_is_there() -> None:
    stages = {stage for stage, word, _ in instructions() if word == "FROM"}
    wanted = {service["build"]["target"] for service in OURS.values()}
    wanted |= {match for _, _, rest in instructions() for match in re.findall(r"\bfrom=(\w+)", rest)}
    assert wanted <= stages


def test_requirements_that_are_installed_are_pinned_and_hashed() -> None:
    installed = re.findall(r"-r (\S+)", DOCKERFILE.read_text())
    assert len(installed) == 3
    for name in installed:
        text = (ROOT / name).read_text()
        pins = re.findall(r"^\S+==\S+", text, flags=re.MULTILINE)
        blocks = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]
        assert pins
        assert all("--hash=sha256:" in block for block in blocks), name
        assert "://" not in text


def test_api_image_has_no_torch_and_worker_image_has_it() -> None:
    assert not re.search(r"^torch==", (ROOT / "requirements/api.txt").read_text(), flags=re.MULTILINE)
    assert re.search(r"^torch==", (ROOT / "requirements/worker.txt").read_text(), flags=re.MULTILINE)


COMMANDS = {f"{name} command": service["command"] for name, service in OURS.items()}
COMMANDS |= {
    f"{name} health": service["healthcheck"]["test"][1:]
    for name, service in OURS.items()
    if "test" in service.get("healthcheck", {})
}
COMMANDS |= {
    f"Dockerfile {stage} {word}": yaml.safe_load(rest[rest.index("[") :])
    for stage, word, rest in instructions()
    if word in ("CMD", "HEALTHCHECK")
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS.keys())
def test_command_is_one_of_ours(words: list[str]) -> None:
    parse(words)


@pytest.mark.parametrize(
    "words", ["zturbo serve-it", "zturbo worker cpu", "zturbo health", "zturbo api --bind x"]
)
def test_command_that_we_do_not_have_would_be_noticed(words: str) -> None:
    with pytest.raises((KeyError, TyperException)):
        parse(words.split())


def test_every_variable_is_a_setting() -> None:
    known = {f"ZTURBO_{name.upper()}" for name in Settings.model_fields}
    used = set(re.findall(r"ZTURBO_[A-Z_]*[A-Z]", DOCKERFILE.read_text() + COMPOSE.read_text()))
    assert used
    assert used <= known


def test_our_services_agree_on_folders_and_mount_what_they_write() -> None:
    image = dict(re.findall(r"(\w+)=(/\w+)", DOCKERFILE.read_text()))
    for name, service in OURS.items():
        environment = service["environment"]
        mounted = {volume.split(":")[-1] for volume in service["volumes"]}
        for variable in ("ZTURBO_DATA_DIR", "ZTURBO_LORA_DIR", "HF_HOME"):
            assert environment[variable] == image[variable], (name, variable)
            assert environment[variable] in mounted, (name, variable)


def test_named_volumes_are_declared_and_used() -> None:
    used = {
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service["volumes"]
        if not volume.startswith(("$", ".", "/"))
    }
    assert used == set(compose()["volumes"])


def test_every_long_running_service_has_a_health_check_and_time_to_stop() -> None:
    by_target = {stage for stage, word, _ in instructions() if word == "HEALTHCHECK"}
    for name, service in SERVICES.items():
        if service["restart"] == "unless-stopped":
            target = service.get("build", {}).get("target")
            assert "healthcheck" in service or target in by_target, name
            assert "stop_grace_period" in service, name


def test_worker_is_given_longer_to_stop_than_it_takes_to_drain() -> None:
    seconds = {"s": 1, "m": 60}
    for name in ("io-worker", "gpu-worker"):
        period = SERVICES[name]["stop_grace_period"]
        grace = int(period[:-1]) * seconds[period[-1]]
        assert grace > Settings.model_fields["drain_seconds"].default + 10


def test_gpu_worker_reserves_a_gpu_and_nobody_else_does() -> None:
    reserving = [name for name, service in SERVICES.items() if "deploy" in service]
    assert reserving == ["gpu-worker"]
    (device,) = SERVICES["gpu-worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_images_do_not_run_as_root() -> None:
    for target in ("api", "worker"):
        words = [(word, rest) for stage, word, rest in instructions() if stage == target]
        assert ("USER", "10001:10001") in words[: [word for word, _ in words].index("CMD")]


def test_only_the_api_is_reached_from_outside() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["api"]


def test_redis_keeps_what_it_is_told_and_asks_for_a_password() -> None:
    command = " ".join(SERVICES["redis"]["command"])
    for words in ('--requirepass "$$REDIS_PASSWORD"', "--appendonly yes", "--maxmemory-policy noeviction"):
        assert words in command
    assert "redis:/data" in SERVICES["redis"]["volumes"]


@pytest.mark.parametrize("missing", SECRETS)
def test_compose_refuses_to_start_without_a_secret_and_says_how_to_make_one(missing: str) -> None:
    """`${NAME:?sentence}` is compose's own way to refuse; the sentence is what the user reads."""
    sentences = re.findall(rf"\$\{{{missing}:\?([^}}]+)\}}", COMPOSE.read_text())
    assert len(sentences) == 1
    assert "openssl rand -hex 24" in sentences[0]


def test_environment_reaches_our_settings_class(monkeypatch: pytest.MonkeyPatch) -> None:
    def filled(value: str) -> str:
        return re.sub(
            r"\$\{(\w+)(?::?([-?])([^}]*))?\}",
            lambda m: SECRETS.get(m[1], m[3] if m[2] == "-" else ""),
            str(value),
        )

    for service in OURS.values():
        with monkeypatch.context() as patch:
            for name, value in service["environment"].items():
                patch.setenv(name, filled(value))
            settings = Settings(_env_file=None)
            assert settings.redis_url == "redis://:password@redis:6379/0"
            assert settings.api_keys == "me:key"
            assert settings.data_dir == Path("/data")
