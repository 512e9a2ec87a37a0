"""The plan of a LoRA file: the weight changes that its header means, checked against the model.

Nothing but the header is read here: a file that passes fits the model in every name, shape and type.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from models.errors import CheckpointError, LoraError
from models.inference.lora.delta import Delta, Shape, module_deltas
from models.inference.lora.names import flat, module_index, read_key
from models.inference.lora.peft_config import read_config
from models.inference.lora.refusal import no_match, unsupported_part
from models.weights.header import Header, read_header


@dataclass(frozen=True)
class LoraPlan:
    """A LoRA file, understood."""

    deltas: tuple[Delta, ...]
    format: str
    """Who writes such keys and what most of them hold, such as `kohya lora` or `comfyui lokr`."""
    matched: int
    """Keys of the file that a change uses; `unmatched` are the others."""
    unmatched: int


def plan_file(path: Path, shapes: Mapping[str, Shape], name: str) -> LoraPlan:
    """Plan the merge of `path` into parameters of these shapes; LoraError says what is wrong with `name`."""
    try:
        header = read_header(path)
    except CheckpointError as error:
        raise LoraError(f'LoRA "{name}" cannot be read: {error}') from error
    try:
        return plan(header, shapes)
    except LoraError as error:
        raise LoraError(f'LoRA "{name}" {error}.') from error


def plan(header: Header, shapes: Mapping[str, Shape]) -> LoraPlan:
    """Plan a merge; the message of a LoraError is a predicate, to be put after the file's name."""
    index = module_index(shapes)
    groups, layout = _group(header, index)
    if not groups:
        raise LoraError(no_match(header))
    problem = unsupported_part(header.tensors)
    if problem:
        raise LoraError(problem)
    config = read_config(header.metadata)

    deltas: list[Delta] = []
    used: set[str] = set()
    changed: set[str] = set()
    # The model's own names first: some trainers write a module again under its original name (`qkv` beside
    # `to_q`), and the repetition must not count twice.
    for name in sorted(groups, key=lambda name: flat(index[name][0]) != name):
        modules, keys = index[name], groups[name]
        added = module_deltas(modules, keys, header, shapes, config) if changed.isdisjoint(modules) else []
        if added:
            deltas += added
            changed.update(modules)
            used.update(key for delta in added for key in delta.factors.values())
            used.update(key for factor, key in keys.items() if factor == "alpha")
    if not deltas:
        raise LoraError(no_match(header))
    kind = Counter(delta.kind for delta in deltas).most_common(1)[0][0]
    return LoraPlan(tuple(deltas), f"{layout} {kind}", len(used), len(header.tensors) - len(used))


def _group(header: Header, index: Mapping[str, tuple[str, ...]]) -> tuple[dict[str, dict[str, str]], str]:
    """The file's keys by flat module name and factor, and the layout that most of them are written in."""
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    layouts: Counter[str] = Counter()
    for key in header.tensors:
        read = read_key(key)
        if read is None or read.module not in index:
            continue
        twin = groups[read.module].setdefault(read.factor, key)
        if twin != key:
            raise LoraError(f'has the same tensor twice ("{twin}" and "{key}"): save it again')
        layouts[read.layout] += 1
    return groups, layouts.most_common(1)[0][0] if layouts else ""
