"""The bodies that this server answers with: names and words of the published contract, and what we add.

A field that has nothing to say is left out, never null: clients take a key's presence for its meaning.
"""

from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

RequestStatus = Literal["in_queue", "in_progress", "completed", "cancelled"]
ResultStatus = Literal["in_queue", "in_progress", "succeeded", "failed", "cancelled"]


PUBLISHED = 1_764_201_600
"""Unix seconds of the day on which Z-Image-Turbo was published."""


class Body(BaseModel):
    model_config = ConfigDict(frozen=True)

    def wire(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


class Failure(Body):
    """Why a request failed."""

    type: str = Field(description="A word that a program can act on.")
    message: str = Field(description="A sentence that a person can act on.")


class SubmitBody(Body):
    request_id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")
    status_url: str
    result_url: str
    cancel_url: str
    warnings: list[str] | None = Field(None, description="Fields of the input that were ignored.")


class StatusBody(Body):
    request_id: str
    status: RequestStatus = Field(
        description="A failed request reads `completed` here; success or failure is told by the result."
    )
    queue_position: int | None = Field(
        None, description="Requests ahead of this one; 0 is the next to run. Only while `in_queue`."
    )
    note: str | None = Field(
        None, description="What the next to run waits for besides its turn: that the model is being loaded."
    )
    status_url: str
    result_url: str
    progress: float = Field(description="Share of the steps that are done, 0 to 1.")
    step: int | None = Field(None, description="Denoising steps done.")
    total_steps: int | None = None
    eta_seconds: float | None = Field(
        None,
        description="Seconds until the picture is there, an estimate. Only while `in_progress`, from the "
        "first step on.",
    )
    created_at: str = Field(description="ISO 8601, UTC.")
    started_at: str | None = None
    error: Failure | None = None


class EventBody(StatusBody):
    """The status as an event tells it: complete each time, so that none has to be remembered."""

    preview: str | None = Field(None, description="Data URI of a small JPEG: the picture as it is now.")


class Output(Body):
    """One picture is `image`, several are `images`."""

    image: str | None = Field(None, description="URL of the picture; needs no token.")
    images: list[str] | None = Field(None, description="Likewise, in the order of `seeds`.")


class Attempt(Body):
    at: str
    status: int | None = Field(None, description="What the receiver answered.")
    error: str | None = Field(None, description="Why there was no answer.")


class WebhookBody(Body):
    url: str
    attempts: list[Attempt]


class ResultBody(Body):
    request_id: str
    status: ResultStatus
    output: Output | None = Field(None, description="Only with `succeeded`.")
    error: Failure | None = Field(None, description="Only with `failed`.")
    created_at: str
    eta_seconds: float | None = Field(None, description="As the status has it.")
    finished_at: str | None = None
    expires_at: str | None = Field(
        None, description="When it is forgotten, and its picture with it; once it is finished."
    )
    model_id: str
    seed: int | None = Field(
        None, description="The seed that was used, for the first picture if there are several."
    )
    seeds: list[int] | None = Field(None, description="Of each picture, when there are several.")
    model: str | None = Field(None, description="The weights that made the picture.")
    dtype: str | None = Field(None, description="Precision of the weights, such as `bfloat16` or `int8`.")
    fast_path: str | None = Field(
        None, description="How the model ran: `eager`, or a faster way such as `compiled`."
    )
    expanded_prompt: str | None = Field(None, description="What prompt expansion made of the prompt.")
    strength: float | None = Field(
        None, description="How far the picture went from the image it started from."
    )
    control_image: str | None = Field(None, description="URL of the control map as the model saw it.")
    controlnet: str | None = Field(None, description="The ControlNet that was used.")
    loras: list[dict[str, Any]] | None = Field(
        None, description="What became of each LoRA: how many of its keys found a weight."
    )
    timings: dict[str, float] | None = Field(None, description="Seconds by stage, as far as it came.")
    gpu_seconds: float | None = Field(
        None,
        description="Seconds on a GPU, those of attempts that came to nothing included; once it is finished.",
    )
    warnings: list[str] | None = None
    webhook: WebhookBody | None = Field(None, description="What came of telling the caller's own server.")
    cost: float | None = Field(None, description="Only with `include_cost=true`; always 0.")


class WaitedBody(ResultBody):
    """The answer to a submit that was held: the result as it was when the call ended, and where to go on."""

    status_url: str
    result_url: str
    cancel_url: str


class RequestBody(ResultBody):
    """A request in its owner's list: what became of it, and what made it."""

    input: dict[str, Any] = Field(
        description="The checked body with its defaults; a large data URI reads `(kept aside)`."
    )


class RequestsBody(Body):
    requests: list[RequestBody] = Field(description="Newest first.")
    next_cursor: str | None = Field(None, description="For the next page; null: this was the last.")


class DeletedBody(Body):
    request_id: str
    deleted: Literal[True] = True


class CancelBody(Body):
    request_id: str
    status: RequestStatus
    outcome: Literal["cancelled", "not_cancellable"]


class FileBody(Body):
    url: str = Field(description="Good as `image_url`; needs no token.")
    file_id: str
    name: str
    content_type: str
    size: int = Field(description="Bytes.")


class MapBody(Body):
    control_image: str = Field(description="URL of the map; needs no token, and is good as `image_url`.")
    width: int
    height: int


class ExpandBody(Body):
    expanded_prompt: str | None = Field(None, description="Left out where the prompt is best used as it is.")
    warning: str | None = Field(None, description="Why that is so.")


class LoraBody(Body):
    model_config = ConfigDict(frozen=True, from_attributes=True)

    path: str = Field(description="Good as `loras[].path`.")
    source: Literal["folder", "hub", "demo"]
    size: int = Field(description="Bytes.")
    rank: int | None = Field(description="null: a format without ranks.")
    base_model: str | None = Field(description="What its file says; null: nothing.")
    trigger_words: list[str]


class LorasBody(Body):
    loras: list[LoraBody]


class WebhookSecretBody(Body):
    secret: str = Field(description="What the webhooks of this key are signed with, as `whsec_` and base64.")


class DialectBody(Body):
    """How the clients of one dialect ask for a model."""

    dialect: str = Field(description="Whose clients they are.")
    model: str = Field(description="What they call the model.")
    path: str = Field(description="The route that answers them, by POST.")


class ModelBody(Body):
    model_id: str
    display_name: str
    description: str
    categories: list[str]
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    base_price_usd: float = 0
    id: str = Field(description="`model_id` as OpenAI's clients read it.")
    object: Literal["model"] = "model"
    created: int = Field(PUBLISHED, description="Unix seconds.")
    owned_by: str = Field(description="The first part of the id.")
    dialects: list[DialectBody]


class ListedModel(Body):
    """A model in OpenAI's list."""

    id: str
    object: Literal["model"] = "model"
    created: int = PUBLISHED
    owned_by: str


class ModelsBody(Body):
    models: list[ModelBody]
    total: int = Field(description="Models that match, on this page or not.")
    object: Literal["list"] = "list"
    data: list[ListedModel] = Field(description="OpenAI's list: all models, whatever is asked for.")


class CategoriesBody(Body):
    categories: list[str]


class Fault(Body):
    loc: list[str | int]
    msg: str
    type: str


class OpenAIError(Body):
    message: str
    type: str
    param: str | None = Field(description="The field at fault.")
    code: str


class ErrorBody(Body):
    error_code: int
    error_message: str
    message: str = Field(description="The same sentence; some clients read it here.")
    detail: list[Fault] | str = Field(description="Every fault of the call; without any, the sentence.")
    error: OpenAIError = Field(description="The first fault, as OpenAI's clients read it.")


def errors_answered(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These HTTP statuses with their body, for a route's documentation."""
    return {status: {"model": ErrorBody, "description": HTTPStatus(status).phrase} for status in statuses}


class HealthBody(Body):
    status: Literal["ok"] = "ok"


class WorkerBody(Body):
    id: str
    kind: str
    state: str
    model: str | None = None
    device: str | None = None
    fast_path: str | None = Field(None, description="How its model runs: `eager`, or a faster way.")


class BusyWorkerBody(WorkerBody):
    detail: str | None = Field(None, description="Why it takes no requests, or sleeps.")
    memory_used: int | None = Field(None, description="Bytes in use on its GPU, whoever uses them.")
    memory_total: int | None = None


class StatsBody(Body):
    in_line: int = Field(description="Requests not yet taken by a GPU worker.")
    waiting: dict[str, int] = Field(description="Requests that wait for a worker, by its kind.")
    running: int = Field(description="Requests in a worker's hands.")
    finished_last_minute: int = Field(description="However they ended.")
    generate_seconds: float | None = Field(None, description="Moving average of a GPU worker's part.")
    workers: list[BusyWorkerBody]


class ReadyBody(Body):
    ready: bool
    reasons: list[str] = Field(description="What is missing; empty when ready.")
    note: str | None = Field(
        None, description="What the next request waits for although it is ready: the model is asleep."
    )
    workers: list[WorkerBody]
