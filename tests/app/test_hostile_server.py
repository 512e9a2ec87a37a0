"""A server, or the file of a picture, that is out to harm whoever asks it."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from mcp import Client as Host
from mcp import StdioServerParameters
from typer.testing import CliRunner

from app.cli import cli
from app.cli.exits import Exit
from app.client import Client, ClientError
from app.config import Settings
from tests.support.http_api import PNG, served
from worker.encoding.encode import encode

ROOT = Path(__file__).parents[2]
EVIL = "\x1b]0;taken\x07\x1b[2J\x9b2J\r\u202e\ud800"
MARKUP = "[link=https://evil.example]here[/link]"
COMMANDING = {"\x1b", "\x07", "\x9b", "\r", "\u202e", "\ud800"}
WORKER = {"id": EVIL, "kind": "gpu", "state": EVIL, "model": EVIL, "device": EVIL, "detail": EVIL + MARKUP}


class Hostile:
    """What the server answers; a test changes it."""

    def __init__(self) -> None:
        self.base_url = ""
        self.request_id = "r-1"
        self.suffix = ".png"
        self.refusal: str | None = None
        self.result: dict[str, Any] | None = None

    def body(self, path: str) -> dict[str, Any]:
        if path.endswith("stats"):
            counts = {"io": EVIL, "gpu": MARKUP}
            return {
                "in_line": EVIL,
                "running": EVIL,
                "waiting": counts,
                "finished_last_minute": EVIL,
                "workers": [WORKER],
            }
        if path.endswith("requests"):
            one = {"request_id": EVIL, "status": EVIL, "created_at": EVIL, "input": {"prompt": EVIL}}
            return {"requests": [one]}
        about = {"request_id": self.request_id, "warnings": [EVIL], "outcome": EVIL, "created_at": EVIL}
        if path.endswith("status"):
            return about | {"status": "completed", "step": EVIL, "total_steps": MARKUP}
        if path.endswith("result"):
            url = f"{self.base_url}/v1/files/image{self.suffix}"
            return about | (self.result or {"status": "succeeded", "output": {"image": url}})
        return about | {"status": EVIL}


@pytest.fixture
def hostile(settings: Settings) -> Iterator[Hostile]:
    app, hostile = FastAPI(), Hostile()

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    def answer(path: str, request: Request) -> Response:
        if path.startswith("v1/files/"):
            return Response(PNG)
        if hostile.refusal is not None:
            return Response(json.dumps({"error_message": hostile.refusal}), 503)
        # Surrogates, and what an own server never says, go out as JSON escapes them.
        return Response(json.dumps(hostile.body(path)), media_type=JSONResponse.media_type)

    with served(app, settings) as hostile.base_url:
        yield hostile


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, two below one that the server would write to."""
    home = tmp_path / "home" / "pictures"
    home.mkdir(parents=True)
    monkeypatch.chdir(home)
    return home


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


UNSAFE = ["../.bashrc", "/tmp/zturbo-hostile", ".", "", "a/b", "a b", "x" * 129, "r-1\n", None, 7, ["r-1"]]


@pytest.mark.parametrize("request_id", UNSAFE)
def test_client_takes_no_request_id_that_is_unsafe_as_a_file_name(hostile: Hostile, request_id: Any) -> None:
    hostile.request_id = request_id
    with Client(hostile.base_url) as client:
        for call in (client.status, client.result, client.cancel):
            with pytest.raises(ClientError, match="no request's id"):
                call("r-1")
        with pytest.raises(ClientError, match="no request's id"):
            client.submit("some/model", {})


@pytest.mark.parametrize("arguments", [["submit", "--prompt", "x"], ["result", "r-1", "--out", "."]])
def test_commands_write_nowhere_but_where_they_were_told(
    hostile: Hostile, home: Path, arguments: list[str]
) -> None:
    hostile.request_id = "../.bashrc"
    ran = CliRunner().invoke(cli, [*arguments, "--base-url", hostile.base_url])
    assert ran.exit_code == Exit.SOFTWARE
    assert "no request's id" in ran.stderr
    hostile.request_id, hostile.suffix = "r-1", ".desktop"
    ran = CliRunner().invoke(cli, [*arguments, "--base-url", hostile.base_url])
    assert (ran.exit_code, "not saved" in ran.stderr) == (Exit.SOFTWARE, True)
    assert written(home.parent) == set()
    hostile.suffix = ".png"
    assert CliRunner().invoke(cli, [*arguments, "--base-url", hostile.base_url]).exit_code == 0
    assert written(home.parent) == {"pictures/r-1.png"}


COMMANDS = [
    ["submit", "--prompt", "x"],
    ["submit", "--prompt", "x", "--json"],
    ["submit", "--prompt", "x", "--detach", "--json"],
    ["status", "r-1"],
    ["status", "r-1", "--json"],
    ["result", "r-1"],
    ["result", "r-1", "--json"],
    ["cancel", "r-1"],
    ["cancel", "r-1", "--json"],
    ["top"],
    ["top", "--json"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_what_a_server_says_does_not_command_the_terminal(
    hostile: Hostile, home: Path, arguments: list[str]
) -> None:
    said = ""
    for hostile.result in (None, {"status": "failed", "error": {"message": EVIL}}, {"status": EVIL}):
        # Colours by force: they are what a terminal gets.
        ran = CliRunner().invoke(cli, [*arguments, "--base-url", hostile.base_url], color=True)
        assert ran.exit_code in (0, Exit.FAILED), ran.output
        said += ran.output
    hostile.refusal = EVIL
    said += CliRunner().invoke(cli, [*arguments, "--base-url", hostile.base_url]).output
    for colour in ("\x1b[0m", "\x1b[31m", "\x1b[33m"):
        said = said.replace(colour, "")
    assert not COMMANDING & set(said)
    assert r"\u001b]0;taken" in said


def test_json_of_a_hostile_server_is_still_the_server_s_own(hostile: Hostile, home: Path) -> None:
    ran = CliRunner().invoke(cli, ["status", "r-1", "--json", "--base-url", hostile.base_url])
    assert json.loads(ran.stdout) == hostile.body("status")


@pytest.mark.parametrize("arguments", [["top", "--interval", "0.1"], ["submit", "--prompt", "x"]])
def test_live_lines_are_safe_on_a_terminal(hostile: Hostile, home: Path, arguments: list[str]) -> None:
    terminal, inside = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "300", "LINES": "50", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "app", *arguments, "--base-url", hostile.base_url]
    with subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside, env=environment) as process:
        os.close(inside)
        said = b""
        with suppress(OSError):
            while b"taken" not in said or process.poll() is None:
                said += os.read(terminal, 4096)
                if b"taken" in said:
                    process.terminate()
    os.close(terminal)
    assert rb"\u001b]0;taken" in said
    assert b"\x1b]0;" not in said
    assert b"\x1b]8;" not in said, "a link by rich's markup"


@pytest.mark.anyio
async def test_what_a_server_says_reaches_a_language_model_s_host_without_commands(
    hostile: Hostile, tmp_path: Path
) -> None:
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "app", "mcp", "--base-url", hostile.base_url, "--out", str(tmp_path / "saved")],
        env={name: value for name, value in os.environ.items() if name == "PYTHONPATH"},
        cwd=ROOT,
    )
    answers = []
    async with Host(parameters) as host:
        answers.append(await host.call_tool("list_requests", {}))
        answers.append(await host.call_tool("cancel", {"request_id": "r-1"}))
        hostile.result = {"status": "failed", "error": {"message": EVIL}}
        answers.append(await host.call_tool("status", {"request_id": "r-1"}))
        hostile.result = {"status": EVIL}
        answers.append(await host.call_tool("generate", {"prompt": "x"}))
        hostile.refusal = EVIL
        answers.append(await host.call_tool("list_loras", {}))
        hostile.refusal, hostile.result, hostile.request_id = None, None, "../.bashrc"
        answers.append(await host.call_tool("status", {"request_id": "r-1"}))
    for answer in answers:
        texts = " ".join(map(repr, (answer.content, answer.structured_content)))
        assert not {repr(each)[1:-1] for each in COMMANDING} & set(_escapes(texts)), texts
    assert "no request's id" in answers[-1].content[0].text  # type: ignore[union-attr]
    assert written(tmp_path) == set()


def _escapes(text: str) -> Iterator[str]:
    """What `repr` wrote with one backslash: a control character that was there in earnest."""
    for each in COMMANDING:
        written_as = repr(each)[1:-1]
        if written_as in text.replace("\\\\", ""):
            yield written_as


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("flags", [[], ["--json"], ["--request"]], ids=" ".join)
def test_what_a_picture_says_of_itself_does_not_command_the_terminal(
    tmp_path: Path, output_format: Any, flags: list[str]
) -> None:
    evil = EVIL.replace("\ud800", "")
    made = {
        "version": "1",
        "model_id": evil,
        "model": evil,
        "prompt": evil,
        "expanded_prompt": None,
        "seed": 7,
        "num_inference_steps": 8,
        "width": 16,
        "height": 16,
        "strength": None,
        "control": None,
        "loras": [],
        "request": {"prompt": evil, "image_url": "sha256:" + evil},
    }
    file = tmp_path / f"evil.{output_format}"
    file.write_bytes(encode(np.zeros((16, 16, 3), np.uint8), output_format, made).data)
    ran = CliRunner().invoke(cli, ["inspect", str(file), *flags], color=True)
    assert ran.exit_code == 0, ran.output
    assert r"\u001b]0;taken" in ran.output
    assert not COMMANDING & set(ran.output)
