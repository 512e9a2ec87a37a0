"""A proxy before Redis that lets a command through and loses its reply, as a broken connection does."""

import hashlib
import shutil
import socket
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import redis

from worker.queue.scripts import script_source


class ReplyDropper:
    """Listens on a Unix socket at `url`. `drop` arms it; `dropped` counts the replies that were lost."""

    def __init__(self, redis_url: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="zturbo-test-proxy-"))
        self.url = f"unix://{self._folder}/redis.sock"
        self.dropped = 0
        self._upstream = redis_url.removeprefix("unix://")
        self._client = redis.Redis.from_url(redis_url)
        self._digest = b""
        self._armed = 0
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._folder / "redis.sock"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self, script: str, times: int = 1) -> None:
        """Lose the replies of the next so many calls of that script."""
        source = script_source(script)
        # Else the first call would be answered by "no such script".
        self._client.script_load(source)
        self._digest = hashlib.sha1(source.encode()).hexdigest().encode()  # noqa: S324 - Redis's own choice
        self._armed = times

    def close(self) -> None:
        """Call it when the clients are closed."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)
        self._client.close()
        shutil.rmtree(self._folder)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(near,), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _serve(self, near: socket.socket) -> None:
        with near, socket.socket(socket.AF_UNIX) as far, suppress(OSError):
            far.connect(self._upstream)
            replies = threading.Thread(target=_pass_on, args=(far, near), daemon=True)
            replies.start()
            while data := near.recv(1 << 20):
                lost = self._is_to_be_lost(data)
                if lost:
                    # To the caller the connection breaks after the command was sent.
                    near.shutdown(socket.SHUT_RDWR)
                far.sendall(data)
                if lost:
                    break
            far.shutdown(socket.SHUT_WR)
            replies.join()

    def _is_to_be_lost(self, data: bytes) -> bool:
        with self._lock:
            if not self._armed or b"EVALSHA" not in data or self._digest not in data:
                return False
            self._armed -= 1
            self.dropped += 1
            return True


def _pass_on(far: socket.socket, near: socket.socket) -> None:
    with suppress(OSError):
        while data := far.recv(1 << 20):
            near.sendall(data)
        near.shutdown(socket.SHUT_RDWR)
