"""The fields of all inputs by name: the command line and language models ask by field, not by endpoint."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from pydantic.fields import FieldInfo

from models.schema.catalog import ENDPOINTS, Endpoint


@dataclass(frozen=True)
class InputField:
    """A field of the catalog's endpoints, as those that have it say what it is."""

    name: str
    """On the wire."""
    by_endpoint: tuple[tuple[Endpoint, dict[str, Any]], ...]
    """Its JSON schema in each."""

    @cached_property
    def schema(self) -> dict[str, Any]:
        """Its JSON schema in the endpoint that allows most."""
        return self._widest[1]

    @cached_property
    def info(self) -> FieldInfo:
        """The same as pydantic has it."""
        return self._widest[0].input_model.model_fields[self.name]

    @cached_property
    def _widest(self) -> tuple[Endpoint, dict[str, Any]]:
        return max(self.by_endpoint, key=lambda each: _width(each[1]))

    @property
    def is_required(self) -> bool:
        """Whether it is in every input."""
        return len(self.by_endpoint) == len(ENDPOINTS) and all(
            self.name in _required(endpoint) for endpoint, _ in self.by_endpoint
        )

    @property
    def is_picture(self) -> bool:
        """Whether its URL may stand for a file of the caller's."""
        return self.name.endswith("image_url")

    @property
    def short_name(self) -> str:
        """What a picture itself is called: `image_url` is `image`, `mask_image_url` is `mask`."""
        return self.name.removesuffix("_url").removesuffix("_image") if self.is_picture else self.name

    @property
    def description(self) -> str:
        """What it is in each endpoint, without a full stop; of a picture, not how its URL is given."""
        found: list[str] = []
        for _, schema in self.by_endpoint:
            text = schema["description"].rstrip(".")
            text = text.partition(":")[0] if self.is_picture else text
            if text not in found:
                found.append(text)
        last = [text for text in found if not any(each != text and each.startswith(text) for each in found)]
        return ", or ".join([last[0], *(text[0].lower() + text[1:] for text in last[1:])])

    def limits(self) -> str:
        """`0 to 1`, or the choices; nothing where there is no limit."""
        if choices := self.schema.get("enum"):
            return f"{', '.join(choices[:-1])} or {choices[-1]}"
        least, most = self.schema.get("minimum"), self.schema.get("maximum")
        if least is not None and most is not None:
            return f"{least:g} to {most:g}"
        if least is not None:
            return f"at least {least:g}"
        return "" if most is None else f"at most {most:g}"

    def default(self, name_of: Callable[[str], str]) -> str:
        """`0.9, or 0.75 with --mask`; nothing where there is none. `name_of`: what the reader calls a field.

        Where endpoints differ, what one must be given besides tells which is meant, or else its short name.
        """
        groups: dict[str, list[Endpoint]] = {}
        for endpoint, schema in self.by_endpoint:
            if "default" in schema:
                groups.setdefault(_words(schema["default"]), []).append(endpoint)
        told: list[str] = []
        before: set[str] = set()
        for words, group in sorted(groups.items(), key=lambda each: min(map(_demands, each[1]))):
            required = [_required(endpoint) for endpoint in group]
            more = [
                name for name in required[0] if name not in before and all(name in one for one in required)
            ]
            meant = [name_of(name) for name in more] or [endpoint.short_name for endpoint in group]
            told.append(f"or {words} with {' and '.join(meant)}" if told else words)
            before.update(*required)
        return ", ".join(told)


def input_fields() -> dict[str, InputField]:
    """By name; a field stands behind the one that it follows in an input."""
    return _fields(tuple(ENDPOINTS.values()))


@lru_cache
def _fields(endpoints: tuple[Endpoint, ...]) -> dict[str, InputField]:
    names: list[str] = []
    found: dict[str, list[tuple[Endpoint, dict[str, Any]]]] = {}
    for endpoint in endpoints:
        place = 0
        for name, schema in endpoint.input_model.model_json_schema()["properties"].items():
            if name not in found:
                names.insert(place, name)
            place = names.index(name) + 1
            found.setdefault(name, []).append((endpoint, schema))
    return {name: InputField(name, tuple(found[name])) for name in names}


def _required(endpoint: Endpoint) -> list[str]:
    return [name for name, field in endpoint.input_model.model_fields.items() if field.is_required()]


def _demands(endpoint: Endpoint) -> int:
    return len(_required(endpoint))


def _width(schema: dict[str, Any]) -> tuple[int, float]:
    """How much a schema allows, to be compared with others of the same type."""
    least, most = schema.get("minimum", float("-inf")), schema.get("maximum", float("inf"))
    return len(schema.get("enum", ())), most - least


def _words(default: object) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"{default:g}" if isinstance(default, float) else str(default)
