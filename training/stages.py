"""The stages in their order, each resumable by itself and skipped when it is done."""

import copy
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from diffusers import AutoencoderKL, ZImageTransformer2DModel

from models.inference.denoise.blocks import use_own_blocks
from training import text_encoder, train_autoencoder, train_base
from training.control_data import ControlShard, load_control_shards
from training.export import CONTROLNETS, export
from training.judge import train_judge
from training.latents import Shard, load_shards
from training.presets import Preset
from training.runtime import Runtime
from training.sheet import Sheet, held_out_scenes
from training.text_encoder import embed
from training.train_control import train_control
from training.train_decoder import train_decoder
from training.train_expansion import train_expansion
from training.train_lora import train_loras

STAGES: Final = (
    "autoencoder", "text", "base", "guided", "decoder", "control", "control21", "lora", "export", "judge",
)  # fmt: skip
_SHEET_SCENES: Final = 32


class Stages:
    """Runs stages; what an earlier stage made is loaded, or made, when a later one asks for it.

    `start` is a bundle: its text encoder is kept, the other parts go on from its weights.
    """

    def __init__(self, preset: Preset, folder: Path, out: Path, runtime: Runtime, start: Path | None) -> None:
        self._preset, self._folder, self._out, self._runtime = preset, folder, out, runtime
        self._start = start

    def run(self, stage: str) -> None:
        run = (self._preset, self._folder, self._runtime)
        match stage:
            case "autoencoder":
                _ = self.vae
            case "text":
                _ = self.text
            case "base":
                _ = self.base
            case "guided":
                _ = self.transformer
            case "decoder":
                _ = self.drawing_vae
            case "control":
                self._train_control("1.0")
            case "control21":
                self._train_control("2.1")
            case "lora":
                train_loras(*run, self.transformer, self.base, self.vae, *self.text)
            case "judge":
                train_judge(*run, self.drawing_vae)
            case "export":
                size = export(
                    self._preset, self._folder, self._out, self._runtime.device,
                    self._start is not None, self.drawing_vae, self.text, self.transformer,
                )  # fmt: skip
                print(f"{self._out}: {size / 1e6:.1f} MB")

    def _train_control(self, variant: str) -> None:
        name = CONTROLNETS["control" if variant == "1.0" else "control21"]
        train_control(
            self._preset, self._folder, self._runtime, self.control_shards, self.transformer, self.base,
            variant, self._of_start(f"{name}.safetensors"),
        )  # fmt: skip

    def _of_start(self, part: str) -> Path | None:
        return self._start / part if self._start is not None else None

    @cached_property
    def vae(self) -> AutoencoderKL:
        return train_autoencoder.train(self._preset, self._folder, self._runtime, self._of_start("vae"))

    @cached_property
    def drawing_vae(self) -> AutoencoderKL:
        """The autoencoder whose decoder knows the transformer."""
        vae = copy.deepcopy(self.vae)
        return train_decoder(self._preset, self._folder, self._runtime, vae, *self.text, self.transformer)

    @cached_property
    def text(self) -> tuple[Any, Any]:
        """Text encoder and tokenizer."""
        if self._start is not None:
            return text_encoder.load(self._start, self._runtime)
        encoder, tokenizer = text_encoder.train(self._preset, self._folder, self._runtime)
        train_expansion(self._preset, self._folder, self._runtime, encoder, tokenizer)
        return encoder, tokenizer

    @cached_property
    def shards(self) -> list[Shard]:
        return load_shards(self._preset, self._folder, self._runtime, self.vae, *self.text)

    @cached_property
    def control_shards(self) -> list[ControlShard]:
        return load_control_shards(self._preset, self._folder, self._runtime, self.vae, *self.text)

    @cached_property
    def sheet(self) -> Sheet:
        scenes = held_out_scenes(_SHEET_SCENES)
        return Sheet(self._folder / "sheets", self._preset.size, self.vae, *self.text, scenes)

    @cached_property
    def base(self) -> ZImageTransformer2DModel:
        return train_base.train_base(
            self._preset, self._folder, self._runtime, self.shards, embed(*self.text, [""])[0], self.sheet,
            self._of_start("transformer"),
        )  # fmt: skip

    @cached_property
    def transformer(self) -> ZImageTransformer2DModel:
        finished = self._folder / "transformer"
        if finished.exists():
            loaded = ZImageTransformer2DModel.from_pretrained(finished).to(self._runtime.device)
            return use_own_blocks(loaded)
        return train_base.train_guided(
            self._preset,
            self._folder,
            self._runtime,
            self.shards,
            embed(*self.text, [""])[0],
            self.sheet,
            self.base,
        )
