"""Settings of the HTTP server; inherits the layers below, so that one object holds every setting."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from worker.config import WorkerSettings


class Settings(WorkerSettings):
    """What `zturbo serve` and `zturbo api` are told."""

    host: str = Field("127.0.0.1", description="Address to listen on; anything but loopback needs a key.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    tls_cert: Path | None = Field(
        None, description="PEM file of a certificate and its chain: the port then speaks HTTPS alone."
    )
    tls_key: Path | None = Field(
        None, description="PEM file of the certificate's key; default: it is in the same file."
    )
    api_keys: str = Field("", description="`name:key,name:key`; empty: any token is taken, on loopback only.")
    api_keys_file: Path | None = Field(None, description="File with one `name:key` a line.")
    public_base_url: str | None = Field(
        None, description="Base of every URL in an answer; default: the caller's own scheme and host."
    )
    trusted_proxies: str = Field(
        "",
        description="IPs or CIDRs, comma separated, of proxies whose X-Forwarded-* headers are believed.",
    )
    allow_origins: str = Field(
        "",
        description="Origins whose web pages may call with a key, comma separated, such as "
        "`https://app.example.com`; default: any. Without keys only this server's own page may.",
    )
    appendfsync: Literal["always", "everysec"] = Field(
        "always",
        description="When `serve`'s own Redis has a submit on disk: before it is answered, or (`everysec`) a "
        "second or two later, which a power cut can cost.",
    )
    max_body_bytes: int = Field(75_000_000, gt=0, description="Largest request body, in bytes.")
    max_in_flight_bytes: int = Field(
        300_000_000,
        gt=0,
        description="Bytes of all callers' bodies and files that one process holds at once, and half as many "
        "of one key; beyond that a call is answered 503. Never less than two of the largest bodies.",
    )
    io_workers: int = Field(
        4,
        ge=1,
        description="CPU processes of `serve` that fetch, encode and store. One is always left to finish "
        "pictures, one to other callers; the others prepare one caller's requests ahead of the GPU.",
    )
