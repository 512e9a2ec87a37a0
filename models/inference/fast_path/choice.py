"""Which path an engine takes: eager until a trial, in a process of its own, has found a faster one."""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import torch

from models.errors import ModelError
from models.gpus import drivers
from models.inference.denoise.paths import EAGER, candidates, named
from models.inference.device.devices import free_cache, used_bytes
from models.inference.device.loaded_model import LoadedModel
from models.inference.device.out_of_memory import BROKEN, is_out_of_memory
from models.inference.fast_path.process import TrialProcess
from models.inference.fast_path.sample import Trial
from models.inference.fast_path.verdict import Verdict, read, write

NEEDED_BYTES = 3_000_000_000
"""Memory of the device that a trial takes, an estimate: a context of 0.5 GB, and then a block in float32 and
its tokens, 1.8; or two blocks in 16 bits, 0.8, the decoder, 0.2, and what is alive between them, 1.2."""
AGAIN_SECONDS = 600.0
"""So long after a trial had no memory another one may begin, when no request waits."""
GIVES_WAY = "a request needed the memory that it had"
TOKENS = (4128, 1056)
"""Of pictures of 1024 and 512 pixels square, with a caption of 32."""

LINUX_DRIVER = Path("/proc/driver/nvidia/version")
UNKNOWN = "unknown"

T = TypeVar("T")

log = logging.getLogger(__name__)


class Choice:
    """The path of one model. `reason` says why it is that one, as a sentence."""

    def __init__(self, model: LoadedModel, folder: Path, setting: str) -> None:
        """`folder` keeps verdicts; `setting` is `auto` or `off`."""
        self._model = model
        self._folder = folder
        placed = model.placement
        tried = candidates(placed.device, streams=placed.held_bytes is not None, precision=placed.precision)
        self._paths = tried if setting == "auto" else ()
        self.reason = (
            "ZTURBO_FAST_PATH=off." if setting == "off" else "No other path is tried on this device."
        )
        self._key = _key(model) if self._paths else {}
        self._found: Verdict | None = None
        self._on_found: Callable[[], None] = lambda: None
        self._process: TrialProcess | None = None
        self._is_alone = True
        """False where a request was denoised while the last trial ran: both were slower for it."""
        self._again_at = math.inf
        """When a trial that had no memory may begin, by the monotonic clock."""
        model.givers.append(self._give_way)

    @property
    def name(self) -> str:
        return self._model.path.name

    def begin(self, on_found: Callable[[], None]) -> None:
        """Start the trial, unless its verdict is known; `on_found` is called, on any thread, once it is.

        Where the device has no room for it, it waits for a later `settle`.
        """
        if not self._paths:
            return
        self._on_found = on_found
        # Of a driver that nobody names a verdict may be another's.
        self._found = None if self._key.get("driver") == UNKNOWN else read(self._folder, self._key)
        if self._found is not None:
            on_found()
        else:
            self._start()

    def _start(self) -> None:
        self._again_at = math.inf
        device = self._model.placement.device
        if device.startswith("cuda"):
            # What PyTorch keeps for reuse no other process can have.
            free_cache()
            used, total = used_bytes(device)
            if total - used < NEEDED_BYTES:
                self._put_off(
                    f"{device} has no {NEEDED_BYTES / 1e9:.1f} GB free, which trying a faster path takes"
                )
                return
        self.reason = "A faster path is being tried."
        self._is_alone = True
        self._process = TrialProcess(self._trial())
        thread = threading.Thread(target=self._try, args=(self._process,), name="fast-path", daemon=True)
        thread.start()

    def _put_off(self, reason: str) -> None:
        sentence = f"{reason}; it is tried again when it is quiet."
        if sentence != self.reason:
            log.info("%s", sentence)
        self.reason = sentence
        self._again_at = time.monotonic() + AGAIN_SECONDS

    def _give_way(self) -> None:
        """End a trial that is under way: a request has no memory, and should not be made with less for it."""
        if self._process is not None:
            self._process.end(GIVES_WAY)

    def settle(self) -> None:
        """Take the path that was found. To be called between two requests."""
        found, self._found = self._found, None
        if found is None:
            if time.monotonic() >= self._again_at:
                self._start()
            return
        self.reason = found.reason
        if found.path == EAGER.name:
            log.info("blocks run eager: %s", found.reason)
            return
        try:
            with torch.no_grad():
                self._model.use(named(found.path))
        except Exception as error:
            self._give_up(found.path, error)
            return
        if self.name != found.path:
            self.reason = f"Of {found.path} a captured step failed, or was another than a compiled one."
            write(self._folder, self._key, Verdict(self.name, self.reason))
        log.info("blocks run %s: %s", self.name, self.reason)

    def run(self, work: Callable[[], T]) -> T:
        """`work()`; where the path in use fails, eager for good, and the work done again."""
        self._is_alone = False
        try:
            return work()
        except ModelError:
            raise
        except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:
            if self._model.path == EAGER or any(words in str(error) for words in BROKEN):
                raise
            self._give_up(self.name, error)
        return work()

    def _give_up(self, path: str, error: Exception) -> None:
        said, *_ = str(error).strip().splitlines() or [""]
        self.reason = f"{path} failed: {type(error).__name__}: {said.removesuffix('.')}."
        log.warning("blocks run eager from now on: %s", self.reason)
        self._model.use(EAGER)
        if not is_out_of_memory(error):
            write(self._folder, self._key, Verdict(EAGER.name, self.reason))

    def _trial(self) -> Trial:
        model, placement = self._model, self._model.placement
        with model.autoencoder(0) as vae:
            # Elsewhere its decoder runs as it is written.
            decoder = _settings(vae.config) if placement.device.startswith("cuda") else None
            vae_dtype = str(vae.dtype).removeprefix("torch.")
        return Trial(
            device=placement.device,
            dtype=placement.dtype,
            eight_bits=placement.eight_bits,
            streams=placement.held_bytes is not None,
            transformer=_settings(model.transformer.config),
            vae=decoder,
            vae_dtype=vae_dtype,
            tokens=TOKENS,
            paths=tuple(path.name for path in self._paths),
        )

    def _try(self, process: TrialProcess) -> None:
        measured, ended = process.run()
        found = Verdict.of(measured, ended)
        short = ended is not None and (ended == GIVES_WAY or is_out_of_memory(RuntimeError(ended)))
        alone, eager = self._is_alone, found.path == EAGER.name
        if eager and short:
            self._put_off(f"There was no memory for trying a faster path: {ended}")
            return
        if eager and ended is None and not alone:
            self._put_off(f"Beside requests no other path was faster: {found.reason.removesuffix('.')}")
            return
        if ended is None and alone:
            # Else it may have been for want of memory, or of time on a busy machine or card.
            write(self._folder, self._key, found)
        self._found = found
        self._on_found()


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what diffusers notes beside it, such as a path."""
    return {name: value for name, value in config.items() if not name.startswith("_")}


def _key(model: LoadedModel) -> dict[str, str]:
    """All that a verdict depends on."""
    placement = model.placement
    key = {
        "device": placement.device.partition(":")[0],
        "dtype": placement.precision,
        "streams": str(placement.held_bytes is not None),
        "width": str(model.transformer.config.dim),
        "torch": torch.__version__,
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
    }
    for package in ("zturbo", "diffusers", "triton"):
        try:
            key[package] = version(package)
        except PackageNotFoundError:
            key[package] = "none"
    if placement.device.startswith("cuda"):
        card = torch.cuda.get_device_properties(placement.device)
        key |= {"card": card.name, "capability": f"{card.major}.{card.minor}", "driver": _driver()}
    return key


def _driver() -> str:
    try:
        return LINUX_DRIVER.read_text().splitlines()[0]
    except OSError:
        # Under Windows Linux has none, and the version of Windows' own is there for the asking.
        return ", ".join(drivers()) or UNKNOWN
