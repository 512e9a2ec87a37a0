"""Three machines with a data folder each: the API's, one that prepares and finishes, one with the GPU.

The workers are told of Redis and nothing else but the keys of its S3 store. `python -m benchmarks.machines`
has real networks.
"""

import base64
import io
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import numpy as np
import pytest
import redis
from PIL import Image
from safetensors.numpy import save_file

from tests.support.processes import wait_for
from tests.support.s3_server import KEYS, S3Server
from tests.worker.runtime.crew import Crew
from worker.queue import keys
from worker.storage.backend import open_objects
from worker.storage.pictures import Storage
from worker.storage.workspace import INLINE_CHARACTERS

pytestmark = pytest.mark.anyio


@pytest.fixture
async def crew(redis_url: str, tmp_path: Path, bucket: str) -> AsyncIterator[Crew]:
    crew = Crew(redis_url, tmp_path / "api", storage=bucket)
    yield crew
    await crew.close()


def large_picture() -> str:
    noise = np.random.default_rng(1).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    uri = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    assert len(uri) > INLINE_CHARACTERS
    return uri


async def test_machines_need_no_common_folder_and_outlast_a_broken_store(
    crew: Crew, tmp_path: Path, s3_server: S3Server
) -> None:
    loras = tmp_path / "io" / "loras"
    loras.mkdir(parents=True)
    layer = "transformer.layers.0.attention.to_q"
    weights = {f"{layer}.lora_{side}.weight": np.ones((4, 4), np.float32) for side in "AB"}
    save_file(weights, loras / "style.safetensors")
    (tmp_path / "gpu").mkdir()
    for kind in ("io", "gpu"):
        crew.start(kind, **KEYS, ZTURBO_STORAGE="", ZTURBO_DATA_DIR=str(tmp_path / kind))
    await crew.workers("ready", 2)

    names = [f"r{number}" for number in range(12)]
    for name in names:
        path = [{"path": "style", "scale": 1.0}] if name == "r0" else []
        await crew.submit(name, image_url=large_picture(), loras=path)
        if name == "r4":
            s3_server.faults(status=500, only="PUT")
            await anyio.sleep(0.5)
            s3_server.faults()
    for name in names:
        record = await crew.until(name)
        assert record.state == "succeeded", record.error
        assert record.output is not None
        image = record.output["image"]
        picture = Storage(open_objects(crew.settings)).read(image["file_id"], image["name"])
        assert picture is not None
        assert len(picture) == image["size"]
    left = {path.name for kind in ("api", "io", "gpu") for path in (tmp_path / kind).iterdir()}
    assert left <= {"workers.log", "engine.log", "loras", "cache"}
    # Cleared away after the record is closed.
    wait_for(lambda: not list(open_objects(crew.settings).list("work")), 30)


async def test_worker_of_another_folder_takes_no_request_and_says_why(redis_url: str, tmp_path: Path) -> None:
    crew = Crew(redis_url, tmp_path / "api")
    (tmp_path / "other").mkdir()
    crew.start("io", ZTURBO_DATA_DIR=str(tmp_path / "other"))
    (worker,) = await crew.workers("setup_failed")
    assert "let both have one ZTURBO_DATA_DIR" in str(worker.detail)
    await crew.submit("a")
    crew.start("io")
    await crew.workers("ready")
    await crew.close()


async def test_worker_that_is_there_before_any_api_waits_for_it(
    redis_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    crew = Crew(redis_url, tmp_path / "api")
    client.delete(keys.STORAGE)
    crew.start("io")
    (worker,) = await crew.workers("starting")
    await anyio.sleep(0.2)
    assert await crew.workers("ready", 0) == []
    await crew.requests.tell_storage()
    assert (await crew.workers("ready"))[0].id == worker.id
    await crew.close()
