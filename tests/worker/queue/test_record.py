"""What a record tells of its request, read from the fields that Redis has."""

import json
from typing import Any

import pytest

from worker.queue.record import Record, parse

FIELDS = {
    "id": "a", "model_id": "m", "owner": "ann", "input": "{}", "warnings": "[]", "state": "succeeded",
    "stage": "finish", "attempt": "1", "sequence": "1", "step": "8", "created_at": "1000",
    "finished_at": "9500",
}  # fmt: skip


def file(name: str) -> dict[str, str]:
    return {"file_id": f"id-of-{name}", "name": f"{name}.png"}


def record(**fields: Any) -> Record:
    data = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
    return parse(FIELDS | data, retention_days=2)


def test_request_is_kept_for_so_many_days_after_its_end() -> None:
    assert record().expires_at == 9.5 + 2 * 86_400


def test_record_without_a_version_is_from_before_there_were_versions() -> None:
    assert record().version == 0
    assert record().gpu_seconds is None
    assert record(version="1", **{"spent:generate": "1500"}).gpu_seconds == 1.5


def test_parts_of_the_generation_stand_in_place_of_the_whole() -> None:
    spent = {"spent:prepare": "200", "spent:generate": "1500"}
    assert record(**spent).timings == {"prepare": 0.2, "generate": 1.5}
    parts = {"encode": 0.1, "denoise": 1.3}
    assert record(output={"timings": parts}, **spent).timings == {"prepare": 0.2} | parts


@pytest.mark.parametrize(
    ("output", "names"),
    [
        ({"image": file("one")}, ["one"]),
        ({"image": file("one"), "images": [file("one"), file("two")]}, ["one", "two"]),
        ({"expanded_prompt": "a house"}, []),
    ],
)
def test_pictures_are_those_of_the_output(output: dict[str, Any], names: list[str]) -> None:
    assert record(output=output).images == [file(name) for name in names]
    assert record(output=output).file_ids == tuple(f"id-of-{name}" for name in names)


def test_control_image_is_a_file_of_the_request_too() -> None:
    output = {"image": file("one"), "control_image": file("map")}
    assert record(output=output).file_ids == ("id-of-one", "id-of-map")


def test_files_that_a_worker_may_have_written_count_while_there_is_no_output() -> None:
    assert record().images == []
    assert record(generated={"file_ids": {"image": "id-of-one"}}).file_ids == ("id-of-one",)


def test_attempts_to_send_the_webhook_are_told_in_their_order() -> None:
    attempts = [{"at": at, "status": 500} for at in range(11)]
    fields = {f"delivery:{number}": attempt for number, attempt in reversed(list(enumerate(attempts, 1)))}
    assert record(**fields).deliveries == tuple(attempts)
