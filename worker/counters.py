"""The counters of a worker process, which it tells with its registration and /metrics shows.

What happens to requests is counted by the scripts that make it happen, once for each, in Redis.
"""

import threading
from collections import Counter

_counts: Counter[str] = Counter()
_lock = threading.Lock()


def count(name: str, *labels: str) -> None:
    """One more of `name`, since this process began. Labels are a handful of fixed words, never a caller's."""
    with _lock:
        _counts["|".join((name, *labels))] += 1


def counted() -> dict[str, int]:
    """`name|label|label` -> how many."""
    with _lock:
        return dict(_counts)
