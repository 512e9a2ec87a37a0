"""What was found of the faster paths on one device, kept for the next start."""

import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from models.inference.denoise.paths import EAGER, PATHS

FILE = "fast-path.json"
KEPT = 20
"""Verdicts in the file, of so many devices and versions; the oldest go first."""
ERROR_TIMES = 1.25
ERROR_MORE = 1e-3
"""A path may be so much farther from float32 than the blocks as they are written: times, and on top."""
FASTER = 0.97
"""Share of their time that a path may take at most, to be worth it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    path: str
    """Name of the path to take."""
    reason: str
    """Why, as a sentence."""
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By path: `ms` and `error`, or `fault`."""

    @classmethod
    def of(cls, measured: Mapping[str, dict[str, Any]], ended: str | None) -> Self:
        """The fastest of the paths that are as exact; `ended` says why the trial ended before its end."""
        eager = measured.get(EAGER.name, {})
        if "ms" not in eager:
            reason = f"The trial of faster paths failed: {ended or eager.get('fault', 'it said nothing')}."
            return cls(EAGER.name, reason, dict(measured))
        most = ERROR_TIMES * eager["error"] + ERROR_MORE
        sound = {
            name: each["ms"] for name, each in measured.items() if "ms" in each and each["error"] <= most
        }
        best = min(sound, key=lambda name: sound[name])
        share = sound[best] / eager["ms"]
        if share <= FASTER:
            return cls(best, f"It takes {share:.2f} of the time of eager blocks here.", dict(measured))
        faults = [ended] if ended else [each["fault"] for each in measured.values() if "fault" in each]
        because = f": {faults[0]}" if faults else ""
        return cls(EAGER.name, f"No other path is as exact and faster here{because}.", dict(measured))


def read(folder: Path, key: Mapping[str, str]) -> Verdict | None:
    """The verdict of this key; None where there is none that can be read."""
    try:
        kept = _read(folder)[_name(key)]
        verdict = Verdict(**kept)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return verdict if verdict.path in {path.name for path in PATHS} else None


def newest(folder: Path) -> Verdict | None:
    """The verdict that was found last, of whatever key."""
    try:
        *_, kept = _read(folder).values()
        return Verdict(**kept)
    except (OSError, ValueError, TypeError):
        return None


def write(folder: Path, key: Mapping[str, str], verdict: Verdict) -> None:
    """Keeps a verdict, whole or not at all; a folder that cannot be written costs the next start a trial."""
    try:
        kept = _read(folder)
    except (OSError, ValueError):
        kept = {}
    kept.pop(_name(key), None)
    newest = [*kept.items(), (_name(key), asdict(verdict))][-KEPT:]
    draft = folder / f"{FILE}.{os.getpid()}.draft"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(dict(newest), indent=1))
        draft.replace(folder / FILE)
    except OSError as error:
        log.warning("what was found of faster paths is not kept: %s", error)
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _read(folder: Path) -> dict[str, Any]:
    kept = json.loads((folder / FILE).read_text())
    if not isinstance(kept, dict):
        raise ValueError("not an object")
    return kept


def _name(key: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(key.items()))
