"""The control maps that this machine cannot make yet, since their detectors' weights are not on it."""

from collections.abc import Iterator

from models.command import zturbo
from models.config import ModelSettings
from models.weights.hub import cached_file
from models.weights.published import (
    BODY_POSE_FILE,
    DEPTH_ANYTHING,
    DETECTORS,
    GB,
    MIDAS_FILE,
    MODEL,
    Published,
    find_controlnet,
)


def pull_command() -> str:
    """The command that fetches what is missing."""
    return f"{zturbo()} pull detectors"


def missing_detectors(settings: ModelSettings) -> dict[str, int]:
    """By `preprocess` that needs weights which are not here: the bytes that `pull_command` downloads, about.

    Nothing is loaded, and the hub is not asked. Raises OSError for a cache that cannot be read.
    """
    depth = DEPTH_ANYTHING if settings.depth_backend == "depth-anything-v2" else MIDAS_FILE
    missing = {row.about: row for row in DETECTORS if any(_missing_files(row))}
    size = sum(row.size for row in missing.values())
    needed = {"depth": depth, "pose": BODY_POSE_FILE}
    return {
        preprocess: size
        for preprocess, wanted in needed.items()
        if any(wanted in (row.repo_id, *row.files) for row in missing.values())
    }


def missing_bytes(settings: ModelSettings, *, model: bool) -> int:
    """What `zturbo pull` would download, about: of detectors, the default ControlNet and, if so, the model.

    Raises OSError for a cache that cannot be read.
    """
    rows = [row for row in DETECTORS if any(_missing_files(row))]
    controlnet = find_controlnet(settings.controlnet)
    if controlnet and cached_file(controlnet.repo_id, None) is None:
        rows.append(controlnet)
    return sum(row.size for row in [*rows, *([MODEL] if model else [])])


def detector_fault(preprocess: str, size: int) -> str:
    """The sentence for who asks for a map that cannot be made yet; `size` as `missing_detectors` has it."""
    return (
        f"preprocess: this server cannot make {preprocess} maps yet: it lacks the detector's weights. "
        f"`{pull_command()}` on it fetches them ({size / GB:.1f} GB); none and canny need no weights."
    )


def _missing_files(row: Published) -> Iterator[str]:
    return (name for name in row.files if cached_file(row.repo_id, name) is None)
