"""The scale of an adapter, read from peft's configuration in a file's metadata."""

import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from models.errors import LoraError

ADAPTER_METADATA = "lora_adapter_metadata"
"""The field where diffusers' `save_lora_weights` writes it, as JSON, each key after the component's name."""
PREFIX = "transformer."


def literal_pattern(pattern: str) -> str:
    """Check that a pattern is a plain name: a regular expression from a stranger's file can run for ever."""
    if not re.fullmatch(r"\^?[\w.-]+", pattern):
        raise ValueError("is no plain module name")
    return pattern


Pattern = Annotated[str, AfterValidator(literal_pattern)]


class AdapterConfig(BaseModel):
    """The fields of peft's `LoraConfig` and `LoKrConfig` that scale an adapter, with peft's own defaults."""

    peft_type: Literal["LORA", "LOKR", "LOHA"] = "LORA"
    r: Annotated[int, Field(ge=1)] = 8
    lora_alpha: float = 8
    alpha: float = 8
    rank_pattern: dict[Pattern, Annotated[int, Field(ge=1)]] = {}
    alpha_pattern: dict[Pattern, float] = {}
    use_rslora: bool = False
    use_dora: bool = False

    def scaling(self, module: str) -> float:
        """alpha / rank of one module, or alpha / sqrt(rank) under rsLoRA (arXiv 2312.03732)."""
        default = self.lora_alpha if self.peft_type == "LORA" else self.alpha
        alpha = _by_name(self.alpha_pattern, module, default)
        rank = _by_name(self.rank_pattern, module, self.r)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def _by_name(patterns: Mapping[str, float], module: str, default: float) -> float:
    """The value of the first pattern that the module's dotted name ends with (with `^`: that it is)."""
    for pattern, value in patterns.items():
        if module == pattern.removeprefix("^") or f".{module}".endswith(f".{pattern}"):
            return value
    return default


def read_config(metadata: Mapping[str, str]) -> AdapterConfig | None:
    """The transformer's adapter configuration in a header's metadata; a LoraError is a predicate."""
    text = metadata.get(ADAPTER_METADATA)
    if not text:
        return None
    try:
        stated = json.loads(text)
        fields = {key.removeprefix(PREFIX): value for key, value in stated.items() if key.startswith(PREFIX)}
        config = AdapterConfig.model_validate(fields) if fields else None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise LoraError(
            f"says in its metadata ({ADAPTER_METADATA}) a `{where}` that cannot be used: {first['msg']}"
        ) from error
    except (ValueError, AttributeError, RecursionError) as error:
        raise LoraError(f"has metadata ({ADAPTER_METADATA}) that is no JSON object: save it again") from error
    if config and config.use_dora:
        raise LoraError("holds DoRA (says its metadata), which is not supported: save it as a plain LoRA")
    return config
