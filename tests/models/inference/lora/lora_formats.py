"""Every published LoRA format of this model: a file's tensors, and the dense change that they stand for."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from peft.tuners.lokr.layer import factorization

from tests.models.inference.lora.lora_files import (
    RANK,
    SCALE,
    Change,
    Tensors,
    fused,
    grid,
    known_change,
    linears,
    lora_tensors,
    original,
    peft_metadata,
    tiny_transformer,
)

CHANGE = known_change()
KOHYA = ("lora_down.weight", "lora_up.weight")
DOTTED = ("lora.down.weight", "lora.up.weight")
DEFAULT = ("lora_A.default.weight", "lora_B.default.weight")


@dataclass(frozen=True)
class Format:
    """A file in one format, and what it must do."""

    tensors: Tensors
    label: str
    dense: Tensors
    metadata: dict[str, str] | None = None
    redundant: int = 0
    """Keys that only repeat others."""


def flat(prefix: str) -> Callable[[str], str]:
    return lambda module: prefix + module.replace(".", "_")


def dotted(prefix: str) -> Callable[[str], str]:
    return lambda module: prefix + module


def low_rank(
    label: str,
    name: Callable[[str], str],
    endings: tuple[str, str] = ("lora_A.weight", "lora_B.weight"),
    alpha: bool = True,
    fuse: bool = False,
) -> Format:
    """The known change with keys `{name(module)}.{ending}`."""
    pairs = fused(CHANGE) if fuse else CHANGE.pairs
    return Format(lora_tensors(pairs, name, *endings, alpha=alpha), label, CHANGE.dense())


def kronecker(whole_1: bool, whole_2: bool, name: Callable[[str], str], label: str) -> Format:
    """LoKr by LyCORIS's rule: alpha / rank counts only where a factor is stored as a product."""
    generator = torch.Generator().manual_seed(4)
    tensors, dense = {}, {}
    for module, (rows, columns) in linears(tiny_transformer()).items():
        (high, tall), (wide, broad) = factorization(rows, 4), factorization(columns, 4)
        factors = []
        for factor, shape, whole in (("lokr_w1", (high, wide), whole_1), ("lokr_w2", (tall, broad), whole_2)):
            if whole:
                factors.append(2 * grid(generator, *shape))
                tensors[f"{name(module)}.{factor}"] = factors[-1]
            else:
                a, b = 2 * grid(generator, shape[0], RANK), 2 * grid(generator, RANK, shape[1])
                factors.append(a @ b)
                tensors |= {f"{name(module)}.{factor}_a": a, f"{name(module)}.{factor}_b": b}
        tensors[f"{name(module)}.alpha"] = torch.tensor(SCALE * RANK)
        dense[f"{module}.weight"] = torch.kron(*factors) * (1 if whole_1 and whole_2 else SCALE)
    return Format(tensors, label, dense)


def fused_kronecker() -> Format:
    generator = torch.Generator().manual_seed(5)
    first, second = grid(generator, 3, 2), grid(generator, 64, 32)
    q, k, v = torch.kron(first, second).chunk(3)
    attention = "layers.1.attention"
    return Format(
        {
            f"diffusion_model.{attention}.qkv.lokr_w1": first,
            f"diffusion_model.{attention}.qkv.lokr_w2": second,
        },
        "comfyui lokr",
        {f"{attention}.to_{name}.weight": part for name, part in (("q", q), ("k", k), ("v", v))},
    )


def hadamard() -> Format:
    generator = torch.Generator().manual_seed(6)
    tensors, dense = {}, {}
    for module, (rows, columns) in linears(tiny_transformer()).items():
        sizes = ((rows, RANK), (RANK, columns)) * 2
        w1_a, w1_b, w2_a, w2_b = (4 * grid(generator, *size) for size in sizes)
        key = f"lycoris_{module.replace('.', '_')}"
        tensors |= {f"{key}.hada_w1_a": w1_a, f"{key}.hada_w1_b": w1_b}
        tensors |= {f"{key}.hada_w2_a": w2_a, f"{key}.hada_w2_b": w2_b}
        tensors[f"{key}.alpha"] = torch.tensor(SCALE * RANK)
        dense[f"{module}.weight"] = SCALE * (w1_a @ w1_b) * (w2_a @ w2_b)
    return Format(tensors, "lycoris loha", dense)


def full_difference() -> Format:
    generator = torch.Generator().manual_seed(7)
    tensors, dense = {}, {}
    for name, weight in tiny_transformer().named_parameters():
        module, _, kind = name.rpartition(".")
        if module:
            dense[name] = grid(generator, *weight.shape)
            ending = "diff" if kind == "weight" else "diff_b"
            key = original(module).replace(".norm_q", ".q_norm").replace(".norm_k", ".k_norm")
            tensors[f"diffusion_model.{key}.{ending}"] = dense[name]
    return Format(tensors, "comfyui diff", dense)


def biased() -> Format:
    """peft's `lora_bias`."""
    generator = torch.Generator().manual_seed(8)
    modules = ("layers.0.adaLN_modulation.0", "cap_embedder.1")
    pairs = {module: CHANGE.pairs[module] for module in modules}
    biases = {module: grid(generator, len(pairs[module][1])) for module in modules}
    tensors = lora_tensors(pairs, dotted("transformer."), alpha=False)
    tensors |= {f"transformer.{module}.lora_B.bias": bias for module, bias in biases.items()}
    dense = Change(pairs).dense() | {f"{module}.bias": bias for module, bias in biases.items()}
    return Format(tensors, "peft lora", dense)


def anime_z() -> Format:
    """`to.q` for `to_q`, and the attention written once more under its original names."""
    tensors = lora_tensors(CHANGE.pairs, lambda module: module.replace(".to_", ".to."), *DOTTED)
    attention = {module: pair for module, pair in fused(CHANGE).items() if module.endswith((".qkv", ".out"))}
    again = lora_tensors(attention, dotted(""), *DOTTED)
    return Format(tensors | again, "peft lora", CHANGE.dense(), redundant=len(again))


def uneven_ranks() -> Format:
    """Modules of two ranks without alpha: each has scale 1."""
    pairs = {
        module: (torch.cat([down, down]), torch.cat([up, up], dim=1)) if "layers.0" in module else (down, up)
        for module, (down, up) in CHANGE.pairs.items()
    }
    tensors = lora_tensors(pairs, dotted("transformer."), alpha=False)
    return Format(tensors, "peft lora", Change(pairs).dense())


def configured(strength: float, **config: object) -> Format:
    """A configuration in the metadata that scales all by 1 / `strength`; the up factors make up for it."""
    tensors = lora_tensors(CHANGE.pairs, dotted("transformer."), alpha=False)
    tensors = {key: value * strength if "lora_B" in key else value for key, value in tensors.items()}
    metadata = peft_metadata(r=RANK, target_modules=list(CHANGE.pairs), peft_type="LORA", **config)
    return Format(tensors, "peft lora", CHANGE.dense(), metadata)


def patterned() -> Format:
    """Ranks and alphas by module in the metadata."""
    modules = ("layers.0.attention.to_q", "layers.1.attention.to_q", "noise_refiner.0.feed_forward.w1")
    pairs = {module: CHANGE.pairs[module] for module in modules}
    metadata = peft_metadata(
        r=8,
        lora_alpha=8,
        rank_pattern={"attention.to_q": RANK, "noise_refiner.0.feed_forward.w1": RANK},
        alpha_pattern={"^layers.0.attention.to_q": 1, "noise_refiner.0.feed_forward.w1": 2},
        target_modules=list(modules),
    )
    scales = dict(zip(modules, (1 / RANK, 8 / RANK, 2 / RANK), strict=True))
    dense = {f"{module}.weight": scales[module] * (up @ down) for module, (down, up) in pairs.items()}
    tensors = {}
    for module, (down, up) in pairs.items():
        tensors |= {f"transformer.{module}.lora_A.weight": down, f"transformer.{module}.lora_B.weight": up}
    return Format(tensors, "peft lora", dense, metadata)


COMFYUI, KOHYA_PREFIX = dotted("diffusion_model."), flat("lora_unet_")

FORMATS: dict[str, Callable[[], Format]] = {
    "peft": lambda: low_rank("peft lora", dotted("transformer."), alpha=False),
    "peft-alpha": lambda: low_rank("peft lora", dotted("transformer.")),
    "peft-bare": lambda: low_rank("peft lora", dotted("")),
    "peft-base-model": lambda: low_rank("peft lora", dotted("base_model.model."), alpha=False),
    "peft-base-model-transformer": lambda: low_rank(
        "peft lora", dotted("base_model.model.transformer."), alpha=False
    ),
    "peft-down-up": lambda: low_rank("peft lora", dotted("transformer."), KOHYA),
    "peft-default": lambda: low_rank("peft lora", dotted(""), DEFAULT, alpha=False),
    "peft-bias": biased,
    "peft-uneven-ranks": uneven_ranks,
    "peft-metadata": lambda: configured(4, lora_alpha=RANK / 4),
    "peft-rslora": lambda: configured(0.5, lora_alpha=4, use_rslora=True),
    "peft-patterns": patterned,
    "dotted": lambda: low_rank("peft lora", dotted("transformer."), DOTTED),
    "dotted-anime-z": anime_z,
    "kohya": lambda: low_rank("kohya lora", KOHYA_PREFIX, KOHYA),
    "kohya-no-alpha": lambda: low_rank("kohya lora", KOHYA_PREFIX, KOHYA, alpha=False),
    "kohya-fused": lambda: low_rank("kohya lora", KOHYA_PREFIX, KOHYA, fuse=True),
    "kohya-transformer": lambda: low_rank("kohya lora", flat("lora_transformer_"), KOHYA),
    "kohya-double-underscore": lambda: low_rank("kohya lora", flat("lora_unet__"), KOHYA),
    "comfyui": lambda: low_rank("comfyui lora", COMFYUI, alpha=False),
    "comfyui-alpha": lambda: low_rank("comfyui lora", COMFYUI),
    "comfyui-original-names": lambda: low_rank("comfyui lora", lambda name: COMFYUI(original(name))),
    "comfyui-fused": lambda: low_rank("comfyui lora", COMFYUI, fuse=True),
    "comfyui-fused-down-up": lambda: low_rank("comfyui lora", COMFYUI, KOHYA, fuse=True),
    "comfyui-model-prefix": lambda: low_rank("comfyui lora", dotted("model.diffusion_model."), fuse=True),
    "comfyui-diff": full_difference,
    "lokr-whole": lambda: kronecker(True, True, COMFYUI, "comfyui lokr"),
    "lokr-split-second": lambda: kronecker(True, False, COMFYUI, "comfyui lokr"),
    "lokr-split-first": lambda: kronecker(False, True, flat("lora_unet_"), "kohya lokr"),
    "lokr-split-both": lambda: kronecker(False, False, flat("lycoris_"), "lycoris lokr"),
    "lokr-fused": fused_kronecker,
    "loha": hadamard,
}
