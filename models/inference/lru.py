"""A cache of what one request computed and another may ask for again, bounded in bytes of host memory.

What was used longest ago goes first. Keys hold everything that the value depends on, so that a request gets
the same bytes with and without the cache.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar, cast


class Sized(Protocol):
    """An array or a tensor."""

    @property
    def nbytes(self) -> Any: ...


T = TypeVar("T", bound=Sized)


class LruCache:
    """A cache for one thread. Values are handed out as they are kept: nobody may change one."""

    def __init__(self, max_bytes: int) -> None:
        self.lookups: Counter[str] = Counter()
        """The counts of `kind|hit` and `kind|miss` since the cache was made."""
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[Hashable, Sized] = OrderedDict()

    def get(self, kind: str, key: Hashable, make: Callable[[], T]) -> T:
        """What is kept under a kind and a key, or else what `make()` makes; one too large is not kept."""
        place = (kind, key)
        if place in self._kept:
            self.lookups[f"{kind}|hit"] += 1
            self._kept.move_to_end(place)
            return cast(T, self._kept[place])
        self.lookups[f"{kind}|miss"] += 1
        made = make()
        if made.nbytes <= self._max_bytes:
            self._kept[place] = made
            self._bytes += made.nbytes
        while self._bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.nbytes
        return made
