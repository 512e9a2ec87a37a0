"""A picture, or several: what is done for a request to one of the endpoints, from its body to its files."""

import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from models.errors import ControlNetError
from models.job import (
    Facts,
    Generated,
    Job,
    KeepGoing,
    Mask,
    OnStep,
    Pixels,
    Start,
    first_step,
    go_on,
    has_controlled_step,
)
from models.prompt.server import expand_by_server
from models.schema.inputs import AnyInput
from models.schema.model_ids import CONTROLNET_LORA
from models.weights.header import knows_masks, read_header
from models.weights.published import CONTROLNET_2_1
from models.weights.resolve import resolve_controlnet
from worker.config import WorkerSettings
from worker.encoding.metadata import describe
from worker.inputs.disk_quota import DiskQuota
from worker.inputs.lora_entries import ControlNet, resolve_entries
from worker.queue.affinity import Weights, needed_by
from worker.stages.control_map import map_warnings
from worker.stages.given import Given, read_pictures
from worker.stages.output import image_stems, keep_control, keep_image
from worker.stages.size import size_warning
from worker.stages.task import Advance, Engine, Finish, Task
from worker.storage.pictures import Storage, new_file_id

DRAWN_SEEDS = 2**32
"""A seed that is drawn stays readable, and exact in every JSON reader."""


class PictureTask(Task[Generated]):
    """A request for pictures."""

    @property
    def weights(self) -> Weights:
        return needed_by(self._job, self._tools.settings.controlnet)

    @property
    def _job(self) -> Job:
        """The job as the prepare stage left it."""
        return Job.model_validate(self.record.prepared["job"])

    def prepare(self, keep_going: KeepGoing) -> Advance:
        tools = self._tools
        body = tools.workspace.attach_pictures(self.record.id, self.record.input)
        job, control, start = prepare(
            AnyInput.model_validate(body), tools.settings, tools.storage, keep_going, tools.quota
        )
        made = {
            "job": job.model_dump(mode="json"),
            "sent": tools.adapters.send(job),
            "control": None if control is None else self._save(control, "image"),
            "start": None if start is None else self._save(start.image, "start"),
            "mask": None if start is None or start.mask is None else self._save(start.mask, "mask"),
        }
        return Advance("generate", made, needed_by(job, tools.settings.controlnet))

    def generate(self, engine: Engine, keep_going: KeepGoing, on_step: OnStep) -> Generated:
        prepared = self.record.prepared
        job = self._tools.adapters.receive(self._job, prepared.get("sent", {}), keep_going)
        parts = ("control", "start", "mask")
        control, image, mask = (self._load(name) if (name := prepared.get(part)) else None for part in parts)
        start = None if image is None else Start(image, mask)
        return engine.generate(job, control, on_step, start, keep_going=keep_going)

    def keep(self, made: Generated) -> Advance:
        stems = image_stems(len(made.images))
        kept: dict[str, Any] = made.facts.model_dump(mode="json")
        # Drawn before the finish stage, so that one which is done twice leaves its files once.
        kept["file_ids"] = {stem: new_file_id() for stem in (*stems, "control_image")}
        for stem, image in zip(stems, made.images, strict=True):
            kept[stem] = self._save(image, stem)
        if made.control_image is not None:
            kept["control_image"] = self._save(made.control_image, "control")
        return Advance("finish", kept)

    def finish(self) -> Finish:
        tools, kept = self._tools, self.record.generated
        facts = Facts.model_validate(kept)
        images = tuple(self._load(kept[stem]) for stem in image_stems(len(facts.seeds)))
        control_image = self._load(kept["control_image"]) if "control_image" in kept else None
        made = Generated(images, control_image, facts)
        body, file_ids = self.record.input, kept["file_ids"]
        return Finish(
            finish(self.record.model_id, body, self._job, made, file_ids, tools.settings, tools.storage)
        )

    def _save(self, pixels: Pixels | Mask, part: str) -> str:
        return self._tools.workspace.save(self.record.id, self._token, pixels, part)

    def _load(self, name: str) -> Any:
        return self._tools.workspace.load(self.record.id, name)


class Prepared(NamedTuple):
    """A job with nothing left to fetch, and the pixels that go with it, of the output's size."""

    job: Job
    control: Pixels | None = None
    """What guides; None where the image is what the picture starts from, and without one."""
    start: Start | None = None


def prepare(
    request: AnyInput,
    settings: WorkerSettings,
    storage: Storage,
    keep_going: KeepGoing = go_on,
    quota: DiskQuota | None = None,
) -> Prepared:
    """Everything named is fetched and checked. Raises WorkerError, ModelError and as `keep_going`."""
    given = read_pictures(request, settings, storage)
    width, height = given.size
    loras, chosen = resolve_entries(request.loras, settings, keep_going, quota)
    control_scale = request.control_scale * (chosen.scale if chosen else 1)
    controlnet, told = _controlnet(request, given, chosen, settings, keep_going)
    warnings = [size_told] if (size_told := size_warning(width, height, settings)) else []
    warnings += told
    seed = secrets.randbelow(DRAWN_SEEDS) if request.seed == -1 else request.seed
    expanded_prompt, by_server = None, request.enable_prompt_expansion and settings.prompt_llm_url is not None
    if by_server:
        expanded_prompt, fault = expand_by_server(settings, request.prompt, seed)
        warnings += [fault] if fault else []
    job = Job(
        prompt=request.prompt,
        width=width,
        height=height,
        num_inference_steps=request.num_inference_steps,
        seed=seed,
        num_images=request.num_images,
        seed_variance=request.seed_variance,
        preprocess="none" if request.preprocess == "canny" else request.preprocess,
        strength=request.strength,
        control_scale=control_scale,
        control_start=request.control_start,
        control_end=request.control_end,
        controlnet=controlnet.path if controlnet else None,
        controlnet_name=controlnet.name if controlnet else None,
        loras=loras,
        enable_prompt_expansion=request.enable_prompt_expansion and not by_server,
        expanded_prompt=expanded_prompt,
        warnings=tuple(warnings),
        image_sha256=given.image_sha256,
        mask_sha256=given.mask_sha256,
    )
    return Prepared(job, given.control, given.start)


def _controlnet(
    request: AnyInput,
    given: Given,
    chosen: ControlNet | None,
    settings: WorkerSettings,
    keep_going: KeepGoing,
) -> tuple[ControlNet | None, list[str]]:
    """The ControlNet that runs in any step, and what the result says of it; `chosen` is the one in `loras`.

    Raises ControlNetError, also for one that is chosen in vain, and HubError.
    """
    if chosen and request.image_url is None:
        raise ControlNetError(f"loras: {chosen.name} is a ControlNet, which needs an image_url to go by.")
    if chosen and given.start and given.start.mask is None:
        raise ControlNetError(
            f"loras: {chosen.name} is a ControlNet, and image to image has none; the endpoint "
            f"{CONTROLNET_LORA} has."
        )
    if request.control_scale * (chosen.scale if chosen else 1) == 0:
        return None, []
    steps = request.num_inference_steps
    if request.strength is not None:
        steps -= first_step(steps, request.strength)
    start, end = request.control_start, request.control_end
    if not has_controlled_step(steps, start, end):
        if not steps or start == end:
            return None, []
        return None, [
            f"No whole step of {steps} lies between control_start {start:g} and control_end {end:g}, so the "
            "image guides nothing; ask for more steps or a wider window."
        ]
    if chosen is None:
        default = resolve_controlnet(settings.controlnet, settings, lambda _: keep_going())
        chosen = ControlNet(default.name, default.path, 1)
    if given.control is not None:
        return chosen, map_warnings(given.image, request, given.control)
    if given.start and not knows_masks(read_header(chosen.path)):
        return None, [
            f"{chosen.name} knows no masks, so it guides nothing: what the mask leaves was set back after "
            f"each step instead. {CONTROLNET_2_1} in loras knows them."
        ]
    return chosen, []


def finish(
    model_id: str,
    body: Mapping[str, Any],
    job: Job,
    made: Generated,
    file_ids: Mapping[str, str],
    settings: WorkerSettings,
    storage: Storage,
) -> dict[str, Any]:
    """Encodes and keeps the pictures; the `output` of their record. Raises StorageError.

    `file_ids` go by `image_stems` and `control_image`: done again, the same bytes go to the same files.
    """
    facts, images = made.facts, []
    for stem, image, seed in zip(image_stems(len(made.images)), made.images, facts.seeds, strict=True):
        metadata = describe(model_id, body, job, facts, seed) if settings.embed_metadata else None
        images.append(keep_image(stem, image, body["output_format"], metadata, file_ids[stem], storage))
    output: dict[str, Any] = {"image": images[0]}
    if len(images) > 1:
        output |= {"images": images, "seeds": list(facts.seeds)}
    if made.control_image is not None:
        output["control_image"] = keep_control(made.control_image, file_ids["control_image"], storage)
    return output | {
        "seed": facts.seeds[0],
        **facts.model_dump(mode="json", exclude={"seeds", "timings"}),
        "timings": {stage: round(seconds, 3) for stage, seconds in facts.timings.items()},
    }
