"""Which path an engine takes: eager until a trial, in a process of its own, has found a faster one."""

import json
import logging
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import torch

from models.errors import ModelError
from models.inference.denoise.paths import EAGER, candidates, named
from models.inference.device.devices import free_bytes
from models.inference.device.loaded_model import LoadedModel
from models.inference.device.out_of_memory import BROKEN, is_out_of_memory
from models.inference.fast_path.sample import Trial
from models.inference.fast_path.verdict import Verdict, read, write

LIMIT_SECONDS = 600.0
"""After so long a trial is ended; what it has measured by then counts. Most of it a compiler takes."""
NEEDED_BYTES = 2_500_000_000
"""Memory of the device that a trial takes: a context, two blocks and their tokens."""
TOKENS = (4128, 1056)
"""Of pictures of 1024 and 512 pixels square, with a caption of 32."""

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

    @property
    def name(self) -> str:
        return self._model.path.name

    def begin(self, on_found: Callable[[], None]) -> None:
        """Start the trial, unless its verdict is known; `on_found` is called, on any thread, once it is."""
        if not self._paths:
            return
        self._found = read(self._folder, self._key)
        if self._found is not None:
            on_found()
            return
        device = self._model.placement.device
        if device.startswith("cuda") and free_bytes(device) < NEEDED_BYTES:
            self.reason = (
                f"{device} has no {NEEDED_BYTES / 1e9:.1f} GB free, which trying a faster path takes."
            )
            log.info("%s", self.reason)
            return
        self.reason = "A faster path is being tried."
        threading.Thread(target=self._try, args=(on_found,), name="fast-path", daemon=True).start()

    def settle(self) -> None:
        """Take the path that was found. To be called between two requests."""
        found, self._found = self._found, None
        if found is None:
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
        said = str(error).strip().splitlines() or [""]
        self.reason = f"{path} failed: {type(error).__name__}: {said[0]}."
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

    def _try(self, on_found: Callable[[], None]) -> None:
        measured, ended = self._measured()
        self._found = Verdict.of(measured, ended)
        if ended is None:
            # Else it may have been for want of memory, or of time on a busy machine.
            write(self._folder, self._key, self._found)
        on_found()

    def _measured(self) -> tuple[dict[str, dict[str, Any]], str | None]:
        """What the trial's process told before it ended, and why it ended early, if it did."""
        measured: dict[str, dict[str, Any]] = {}
        last: deque[str] = deque(maxlen=1)
        hung = threading.Event()
        command = [sys.executable, "-m", "models.inference.fast_path.canary", self._trial().as_json()]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None and child.stderr is not None  # noqa: S101, PT018 - as asked for
            errors = threading.Thread(
                target=last.extend, args=(filter(str.strip, child.stderr),), daemon=True
            )
            errors.start()

            def end() -> None:
                hung.set()
                child.kill()

            timer = threading.Timer(LIMIT_SECONDS, end)
            timer.daemon = True
            timer.start()
            for line in child.stdout:
                try:
                    told = json.loads(line)
                    measured[told.pop("name")] = told
                except (ValueError, KeyError, AttributeError):
                    continue
            status = child.wait()
            timer.cancel()
            errors.join(1)
        if hung.is_set():
            return measured, f"it was ended after {LIMIT_SECONDS:.0f} s"
        if status:
            return measured, f"its process ended with {status} ({''.join(last).strip() or 'no words'})"
        return measured, None


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
        return Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
    except OSError:
        return "unknown"
