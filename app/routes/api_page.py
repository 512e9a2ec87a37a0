"""The page at /docs: every route and body of the OpenAPI document, without a script."""

from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.openapi import SCHEMAS
from app.routes.documents import FRAME, MARKDOWN
from app.routes.playground import HEADERS, VERSION

Schema = dict[str, Any]

LEAST_ERROR = "400"

router = APIRouter(include_in_schema=False)


@router.get("/docs", response_class=Response)
def get_api_page(request: Request) -> Response:
    return Response(api_page(request.app.openapi()), headers=HEADERS, media_type="text/html; charset=utf-8")


def api_page(document: dict[str, Any]) -> str:
    """An OpenAPI document as a whole page."""
    operations = [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    links = "".join(
        f'<li><a href="#{escape(each["operationId"])}">{escape(title)}</a></li>' for title, each in operations
    )
    body = (
        "<h1>The API</h1>"
        f"<p>{escape(document['info']['description'])} "
        '<a href="../documents/api">With whole exchanges</a>; <a href="../openapi.json">as OpenAPI</a>.</p>'
        + "".join(_operation(title, operation) for title, operation in operations)
        + "<h2>Bodies</h2>"
        + "".join(_body(name, schema) for name, schema in sorted(document["components"]["schemas"].items()))
    )
    page = FRAME.format(title="API", version=VERSION, links=links, body=body)
    # The frame is made for pages that lie one folder deeper.
    return page.replace('"../', '"./')


def _operation(title: str, operation: dict[str, Any]) -> str:
    parts = [f'<h2 id="{escape(operation["operationId"])}"><code>{escape(title)}</code></h2>']
    parts.append(_text(operation.get("description", "")))
    if parameters := operation.get("parameters"):
        rows = (
            (each["name"], f"{_type(each['schema'])}, {each['in']}", each.get("description", ""))
            for each in parameters
        )
        parts.append(_table("Parameter", rows))
    sent = operation.get("requestBody", {}).get("content", {})
    parts += [f"<p>Takes {escape(kind)}: {_type(each['schema'])}</p>" for kind, each in sent.items()]
    errors = []
    for status, answer in operation["responses"].items():
        if status >= LEAST_ERROR:
            errors.append(status)
            continue
        shown = (
            f"{escape(kind)}: {_type(each['schema'])}" if each.get("schema") else escape(kind)
            for kind, each in answer.get("content", {}).items()
        )
        parts.append(f"<p>Answers {status} {'; '.join(shown)}</p>")
    if errors:
        parts.append(f'<p>Errors {", ".join(sorted(errors))}: <a href="#ErrorBody">ErrorBody</a></p>')
    return "".join(parts)


def _body(name: str, schema: Schema) -> str:
    required = schema.get("required", ())
    rows = (
        (
            field,
            _type(each) + (", required" if field in required else _default(each)),
            each.get("description", ""),
        )
        for field, each in schema.get("properties", {}).items()
    )
    head = f'<h3 id="{escape(name)}">{escape(name)}</h3>{_text(schema.get("description", ""))}'
    return head + _table("Field", rows) if schema.get("properties") else f"{head}<p>{_type(schema)}</p>"


def _table(head: str, rows: Iterator[tuple[str, str, str]]) -> str:
    """`rows`: a name, its type as HTML, and a text."""
    cells = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{kind}</td><td>{MARKDOWN.renderInline(text)}</td></tr>"
        for name, kind, text in rows
    )
    heads = f"<tr><th>{head}</th><th>Type</th><th>Meaning</th></tr>"
    return f"<table><thead>{heads}</thead><tbody>{cells}</tbody></table>"


def _type(schema: Schema) -> str:
    """What a value may be, as HTML."""
    if "$ref" in schema:
        name = escape(schema["$ref"].removeprefix(SCHEMAS))
        return f'<a href="#{name}">{name}</a>'
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_type(each) for each in choices if each.get("type") != "null")
    if values := schema.get("enum"):
        return ", ".join(f"<code>{escape(str(value))}</code>" for value in values)
    if "const" in schema:
        return f"<code>{escape(str(schema['const']))}</code>"
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    least, most = schema.get("minimum"), schema.get("maximum")
    bounds = f", {least:g} to {most:g}" if least is not None and most is not None else ""
    return escape(str(schema.get("type", "any value"))) + bounds


def _default(schema: Schema) -> str:
    default = schema.get("default")
    return "" if default is None else f", default <code>{escape(str(default))}</code>"


def _text(text: str) -> str:
    return str(MARKDOWN.render(text)) if text else ""
