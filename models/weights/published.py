"""The checkpoints that this server knows by name: where they are published and what they consist of.

Sizes are rounded, for telling an operator what a download will cost; the hub's own are used to download.
"""

from dataclasses import dataclass

from models.config import DEFAULT_CONTROLNET, DEFAULT_MODEL

GB = 10**9
MB = 10**6


@dataclass(frozen=True)
class Published:
    """One repository on the hub."""

    repo_id: str
    about: str
    size: int
    """Bytes to download, about."""
    files: tuple[str, ...] = ()
    """The files that are wanted; empty: the repository's own choice."""
    former_ids: tuple[str, ...] = ()
    """Names that it had before, which callers still send."""


CONTROLNET_2_1 = f"{DEFAULT_CONTROLNET}-2.1"

MIDAS_FILE = "dpt_hybrid-midas-501f0c75.pt"
BODY_POSE_FILE = "body_pose_model.pth"
HAND_POSE_FILE = "hand_pose_model.pth"
FACE_FILE = "facenet.pth"
DEPTH_ANYTHING = "depth-anything/Depth-Anything-V2-Small-hf"

MODEL = Published(
    DEFAULT_MODEL, "Z-Image-Turbo: transformer (float32), text encoder, autoencoder", int(32.8 * GB)
)

CONTROLNETS = (
    Published(DEFAULT_CONTROLNET, "ControlNet-Union 1.0", int(3.1 * GB)),
    Published(
        CONTROLNET_2_1,
        "ControlNet-Union 2.1, distilled to 8 steps",
        int(6.7 * GB),
        former_ids=(f"{DEFAULT_CONTROLNET}-2.0",),
    ),
)

DETECTORS = (
    Published("lllyasviel/Annotators", "MiDaS depth detector", 493 * MB, files=(MIDAS_FILE,)),
    Published(
        "lllyasviel/Annotators",
        "OpenPose detector (not for commercial use)",
        510 * MB,
        files=(BODY_POSE_FILE, HAND_POSE_FILE, FACE_FILE),
    ),
    Published(
        DEPTH_ANYTHING,
        "Depth Anything V2 depth detector",
        99 * MB,
        files=("config.json", "preprocessor_config.json", "model.safetensors"),
    ),
)


def find_controlnet(repo_id: str) -> Published | None:
    """The known ControlNet that has, or had, this id; the hub does not tell upper case from lower either."""
    wanted = repo_id.casefold()
    for published in CONTROLNETS:
        if wanted in (name.casefold() for name in (published.repo_id, *published.former_ids)):
            return published
    return None
