"""`python -m benchmarks.server.bare FD URL`: a FastAPI application with one round trip to Redis.

The floor that a submit is compared with: same uvicorn, same body, an answer as long.
"""

import json
import socket
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI

from app.config import Settings
from app.http.server import server_config
from worker.queue.connection import connect_async


def bare_app(redis_url: str) -> FastAPI:
    app = FastAPI()
    client = connect_async(redis_url)

    @app.post("/")
    async def answer(body: dict[str, Any]) -> dict[str, str]:
        await client.set("bare", json.dumps(body))
        return dict.fromkeys(("request_id", "status_url", "result_url", "cancel_url"), "http://localhost" * 4)

    return app


if __name__ == "__main__":
    fd, redis_url = sys.argv[1:]
    config = server_config(bare_app(redis_url), Settings(_env_file=None))
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(fd))])
