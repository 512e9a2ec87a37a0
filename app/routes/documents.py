"""The documents of docs/ as pages of this server, for whoever has it and no checkout."""

import html
import re
from pathlib import Path

from fastapi import APIRouter
from markdown_it import MarkdownIt
from markdown_it.token import Token
from starlette.responses import Response

from app.errors import NothingHere
from app.routes.playground import HEADERS, VERSION

PACKED = Path(__file__).parents[1] / "documents"
"""The folder in which the wheel has docs/; a checkout has none."""

FOLDER = PACKED if PACKED.is_dir() else Path(__file__).parents[2] / "docs"

TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.md"))}
"""Every document by its name in the URL."""

TITLES = {name: text.partition("\n")[0].removeprefix("# ") for name, text in TEXTS.items()}

MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")

FRAME = """\
<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <title>{title} – zturbo</title>
    <link rel="icon" type="image/svg+xml" href="../playground/icon.svg">
    <link rel="stylesheet" href="../playground/{version}/css/page.css">
  </head>
  <body class="document">
    <nav aria-label="Documents"><ul><li><a href="../">Playground</a></li>{links}</ul></nav>
    <main>{body}</main>
  </body>
</html>
"""

router = APIRouter(include_in_schema=False)


@router.get("/documents/{name}", response_class=Response)
def get_document(name: str) -> Response:
    text = TEXTS.get(name)
    if text is None:
        raise NothingHere(f"There is no such document; there are {', '.join(TEXTS)}.")
    return Response(page(name, text), headers=HEADERS, media_type="text/html; charset=utf-8")


def page(name: str, text: str) -> str:
    """A document as a whole page, with those of its links that lead to other documents or to the web."""
    tokens = MARKDOWN.parse(text)
    for position, token in enumerate(tokens):
        # How a table's column is aligned; the page's policy takes no styles from its text.
        token.attrs.pop("style", None)
        if token.type == "heading_open":
            token.attrSet("id", anchor(tokens[position + 1].content))
        for child in token.children or ():
            if child.type == "link_open":
                _lead(child)
    body = MARKDOWN.renderer.render(tokens, MARKDOWN.options, {})
    links = "".join(_link(each, title, each == name) for each, title in TITLES.items())
    return FRAME.format(title=html.escape(TITLES[name]), version=VERSION, links=links, body=body)


def anchor(heading: str) -> str:
    """What a link says after # to lead to a heading, as the places that show Markdown have it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _lead(link: Token) -> None:
    href = str(link.attrs.get("href", ""))
    target, mark, place = href.partition("#")
    if target.removesuffix(".md") in TEXTS:
        link.attrSet("href", target.removesuffix(".md") + mark + place)
    elif target and not target.startswith(("http://", "https://")):
        # A file of the source, which is not here.
        del link.attrs["href"]


def _link(name: str, title: str, current: bool) -> str:
    mark = ' aria-current="page"' if current else ""
    return f'<li><a href="{name}"{mark}>{html.escape(title)}</a></li>'
