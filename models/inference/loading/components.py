"""The parts of one model, loaded from a folder in the diffusers layout without any network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM
from transformers.utils.logging import disable_progress_bar

from models.errors import CheckpointError
from models.inference.denoise.blocks import round_blocks, use_own_blocks
from models.inference.denoise.float16 import shrink, shrink_stream
from models.inference.denoise.rounding import EightBits, round_matrices
from models.inference.loading.copies import Copies, own_copy
from models.inference.loading.eight_bits import rounded
from models.inference.loading.gguf import SUFFIX as GGUF
from models.inference.loading.gguf import qwen3_names
from models.inference.loading.shrunk import shrunk
from models.inference.loading.single_file import SingleFile, stored_in
from models.inference.loading.tensors import Source, fill, folder_files


@dataclass(frozen=True)
class Components:
    """One model's parts; the control branch is not among them."""

    tokenizer: PreTrainedTokenizerBase
    text_encoder: Qwen3ForCausalLM
    transformer: ZImageTransformer2DModel
    vae: AutoencoderKL
    scheduler: FlowMatchEulerDiscreteScheduler
    stored: Source | None = None
    """The transformer's weights as they are in their files, where LoRAs are to be merged into 8-bit ones."""


@dataclass(frozen=True)
class Files:
    """Single files to use in place of the folder's own weights; their configurations stay the folder's."""

    transformer: Path | None = None
    text_encoder: Path | None = None
    vae: Path | None = None


NO_FILES = Files()


def load_components(
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    copies: Copies,
    files: Files = NO_FILES,
    *,
    eight_bits: EightBits | None = None,
    mapped: bool = False,
) -> Components:
    """Load every part, the transformer on `device`; raises `CheckpointError` naming what is wrong.

    With `eight_bits` the matrices of the transformer and of the text encoder are rounded as they are read.
    They, what is in float16, and what is stored in another type than bfloat16 leave a copy for the next
    start. Then that is what is mapped: files whose tensors are read once need not stay in memory.
    """
    # It would stand among the log's lines.
    disable_progress_bar()  # type: ignore[no-untyped-call]
    # float16 overflows in the autoencoder (its configuration says force_upcast).
    vae_dtype = torch.float32 if dtype == torch.float16 else dtype
    try:
        return Components(
            tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
            text_encoder=load_text_encoder(
                folder / "text_encoder",
                files.text_encoder,
                dtype,
                copies,
                eight_bits=eight_bits,
                # Beside a GPU it is copied from there, at once or whenever it is used.
                mapped=mapped or device.type == "cuda",
            ),
            transformer=load_transformer(
                folder / "transformer",
                files.transformer,
                dtype,
                device,
                copies,
                eight_bits=eight_bits,
                mapped=mapped,
            ),
            vae=load_vae(folder / "vae", files.vae, vae_dtype),
            scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(
                folder / "scheduler", local_files_only=True
            ),
            stored=stored_transformer(folder / "transformer", files.transformer),
        )
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"The model in {folder} cannot be loaded: {error}") from error


def stored_transformer(folder: Path, file: Path | None) -> Source:
    """The transformer's weights by diffusers' names, from a folder or the file that replaces its own."""
    return SingleFile(stored_in([file] if file else folder_files(folder)))


def load_transformer(
    folder: Path,
    file: Path | None,
    dtype: torch.dtype,
    device: torch.device,
    copies: Copies,
    *,
    eight_bits: EightBits | None = None,
    mapped: bool = False,
) -> Any:
    """The transformer, cast tensor by tensor: the published one is 24.6 GB of float32."""
    config = ZImageTransformer2DModel.load_config(folder, local_files_only=True)
    with torch.device("meta"):
        model = use_own_blocks(ZImageTransformer2DModel.from_config(config))
    files = [file] if file else folder_files(folder)
    if eight_bits:
        round_blocks(model, eight_bits)
    if dtype == torch.float16:
        shrink(model)
    copy = own_copy(files, dtype, copies, eight_bits)
    stored = SingleFile(stored_in(files, mapped=mapped and copy is None))
    weights = shrunk(rounded(stored, model), model)
    return fill(model, weights, dtype, device, source=str(file or folder), copy=copy)


def load_text_encoder(
    folder: Path,
    file: Path | None,
    dtype: torch.dtype,
    copies: Copies,
    *,
    eight_bits: EightBits | None = None,
    mapped: bool = False,
) -> Any:
    """The text encoder with its language model head, which is its table of words.

    In float16 its hidden states are smaller by a factor, which the transformer's norm takes out again.
    """
    if file is None and not (eight_bits or mapped or dtype == torch.float16):
        return Qwen3ForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
    config = Qwen3Config.from_pretrained(folder, local_files_only=True)
    # The rotary frequencies are buffers that are in no file.
    with init_empty_weights(include_buffers=False):
        model: Any = Qwen3ForCausalLM(config)
    files = [file] if file else folder_files(folder)
    if eight_bits:
        round_matrices(model.model, eight_bits)
    if dtype == torch.float16:
        shrink_stream(model)
    copy = own_copy(files, dtype, copies, eight_bits)
    stored = stored_in(files, mapped=mapped and copy is None)
    names = [name for name, _ in model.model.named_parameters()]
    theirs = qwen3_names(names, config.num_hidden_layers) if files[0].suffix == GGUF else None
    weights = shrunk(rounded(SingleFile(stored, ["model."], theirs), model.model), model.model)
    unused = "lm_head.", "output."
    fill(model.model, weights, dtype, "cpu", source=str(file or folder), unused=unused, copy=copy)
    model.tie_weights()
    return model


def load_vae(folder: Path, file: Path | None, dtype: torch.dtype) -> Any:
    """The autoencoder; a single file may have the names of the latent diffusion authors' code."""
    if file is None:
        return AutoencoderKL.from_pretrained(folder, torch_dtype=dtype, local_files_only=True)
    return AutoencoderKL.from_single_file(str(file), config=str(folder), torch_dtype=dtype)
