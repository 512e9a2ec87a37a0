"""Settings: secrets that are handed over in files, and a value that there is no more."""

import os
from pathlib import Path

import pytest
import typer

from app.cli.settings import SECRETS, read_settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in SECRETS:
        # Set first, so that what a test puts there is taken back.
        monkeypatch.setenv(name, "")


def hand_over(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, secret: str) -> None:
    (folder / name).write_text(secret)
    monkeypatch.setenv(f"{name}_FILE", str(folder / name))


def test_secret_is_read_from_the_file_that_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hand_over(monkeypatch, tmp_path, "ZTURBO_REDIS_URL", "redis://:password@redis:6379/0\n")
    hand_over(monkeypatch, tmp_path, "AWS_SECRET_ACCESS_KEY", "secret\n")
    assert read_settings().redis_url == "redis://:password@redis:6379/0"
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == "secret"


def test_empty_file_is_as_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hand_over(monkeypatch, tmp_path, "ZTURBO_REDIS_URL", "\n")
    assert read_settings().redis_url is None


def test_variable_itself_and_flag_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hand_over(monkeypatch, tmp_path, "ZTURBO_REDIS_URL", "redis://file:6379/0")
    monkeypatch.setenv("ZTURBO_REDIS_URL", "redis://variable:6379/0")
    assert read_settings().redis_url == "redis://variable:6379/0"
    assert read_settings(redis_url="redis://flag:6379/0").redis_url == "redis://flag:6379/0"


def test_file_that_is_not_there_ends_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZTURBO_REDIS_URL_FILE", "/run/secrets/none")
    with pytest.raises(typer.Exit) as ended:
        read_settings()
    assert ended.value.exit_code == 78
    assert "ZTURBO_REDIS_URL_FILE names /run/secrets/none" in capsys.readouterr().err


def test_value_that_cannot_be_used_is_told_by_the_flag_or_the_setting_that_has_it_now(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZTURBO_DTYPE", "int8")
    with pytest.raises(typer.Exit):
        read_settings(port=80000)
    told = capsys.readouterr().err
    assert "--port: Input should be less than" in told
    assert "ZTURBO_DTYPE: int8 is no type any more; set ZTURBO_QUANTIZATION=int8" in told
