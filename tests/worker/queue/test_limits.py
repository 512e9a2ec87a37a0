"""How many requests are taken, in all and from one key, and when a refused caller is told to come back."""

import pytest
import redis

from worker.config import WorkerSettings
from worker.errors import Refused
from worker.queue.registry import Registry, WorkerInfo
from worker.queue.requests import RequestStore

pytestmark = pytest.mark.anyio

PACE_MS = 8000


@pytest.fixture
def limited(requests: RequestStore, settings: WorkerSettings, client: redis.Redis) -> RequestStore:
    """Pictures that take 8 s each on two GPUs; at most three wait."""
    client.set("zturbo:pace", PACE_MS)
    registry = Registry(client, hold_seconds=60)
    for worker in ("one", "two"):
        registry.say(WorkerInfo(worker, "gpu", "busy"))
    requests._settings = settings.model_copy(update={"max_queue": 3})
    return requests


async def submit(requests: RequestStore, request_id: str, owner: str = "ann") -> int:
    return (await requests.submit(request_id, "model", {"prompt": "a fox"}, owner, [])).position


async def refused(requests: RequestStore, owner: str = "ann") -> Refused:
    with pytest.raises(Refused) as caught:
        await submit(requests, "refused", owner)
    assert await requests.get("refused") is None
    assert f"in {caught.value.retry_after} s" in str(caught.value)
    return caught.value


async def test_full_line_tells_how_long_a_place_takes(limited: RequestStore) -> None:
    for request_id in "abc":
        await submit(limited, request_id)
    refusal = await refused(limited)
    assert refusal.retry_after == 4
    assert str(refusal).startswith("3 requests are waiting already")
    assert await submit(limited, "b") == 1, "a repeated submit is answered all the same"


async def test_key_with_nothing_waiting_is_let_into_a_full_line(limited: RequestStore) -> None:
    for request_id in "abc":
        await submit(limited, request_id)
    assert await submit(limited, "d", "bob") == 1
    await refused(limited, "bob")


async def test_share_of_a_key_is_full_until_its_turns_come(
    limited: RequestStore, settings: WorkerSettings
) -> None:
    limited._settings = settings.model_copy(update={"max_queue_per_key": 2})
    await submit(limited, "a")
    await submit(limited, "b")
    assert (await refused(limited)).retry_after == 4
    for owner in ("bob", "cat"):
        await submit(limited, f"of-{owner}", owner)
    refusal = await refused(limited)
    assert refusal.retry_after == 12, "three keys take turns"
    assert str(refusal).startswith("2 requests of this key are waiting already")
    await limited.cancel("a")
    await submit(limited, "c")


async def test_rate_of_a_key_is_held(limited: RequestStore, settings: WorkerSettings) -> None:
    limited._settings = settings.model_copy(update={"max_submits_per_minute": 4})
    for request_id in "abcd":
        await submit(limited, request_id)
    refusal = await refused(limited)
    assert 0 < refusal.retry_after <= 15
    assert str(refusal).startswith("This key may submit 4 requests a minute")
    await submit(limited, "a")
    await submit(limited, "e", "bob")


async def test_rate_of_a_key_is_forgotten_once_it_has_no_effect(
    limited: RequestStore, settings: WorkerSettings, client: redis.Redis
) -> None:
    limited._settings = settings.model_copy(update={"max_submits_per_minute": 4})
    for number, request_id in enumerate("ab", 1):
        await submit(limited, request_id)
        assert 15_000 * (number - 1) < client.pttl("zturbo:spent:ann") <= 15_000 * number


async def test_refused_submit_does_not_count_towards_the_rate(
    limited: RequestStore, settings: WorkerSettings, client: redis.Redis
) -> None:
    limited._settings = settings.model_copy(update={"max_queue_per_key": 1, "max_submits_per_minute": 60})
    await submit(limited, "a")
    spent = client.get("zturbo:spent:ann")
    await refused(limited)
    assert client.get("zturbo:spent:ann") == spent


async def test_owner_is_counted_by_what_waits_and_not_at_all_once_nothing_does(
    requests: RequestStore, client: redis.Redis
) -> None:
    await submit(requests, "a")
    await submit(requests, "b")
    await requests.cancel("a")
    assert client.hgetall("zturbo:queued") == {"ann": "1"}
    await requests.cancel("b")
    assert not client.exists("zturbo:queued")
