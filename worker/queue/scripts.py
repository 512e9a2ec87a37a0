"""The Lua scripts of `lua/`, which are the only writers of records: their sources, and running them."""

from functools import cache
from pathlib import Path
from typing import Any

import redis
import redis.asyncio

from worker.queue.doorbell import BELL_LISTS
from worker.queue.keys import lua_header

_LUA = Path(__file__).parent / "lua"


@cache
def script_source(name: str) -> str:
    """A script with what stands in front of every one."""
    return lua_header() + (_LUA / "lib.lua").read_text() + (_LUA / f"{name}.lua").read_text()


class Scripts:
    """The scripts in `lua/` on one client, which may be an async one: then `run` returns an awaitable."""

    def __init__(self, client: "redis.Redis | redis.asyncio.Redis") -> None:
        self._client = client
        self._registered: dict[str, Any] = {}

    def run(self, name: str, *args: str | int | float) -> Any:
        script = self._registered.get(name)
        if script is None:
            script = self._registered[name] = self._client.register_script(script_source(name))
        return script(keys=BELL_LISTS, args=args)
