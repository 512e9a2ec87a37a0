"""One worker's consumer in this process, where a test can reach between a stage's work and its record."""

import json
from collections.abc import Callable
from pathlib import Path
from threading import Event, Semaphore
from typing import Any, ClassVar, NoReturn

import numpy as np
import pytest
import redis
from PIL import Image

from models.job import Facts, Generated, Job, OnStep, Pixels, Preprocess, Step
from models.prompt.expansion import Expansion
from tests.support.prompt_server import PromptServer, completion
from tests.worker.runtime.crew import IMAGE, MODEL
from worker.config import WorkerSettings
from worker.errors import StorageError
from worker.queue.connection import Scripts, connect
from worker.queue.doorbell import Bells, Queue
from worker.queue.work_queue import CONTROL_MAP, EXPAND, Record, Records
from worker.runtime.consumer import Consumer
from worker.runtime.quarantine import Trial
from worker.runtime.sweeper import Sweeper
from worker.stages.task import Engine, Tools
from worker.storage.objects import FolderObjects, Objects

BODY: dict[str, Any] = {
    "prompt": "a fox", "image_url": IMAGE, "loras": [], "image_size": "square", "control_scale": 0.9,
    "control_start": 0.0, "control_end": 0.4, "preprocess": "none", "num_inference_steps": 2, "seed": 7,
    "enable_prompt_expansion": False, "output_format": "png",
}  # fmt: skip


class GreyEngine:
    name = "grey"
    device = "none"
    counts: ClassVar[dict[str, int]] = {}

    def expand(self, prompt: str, seed: int) -> Expansion:
        return Expansion(prompt=f"{prompt}, grey, {seed}")

    def control_map(self, preprocess: Preprocess, source: Pixels) -> Pixels:
        return 255 - source

    def generate(self, job: Job, control: Pixels | None, on_step: OnStep) -> Generated:
        on_step(Step(1, 1))
        images = tuple(np.full((16, 16, 3), 9, np.uint8) for _ in job.seeds)
        return Generated(images, None, Facts(model=self.name, seeds=job.seeds, prompt=job.prompt))


def never(status: int, reason: str) -> NoReturn:
    raise AssertionError(reason)


class InterruptedObjects(FolderObjects):
    """Something happens right after a picture is written, before its record says so."""

    def __init__(self, root: Path, then: Callable[[], object]) -> None:
        super().__init__(root)
        self._then = then

    def put(self, key: str, data: bytes) -> None:
        super().put(key, data)
        if key.startswith("outputs/"):
            self._then()


class WaitingObjects(FolderObjects):
    """Keeps the first picture of a device only once that device has begun its second."""

    def __init__(self, root: Path, begun: Semaphore) -> None:
        super().__init__(root)
        self.began_meanwhile: bool | None = None
        self._begun = begun

    def put(self, key: str, data: bytes) -> None:
        if self.began_meanwhile is None and key.endswith(".image.npy"):
            self._begun.acquire()
            self.began_meanwhile = self._begun.acquire(timeout=10)
        super().put(key, data)


class FullObjects(FolderObjects):
    """Has no room for the first picture of a device."""

    _full = True

    def put(self, key: str, data: bytes) -> None:
        if self._full and key.endswith(".image.npy"):
            self._full = False
            raise StorageError("The disk is full.")
        super().put(key, data)


class CountingEngine(GreyEngine):
    def __init__(self, begun: Semaphore) -> None:
        self._begun = begun

    def generate(self, job: Job, control: Pixels | None, on_step: OnStep) -> Generated:
        self._begun.release()
        return super().generate(job, control, on_step)


class Died(BaseException):
    """Stands for kill -9."""


@pytest.fixture
def settings(settings: WorkerSettings) -> WorkerSettings:
    return settings.model_copy(update={"model": "demo"})


@pytest.fixture
def scripts(client: redis.Redis) -> Scripts:
    return Scripts(client)


@pytest.fixture
def submit(scripts: Scripts) -> Callable[[str], None]:
    def submit(request_id: str) -> None:
        fields = ("model_id", MODEL, "input", json.dumps(BODY), "warnings", "[]")
        scripts.run("submit", request_id, "local", "", "", 0, 10, 0, 0, *fields)

    return submit


@pytest.fixture
def live(records: Records, submit: Callable[[str], None], settings: WorkerSettings) -> Callable[..., Record]:
    """Submits, and lets one worker after the other work off its queue; the record at the end."""
    bells = Bells(settings.redis_url or "")
    submit("a")

    def work(*queues: Queue, objects: Objects, engine: Engine | None = None) -> Record:
        for queue in queues:
            own = connect(settings.redis_url or "")
            consumer = Consumer(
                queue,
                "w",
                records,
                Records(own, settings),
                bells,
                Tools(settings, objects),
                engine or GreyEngine(),
                Trial(own, "none"),
                never,
            )
            consumer.drain(Event())
            assert consumer.holdings == {}
        record = records.get("a")
        assert record is not None, "there is no record"
        return record

    return work


def files(settings: WorkerSettings) -> list[Path]:
    return [path for path in (settings.data_dir / "outputs").rglob("*") if path.is_file()]


def test_finish_that_is_done_twice_leaves_one_file(
    live: Callable[..., Record], records: Records, scripts: Scripts, settings: WorkerSettings
) -> None:
    def die() -> None:
        raise Died

    with pytest.raises(Died):
        live("io", "gpu", "io", objects=InterruptedObjects(settings.data_dir, die))
    (left,) = files(settings)
    scripts.run("bury", "io", "w")
    records.reap(0.001)
    record = live("io", objects=FolderObjects(settings.data_dir))
    assert (record.state, files(settings)) == ("succeeded", [left])
    assert record.output is not None
    assert record.output["image"]["size"] == left.stat().st_size


def test_request_cancelled_while_its_picture_is_written_leaves_no_file(
    live: Callable[..., Record], scripts: Scripts, settings: WorkerSettings
) -> None:
    objects = InterruptedObjects(settings.data_dir, lambda: scripts.run("cancel", "a", "1"))
    record = live("io", "gpu", "io", objects=objects)
    assert (record.state, record.output, files(settings)) == ("cancelled", None, [])
    assert not (settings.data_dir / "work" / "a").exists()


@pytest.mark.parametrize("queues", [("io",), ("io", "gpu")])
def test_pixels_that_a_stage_writes_after_the_cancel_go_with_it(
    live: Callable[..., Record], scripts: Scripts, settings: WorkerSettings, queues: tuple[Queue, ...]
) -> None:
    class CancelledObjects(FolderObjects):
        def put(self, key: str, data: bytes) -> None:
            super().put(key, data)
            scripts.run("cancel", "a", "1")

    live(*queues[:-1], objects=FolderObjects(settings.data_dir))
    record = live(queues[-1], objects=CancelledObjects(settings.data_dir))
    assert record.state == "cancelled"
    assert not (settings.data_dir / "work" / "a").exists()


@pytest.mark.parametrize("breaks", [False, True])
def test_worker_that_lost_its_request_deletes_nothing_of_it(
    live: Callable[..., Record], records: Records, scripts: Scripts, settings: WorkerSettings, breaks: bool
) -> None:
    def lose() -> None:
        scripts.run("bury", "io", "w")
        records.reap(0.001)
        assert records.next("io", "successor", "w2") is not None
        if breaks:
            raise StorageError("The disk is full.")

    record = live("io", "gpu", "io", objects=InterruptedObjects(settings.data_dir, lose))
    assert (record.state, record.attempt) == ("in_progress", 2)
    assert len(files(settings)) == 1
    assert len(list((settings.data_dir / "work" / "a").iterdir())) == 2


@pytest.mark.parametrize(
    ("end", "left"), [("cancelled", 0), ("failed", 0), ("succeeded", 1), ("in_progress", 1)]
)
def test_files_of_a_request_without_a_result_are_swept_when_its_worker_died(
    live: Callable[..., Record],
    records: Records,
    scripts: Scripts,
    settings: WorkerSettings,
    monkeypatch: pytest.MonkeyPatch,
    end: str,
    left: int,
) -> None:
    def die() -> None:
        match end:
            case "cancelled":
                scripts.run("cancel", "a", "1")
            case "failed" | "succeeded":
                token = records._client.hget("zturbo:req:a", "token")
                scripts.run("close", "a", token, end, "error", '{"type": "worker_crashed", "message": ""}')
        raise Died

    objects = InterruptedObjects(settings.data_dir, die)
    with pytest.raises(Died):
        live("io", "gpu", "io", objects=objects)
    record = records.get("a")
    assert record is not None
    assert record.state == end
    assert (len(files(settings)), (settings.data_dir / "work" / "a").exists()) == (1, True)
    monkeypatch.setattr("worker.storage.workspace.YOUNG_SECONDS", -1)
    Sweeper(records, objects, settings)._sweep()
    assert len(files(settings)) == left
    assert (settings.data_dir / "work" / "a").exists() == (end == "in_progress")


def test_files_of_a_request_whose_time_is_over_are_swept(
    live: Callable[..., Record], records: Records, settings: WorkerSettings, client: redis.Redis
) -> None:
    objects = FolderObjects(settings.data_dir)
    live("io", "gpu", "io", objects=objects)
    sweeper = Sweeper(records, objects, settings)
    sweeper._sweep()
    assert len(files(settings)) == 1
    client.zadd("zturbo:done", {"a": 0})
    sweeper._sweep()
    assert (records.get("a"), files(settings)) == (None, [])


def test_request_deleted_while_its_picture_is_written_leaves_no_file(
    live: Callable[..., Record], scripts: Scripts, settings: WorkerSettings
) -> None:
    def cancel_and_delete() -> None:
        scripts.run("cancel", "a", "1")
        assert scripts.run("delete", "a") == "deleted"

    with pytest.raises(AssertionError, match="no record"):
        live("io", "gpu", "io", objects=InterruptedObjects(settings.data_dir, cancel_and_delete))
    assert files(settings) == []


def test_files_of_a_cancelled_request_are_known_although_its_worker_died(
    live: Callable[..., Record], records: Records, scripts: Scripts, settings: WorkerSettings
) -> None:
    def die() -> None:
        raise Died

    with pytest.raises(Died):
        live("io", "gpu", "io", objects=InterruptedObjects(settings.data_dir, die))
    scripts.run("cancel", "a", "1")
    record = records.get("a")
    (left,) = files(settings)
    assert record is not None
    assert left.parent.name in record.file_ids


@pytest.mark.parametrize(
    "fields",
    [
        {"image_url": "http://127.0.0.1/secret.png?token=secret"},
        {"image_url": "data:image/png;base64,secret=="},
        {"loras": [{"path": "http://127.0.0.1/secret.safetensors", "scale": 1.0}]},
        {"loras": [{"path": "no-such-secret.safetensors", "scale": 1.0}]},
    ],
)
def test_no_prompt_and_no_url_is_logged_at_info(
    live: Callable[..., Record],
    settings: WorkerSettings,
    client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
    fields: dict[str, Any],
) -> None:
    client.hset("zturbo:req:a", "input", json.dumps(BODY | {"prompt": "a secret fox"} | fields))
    with caplog.at_level("INFO"):
        record = live("io", "gpu", "io", objects=FolderObjects(settings.data_dir))
    assert record.state == "failed"
    ended = [vars(line) for line in caplog.records if line.message == "stage ended"]
    assert [(line["stage"], line["attempt"]) for line in ended] == [("prepare", 1)]
    assert record.error is not None
    assert ended[0]["outcome"] == record.error["type"]
    assert "secret" not in str([vars(line) for line in caplog.records])


def test_prompt_is_expanded_on_the_gpu_without_a_picture(
    live: Callable[..., Record], client: redis.Redis, settings: WorkerSettings
) -> None:
    client.hset("zturbo:req:a", mapping={"model_id": EXPAND, "input": '{"prompt": "a fox", "seed": 3}'})
    record = live("io", "gpu", objects=FolderObjects(settings.data_dir))
    assert record.state == "succeeded"
    assert record.output == {"expanded_prompt": "a fox, grey, 3", "warning": None}
    assert files(settings) == []


def test_control_map_is_made_on_the_gpu_and_kept_without_a_picture(
    live: Callable[..., Record], client: redis.Redis, settings: WorkerSettings
) -> None:
    asked = {"image_url": IMAGE, "preprocess": "depth", "image_size": "square"}
    client.hset("zturbo:req:a", mapping={"model_id": CONTROL_MAP, "input": json.dumps(asked)})
    record = live("io", "gpu", "io", objects=FolderObjects(settings.data_dir))
    assert record.state == "succeeded"
    assert record.output is not None
    (kept,) = files(settings)
    made = record.output["control_image"]
    assert (made["file_id"], made["name"]) == kept.parts[-2:]
    with Image.open(kept) as image:
        assert (image.size, image.getpixel((0, 0))) == ((128, 128), (255, 127, 127))
    assert record.file_ids == (made["file_id"],)


def test_prompt_is_expanded_by_a_server_without_a_gpu(
    live: Callable[..., Record], client: redis.Redis, settings: WorkerSettings, prompt_server: PromptServer
) -> None:
    settings.prompt_llm_url = prompt_server.url
    prompt_server.answer = completion("a red fox in deep snow")
    client.hset("zturbo:req:a", mapping={"model_id": EXPAND, "input": '{"prompt": "a fox", "seed": 3}'})
    record = live("io", objects=FolderObjects(settings.data_dir))
    assert record.output == {"expanded_prompt": "a red fox in deep snow", "warning": None}


def test_device_begins_the_next_picture_while_the_last_one_is_kept(
    live: Callable[..., Record], submit: Callable[[str], None], records: Records, settings: WorkerSettings
) -> None:
    submit("b")
    begun = Semaphore(0)
    objects = WaitingObjects(settings.data_dir, begun)
    live("io", objects=FolderObjects(settings.data_dir))
    live("gpu", objects=objects, engine=CountingEngine(begun))
    assert objects.began_meanwhile
    assert [getattr(records.get(name), "stage", None) for name in "ab"] == ["finish", "finish"]


def test_picture_that_cannot_be_kept_fails_its_own_request_alone(
    live: Callable[..., Record], submit: Callable[[str], None], records: Records, settings: WorkerSettings
) -> None:
    submit("b")
    live("io", objects=FolderObjects(settings.data_dir))
    live("gpu", objects=FullObjects(settings.data_dir))
    record = live("io", objects=FolderObjects(settings.data_dir))
    assert record.error == {"type": "storage_failed", "message": "The disk is full."}
    assert getattr(records.get("b"), "state", None) == "succeeded"
