"""The settings of the model layer: which weights it uses, where they are and on which device they run."""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

DEFAULT_MODEL = "Tongyi-MAI/Z-Image-Turbo"
DEFAULT_CONTROLNET = "alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union"


def default_data_dir() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "zturbo"


class ModelSettings(BaseSettings):
    """Read from `ZTURBO_…` variables and `.env`; the layers above inherit: one object holds every setting."""

    model_config = SettingsConfigDict(
        env_prefix="ZTURBO_", env_file=".env", env_ignore_empty=True, extra="ignore", validate_default=True
    )

    data_dir: Path = Field(
        default_factory=default_data_dir, description="Where everything this server writes is kept."
    )
    model: str = Field(
        "auto", description="`auto`, `z-image-turbo`, `demo`, a hub id, or a folder in the diffusers layout."
    )
    controlnet: str = Field(
        DEFAULT_CONTROLNET, description="ControlNet used when a request names none: hub id or file."
    )
    lora_dir: Path | None = Field(None, description="Folder of local LoRA files; default: DATA_DIR/loras.")
    transformer: Path | None = Field(
        None, description="Single file to use in place of the model's own transformer, fused or fp8 as well."
    )
    text_encoder: Path | None = Field(
        None, description="Single file to use in place of the model's own text encoder."
    )
    vae: Path | None = Field(None, description="Single file to use in place of the model's own autoencoder.")
    device: str = Field("auto", description="`auto`, `cpu`, `cuda`, `cuda:1`, `mps`.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description=(
            "Type of the weights. auto: bfloat16 on a GPU, or float16 where it has none; on a CPU float32 "
            "for small models, for large ones what it multiplies faster of float32 and bfloat16."
        ),
    )
    quantization: Literal["auto", "off", "int8", "fp8"] = Field(
        "auto",
        description=(
            "Weights in 8 bits, multiplied in 8 bits, and the rest in ZTURBO_DTYPE: half the memory of "
            "bfloat16, and about 0.6 of its time on a CPU. fp8: on GPUs of compute capability 8.9 and later, "
            "not yet tried on one. auto, where ZTURBO_DTYPE is auto too: on a CPU and on Apple's GPU "
            "where a large model's files have no more or 16 bits no room; off on other GPUs, untried there."
        ),
    )
    fast_path: Literal["auto", "off"] = Field(
        "auto",
        description=(
            "Whether faster ways to run the model (compiled blocks, CUDA graphs, other attention kernels) "
            "are tried on a GPU, in a process beside, and taken where they are as exact and faster. "
            "Not yet tried on a GPU."
        ),
    )
    max_cache_bytes: int = Field(
        50_000_000_000,
        gt=0,
        description=(
            "Disk for LoRAs fetched for callers, from URLs and the hub, and for copies of the weights in "
            "fewer bits; the longest unused go first."
        ),
    )
    reuse_bytes: int = Field(
        256_000_000,
        ge=0,
        description=(
            "Host memory of a GPU worker for what comes again: embeddings of prompts, control maps and their "
            "latents; 0 keeps none."
        ),
    )
    depth_backend: Literal["midas", "depth-anything-v2"] = Field(
        "midas", description="Which network makes depth maps."
    )
    prompt_llm_url: str | None = Field(
        None,
        description=(
            "Base URL of an OpenAI-compatible server that expands prompts, such as "
            "`http://127.0.0.1:11434/v1`; default: the model's own text encoder does."
        ),
    )
    prompt_llm_model: str = Field(
        "qwen3:4b", description="Model that the server at PROMPT_LLM_URL is asked for."
    )
    prompt_llm_key: SecretStr | None = Field(
        None, description="Bearer token for the server at PROMPT_LLM_URL."
    )

    @field_validator("dtype", mode="before")
    @classmethod
    def _not_quantized(cls, value: Any) -> Any:
        if value == "int8":
            raise PydanticCustomError(
                "int8", "int8 is no type any more; set ZTURBO_QUANTIZATION=int8 instead"
            )
        return value

    @property
    def loras_path(self) -> Path:
        return self.lora_dir or self.data_dir / "loras"
