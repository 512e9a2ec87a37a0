"""`zturbo mcp` by the SDK's own client, over stdio, against a real server."""

import base64
import io
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.to_thread import run_sync
from mcp import Client, StdioServerParameters
from mcp.types import CallToolResult
from PIL import Image
from starlette.middleware.base import RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from typer.testing import CliRunner

from app.cli import cli
from app.cli.exits import Exit
from app.config import Settings
from app.main import create_app
from models.command import install
from models.schema.model_ids import IMAGE_TO_IMAGE_LORA, INPAINTING_LORA, TURBO_LORA
from tests.support.http_api import WorkerHands, served
from tests.support.processes import wait_for
from worker.storage.backend import open_objects
from worker.storage.pictures import Storage, new_file_id

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


@pytest.fixture
def base_url(settings: Settings) -> Iterator[str]:
    """Of a server that is away for a moment: it answers 503 when it is first asked how a request fares."""
    app = create_app(settings)
    away = True

    @app.middleware("http")
    async def falter(request: Request, go_on: RequestResponseEndpoint) -> Response:
        nonlocal away
        if away and request.url.path.endswith("/status"):
            away = False
            return Response(status_code=503)
        return await go_on(request)

    with served(app, settings) as url:
        yield url


@pytest.fixture
def picture(settings: Settings) -> dict[str, Any]:
    """An output as a worker records it, its file stored."""
    encoded = io.BytesIO()
    Image.new("RGB", (1024, 512), "red").save(encoded, "png")
    file_id = new_file_id()
    Storage(open_objects(settings)).put(file_id, "image.png", encoded.getvalue())
    return {"image": {"file_id": file_id, "name": "image.png"}, "seed": 7}


@asynccontextmanager
async def host(base_url: str, *arguments: str) -> AsyncIterator[Client]:
    """What a language model's host does: starts the command and speaks to it."""
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "app", "mcp", "--base-url", base_url, *arguments],
        # The settings of whoever runs the tests stay away; where our code is does not.
        env={name: value for name, value in os.environ.items() if name == "PYTHONPATH"},
        cwd=ROOT,
    )
    async with Client(parameters) as client:
        yield client


def opened(file: str) -> Image.Image:
    return Image.open(io.BytesIO(Path(file).read_bytes()))


def told(result: CallToolResult) -> str:
    return result.content[0].text  # type: ignore[union-attr]


async def test_tools_make_a_picture_tell_of_it_and_list_it(
    base_url: str, hands: WorkerHands, picture: dict[str, Any], tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (64, 64)).save(photo)
    mask = tmp_path / "mask.png"
    Image.new("RGB", (64, 64), "white").save(mask)
    steps: list[tuple[float, float | None, str | None]] = []

    async def on_progress(step: float, total: float | None, words: str | None) -> None:
        steps.append((step, total, words))

    def work() -> None:
        wait_for(lambda: hands.client.zcard("zturbo:line"))
        running, token = hands.generate(step=3)
        wait_for(lambda: (3, 8, "in progress") in steps)
        hands.end(running.id, token, picture)

    async with host(base_url, "--out", str(tmp_path / "saved")) as client, anyio.create_task_group() as tasks:
        assert {tool.name for tool in (await client.list_tools()).tools} == {
            *("generate", "status", "cancel", "list_requests", "list_loras"),
        }
        tasks.start_soon(run_sync, work)
        asked = {"prompt": "A lighthouse", "image": str(photo), "preprocess": "canny", "seed": 7}
        asked |= {"seed_variance": 0.1}
        made = await client.call_tool("generate", asked, progress_callback=on_progress)
        assert not made.is_error, told(made)
        result = made.structured_content
        assert result is not None
        again = await client.call_tool("status", {"request_id": result["request_id"]})
        listed = await client.call_tool("list_requests", {})
        painting = {"prompt": "A hat", "image": str(photo), "mask": str(mask), "wait_seconds": 0}
        painted = (await client.call_tool("generate", painting)).structured_content
        changed = (
            await client.call_tool("generate", asked | {"strength": 0.5, "wait_seconds": 0})
        ).structured_content

    assert painted is not None
    assert changed is not None
    assert [(told["model_id"], told["status"]) for told in (painted, changed)] == [
        (INPAINTING_LORA, "in_queue"),
        (IMAGE_TO_IMAGE_LORA, "in_queue"),
    ]
    assert json.loads(told(made)) == result == again.structured_content
    assert (result["status"], result["seed"]) == ("succeeded", 7)
    assert opened(result["saved"][0]).size == (1024, 512)
    shown = base64.b64decode(made.content[1].data)  # type: ignore[union-attr]
    assert Image.open(io.BytesIO(shown)).size == (768, 384)
    assert listed.structured_content == {
        "requests": [
            {
                **{name: result[name] for name in ("request_id", "status", "created_at")},
                "prompt": "A lighthouse",
                "image": result["output"]["image"],
            }
        ]
    }
    record = hands.work_queue.get(result["request_id"])
    assert record is not None
    assert (record.input["preprocess"], record.input["seed_variance"]) == ("canny", 0.1)
    assert record.input["image_url"].startswith("data:image/png;base64,")


async def test_faults_are_sentences_for_the_language_model(base_url: str, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("no picture")
    async with host(base_url) as client:
        for arguments, sentence in (
            ({"prompt": "x", "image": str(tmp_path / "none.png")}, "none.png cannot be read"),
            ({"prompt": "x", "image": str(tmp_path / "words.txt")}, "words.txt is no picture"),
            ({"prompt": "x", "loras": [{"path": "../secret"}]}, "path"),
            ({"prompt": "x", "control_scale": 7}, "control_scale"),
            ({"prompt": "x", "strength": 0.5}, "tool generate: image: is required"),
            ({"prompt": "x", "mask": "https://a.example/m.png"}, "tool generate: image: is required"),
        ):
            answer = await client.call_tool("generate", arguments)
            assert answer.is_error
            assert sentence in told(answer)
        unknown = await client.call_tool("status", {"request_id": "nope"})
    assert unknown.is_error
    assert told(unknown).endswith("This request is unknown, was deleted, or has expired.")


async def test_picture_that_takes_long_goes_on_and_a_cancelled_call_cancels_it(
    base_url: str, hands: WorkerHands
) -> None:
    async with host(base_url) as client:
        # With defaults that mean nothing without an image, as some models like to say them.
        asked = {"prompt": "x", "image_size": "auto", "preprocess": "none", "control_scale": 0.9}
        early = await client.call_tool("generate", asked | {"wait_seconds": 0})
        assert early.structured_content is not None
        assert (early.structured_content["status"], early.structured_content["model_id"]) == (
            *("in_queue", TURBO_LORA),
        )
        stopped = await client.call_tool("cancel", {"request_id": early.structured_content["request_id"]})
        assert stopped.structured_content is not None
        assert stopped.structured_content["outcome"] == "cancelled"

        with anyio.move_on_after(60) as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.call_tool, "generate", {"prompt": "x"})
                await run_sync(wait_for, lambda: hands.client.zcard("zturbo:line"))
                scope.cancel()
        await run_sync(wait_for, lambda: not hands.client.zcard("zturbo:line"))


def test_missing_package_is_named_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "app.mcp_server", raising=False)
    monkeypatch.setitem(sys.modules, "mcp.server.mcpserver", None)
    ran = CliRunner().invoke(cli, ["mcp"])
    assert ran.exit_code == Exit.CONFIG
    assert f"`{install('mcp')}` brings it" in ran.stderr
