"""Half of the disk that can be used is for one owner: uploads, and pictures in requests that are not over."""

import pytest
import redis

from models.errors import DiskFull
from worker.config import WorkerSettings
from worker.queue import scripts
from worker.queue.requests import RequestStore
from worker.queue.scripts import Call, NotQueued, Queued, Scripts
from worker.storage.workspace import INLINE_CHARACTERS

pytestmark = pytest.mark.anyio

DAY_MS = 86_400_000


def send(client: redis.Redis, id: str, size: int, spare: int | None, owner: str = "ann") -> bool:
    """Submits with a picture of `size` bytes; whether there is room for it."""
    call = scripts.submit(id=id, owner=owner, most=100, size=size, spare=spare, fields={"version": "2"})
    answer = Scripts(client).run(call)
    assert answer == NotQueued("no_room") or isinstance(answer, Queued)
    return isinstance(answer, Queued)


def upload(
    file_id: str, size: int, spare: int | None, owner: str = "ann", keep_ms: int = DAY_MS
) -> Call[bool]:
    return scripts.count_upload(owner=owner, file_id=file_id, size=size, spare=spare, keep_ms=keep_ms)


def test_requests_of_one_owner_may_fill_half_and_those_of_another_what_is_left(client: redis.Redis) -> None:
    assert send(client, "a", 40, spare=100)
    assert not send(client, "b", 11, spare=60)
    assert not client.exists("zturbo:req:b")
    assert send(client, "b", 10, spare=60)
    assert send(client, "c", 25, spare=50, owner="bob")
    assert send(client, "a", 40, spare=50), "a repeated submit is answered all the same"
    assert send(client, "small", 0, spare=0), "what stays in the record needs no room"
    assert not client.hexists("zturbo:sent:ann", "small")


def test_store_without_an_end_has_room(client: redis.Redis) -> None:
    assert send(client, "a", 10**15, spare=None)
    assert Scripts(client).run(upload("f", 10**15, spare=None))


def test_refused_submit_does_not_count_towards_the_rate(client: redis.Redis) -> None:
    call = scripts.submit(
        id="a", owner="ann", most=9, most_in_minute=1, size=2, spare=3, fields={"version": "2"}
    )
    assert Scripts(client).run(call) == NotQueued("no_room")
    assert not client.exists("zturbo:spent:ann")
    assert client.hget("zturbo:metrics", "submits|no_room") == "1"


@pytest.mark.parametrize("end", ["cancelled", "failed"])
def test_room_is_free_again_when_the_request_is_over(end: str, client: redis.Redis) -> None:
    assert send(client, "a", 40, spare=100)
    if end == "cancelled":
        Scripts(client).run(scripts.cancel(id="a", force=False))
    else:
        taking = scripts.next(queue="io", token="token", worker_id="w", lease_ms=9000, known_version=2)
        assert Scripts(client).run(taking)
        fields = {"error": '{"type": "fetch_failed"}'}
        Scripts(client).run(scripts.close(id="a", token="token", state="failed", fields=fields))
    assert not client.exists("zturbo:sent:ann")
    assert send(client, "b", 50, spare=100)


def test_what_an_older_worker_has_closed_counts_no_more(client: redis.Redis) -> None:
    assert send(client, "a", 40, spare=100)
    client.hset("zturbo:req:a", "state", "succeeded")
    client.hset("zturbo:sent:ann", "deleted", 10)
    assert send(client, "b", 50, spare=100)
    assert client.hgetall("zturbo:sent:ann") == {"b": "50"}


def test_uploads_count_once_until_they_expire(client: redis.Redis) -> None:
    run = Scripts(client).run
    assert run(upload("f", 30, spare=100))
    assert run(upload("f", 30, spare=0)), "the same one again needs no room"
    assert not run(upload("g", 21, spare=70))
    assert not send(client, "a", 21, spare=70)
    assert send(client, "a", 20, spare=70)
    assert not run(upload("g", 1, spare=50))
    assert run(upload("g", 25, spare=50, owner="bob"))
    # Its time is over.
    client.zadd("zturbo:uploads:ann", {"30 f": 1})
    assert run(upload("h", 30, spare=80))
    assert client.zrange("zturbo:uploads:ann", 0, -1) == ["30 h"]
    assert client.get("zturbo:uploaded:ann") == "30"


def test_nothing_is_kept_of_an_owner_whose_uploads_have_expired(client: redis.Redis) -> None:
    run = Scripts(client).run
    assert run(upload("f", 30, spare=100, keep_ms=90_000))
    assert run(upload("g", 10, spare=100, keep_ms=95_000))
    for key in ("zturbo:uploads:ann", "zturbo:uploaded:ann"):
        assert 90_000 < client.pttl(key) <= 95_000


async def test_owner_is_told_and_what_was_sent_is_gone(
    requests: RequestStore, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.disk.spare_bytes", lambda folder: 30_000)
    picture = {"image_url": "data:image/png;base64," + "A" * INLINE_CHARACTERS}
    with pytest.raises(DiskFull, match="more than half of the disk that can be used; send it when requests"):
        await requests.submit("a", "model", picture, "ann", [])
    assert not list(settings.data_dir.rglob("image_url.txt"))
    monkeypatch.setattr("models.disk.spare_bytes", lambda folder: 40_000)
    await requests.submit("a", "model", picture, "ann", [])
