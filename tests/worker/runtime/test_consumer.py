"""One worker's consumer: what comes of each stage is written down, whatever it is."""

import base64
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event, Semaphore
from typing import Any

import numpy as np
import pytest
import redis
from PIL import Image

from models.errors import OutOfMemory
from models.job import Generated, Job, KeepGoing, OnStep, Pixels, Start, Step
from models.weights import demo
from tests.support.prompt_server import PromptServer, completion
from tests.worker.runtime.crew import IMAGE
from tests.worker.runtime.solo import BODY, GreyEngine, files
from worker.config import WorkerSettings
from worker.errors import StorageError
from worker.queue.affinity import Weights
from worker.queue.keys import Queue
from worker.queue.record import CONTROL_MAP, EXPAND, Record
from worker.queue.work_queue import WorkQueue
from worker.runtime import watchdog
from worker.runtime.consumer import STALLED_STATUS
from worker.runtime.watchdog import Watchdog
from worker.storage.folder import FolderObjects


class WaitingObjects(FolderObjects):
    """Keeps the first picture of a device once that device has begun its second, and looks for a third."""

    def __init__(self, root: Path, begun: Semaphore) -> None:
        super().__init__(root)
        self.began_meanwhile: list[bool] = []
        self._begun = begun

    def put(self, key: str, data: bytes) -> None:
        if not self.began_meanwhile and key.endswith(".image.npy"):
            self._begun.acquire()
            self.began_meanwhile = [self._begun.acquire(timeout=seconds) for seconds in (10, 0.1)]
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

    def generate(
        self,
        job: Job,
        control: Pixels | None,
        on_step: OnStep,
        start: Start | None = None,
        *,
        keep_going: KeepGoing,
    ) -> Generated:
        self._begun.release()
        return super().generate(job, control, on_step, start, keep_going=keep_going)


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
    assert 0 <= ended[0]["seconds"] < 300
    assert "secret" not in str([vars(line) for line in caplog.records])


def test_step_that_is_stuck_ends_a_worker_long_before_the_longest_silence(
    live: Callable[..., Record], settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "LEAST_STEP_SECONDS", 0.01)
    ended, told = Event(), list[tuple[int, str]]()

    class StuckEngine(GreyEngine):
        def generate(self, job: Job, control: Pixels | None, on_step: OnStep, *rest: Any, **more: Any) -> Any:
            for step in (1, 2):
                on_step(Step(step, 3))
            assert ended.wait(60)
            return super().generate(job, control, on_step, *rest, **more)

    def quit(status: int, reason: str) -> None:
        told.append((status, reason))
        ended.set()

    live("io", "gpu", objects=FolderObjects(settings.data_dir), engine=StuckEngine(), quit=quit)
    ((status, reason),) = told
    assert status == STALLED_STATUS
    assert reason.startswith("Nothing was heard of request a for ")


def test_silence_between_steps_is_allowed_by_the_slowest_of_the_same_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def limits(*steps: float, seconds: float = 600.0) -> list[float]:
        monkeypatch.setattr(watchdog, "monotonic", iter(steps).__next__)
        watched = Watchdog(seconds, print)
        allowed = []
        for number in range(1, len(steps) + 1):
            watched.stepped(is_last=number == len(steps))
            allowed.append(watched.limit)
        return allowed

    # A GPU's first step is handed over at once; the last is followed by the decoder.
    assert limits(0, 1, 2, 3) == [600, 60, 60, 600]
    assert limits(0, 10, 15, 16) == [600, 200, 200, 600]
    assert limits(0, 100, 200) == [600, 600, 600]
    assert limits(0, 1, 2, seconds=5) == [5, 5, 5]


def test_faster_path_is_taken_when_no_request_waits(
    live: Callable[..., Record], submit: Callable[[str], None], settings: WorkerSettings
) -> None:
    class Path:
        name = "eager"

        def settle(self) -> None:
            told.append("settle")

    class TellingEngine(GreyEngine):
        path = Path()

        def generate(self, job: Job, *rest: Any, **options: Any) -> Generated:
            told.append("picture")
            return super().generate(job, *rest, **options)

    told: list[str] = []
    submit("b")
    live("io", objects=FolderObjects(settings.data_dir))
    live("gpu", objects=FolderObjects(settings.data_dir), engine=TellingEngine())
    assert told == ["picture", "picture", "settle"]


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
        assert (image.size, image.getpixel((0, 0))) == (demo.native_size(512, 512), (255, 127, 127))
    assert record.file_ids == (made["file_id"],)


def test_prompt_is_expanded_by_a_server_without_a_gpu(
    live: Callable[..., Record], client: redis.Redis, settings: WorkerSettings, prompt_server: PromptServer
) -> None:
    settings.prompt_llm_url = prompt_server.url
    prompt_server.answer = completion("a red fox in deep snow")
    client.hset("zturbo:req:a", mapping={"model_id": EXPAND, "input": '{"prompt": "a fox", "seed": 3}'})
    record = live("io", objects=FolderObjects(settings.data_dir))
    assert record.output == {"expanded_prompt": "a red fox in deep snow", "warning": None}


def test_device_begins_one_more_picture_while_the_last_one_is_kept(
    live: Callable[..., Record],
    submit: Callable[[str], None],
    work_queue: WorkQueue,
    settings: WorkerSettings,
) -> None:
    submit("b")
    submit("c")
    begun = Semaphore(0)
    objects = WaitingObjects(settings.data_dir, begun)
    live("io", objects=FolderObjects(settings.data_dir))
    live("gpu", objects=objects, engine=CountingEngine(begun))
    assert objects.began_meanwhile == [True, False]
    assert [getattr(work_queue.get(name), "stage", None) for name in "abc"] == ["finish"] * 3


def test_picture_that_cannot_be_kept_fails_its_own_request_alone(
    live: Callable[..., Record],
    submit: Callable[[str], None],
    work_queue: WorkQueue,
    settings: WorkerSettings,
) -> None:
    submit("b")
    live("io", objects=FolderObjects(settings.data_dir))
    live("gpu", objects=FullObjects(settings.data_dir))
    record = live("io", objects=FolderObjects(settings.data_dir))
    assert record.error == {"type": "storage_failed", "message": "The disk is full."}
    assert getattr(work_queue.get("b"), "state", None) == "succeeded"


def test_image_of_the_request_reaches_the_device_and_its_map_the_record(
    live: Callable[..., Record], settings: WorkerSettings
) -> None:
    class SeeingEngine(GreyEngine):
        def generate(
            self,
            job: Job,
            control: Pixels | None,
            on_step: OnStep,
            start: Start | None = None,
            *,
            keep_going: KeepGoing,
        ) -> Generated:
            assert control is not None
            return replace(
                super().generate(job, control, on_step, start, keep_going=keep_going),
                control_image=255 - control,
            )

    record = live("io", "gpu", "io", objects=FolderObjects(settings.data_dir), engine=SeeingEngine())
    assert record.output is not None
    made = record.output["control_image"]
    (kept,) = (file for file in files(settings) if file.name == made["name"])
    with Image.open(kept) as image:
        assert (image.size, image.getpixel((0, 0))) == (demo.native_size(512, 512), (255, 127, 127))


def test_image_and_mask_that_a_picture_starts_from_reach_the_device(
    live: Callable[..., Record], client: redis.Redis, settings: WorkerSettings
) -> None:
    class SeeingEngine(GreyEngine):
        def generate(
            self,
            job: Job,
            control: Pixels | None,
            on_step: OnStep,
            start: Start | None = None,
            *,
            keep_going: KeepGoing,
        ) -> Generated:
            assert control is None
            assert start is not None
            assert start.mask is not None
            width, height = demo.native_size(512, 512)
            assert (start.mask.shape, start.mask.dtype, start.mask.all()) == ((height, width), np.bool_, True)
            return replace(
                super().generate(job, control, on_step, start, keep_going=keep_going), images=(start.image,)
            )

    white = io.BytesIO()
    Image.new("RGB", (8, 8), "white").save(white, "PNG")
    mask = f"data:image/png;base64,{base64.b64encode(white.getvalue()).decode()}"
    client.hset("zturbo:req:a", "input", json.dumps(BODY | {"strength": 1.0, "mask_image_url": mask}))
    record = live("io", "gpu", "io", objects=FolderObjects(settings.data_dir), engine=SeeingEngine())
    assert record.error is None
    (kept,) = files(settings)
    with Image.open(kept) as image:
        assert (image.size, image.getpixel((0, 0))) == (demo.native_size(512, 512), (0, 128, 128))


@pytest.mark.parametrize(
    ("error", "code"),
    [(OutOfMemory("128x128 does not fit."), "out_of_memory"), (ZeroDivisionError(), "internal_error")],
)
def test_what_the_device_raises_is_the_outcome_of_its_request(
    live: Callable[..., Record], settings: WorkerSettings, error: Exception, code: str
) -> None:
    class FailingEngine(GreyEngine):
        def generate(
            self,
            job: Job,
            control: Pixels | None,
            on_step: OnStep,
            start: Start | None = None,
            *,
            keep_going: KeepGoing,
        ) -> Generated:
            raise error

    record = live("io", "gpu", objects=FolderObjects(settings.data_dir), engine=FailingEngine())
    assert record.error is not None
    assert record.error["type"] == code
    assert not (settings.data_dir / "work" / "a").exists()


def test_next_queue_is_told_of_what_goes_on_to_it(
    live: Callable[..., Record], settings: WorkerSettings, client: redis.Redis
) -> None:
    live("io", objects=FolderObjects(settings.data_dir))
    assert [client.llen(f"rq:queue:zturbo-{queue}") for queue in ("io", "gpu")] == [0, 1]
    live("gpu", objects=FolderObjects(settings.data_dir))
    assert client.llen("rq:queue:zturbo-io") == 1


def test_worker_asks_for_what_goes_with_the_weights_that_it_loaded(
    live: Callable[..., Record],
    settings: WorkerSettings,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = "alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union-2.1"
    asked = BODY | {"loras": [{"path": other, "scale": 1.0}], "num_inference_steps": 8}
    client.hset("zturbo:req:a", "input", json.dumps(asked))
    live("io", objects=FolderObjects(settings.data_dir))
    held: list[Weights] = []
    take = WorkQueue.next

    def noted(self: WorkQueue, queue: Queue, token: str, worker_id: str, weights: Weights) -> Record | None:
        held.append(weights)
        return take(self, queue, token, worker_id, weights)

    monkeypatch.setattr(WorkQueue, "next", noted)
    live("gpu", objects=FolderObjects(settings.data_dir))
    assert [weights.controlnet.split("/")[-1] for weights in held] == ["", other.split("/")[-1]]


def test_outcome_is_written_once_redis_answers_but_not_what_it_will_never_take(
    live: Callable[..., Record], settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.runtime.consumer.AWAY_PAUSE_SECONDS", 0)
    answers = [redis.ConnectionError(), redis.ResponseError("MISCONF disk full"), redis.ResponseError("ERR")]
    advance = WorkQueue.advance

    def away(self: WorkQueue, *args: Any) -> int:
        if answers:
            raise answers.pop(0)
        return advance(self, *args)

    monkeypatch.setattr(WorkQueue, "advance", away)
    with pytest.raises(redis.ResponseError, match="ERR"):
        live("io", objects=FolderObjects(settings.data_dir))
    assert answers == []
