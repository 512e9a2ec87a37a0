"""The page's modules as one script: forty files would wait in turn for a browser's six connections.

Each module becomes a function that is called once, after those that it imports. This knows the few forms of
import and export that our modules have, and raises ValueError for any other, when the server starts.
"""

import posixpath
import re
from collections.abc import Mapping

_IMPORT = re.compile(r'^import (?:\{([^}]*)\} from )?"(\.[^"]+)";\n', re.M)
_EXPORT = re.compile(r"^export (?=(?:class|(?:async )?function\*?|const) (\w+))", re.M)
_LEFT = re.compile(r"""^export .*|^import .*['"]\..*|\bimport\(.*""", re.M)


def linked(modules: Mapping[str, str], entry: str) -> str:
    """The text of one module that does what `entry` does. `modules`: each one's text, by its path."""
    order: list[str] = []
    _visit(modules, entry, order, ())
    numbers = {name: number for number, name in enumerate(order)}
    return "".join(_as_function(name, modules[name], numbers) for name in order)


def _visit(modules: Mapping[str, str], name: str, order: list[str], above: tuple[str, ...]) -> None:
    if name in above:
        raise ValueError(f"{' imports '.join((*above, name))}: a circle.")
    if name not in order:
        for _, path in _IMPORT.findall(modules[name]):
            _visit(modules, _resolved(name, path), order, (*above, name))
        order.append(name)


def _as_function(name: str, text: str, numbers: Mapping[str, int]) -> str:
    def taken(found: re.Match[str]) -> str:
        names, path = found.groups()
        renamed = re.sub(r"\bas\b", ":", names or "")
        return f"const {{{renamed}}} = module{numbers[_resolved(name, path)]};\n" if names else ""

    body = _EXPORT.sub("", _IMPORT.sub(taken, text))
    if left := _LEFT.search(body):
        raise ValueError(f"{name}: {left[0]!r} is no import or export that can be linked.")
    exported = ", ".join(_EXPORT.findall(text))
    return f"// {name}\nconst module{numbers[name]} = (() => {{\n{body}return {{ {exported} }};\n}})();\n"


def _resolved(name: str, path: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
