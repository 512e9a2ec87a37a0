"""An estimate of time in round words."""

import math

SHOWN_IN_SECONDS = 100
"""From here on it is told in minutes."""


def duration(seconds: float) -> str:
    """12 s, 3 min, 1 h 20 min."""
    if seconds < SHOWN_IN_SECONDS:
        return f"{math.ceil(seconds)} s"
    hours, minutes = divmod(math.ceil(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
