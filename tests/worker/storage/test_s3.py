"""An S3-compatible store that is slow, broken, away and back, or not ours; moto's server, over HTTP."""

import json
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from models.command import install
from tests.support.processes import wait_for
from tests.support.s3_server import S3Server
from worker.config import WorkerSettings
from worker.errors import StorageError
from worker.storage.s3 import PIECE_BYTES, S3Objects

PATIENCE_SECONDS = 30.0


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.storage.s3.RETRIES", timedelta(milliseconds=100))
    monkeypatch.setattr("worker.storage.s3.PAUSE_SECONDS", 0.1)


@pytest.fixture
def patient(bucket: str) -> S3Objects:
    return S3Objects(bucket, PATIENCE_SECONDS)


def go_on() -> None:
    """Nothing stops a transfer."""


def test_store_that_breaks_and_mends_is_waited_for(patient: S3Objects, s3_server: S3Server) -> None:
    done: list[bytes | None] = []

    def work() -> None:
        patient.put("work/a/1", b"pixels")
        done.append(patient.get("work/a/1"))

    before = s3_server.calls()
    s3_server.faults(status=500)
    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: _calls_while_broken(s3_server) > before + 2)
    assert done == []
    s3_server.faults()
    thread.join(PATIENCE_SECONDS)
    assert done == [b"pixels"]


def _calls_while_broken(server: S3Server) -> int:
    return int(server.faults(status=500).json()["calls"])


def test_slow_store_is_slow_and_nothing_else(patient: S3Objects, s3_server: S3Server) -> None:
    s3_server.faults(delay=0.2)
    patient.put("work/a/1", b"pixels")
    assert patient.get("work/a/1") == b"pixels"


def test_api_does_not_wait_long_and_tells_what_is_wrong(bucket: str, s3_server: S3Server) -> None:
    objects = S3Objects(bucket, 0)
    s3_server.faults(status=503)
    for call in (
        lambda: objects.put("outputs/a", b""),
        lambda: objects.get("outputs/a"),
        lambda: list(objects.list("outputs")),
        lambda: objects.delete(["outputs/a"]),
    ):
        with pytest.raises(StorageError, match=r"^The store of pictures \(ZTURBO_STORAGE\) answers 503\.$"):
            call()


def test_store_that_is_not_there_is_told_without_its_address(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"^The store of pictures \(ZTURBO_STORAGE\) does not answer\.$"):
        S3Objects("s3://bucket", 0).get("outputs/a")


@pytest.mark.parametrize("status", [401, 403])
def test_refused_keys_are_not_tried_again(patient: S3Objects, s3_server: S3Server, status: int) -> None:
    begun = s3_server.calls()
    s3_server.faults(status=status)
    with pytest.raises(StorageError, match=f"answers {status}"):
        patient.put("outputs/a", b"")
    assert s3_server.calls() == begun + 1


def test_missing_bucket_is_told(s3_server: S3Server) -> None:
    with pytest.raises(StorageError, match="no bucket of that name"):
        S3Objects("s3://no-such-bucket", PATIENCE_SECONDS).put("outputs/a", b"")


def test_warning_of_a_wait_names_no_key(
    patient: S3Objects, s3_server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    s3_server.faults(status=500, only="PUT")
    threading.Timer(0.7, s3_server.faults).start()
    with caplog.at_level("DEBUG"):
        patient.put("outputs/secret", b"")
    assert "answers 500" in caplog.text
    assert "secret" not in caplog.text


def test_file_goes_in_pieces_and_comes_back_whole(patient: S3Objects, tmp_path: Path) -> None:
    content = bytes(range(256)) * (PIECE_BYTES // 256) + b"end"
    sent, back = tmp_path / "sent", tmp_path / "back"
    sent.write_bytes(content)
    patient.send_file("weights/a", sent, fresh_seconds=60)
    calls: list[float] = []
    assert patient.fetch_file("weights/a", back, lambda: calls.append(time.monotonic()))
    assert back.read_bytes() == content
    assert len(calls) == 2
    assert not patient.fetch_file("weights/b", tmp_path / "none", go_on)


def test_file_that_is_there_is_sent_again_only_when_it_is_old(
    patient: S3Objects, s3_server: S3Server, tmp_path: Path
) -> None:
    file = tmp_path / "lora"
    file.write_bytes(b"weights")
    patient.send_file("weights/a", file, fresh_seconds=60)
    sent = s3_server.calls()
    patient.send_file("weights/a", file, fresh_seconds=60)
    assert s3_server.calls() == sent + 1
    patient.send_file("weights/a", file, fresh_seconds=-60)
    assert s3_server.calls() == sent + 3


def test_missing_package_is_told_with_the_line_that_mends_it() -> None:
    program = (
        "import sys; sys.modules['obstore'] = None\n"
        "from worker.errors import SetupError\n"
        "try:\n    import worker.storage.s3\n"
        "except SetupError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert f"`{install('s3')}` brings it" in done.stdout


def test_settings_without_s3_need_no_package(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from worker.config import WorkerSettings\n"
        "from worker.storage.backend import open_objects\n"
        f"open_objects(WorkerSettings(_env_file=None, data_dir=Path({json.dumps(str(tmp_path))})))\n"
        "print('obstore' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_other_kinds_of_url_are_refused() -> None:
    for storage in ("gs://bucket", "bucket", "s3://"):
        with pytest.raises(ValueError, match="storage"):
            WorkerSettings(_env_file=None, storage=storage)
