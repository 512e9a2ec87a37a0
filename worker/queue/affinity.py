"""The weights that a GPU worker holds beside the model, and those that a request needs.

A request goes by preference to where its weights are (worker/queue/lua/next.lua). These are names only; a
wrong one costs nothing but the preference.
"""

import hashlib
from typing import NamedTuple

from models.job import Job


class Weights(NamedTuple):
    controlnet: str = ""
    """Empty: none, or the default one, which is always loaded."""
    loras: str = ""
    """Digest of the set; empty: none."""

    def after(self, needed: "Weights") -> "Weights":
        """What is held once `needed` was loaded: another ControlNet stays until the next."""
        return Weights(needed.controlnet or self.controlnet, needed.loras)


NO_WEIGHTS = Weights()


def needed_by(job: Job, default_controlnet: str) -> Weights:
    controlnet = (job.controlnet_name or "") if job.is_controlled else ""
    if f"{controlnet}/".startswith(f"{default_controlnet}/"):
        controlnet = ""
    merged = sorted((lora.sha256, lora.scale) for lora in job.loras if lora.scale != 0)
    return Weights(controlnet, hashlib.sha256(repr(merged).encode()).hexdigest()[:16] if merged else "")
