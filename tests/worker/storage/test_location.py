"""One place for all processes of a server, told by the API."""

import os
from pathlib import Path

import pytest

from worker.config import WorkerSettings
from worker.errors import SetupError
from worker.storage.location import adopt, publish


def settings(folder: Path, storage: str = "") -> WorkerSettings:
    return WorkerSettings(_env_file=None, data_dir=folder, storage=storage)


def test_worker_with_the_same_folder_is_let_in(tmp_path: Path) -> None:
    told = publish(settings(tmp_path))
    assert adopt(told, settings(tmp_path)) == settings(tmp_path)
    assert str(tmp_path) not in told


def test_worker_takes_over_the_store_of_the_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    told = publish(settings(tmp_path, "s3://bucket/folder"))
    assert "secret" not in told
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    other = settings(tmp_path / "other")
    assert adopt(told, other) == settings(tmp_path / "other", "s3://bucket/folder")
    assert os.environ["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:10")
    adopt(told, other)
    assert os.environ["AWS_ENDPOINT_URL"] == "http://127.0.0.1:10"


@pytest.mark.parametrize(
    ("api", "worker"), [("", "s3://bucket"), ("s3://bucket", "s3://other"), ("", "")], ids=str
)
def test_worker_that_would_keep_things_elsewhere_is_not(tmp_path: Path, api: str, worker: str) -> None:
    with pytest.raises(SetupError, match="keeps pictures in"):
        adopt(publish(settings(tmp_path / "api", api)), settings(tmp_path / "worker", worker))
