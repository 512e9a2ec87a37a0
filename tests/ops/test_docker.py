"""The Dockerfile and the compose file, as far as they can be held without a Docker engine.

They are linted, compared with the compose specification's schema, and every path, command, variable and
health check in them is looked up in this repository.
"""

import re
import shlex
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from huggingface_hub import constants
from typer.exceptions import TyperException
from typer.main import get_command

from app.auth import check_exposure
from app.cli import cli
from app.cli.parts import Part
from app.cli.programs import STOP_MARGIN_SECONDS
from app.cli.settings import SECRETS, read_settings
from app.config import Settings
from tests.support.processes import free_port, wait_for
from worker.host.embedded_redis import find_server

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
COMPOSE = ROOT / "docker-compose.yml"
PROFILES = ("demo", "gpu", "gpus", "workers")
HANDED_OVER = "/run/secrets/"


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
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("zturbo-")}


def parse(words: list[str]) -> None:
    """Reads the words as our command line does, without running the command; raises what it raises."""
    if words[:3] == ["python", "-m", "app.health"]:
        assert words[3] in tuple(Part)
        return
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
    wanted = {service["build"]["target"] for service in OURS.values() if "build" in service}
    wanted |= {match for _, _, rest in instructions() for match in re.findall(r"\bfrom=(\w+)", rest)}
    assert wanted <= stages


def test_requirements_that_are_installed_are_pinned_and_hashed() -> None:
    installed = re.findall(r"--require-hashes -r ([\w./]+)", DOCKERFILE.read_text())
    assert set(installed) == {f"requirements/{name}.txt" for name in ("build", "api", "worker")}
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


def test_every_variable_is_known_to_who_reads_it() -> None:
    settings = {f"ZTURBO_{name.upper()}" for name in Settings.model_fields}
    hubs = {name for name in vars(constants) if name.startswith("HF_")}
    known = settings | {f"{name}_FILE" for name in SECRETS} | hubs
    used = set(re.findall(r"\b(?:ZTURBO|AWS|HF)_[A-Z_]*[A-Z]", DOCKERFILE.read_text() + COMPOSE.read_text()))
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
            target = service["image"].removeprefix("zturbo-")
            assert "healthcheck" in service or target in by_target, name
            assert "stop_grace_period" in service, name


def test_worker_is_given_longer_to_stop_than_it_takes_to_drain() -> None:
    seconds = {"s": 1, "m": 60}
    for name in ("io-worker", "gpu-worker", "workers"):
        period = SERVICES[name]["stop_grace_period"]
        grace = int(period[:-1]) * seconds[period[-1]]
        assert grace > Settings.model_fields["drain_seconds"].default + STOP_MARGIN_SECONDS


def test_each_profile_has_what_its_services_depend_on() -> None:
    for profile in PROFILES:
        running = {name for name, service in SERVICES.items() if profile in service["profiles"]}
        for name in running:
            for other, how in SERVICES[name].get("depends_on", {}).items():
                assert other in running or how.get("required") is False, (profile, name, other)
    assert {profile for service in SERVICES.values() for profile in service["profiles"]} == set(PROFILES)


@pytest.mark.parametrize(
    ("profile", "kinds"),
    [("demo", {"io", "gpu"}), ("gpu", {"io", "gpu"}), ("gpus", {"all"}), ("workers", {"all"})],
)
def test_each_profile_runs_both_kinds_of_worker_once(profile: str, kinds: set[str]) -> None:
    commands = [each["command"] for each in OURS.values() if profile in each["profiles"]]
    workers = [words[2] for words in commands if words[1] == "worker"]
    assert (set(workers), len(workers)) == (kinds, len(kinds))


def test_who_makes_pictures_reserves_gpus_and_nobody_else_does() -> None:
    reserving = {}
    for name, service in SERVICES.items():
        if "resources" in service.get("deploy", {}):
            (device,) = service["deploy"]["resources"]["reservations"]["devices"]
            assert device["capabilities"] == ["gpu"]
            reserving[name] = device["count"]
    assert reserving == {"gpu-worker": 1, "workers": "all"}


@pytest.mark.parametrize("profile", PROFILES)
def test_each_image_is_built_once_and_under_the_name_of_its_stage(profile: str) -> None:
    """Compose builds in parallel, and a second build of one tag ends in "already exists"."""
    running = [service for service in OURS.values() if profile in service["profiles"]]
    built = [service["image"] for service in running if "build" in service]
    assert sorted(built) == sorted({service["image"] for service in running})
    for service in running:
        if "build" in service:
            assert service["image"] == f"zturbo-{service['build']['target']}"


def test_every_container_is_locked_down_and_hears_a_stop_at_once() -> None:
    for name, service in SERVICES.items():
        assert service["init"] is True, name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"] == {"driver": "local"}, name
    assert SERVICES["redis"]["user"] == "redis"


def test_weights_that_cannot_be_fetched_are_not_tried_for_ever() -> None:
    assert SERVICES["weights"]["restart"] == "on-failure:5"


def test_images_do_not_run_as_root() -> None:
    for target in ("api", "worker"):
        words = [(word, rest) for stage, word, rest in instructions() if stage == target]
        assert ("USER", "10001:10001") in words[: [word for word, _ in words].index("CMD")]


def test_nothing_is_reached_from_outside_unless_an_address_is_named() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(ports) == {"api", "redis"}
    assert ports["api"] == ["${ZTURBO_HOST:-127.0.0.1}:${ZTURBO_PORT:-8000}:8000"]
    assert ports["redis"] == ["${REDIS_BIND:-127.0.0.1}:6379:6379"]


def test_every_secret_is_declared_mounted_where_it_is_read_and_kept_out_of_git() -> None:
    declared = compose()["secrets"]
    mounted = {name for service in SERVICES.values() for name in service["secrets"]}
    assert mounted == set(declared)
    for name, secret in declared.items():
        assert secret["file"] == f"secrets/{name}"
    assert "/secrets/" in (ROOT / ".gitignore").read_text().split()
    for name, service in SERVICES.items():
        read = re.findall(rf"{HANDED_OVER}(\w+)", yaml.safe_dump(service, default_flow_style=False))
        assert set(read) == set(service["secrets"]), name


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """The folder of secrets, made by the lines that the compose file gives."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make the secrets with")
    lines = re.findall(r"^#   ((?:mkdir|echo|touch|chmod) .*)", COMPOSE.read_text(), flags=re.MULTILINE)
    assert len(lines) == 5
    # Whatever the user's umask: the image's user reads them.
    subprocess.run(["sh", "-ec", "\n".join(["umask 077", *lines])], cwd=tmp_path, check=True)
    return tmp_path / "secrets"


def test_commands_in_its_head_make_every_secret(secrets: Path) -> None:
    assert {path.name for path in secrets.iterdir()} == set(compose()["secrets"])
    assert secrets.stat().st_mode & 0o777 == 0o700
    # By the user of the image, who is not the one here.
    assert all(path.stat().st_mode & 0o004 for path in secrets.iterdir())


def test_redis_takes_its_password_from_the_url_and_keeps_what_it_is_told(
    secrets: Path, tmp_path: Path
) -> None:
    def here(text: str) -> str:
        return text.replace("$$", "$").replace(HANDED_OVER, f"{secrets}/")

    assert "redis:/data" in SERVICES["redis"]["volumes"]
    shell, flag, command = map(here, SERVICES["redis"]["command"])
    port = free_port()
    command = command.replace("redis-server", str(find_server().path), 1)
    process = subprocess.Popen(
        [shell, flag, f"{command} --port {port} --bind 127.0.0.1 --dir {tmp_path}"], stdout=subprocess.DEVNULL
    )
    url = (secrets / "redis_url").read_text().strip().replace("@redis:6379", f"@127.0.0.1:{port}")
    try:
        with redis.Redis.from_url(url) as client, redis.Redis(port=port) as stranger:
            wait_for(lambda: _answers(client))
            assert client.config_get("appendonly") == {"appendonly": "yes"}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            with pytest.raises(redis.AuthenticationError):
                stranger.ping()
        kind, check = SERVICES["redis"]["healthcheck"]["test"]
        assert kind == "CMD-SHELL"
        if shutil.which("redis-cli") is None:
            pytest.skip("no redis-cli here to run the health check with")
        for password, status in ((check, 0), (check.replace("REDISCLI_AUTH", "NOTHING"), 1)):
            checked = here(password).replace("redis-cli", f"redis-cli -p {port}")
            assert subprocess.run(["sh", "-c", checked], capture_output=True).returncode == status
    finally:
        process.terminate()
        process.wait()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_environment_reaches_our_settings_class(
    secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for service in OURS.values():
        with monkeypatch.context() as patch:
            for name in SECRETS:
                patch.setenv(name, "")
            for name, value in service["environment"].items():
                filled = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))
                patch.setenv(name, filled.replace(HANDED_OVER, f"{secrets}/"))
            settings = read_settings()
            assert settings.redis_url == (secrets / "redis_url").read_text().strip()
            assert settings.data_dir == Path("/data")
            if "ZTURBO_API_KEYS_FILE" in service["environment"]:
                assert len(check_exposure(settings)) == 1
