"""What a GPU would be given to do, counted without one: the server's engine at full size, on fake tensors.

    python -m benchmarks.gpu_rehearsal --check

Counts kernels, bytes, waits and copies of a request in every placement that some card gets, compiles a block
for cards of four generations, and says which bounds are met. Milliseconds are estimates for an H100 at the
rates of `counter.py`; nothing here is timed. A row in benchmarks/results/gpu_rehearsal.jsonl.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu_rehearsal.card import fake_card
from benchmarks.gpu_rehearsal.counter import ATTENTION, MEMORY_RATE, Counts
from benchmarks.gpu_rehearsal.graphs import count_graphs
from benchmarks.gpu_rehearsal.requests import Model, Request, placements
from benchmarks.run import option_parser, write_row

CARDS_GB = (80, 32, 24, 16, 12, 10, 8, 6)
SMALL_CARD = 12, (9, 0)
"""Gigabytes and compute capability."""
CAPABILITIES = ("8.0", "8.9", "9.0", "12.0")
COMPILED = (
    ("layer", "bfloat16"), ("with SwiGLU", "bfloat16"), ("first", "bfloat16"), ("last", "bfloat16"),
    ("control", "bfloat16"), ("layer", "int8"), ("layer", "fp8"),
)  # fmt: skip
FOR_ALL_CARDS = COMPILED[:2]
"""These blocks are compiled for each of `CAPABILITIES`; the others are compiled for an H100 alone."""
CORES = 2
FUSED_KERNELS = {("layer", "bfloat16"): 5, ("layer", "fp8"): 6, ("layer", "int8"): 13}
"""The bounds of what a compiled block has beside products and attention. In int8 six are for the columns
of huge values, which are found over all tokens first, and two because integers come out of its products."""
STEPS_OF_A_PICTURE = 8
STACKS = 2
"""The refiner's blocks and the layers."""


class Line(NamedTuple):
    """A line of the table. Without a bound it is told for its own sake, and None was not measured."""

    what: str
    measured: float | str | None
    bound: float | None = None

    @property
    def met(self) -> bool:
        return self.bound is None or (isinstance(self.measured, int | float) and self.measured <= self.bound)


def main(argv: list[str] | None = None) -> int:
    options = option_parser("gpu_rehearsal", __doc__, check="when a bound is not met").parse_args(argv)
    blocks = list(compiled_blocks())
    lines = [*at_full_size(blocks), *every_placement(), *of_blocks(blocks)]
    graphs = "graphs for 3 sizes, 4 captions, no branch, Union 1.0, 2.1"
    lines.append(Line(graphs, count_graphs("resident"), 6))
    lines.append(Line(f"{graphs}, and LoRAs beside weights that stream", count_graphs("streamed"), 7))
    lines.append(Line(f"{graphs}, and LoRAs beside weights in int8", count_graphs("resident", "int8"), 7))
    print(table(lines))
    write_row("gpu_rehearsal.jsonl", {line.what: line.measured for line in lines}, told=False)
    return int(options.check and not all(line.met for line in lines))


def at_full_size(blocks: Iterable[dict[str, Any]], layers: int | None = None) -> Iterator[Line]:
    """The published model on a card that holds all of it."""
    blocks = list(blocks)
    with fake_card(CARDS_GB[0]) as recorder, Model(recorder, layers) as model:
        model.request()
        known = model.request(prompt="two blue balls")
        again = {union: model.request(union) for union in (None, "1.0", "2.1")}
        captured = model.captured_step()
        token = model.token_of_magic_prompt()
        change = model.change_of_loras()
        count, weights = model.blocks, model.matrix_bytes
    step = again[None].step
    fused = fused_gb(blocks, "bfloat16", count)
    moved = fused and _gb(_compiled_bytes(step, fused))
    saved = saved_gb(blocks, count)
    yield Line("kernels a step, eager", step.launches, 1150)
    yield Line("memory traffic a step, eager, GB", _gb(step.bytes), 87)
    yield Line("memory traffic a step, compiled, GB", moved, 45)
    yield from traffic_of(step, weights, fused, blocks)
    with_own = moved and saved and round(moved - saved.all, 2)
    yield Line("memory traffic a step, compiled with SwiGLU, GB", with_own, 45)
    for union in ("1.0", "2.1"):
        yield Line(f"kernels a step, eager, Union {union}", again[union].step.launches)
    yield Line("launches of a captured step, Union 1.0", captured.launches, 12)
    yield Line("launches of the text encoder a prompt", _text(known).launches, 1)
    yield Line("launches of a token of Magic Prompt", token.launches, 6)
    yield Line("such a token on an H100, estimated ms", _ms(token.seconds))
    yield Line("uploads for a change of three LoRAs used before", change.uploads, 0)
    yield Line("such a change on an H100, estimated ms", _ms(change.seconds), 30)
    compiled = fused and _compiled_seconds(step, fused)
    for name, seconds in (
        ("eager", step.seconds),
        ("compiled", compiled),
        # At cuBLAS' rate, which Triton's kernel may not reach.
        ("compiled with SwiGLU", compiled and saved and compiled - saved.fused * 1e9 / MEMORY_RATE),
    ):
        picture = seconds and _picture_seconds(known, seconds)
        is_bound = name == "compiled"
        yield Line(f"a step on an H100, {name}, estimated ms", _ms(seconds), 90 if is_bound else None)
        yield Line(f"a picture on an H100, {name}, estimated ms", _ms(picture), 760 if is_bound else None)
    fused = fused_gb(blocks, "fp8", count)
    if fused is not None:
        yield from in_fp8(fused, layers)


def in_fp8(fused: float, layers: int | None = None) -> Iterator[Line]:
    """The same model on the same card in fp8, compiled."""
    with fake_card(CARDS_GB[0]) as recorder, Model(recorder, layers, quantization="fp8") as model:
        model.request()
        known = model.request(prompt="two blue balls")
        step = _compiled_seconds(known.step, fused)
    yield Line("a step on an H100, fp8 compiled, estimated ms", _ms(step))
    yield Line("a picture on an H100, fp8 compiled, estimated ms", _ms(_picture_seconds(known, step)), 560)


def fused_gb(blocks: Iterable[dict[str, Any]], precision: str, count: int) -> float | None:
    """What the fused kernels of a step's `count` blocks move; None where they could not be compiled."""
    found = {
        (each["block"], each["precision"]): each["GB of fused kernels"]
        for each in blocks
        if "skipped" not in each
    }
    try:
        # A first block adds nothing up for the one before, a last one does so for itself: the same in fp8.
        layer, first, last = (found[kind, "bfloat16"] for kind in ("layer", "first", "last"))
        return float(count * found["layer", precision] + STACKS * (first + last - 2 * layer))
    except KeyError:
        return None


class Saved(NamedTuple):
    """Gigabytes a step."""

    all: float
    fused: float
    """The part of them that fused kernels move; products move the rest."""


def saved_gb(blocks: Iterable[dict[str, Any]], count: int) -> Saved | None:
    """What SwiGLU as a kernel of our own spares `count` blocks; None where it could not be compiled."""
    found = {each["block"]: each for each in blocks if each["precision"] == "bfloat16"}
    try:
        layer, own = ((found[kind]["GB"], found[kind]["GB of fused kernels"]) for kind, _ in FOR_ALL_CARDS)
    except KeyError:
        return None
    return Saved(count * (layer[0] - own[0]), count * (layer[1] - own[1]))


def traffic_of(
    step: Counts, weights: int, fused: float | None, blocks: Iterable[dict[str, Any]]
) -> Iterator[Line]:
    """What the traffic of a compiled step consists of."""
    kept = [kernel for kernel in step.kernels if not kernel.is_fused]
    products = sum(kernel.bytes for kernel in kept if kernel.flop and ATTENTION not in kernel.name)
    attention = sum(kernel.bytes for kernel in kept if ATTENTION in kernel.name)
    yield Line("- of it, weights that products read, GB", _gb(weights))
    yield Line("- of it, tokens that products read and write, GB", _gb(products - weights))
    yield Line("- of it, attention, GB", _gb(attention))
    yield Line("- of it, what is around the blocks, GB", _gb(sum(k.bytes for k in kept if not k.flop)))
    sizes = next((each.get("tokens of fused kernels", ()) for each in blocks), ())
    passes = " + ".join(f"{size:g}" for size in sizes)
    yield Line(f"- of it, what is fused, {passes} times the tokens of a block, GB", fused and round(fused, 2))


def every_placement(layers: int | None = None, cards_gb: Iterable[float] = CARDS_GB) -> Iterator[Line]:
    """A request with Union 1.0 in each placement and precision that some card gets."""
    waits: set[str] = set()
    pageable: set[str] = set()
    faults, too_large = [], []
    for name, card, options in placements(cards_gb):
        try:
            with fake_card(*card) as recorder, Model(recorder, layers, **options) as model:
                model.request("1.0")
                request = model.request("1.0")
                waits |= model.request("1.0", watched=True).step.waits.keys()
                pinned, private = _gb(recorder.most_pinned), _gb(recorder.most_private)
                if request.whole.peak > model.planned_bytes:
                    too_large.append(f"{name}: {_gb(request.whole.peak)} of {_gb(model.planned_bytes)} GB")
        except (
            Exception
        ) as error:  # a mismatch of devices or types is a RuntimeError or TypeError of any kind
            faults.append(f"{name}: {str(error).splitlines()[0]}")
            continue
        yield Line(
            f"{name}: kernels a step / peak GB", f"{request.step.launches} / {_gb(request.whole.peak)}"
        )
        if (card, options["quantization"]) == (SMALL_CARD, "off"):
            yield Line(f"page-locked host memory, {card[0]} GB card, GB", pinned, 1.5)
            yield Line(f"private host memory, {card[0]} GB card, GB", private, 6)
        waits |= request.step.waits.keys()
        pageable |= request.whole.pageable.keys()
    yield Line(_with("devices or types that do not fit", faults), len(faults), 0)
    yield Line(_with("placements that take more of a card than planned", too_large), len(too_large), 0)
    yield Line(_with("places in a step where the host waits", waits), len(waits), 0)
    yield Line(_with("places that copy from pageable memory", pageable), len(pageable), 0)


def compiled_blocks() -> Iterator[dict[str, Any]]:
    """What inductor and Triton make of a block, each kind in a process of its own."""

    def compiled(block: tuple[str, str]) -> list[str]:
        command = [sys.executable, "-m", "benchmarks.gpu_rehearsal.compiled", *block]
        cards = CAPABILITIES if block in FOR_ALL_CARDS else ("9.0",)
        done = subprocess.run([*command, *cards], stdout=subprocess.PIPE, text=True, cwd=_root())
        return done.stdout.splitlines()

    # Each takes one core for half a minute.
    with ThreadPoolExecutor(CORES) as pool:
        for lines in pool.map(compiled, COMPILED):
            yield from (json.loads(line) for line in lines if line.startswith("{"))


def of_blocks(blocks: Iterable[dict[str, Any]]) -> Iterator[Line]:
    for block in blocks:
        name = f"compiled {block['block']}, {block['precision']}, sm_{block['capability'].replace('.', '')}"
        if "skipped" in block:
            yield Line(name, f"skipped: {block['skipped']}")
            continue
        if not block["built"]:
            yield Line(name, "its code takes more shared memory than this card has", 0)
            continue
        made = f"{block['products']} products, {block['attention']} attention"
        if block["own kernels"]:
            made += f", {block['own kernels']} SwiGLU"
        bound = FUSED_KERNELS.get((block["block"], block["precision"]))
        yield Line(f"{name}: fused kernels beside {made}", block["fused kernels"], bound)


def table(lines: Iterable[Line]) -> str:
    rows = [("what", "measured", "bound", "met")]
    for line in lines:
        bound = "" if line.bound is None else f"{line.bound:g}"
        rows.append((line.what, str(line.measured), bound, bound and ("yes" if line.met else "NO")))
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], ("---",) * 4, *rows[1:]])


def _compiled_bytes(step: Counts, fused: float) -> float:
    """Products, attention and what is around the blocks move what they move eager; the rest is fused."""
    return sum(kernel.bytes for kernel in step.kernels if not kernel.is_fused) + fused * 1e9


def _compiled_seconds(step: Counts, fused: float) -> float:
    kept = sum(kernel.seconds for kernel in step.kernels if not kernel.is_fused)
    return kept + fused * 1e9 / MEMORY_RATE


def _picture_seconds(request: Request, step: float) -> float:
    return _text(request).seconds + STEPS_OF_A_PICTURE * step + request.parts["autoencoder"].seconds


def _text(request: Request) -> Counts:
    return request.parts["text_encoder"]


def _with(what: str, names: Iterable[str]) -> str:
    return f"{what} ({', '.join(sorted(names))})" if names else what


def _gb(count: float) -> float:
    return round(count / 1e9, 2)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def _root() -> Path:
    return Path(__file__).parents[2]


if __name__ == "__main__":
    sys.exit(main())
