"""A status body in a few words: for a bar, a line of the command line, an MCP client."""

import math
from typing import Any

SHOWN_IN_SECONDS = 100
"""Estimates from here on are told in minutes."""


def describe(status: dict[str, Any]) -> str:
    """The state, the place in line and the time left, as far as the body has them."""
    words = [str(status["status"]).replace("_", " ")]
    if (ahead := status.get("queue_position")) is not None:
        words.append(f"{ahead} ahead")
    if (seconds := status.get("eta_seconds")) is not None:
        words.append(f"about {duration(seconds)} left")
    return ", ".join(words)


def duration(seconds: float) -> str:
    """An estimate in round words: 12 s, 3 min, 1 h 20 min."""
    if seconds < SHOWN_IN_SECONDS:
        return f"{math.ceil(seconds)} s"
    hours, minutes = divmod(math.ceil(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
