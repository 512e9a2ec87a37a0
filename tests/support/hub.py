"""A Hugging Face Hub on loopback, for tests: it speaks what `huggingface_hub` really asks for, over HTTP.

    with HubStub() as hub:
        hub.add_repo("owner/style", {"style.safetensors": b"…", "config.json": b"{}"})
        ...                                   # HF_ENDPOINT=hub.url in another process

Served: model info (`/api/models/{repo}[/revision/{rev}]`), file trees, and `resolve` by HEAD and GET with
commit, ETag, size and Range. Large file types (safetensors, pt, …) are redirected to a second server on
another port, as the real hub redirects to its CDN. Whatever can go wrong is asked for (`fail`, `cut`, `slow`,
`gate`, `close`); what came in is in `requests`.

The fixture `hub` starts one, gives this process an empty cache, and points this process and its children at
it; `tests/conftest.py` hands it to every test.
"""

import hashlib
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import pytest

LFS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".gguf")
CHUNK = 64 * 1024


@dataclass(frozen=True)
class Request:
    """One request as it arrived; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    cdn: bool
    """True when it came to the second server, where no token belongs."""


@dataclass(frozen=True)
class StubFile:
    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def blob_id(self) -> str:
        """The id that git gives the file's content."""
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data, usedforsecurity=False).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.blob_id


@dataclass
class Repo:
    repo_id: str
    revisions: dict[str, dict[str, StubFile]] = field(default_factory=dict)
    """Files by commit; `main` is the newest."""
    main: str = ""
    token: str | None = None
    """Needed to read it, when set."""


@dataclass
class Fault:
    """Something that goes wrong with paths that contain `match`, `times` times."""

    match: str
    times: float
    status: int | None = None
    cut_after: int | None = None
    seconds_per_chunk: float = 0.0


class HubStub:
    """The hub; a context manager. `url` is what HF_ENDPOINT is set to."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.closed = False
        self._repos: dict[str, Repo] = {}
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._servers = [_serve(self, cdn=False), _serve(self, cdn=True)]
        self.url, self.cdn_url = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering: from here on the hub is unreachable. May be called twice."""
        self.closed = True
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._servers = []

    def add_repo(self, repo_id: str, files: Mapping[str, bytes | Path]) -> str:
        """Publish `files`, all of them, as the newest commit of `repo_id`; returns the commit's hash."""
        stored = {
            name: StubFile(
                data if isinstance(data, bytes) else data.read_bytes(), lfs=name.endswith(LFS_SUFFIXES)
            )
            for name, data in files.items()
        }
        listing = json.dumps([repo_id, {name: file.etag for name, file in stored.items()}])
        commit = hashlib.sha1(listing.encode(), usedforsecurity=False).hexdigest()
        repo = self._repos.setdefault(repo_id, Repo(repo_id))
        repo.revisions[commit] = stored
        repo.main = commit
        return commit

    def gate(self, repo_id: str, token: str) -> None:
        """From now on `repo_id` is read with this token only."""
        self._repos[repo_id].token = token

    def fail(self, status: int, match: str = "", times: float = float("inf")) -> None:
        """Answer the next `times` requests whose path contains `match` with `status`."""
        self._faults.append(Fault(match, times, status=status))

    def cut(self, match: str, after: int, times: float = 1) -> None:
        """Drop the connection after `after` bytes of the body, `times` times."""
        self._faults.append(Fault(match, times, cut_after=after))

    def slow(self, match: str, seconds_per_chunk: float) -> None:
        """Wait before every CHUNK bytes of the body."""
        self._faults.append(Fault(match, float("inf"), seconds_per_chunk=seconds_per_chunk))

    def heal(self) -> None:
        """Forget every fault."""
        self._faults.clear()

    def downloads(self, match: str = "") -> list[Request]:
        """The GET requests for file contents whose path contains `match`."""
        return [
            request
            for request in self.requests
            if request.method == "GET"
            and match in request.path
            and (request.cdn or ("/resolve/" in request.path and not request.path.endswith(LFS_SUFFIXES)))
        ]

    def _take_fault(self, path: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.times > 0 and fault.match in path:
                    fault.times -= 1
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that leaves in the middle of a body is what some tests are about.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _serve(stub: HubStub, *, cdn: bool) -> ThreadingHTTPServer:
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"stub": stub, "cdn": cdn}))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


class _Handler(BaseHTTPRequestHandler):
    stub: HubStub
    cdn: bool
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        if self.stub.closed:  # a connection from before is still open
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.stub.requests.append(Request(self.command, self.path, headers, self.cdn))
        path = unquote(urlsplit(self.path).path).strip("/")
        fault = self.stub._take_fault(self.path)
        if fault and fault.status:
            self._refuse(fault.status)
        elif path.startswith("api/models/"):
            self._api(path.removeprefix("api/models/").split("/"))
        elif "/resolve/" in path:
            repo_id, _, rest = path.partition("/resolve/")
            revision, _, name = rest.partition("/")
            self._file(repo_id, revision, name, fault)
        else:
            self._refuse(404)

    def _api(self, parts: list[str]) -> None:
        found = self._find("/".join(parts[:2]), parts[3] if len(parts) > 3 else "main")
        if found is None:
            return
        repo, commit, files = found
        if parts[2:3] == ["tree"]:
            self._json([_tree_entry(name, file) for name, file in files.items()])
        else:
            siblings = [_sibling(name, file) for name, file in files.items()]
            self._json({"id": repo.repo_id, "modelId": repo.repo_id, "sha": commit, "siblings": siblings})

    def _file(self, repo_id: str, revision: str, name: str, fault: Fault | None) -> None:
        found = self._find(repo_id, revision)
        if found is None:
            return
        _, commit, files = found
        file = files.get(name)
        headers = {"X-Repo-Commit": commit}
        if file is None:
            self._refuse(404, "EntryNotFound", headers)
        elif file.lfs and not self.cdn:
            headers |= {
                "X-Linked-ETag": f'"{file.etag}"',
                "X-Linked-Size": str(len(file.data)),
                "Location": f"{self.stub.cdn_url}/{repo_id}/resolve/{commit}/{name}",
                "Content-Length": "0",
            }
            self._head(302, headers)
        else:
            self._content(file, headers | {"ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}, fault)

    def _find(self, repo_id: str, revision: str) -> tuple[Repo, str, dict[str, StubFile]] | None:
        """The repository's files at a revision; or None, with the refusal sent."""
        repo = self.stub._repos.get(repo_id)
        if repo is None:
            # As the hub does, which will not tell a stranger's missing repository from a private one.
            self._refuse(401 if "authorization" not in self.headers else 404, "RepoNotFound")
            return None
        if repo.token and not self.cdn and self.headers["authorization"] != f"Bearer {repo.token}":
            self._refuse(403 if "authorization" in self.headers else 401, "GatedRepo")
            return None
        commit = repo.main if revision == "main" else revision
        if commit not in repo.revisions:
            self._refuse(404, "RevisionNotFound")
            return None
        return repo, commit, repo.revisions[commit]

    def _content(self, file: StubFile, headers: dict[str, str], fault: Fault | None) -> None:
        begin = 0
        if wanted := self.headers["range"]:
            begin = int(wanted.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {begin}-{len(file.data) - 1}/{len(file.data)}"
        body = file.data[begin:]
        self._head(206 if wanted else 200, headers | {"Content-Length": str(len(body))})
        if self.command == "HEAD":
            return
        cut = fault.cut_after if fault else None
        end = len(body) if cut is None else cut
        for start in range(0, end, CHUNK):
            if fault:
                time.sleep(fault.seconds_per_chunk)
            self.wfile.write(body[start : min(start + CHUNK, end)])
        if cut is not None:
            self.close_connection = True

    def _json(self, body: Any) -> None:
        data = json.dumps(body).encode()
        self._head(200, {"Content-Type": "application/json", "Content-Length": str(len(data))})
        self.wfile.write(data)

    def _refuse(self, status: int, error_code: str = "", headers: dict[str, str] | None = None) -> None:
        self._head(status, {"X-Error-Code": error_code, "Content-Length": "0"} | (headers or {}))

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _sibling(name: str, file: StubFile) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": name, "size": len(file.data), "blobId": file.blob_id}
    if file.lfs:
        entry["lfs"] = {"sha256": file.sha256, "size": len(file.data), "pointerSize": 134}
    return entry


def _tree_entry(name: str, file: StubFile) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(file.data), "oid": file.blob_id}
    if file.lfs:
        entry["lfs"] = {"oid": file.sha256, "size": len(file.data), "pointerSize": 134}
    return entry


def environment(hub: HubStub, home: Path) -> dict[str, str]:
    """What a child process needs to talk to `hub` alone, with its cache under `home`."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0",
        "NO_PROXY": "127.0.0.1",
    }


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStub]:
    """A hub that this process and its children use, and an empty cache in `tmp_path / "hf"`."""
    home = tmp_path / "hf"
    with HubStub() as stub:
        for name, value in environment(stub, home).items():
            monkeypatch.setenv(name, value)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        # huggingface_hub read its environment when it was imported.
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", stub.url)
        template = stub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_HOME", str(home))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield stub
