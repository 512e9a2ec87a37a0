"""Faults of an input beyond its schema that are known at the submit: told then, not later."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from anyio import to_thread
from fastapi import FastAPI
from pydantic import BaseModel

from app.availability import NEED_WEIGHTS, missing_detectors
from app.config import Settings
from app.errors import BadInput
from app.http.multipart import DECODING
from models.command import zturbo
from models.errors import LoraError
from models.schema.fields import LoraInput
from models.weights.availability import detector_fault
from models.weights.reference import LocalReference, read_reference
from models.weights.resolve import find_local_lora
from worker.errors import FetchError, ImageError
from worker.inputs.decode import read_image
from worker.inputs.fetch import DEFAULT_PORTS
from worker.inputs.guard import AllowList, Refused
from worker.inputs.input_image import is_own_file, read_data_uri
from worker.storage.workspace import PICTURE_FIELDS

_LOCAL = re.compile(
    r"^[^.]+$|^[\d.]+$|:|\.(local|localhost|lan|home|internal|intranet|home\.arpa)\.?$", re.IGNORECASE
)
"""Hosts that are addresses, have no dot, or end as local names do."""


async def check_now(checked: BaseModel, app: FastAPI) -> None:
    """Raises BadInput with every fault of an endpoint's checked input that this process can know of."""
    settings: Settings = app.state.settings
    faults: list[dict[str, Any]] = []
    pictures = {field: url for field in PICTURE_FIELDS if (url := getattr(checked, field, None))}
    loras: list[LoraInput] = getattr(checked, "loras", [])
    sent = {field: url for field, url in pictures.items() if url[:5].lower() == "data:"}
    if sent:
        look = partial(_picture_faults, sent, settings.max_image_bytes)
        faults += await to_thread.run_sync(look, limiter=DECODING)
    faults += _lora_faults(loras, settings)
    if app.state.keys.open:
        faults += await _host_faults(pictures, loras, settings.allow_hosts)
    preprocess = getattr(checked, "preprocess", None)
    if preprocess in NEED_WEIGHTS:
        missing = await missing_detectors(app.state.requests)
        if preprocess in missing:
            faults.append(_fault(("preprocess",), detector_fault(preprocess, missing[preprocess])))
    if faults:
        raise BadInput(" ".join(fault["msg"] for fault in faults), detail=faults)


def _picture_faults(sent: dict[str, str], max_bytes: int) -> list[dict[str, Any]]:
    """Pictures that are sent along, by field, are read to their last pixel, as the prepare stage will.

    A mask is held to the image's size where both are sent along.
    """
    # Imported now: OpenCV would slow the start of every command.
    from worker.inputs.mask import read_mask

    faults, image_wh = [], None
    for field, url in sent.items():
        try:
            data = read_data_uri(url, field, max_bytes)
            if field == "mask_image_url":
                read_mask(data, field, image_wh)
            else:
                height, width = read_image(data, field).shape[:2]
                image_wh = width, height
        except (FetchError, ImageError) as error:
            faults.append(_fault((field,), str(error)))
    return faults


def _lora_faults(loras: list[LoraInput], settings: Settings) -> Iterator[dict[str, Any]]:
    if not _knows_loras(settings):
        return
    for number, lora in enumerate(loras):
        reference = read_reference(lora.path)
        if isinstance(reference, LocalReference):
            try:
                find_local_lora(reference.name, settings)
            except LoraError as error:
                yield _fault(("loras", number, "path"), f"loras[{number}].path: {error}")


def _knows_loras(settings: Settings) -> bool:
    """True where the io workers, which read LoRAs, have the LoRA folder that this process sees."""
    return not settings.storage and (settings.lora_dir is None or settings.lora_dir.is_dir())


async def _host_faults(
    pictures: dict[str, str], loras: list[LoraInput], allow_hosts: str
) -> list[dict[str, Any]]:
    places: list[tuple[tuple[str | int, ...], str]] = [((field,), url) for field, url in pictures.items()]
    places += [(("loras", number, "path"), lora.path) for number, lora in enumerate(loras)]
    # Most names are public: for those no thread is woken, which would cost a fifth of a submit.
    local = [(place, *host) for place, url in places if (host := _local_host(url))]
    sentences = [await to_thread.run_sync(_host_fault, *each, allow_hosts) for each in local]
    return [_fault(place, said) for (place, *_), said in zip(local, sentences, strict=True) if said]


def _local_host(url: str) -> tuple[str, int] | None:
    """Host and port of a URL whose host reads like an address or a local name; None for a file of ours."""
    if "://" not in url or is_own_file(url):
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        # No URL: the fetch will tell.
        return None
    return (host, port) if _LOCAL.search(host) else None


def _host_fault(place: tuple[str | int, ...], host: str, port: int, allow_hosts: str) -> str | None:
    """Why a host near this machine is not fetched from, and the line that allows it.

    For the operator alone: to others `worker.inputs.fetch` tells nothing of what is in this network. Public
    names are not looked up, so that no submit waits for name servers.
    """
    try:
        AllowList.parse(allow_hosts).look_up(host, port)
    except Refused as refused:
        entries = ",".join(filter(None, (allow_hosts, refused.entry)))
        return (
            f"{_written(place)}: {refused}, which this server does not fetch from unless it is told to: "
            f"ZTURBO_ALLOW_HOSTS={entries} {zturbo()} serve"
        )
    except OSError:
        # A name that nobody has: the fetch will tell.
        return None
    return None


def _written(place: tuple[str | int, ...]) -> str:
    return str(place[0]) if len(place) == 1 else f"loras[{place[1]}].path"


def _fault(place: tuple[str | int, ...], sentence: str) -> dict[str, Any]:
    return {"loc": ["body", *place], "msg": sentence, "type": "value_error"}
