"""The tools of `zturbo mcp`: a language model's way to a server, by the Model Context Protocol.

Each tool is a call or two of `app.client`; what a request may hold is said by the catalog, as everywhere.
"""

import io
from collections.abc import Callable
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import anyio
from anyio.to_thread import run_sync
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, TextContent
from PIL import Image as PILImage
from pydantic import Field
from pydantic_core import to_json, to_jsonable_python

from app.client import TERMINAL, Client, ClientError, data_uri, picture_names, picture_urls
from app.status_words import describe
from app.terminal import printable, printable_body
from app.translation import reword
from models.schema.catalog import CONTROL_FIELDS, endpoint_for, with_loras
from models.schema.input_fields import InputField, input_fields

T = TypeVar("T")

DRAWN_SEED = -1
"""A language model would get the same picture for each prompt by the server's own default, 0."""

POLL_SECONDS = 0.3
WAIT_SECONDS = 50.0
"""Public hosts give up on a tool after a minute."""
CANCEL_SECONDS = 5.0

SHOWN_PIXELS = 768
SHOWN_QUALITY = 85
"""Side and JPEG quality of the picture as the language model sees it: some 100 kB, where hosts allow 1 MB."""

INSTRUCTIONS = (
    "Makes pictures with Z-Image-Turbo on a server of the user's own. An image can guide the composition: "
    "preprocess says how its control map is made (canny for outlines, depth for space, pose for people). "
    "With strength the image itself is changed, with mask only the part of it that is white there."
)

RequestIdField = Annotated[str, Field(description="As generate or list_requests told it.")]
WaitField = Annotated[
    float,
    Field(description="Return after so many seconds also when the picture is not done yet.", ge=0, le=600),
]


def create_mcp_server(base_url: str, token: str | None, out: Path | None) -> MCPServer:
    """Tools for the server at `base_url`; pictures are saved in the folder `out`, if one is given."""
    mcp = MCPServer("zturbo", instructions=INSTRUCTIONS, log_level="WARNING")
    client = Client(base_url, token)

    by_name = input_fields()
    fields = {field.short_name: field for field in by_name.values()}

    async def generate(ctx: Context, wait_seconds: WaitField, **given: Any) -> CallToolResult:
        """Make a picture, or several. Answers with the pictures, their URLs and seeds.

        One that is not done in time goes on; `status` answers with it later.
        """
        body = await _body([(fields[name], value) for name, value in given.items() if value is not None])
        endpoint = endpoint_for(body)
        submitted = await _call(client.submit, endpoint.model_id, with_loras(endpoint, body))
        request_id = str(submitted["request_id"])
        try:
            with anyio.move_on_after(wait_seconds):
                await _follow(client, request_id, ctx)
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(CANCEL_SECONDS, shield=True):
                await _call(client.cancel, request_id, True)
            raise
        return await _answer(client, request_id, out)

    own = signature(generate).parameters
    arguments = [_parameter(field, lambda name: by_name[name].short_name) for field in fields.values()]
    waiting = own["wait_seconds"].replace(kind=Parameter.KEYWORD_ONLY, default=WAIT_SECONDS)
    # What the SDK reads to make the tool's schema.
    generate.__signature__ = Signature(  # type: ignore[attr-defined]
        [own["ctx"], *arguments, waiting],
        return_annotation=CallToolResult,
    )
    mcp.tool()(generate)

    @mcp.tool()
    async def status(request_id: RequestIdField) -> CallToolResult:
        """Tell how a request fares; the picture itself, once it is there."""
        return await _answer(client, request_id, out)

    @mcp.tool()
    async def cancel(request_id: RequestIdField) -> dict[str, Any]:
        """Stop a request that waits or runs."""
        return await _call(client.cancel, request_id, True)

    @mcp.tool()
    async def list_requests(
        limit: Annotated[int, Field(description="How many, the newest first.", ge=1, le=100)] = 10,
    ) -> dict[str, Any]:
        """List the requests so far: each with its state, prompt, and the pictures' URLs."""
        page = await _call(client.list_requests, limit)
        return {"requests": [_brief(request) for request in page["requests"]]}

    @mcp.tool()
    async def list_loras() -> dict[str, Any]:
        """List the LoRAs on the server: styles and characters, with the words that trigger them."""
        return await _call(client.loras)

    return mcp


def _parameter(field: InputField, name_of: Callable[[str], str]) -> Parameter:
    """The argument of `generate` that is a field; None is the server's own default.

    `name_of` has the argument's name by the field's.
    """
    name, text, examples = field.short_name, field.description, field.schema.get("examples")
    if field.is_picture:
        text, examples = f"{text}: an https or http URL, or the path of a file here", [f"/home/me/{name}.png"]
    usual = "one is drawn" if field.name == "seed" else field.default(lambda other: f"`{name_of(other)}`")
    about = Field(
        title=field.schema["title"],
        description=f"{text}. Unless given: {usual}." if usual else f"{text}.",
        examples=examples,
    )
    annotation: Any = field.info.annotation
    kind = annotation if field.is_picture else Annotated[(annotation, *field.info.metadata, Field())]
    if field.is_required:
        return Parameter(name, Parameter.KEYWORD_ONLY, annotation=Annotated[kind, about])
    return Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, about])


async def _body(given: list[tuple[InputField, Any]]) -> dict[str, Any]:
    """A request body of the arguments that are given. Raises ToolError for a picture that cannot be read."""
    body: dict[str, Any] = {"seed": DRAWN_SEED}
    for field, value in given:
        body[field.name] = (
            await run_sync(_read, value, field.short_name) if field.is_picture else to_jsonable_python(value)
        )
    if "image_url" not in body:
        # Hosts and models like to say defaults, also of what only an image has.
        body = {name: value for name, value in body.items() if name not in CONTROL_FIELDS and value != "auto"}
    return body


async def _follow(client: Client, request_id: str, ctx: Context) -> None:
    """Until the request is at its end, telling each step on the way; a server that is away is waited for."""
    while True:
        try:
            status = await run_sync(client.status, request_id)
        except ClientError as error:
            if not error.passing:
                raise _tool_error(error) from error
        else:
            if status["status"] in TERMINAL:
                return
            words = printable(describe(status))
            await ctx.report_progress(status.get("step") or 0, status.get("total_steps"), words)
        await anyio.sleep(POLL_SECONDS)


async def _answer(client: Client, request_id: str, out: Path | None) -> CallToolResult:
    """A result body, with the pictures if there are any. A failed request is the tool's failure."""
    try:
        result = printable_body(await run_sync(client.result, request_id))
    except ClientError as error:
        raise _tool_error(error, f"Request {request_id}: ") from error
    if result["status"] == "failed":
        raise ToolError(f"Request {request_id} failed: {_in_arguments(result['error']['message'])}")
    if result["status"] != "succeeded":
        return CallToolResult(content=[_text(result)], structured_content=result)
    urls = picture_urls(result)
    pictures = [await _call(client.fetch, url) for url in urls]
    if out is not None:
        names = await _call(picture_names, result["request_id"], urls)
        saved = [await run_sync(_save, out / name, data) for name, data in zip(names, pictures, strict=True)]
        result = result | {"saved": saved}
    shown = [Image(data=await run_sync(_shown, data), format="jpeg").to_image_content() for data in pictures]
    return CallToolResult(content=[_text(result), *shown], structured_content=result)


def _read(image: str, field: str) -> str:
    """A URL as it is; a file of this machine as a data URI, if it is a picture."""
    if "://" in image or image.startswith(("data:", "/v1/files/")):
        return image
    try:
        uri = data_uri(Path(image).expanduser().read_bytes())
    except OSError as error:
        raise ToolError(f"{field}: {image} cannot be read: {error.strerror}.") from error
    if not uri.startswith("data:image/"):
        raise ToolError(f"{field}: {image} is no picture that is taken.")
    return uri


def _text(result: dict[str, Any]) -> TextContent:
    return TextContent(type="text", text=to_json(result, indent=2).decode())


def _brief(request: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {name: request[name] for name in ("request_id", "status", "created_at")}
    told |= {"prompt": request["input"]["prompt"]} | request.get("output", {})
    return told


def _save(file: Path, data: bytes) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return str(file)


def _shown(data: bytes) -> bytes:
    """A small JPEG of a picture."""
    with PILImage.open(io.BytesIO(data)) as picture:
        small = picture.convert("RGB")
    small.thumbnail((SHOWN_PIXELS, SHOWN_PIXELS))
    encoded = io.BytesIO()
    small.save(encoded, "jpeg", quality=SHOWN_QUALITY)
    return encoded.getvalue()


async def _call(call: Callable[..., T], *arguments: Any) -> T:
    """One call of the client on a thread, its texts made printable, for the host may be on a terminal.

    What the server refuses becomes the tool's own sentence.
    """
    try:
        return cast(T, printable_body(await run_sync(call, *arguments)))
    except ClientError as error:
        raise _tool_error(error) from error


def _tool_error(error: ClientError, about: str = "") -> ToolError:
    return ToolError(printable(about + _in_arguments(str(error))))


def _in_arguments(sentence: str) -> str:
    """A sentence of the server's, with the arguments' names of the pictures."""
    pictures = {name: field.short_name for name, field in input_fields().items() if field.is_picture}
    return reword(sentence, pictures)
