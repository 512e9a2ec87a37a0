"""Settings of the request's life: Redis, storage, fetching, leases."""

from pathlib import Path

from pydantic import Field

from models.config import ModelSettings
from worker.logs import LogFormat

DAY_SECONDS = 86_400


class WorkerSettings(ModelSettings):
    """Everything `ModelSettings` has, and what the queue and the stages need."""

    redis_url: str | None = Field(
        None, description="`redis://…`, `rediss://…` or `unix://…`; without it `serve` starts its own server."
    )
    storage: str = Field(
        "",
        pattern=r"^(s3://[^/]+(/.*)?)?$",
        description=(
            "`s3://bucket/folder`: an S3-compatible store for pictures, uploads and what goes from stage to "
            "stage, which workers on several machines share; default: DATA_DIR."
        ),
    )
    max_queue: int = Field(
        1000,
        ge=1,
        description="Requests waiting at most; more are answered with 429, except a key's first.",
    )
    max_queue_per_key: int | None = Field(
        None, ge=1, description="Requests of one key waiting at most; default: as many as wait at all."
    )
    max_submits_per_minute: int | None = Field(
        None, ge=1, description="Requests that one key may submit in a minute; default: any number."
    )
    lease_seconds: float = Field(30.0, gt=0, description="A worker silent for this long loses its request.")
    drain_seconds: float = Field(
        20.0, ge=0, description="Time a stopping worker may take to end its stage before it hands it back."
    )
    stall_seconds: float = Field(
        600.0,
        gt=0,
        description=(
            "A picture of which nothing is heard for this long, no step and on a CPU or Apple's GPU no "
            "layer, is cut off, and its worker restarted; between two steps after 20 times the slowest one, "
            "at least a minute."
        ),
    )
    idle_seconds: int | None = Field(
        None,
        ge=1,
        description=(
            "Seconds without work after which a gpu worker gives its memory back, on the GPU and off it, and "
            "sleeps until the next request, which waits until the model is loaded again; default: never."
        ),
    )
    max_attempts: int = Field(3, ge=1, description="Times a stage is tried before its request fails.")
    retention_days: float = Field(
        7.0, gt=0, description="Days after which a request and its files are deleted."
    )
    allow_hosts: str = Field(
        "", description="Hosts, IPs or CIDRs on private networks that may be fetched from, comma separated."
    )
    max_image_bytes: int = Field(50_000_000, gt=0, description="Largest image that is fetched, in bytes.")
    max_lora_bytes: int = Field(4_000_000_000, gt=0, description="Largest LoRA that is fetched, in bytes.")
    max_image_cache_bytes: int = Field(
        1_000_000_000,
        ge=0,
        description="Disk for images fetched from URLs; at each use their server is asked if they changed.",
    )
    log_format: LogFormat = Field(
        "text", description="`text`, or `json`: one object a line, for a log store."
    )
    embed_metadata: bool = Field(True, description="Write prompt, seed and settings into the picture's file.")

    @property
    def cache_path(self) -> Path:
        """LoRAs fetched from URLs."""
        return self.data_dir / "cache"
