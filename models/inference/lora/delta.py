"""The change that a group of a LoRA file's tensors makes to one module, worked out from shapes alone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

from models.errors import LoraError
from models.inference.lora.peft_config import AdapterConfig
from models.weights.header import Header

Shape = tuple[int, ...]
Kind = Literal["lora", "lokr", "loha", "diff"]

DTYPES = ("F16", "BF16", "F32")
# Which tensors together change a module's weight. A LoKr's two factors are each stored whole or as a product.
KINDS: dict[frozenset[str], Kind] = {
    frozenset({"down", "up"}): "lora",
    frozenset({"w1", "w2"}): "lokr",
    frozenset({"w1", "w2_a", "w2_b"}): "lokr",
    frozenset({"w1_a", "w1_b", "w2"}): "lokr",
    frozenset({"w1_a", "w1_b", "w2_a", "w2_b"}): "lokr",
    frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}): "loha",
    frozenset({"diff"}): "diff",
}
BESIDE_THE_WEIGHT = ("alpha", "up_bias", "diff_b")


@dataclass(frozen=True)
class Delta:
    """A change to one parameter: what the factors multiply to, or the `rows` of it, times a scale."""

    parameter: str
    kind: Kind
    factors: Mapping[str, str]
    """The key in the file of each factor, by the names in `models.inference.lora.names.FACTORS`."""
    rows: tuple[int, int] | None = None
    """First and last-plus-one row of the product that fall to this parameter; None: all."""
    scaling: float = 1.0
    """The scale where there is no `alpha`."""
    alpha: str | None = None
    """Key of the scalar that makes the scale alpha / `rank`."""
    rank: int = 0


def module_deltas(
    modules: tuple[str, ...],
    keys: Mapping[str, str],
    header: Header,
    shapes: Mapping[str, Shape],
    config: AdapterConfig | None,
) -> list[Delta]:
    """The changes that `keys` (factor -> key in the file) make to `modules`: one, or q, k, v of a fused qkv.

    Empty when the keys hold nothing that the model has, such as a bias it lacks. LoraError when they are
    incomplete or do not fit; its message is a predicate.
    """
    size = {factor: _size(factor, key, header) for factor, key in keys.items()}
    factors = {factor: key for factor, key in keys.items() if factor not in BESIDE_THE_WEIGHT}
    target = " + ".join(modules)
    deltas: list[Delta] = []
    alpha, rank = None, 0
    if factors:
        kind = KINDS.get(frozenset(factors))
        if kind is None:
            raise LoraError(f"is incomplete: for {target} it has only {_quoted(factors.values())}")
        product, rank = _product(kind, size)
        # No rank, nothing to divide by: LyCORIS ignores the alpha of a LoKr of two whole factors.
        alpha = keys.get("alpha") if rank else None
        ends = list(accumulate(shapes[f"{module}.weight"][0] for module in modules))
        _check_fit(target, factors.values(), product, (ends[-1], *shapes[f"{modules[0]}.weight"][1:]))
        for module, rows in zip(modules, pairwise([0, *ends]), strict=True):
            scaling = config.scaling(module) if config else 1.0
            share = rows if len(modules) > 1 else None
            deltas.append(Delta(f"{module}.weight", kind, factors, share, scaling, alpha, rank))

    bias = f"{modules[0]}.bias"
    if len(modules) == 1 and bias in shapes:
        scaling = config.scaling(modules[0]) if config else 1.0
        if "up_bias" in keys:
            _check_fit(bias, [keys["up_bias"]], size["up_bias"], shapes[bias])
            deltas.append(Delta(bias, "diff", {"diff": keys["up_bias"]}, None, scaling, alpha, rank))
        if "diff_b" in keys:
            _check_fit(bias, [keys["diff_b"]], size["diff_b"], shapes[bias])
            deltas.append(Delta(bias, "diff", {"diff": keys["diff_b"]}))
    return deltas


def _size(factor: str, key: str, header: Header) -> Shape:
    dtype, shape, _ = header.tensors[key]
    if factor == "alpha":
        if shape not in ((), (1,)):
            raise LoraError(f'has an alpha that is no single number ("{key}", {_by(shape)})')
    elif dtype not in DTYPES:
        raise LoraError(f'stores "{key}" as {dtype}: save it in float16, bfloat16 or float32')
    return tuple(shape)


def _product(kind: Kind, size: Mapping[str, Shape]) -> tuple[Shape, int]:
    """Shape of what the factors multiply to, () when they do not, and the rank that divides alpha."""
    if kind == "lora":
        return _matmul(size["up"], size["down"]), size["down"][0] if size["down"] else 0
    if kind == "loha":
        first, second = (_matmul(size[f"hada_w{i}_a"], size[f"hada_w{i}_b"]) for i in (1, 2))
        return first if first == second else (), size["hada_w1_b"][0] if first else 0
    if kind == "lokr":
        first, second = (
            size[name] if name in size else _matmul(size[f"{name}_a"], size[f"{name}_b"])
            for name in ("w1", "w2")
        )
        inner = size.get("w2_b") or size.get("w1_b") or (0,)
        fits = len(first) == len(second) == 2
        return (first[0] * second[0], first[1] * second[1]) if fits else (), inner[0]
    return size["diff"], 0


def _matmul(left: Shape, right: Shape) -> Shape:
    return (left[0], right[1]) if len(left) == len(right) == 2 and left[1] == right[0] else ()


def _check_fit(target: str, keys: Iterable[str], made: Shape, wanted: Shape) -> None:
    if made != wanted:
        change = f"a {_by(made)} change" if made else "no matrix"
        raise LoraError(
            f"does not fit this model: {_quoted(keys)} make {change} for {target}, which is {_by(wanted)}; "
            "use one made for Z-Image"
        )


def _by(shape: Shape) -> str:
    return "x".join(str(side) for side in shape)


def _quoted(keys: Iterable[str]) -> str:
    return ", ".join(f'"{key}"' for key in sorted(keys))
