"""A status body in a few words: for a bar, a line of the command line, an MCP client."""

from typing import Any

from models.duration import duration


def describe(status: dict[str, Any]) -> str:
    """The state, the place in line, the time left and what it waits for, as far as the body has them."""
    words = [str(status["status"]).replace("_", " ")]
    if (ahead := status.get("queue_position")) is not None:
        words.append(f"{ahead} ahead")
    if (seconds := status.get("eta_seconds")) is not None:
        words.append(f"about {duration(seconds)} left")
    if note := status.get("note"):
        words.append(note[0].lower() + note[1:].rstrip("."))
    return ", ".join(words)
