"""A new endpoint of the catalog is known to command line, language models and OpenAPI document by itself."""

import pytest
import typer
from mcp.types import Tool
from typer.testing import CliRunner

from app.cli import generate, requests
from app.cli.exits import Exit
from app.config import Settings
from app.main import create_app
from app.mcp_server import create_mcp_server
from app.openapi import describe
from tests.support.http_api import WorkerHands, served
from tests.support.made_up import MODEL_ID, GrainInput, add_made_up_endpoint

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def made_up_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    add_made_up_endpoint(monkeypatch)


def cli() -> typer.Typer:
    made = typer.Typer(rich_markup_mode=None)
    requests.register(made)
    generate.register(made)
    return made


@pytest.mark.parametrize("command", ["submit", "generate"])
def test_command_line_helps_with_its_fields(command: str) -> None:
    told = " ".join(CliRunner().invoke(cli(), [command, "--help"]).stdout.split())
    assert "--grain NUMBER How coarse the film is (0 to 0.5, else 0.25): --grain 0.25" in told
    assert "--edge JSON Widths of the frame in pixels (else []): --edge" in told


@pytest.mark.parametrize("model", [(), ("--model-id", "grain")])
def test_command_line_sends_its_fields(
    model: tuple[str, ...], settings: Settings, hands: WorkerHands
) -> None:
    with served(create_app(settings), settings) as url:
        base = ("submit", "--base-url", url, "--detach", *model, "--prompt", "a fox")
        sent = CliRunner().invoke(cli(), [*base, "--grain", "0.5", "--edge", "[1, 2]"])
        refused = CliRunner().invoke(cli(), [*base, "--grain", "0.6"])
        broken = CliRunner().invoke(cli(), [*base, "--edge", "[1"])
    assert (sent.exit_code, sent.stderr) == (0, "")
    record = hands.work_queue.get(sent.stdout.strip())
    assert record is not None
    assert (record.model_id, record.input["grain"], record.input["edge"]) == (MODEL_ID, 0.5, [1, 2])
    assert refused.exit_code == broken.exit_code == Exit.DATA
    assert refused.stderr.startswith("--grain: ")
    assert broken.stderr.startswith("--edge: this is not JSON: ")


async def test_language_model_is_told_of_its_fields() -> None:
    [tool] = [tool for tool in await listed() if tool.name == "generate"]
    grain = tool.input_schema["properties"]["grain"]
    assert grain["description"] == "How coarse the film is. Unless given: 0.25."
    assert grain["anyOf"][0] == {"type": "number", "minimum": 0, "maximum": 0.5}
    assert tool.input_schema["required"] == ["prompt"]


async def listed() -> list[Tool]:
    return await create_mcp_server("http://127.0.0.1:9", None, None).list_tools()


def test_openapi_document_has_it(settings: Settings) -> None:
    document = describe(create_app(settings))
    assert "grain" in document["components"]["schemas"][GrainInput.__name__]["properties"]
    [model_id] = document["paths"]["/v1/models/{model_id}"]["get"]["parameters"]
    assert MODEL_ID in model_id["schema"]["enum"]
