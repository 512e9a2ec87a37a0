"""What this layer answers when it does not do what was asked, and the one body that says so.

AppError
├── ConfigError            the server must not start like this
└── ApiError               HTTP  error_code
    ├── BadToken           401   400004
    ├── Misdirected        403   403002   no key is configured and the call comes from elsewhere
    ├── UnknownModel       404   400001
    ├── UnknownRequest     404   404001   also another key's request: whether it exists is not told
    ├── NothingHere        404   404002   no such route or file
    ├── WrongMethod        405   405001
    ├── BodyTooSlow        408   408001
    ├── BodyTooLarge       413   413001
    ├── WrongBody          415   415001   a compressed body, or a form where JSON is wanted
    ├── BadInput           422   422001   `detail` lists every fault
    ├── NotFinished        422   422002   it cannot be deleted yet
    ├── NotMade            422   422003   a call that waited for a picture has none, by what was sent in it
    ├── TooManyRequests    429   429001
    ├── Internal           500   500001   quotes an id under which the log has the traceback
    ├── NotMadeHere        500   500002   likewise, by what only the server can mend
    ├── Unavailable        503   503001   Redis is away, a disk is full, or bytes in flight are too many
    ├── NotInTime          504   504001   a call that waited for a picture waits no more; the request goes on
    └── InsufficientStorage 507  507001   too little disk is free to take what the caller sends

Never 409: public clients take it for a lost submit and send it again.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.responses import JSONResponse

from worker.queue.outages import Outage

MAX_QUOTED_CHARACTERS = 60
"""Characters of a caller's own value that a sentence quotes at most."""

STORE_RETRY_SECONDS = 2
"""What a caller is told to wait when Redis cannot be reached: an embedded one is back within a second."""


NO_RETRY = {"x-should-retry": "false"}
"""Tells OpenAI's clients, which send a call that was answered by a 5xx again, to leave that."""


class AppError(Exception):
    """Base of this layer. `str(error)` is one sentence that the reader can act on."""


class ConfigError(AppError):
    """The settings contradict each other or would open the server to strangers."""


class ApiError(AppError):
    status: ClassVar[int]
    error_code: ClassVar[int]

    def __init__(
        self, message: str, headers: dict[str, str] | None = None, detail: list[dict[str, Any]] | None = None
    ) -> None:
        super().__init__(message)
        self.headers = headers or {}
        self.detail = detail or []

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, self.headers)

    def body(self) -> dict[str, Any]:
        """Public clients read `error_message`, `message`, `detail` or `error`: each has the sentence."""
        message = str(self)
        return {
            "error_code": self.error_code,
            "error_message": message,
            "message": message,
            "detail": self.detail or message,
            # As OpenAI has it.
            "error": {
                "message": message,
                "type": "server_error" if self.status >= 500 else "invalid_request_error",
                "param": written(self.detail[0]["loc"]) if self.detail else None,
                "code": str(self.error_code),
            },
        }


class BadToken(ApiError):
    status, error_code = 401, 400004

    def __init__(self, message: str) -> None:
        super().__init__(message, {"WWW-Authenticate": "Bearer"})


class Misdirected(ApiError):
    status, error_code = 403, 403002


class UnknownModel(ApiError):
    status, error_code = 404, 400001

    def __init__(self, model_id: str) -> None:
        super().__init__(f"No model {quoted(model_id)} here; GET /v1/models lists those that there are.")


class UnknownRequest(ApiError):
    status, error_code = 404, 404001

    def __init__(self, lost: Outage | None = None) -> None:
        """`lost`: when Redis may have lost it."""
        if lost is None:
            super().__init__("This request is unknown, was deleted, or has expired.")
            return
        since, until = (datetime.fromtimestamp(at, UTC).isoformat(" ", "seconds") for at in lost)
        super().__init__(
            f"This request is unknown: Redis ended between {since} and {until} without having all on disk. "
            "Submit it again; with ZTURBO_APPENDFSYNC=always nothing that was answered is lost."
        )


class NothingHere(ApiError):
    status, error_code = 404, 404002


class WrongMethod(ApiError):
    status, error_code = 405, 405001

    def __init__(self, methods: Sequence[str]) -> None:
        super().__init__(
            f"This path does not take this method; it takes {', '.join(methods)}.",
            {"Allow": ", ".join(methods)},
        )


class BodyTooSlow(ApiError):
    status, error_code = 408, 408001

    def __init__(self, seconds: int) -> None:
        super().__init__(f"The request body did not arrive within {seconds} s.")


class BodyTooLarge(ApiError):
    status, error_code = 413, 413001

    def __init__(self, limit: int) -> None:
        super().__init__(f"The request body is larger than {limit} bytes; put large images behind a URL.")


class WrongBody(ApiError):
    status, error_code = 415, 415001


class BadInput(ApiError):
    status, error_code = 422, 422001

    def __init__(
        self, message: str, headers: dict[str, str] | None = None, detail: list[dict[str, Any]] | None = None
    ) -> None:
        # A sentence names its field: beside `loc` it would be named twice.
        said = [
            fault | {"msg": fault["msg"].removeprefix(f"{written(fault['loc'])}: ")} for fault in detail or ()
        ]
        super().__init__(message, headers, said)


class NotFinished(ApiError):
    status, error_code = 422, 422002

    def __init__(self) -> None:
        super().__init__("This request is not finished: cancel it first (?force=true if it runs).")


class NotMade(ApiError):
    status, error_code = 422, 422003


class TooManyRequests(ApiError):
    status, error_code = 429, 429001

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message, {"Retry-After": str(retry_after)})


class Internal(ApiError):
    status, error_code = 500, 500001

    def __init__(self, call_id: str) -> None:
        super().__init__(f"The server failed on this call; its log says why, under {call_id}.")


class NotMadeHere(ApiError):
    status, error_code = 500, 500002

    def __init__(self, message: str) -> None:
        super().__init__(message, NO_RETRY)


class Unavailable(ApiError):
    status, error_code = 503, 503001

    def __init__(self, message: str, retry_after: int = STORE_RETRY_SECONDS) -> None:
        super().__init__(message, {"Retry-After": str(retry_after)})


class NotInTime(ApiError):
    status, error_code = 504, 504001

    def __init__(self, seconds: float, request_id: str) -> None:
        super().__init__(
            f"The picture was not done within {seconds:g} s. Its request goes on: "
            f"GET /v1/requests/{request_id}/result has it when it is done.",
            NO_RETRY,
        )


class InsufficientStorage(ApiError):
    """No `Retry-After`: RFC 4918 wants no client to send the same again by itself, and it may be large."""

    status, error_code = 507, 507001

    def __init__(self, message: str) -> None:
        super().__init__(message, NO_RETRY)


def bad_input(error: ValidationError) -> BadInput:
    """Every fault of a body at once, worded for the person who wrote it."""
    return faults([{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors(include_url=False)])


def faults(errors: Sequence[ErrorDetails]) -> BadInput:
    """The first part of each `loc` is where in the call the fault lies: body, query or path."""
    detail = [{"loc": list(error["loc"]), "msg": _reason(error), "type": _kind(error)} for error in errors]
    return BadInput(
        "; ".join(f"{written(error['loc'])}: {_reason(error)}" for error in errors), detail=detail
    )


def bad_field(name: str, sentence: str) -> BadInput:
    """One fault in one field of the body, found beyond its schema."""
    return BadInput(sentence, detail=[{"loc": ["body", name], "msg": sentence, "type": "value_error"}])


def not_json(reason: str) -> BadInput:
    detail = [{"loc": ["body"], "msg": reason, "type": "json_invalid"}]
    return BadInput(f"body: not JSON: {reason}", detail=detail)


def quoted(value: object) -> str:
    """A caller's own value in a sentence: short, on one line, whatever it holds."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, str) and len(value) > MAX_QUOTED_CHARACTERS:
        return f"{value[:MAX_QUOTED_CHARACTERS]!r}…"
    return repr(value)


def _kind(error: ErrorDetails) -> str:
    # The published body calls a value outside a list of choices `enum`.
    return "enum" if error["type"] == "literal_error" else error["type"]


_SENTENCES = {
    "missing": "is required",
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
    "dict_type": "must be a JSON object",
    "list_type": "must be a list",
    "string_type": "must be text",
    "string_unicode": "must be text in Unicode, without half of a surrogate pair",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "int_parsing": "must be an integer",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must be at least {min_length} characters long",
    "string_too_long": "must be at most {max_length} characters long",
    "too_long": "must have at most {max_length} entries",
    "string_pattern_mismatch": "must match {pattern}",
}
"""What is said of pydantic's kinds of fault that our fields can have; our validators say the rest."""


def _reason(error: ErrorDetails) -> str:
    if error["type"] == "literal_error":
        return f"{quoted(error['input'])} is not one of {error['ctx']['expected']}"
    sentence = _SENTENCES.get(error["type"])
    if sentence is None:
        # It may quote the caller's own text, braces and all.
        return error["msg"]
    if error["type"] == "string_too_short" and error["ctx"]["min_length"] == 1:
        return "must not be empty"
    return sentence.format(**error.get("ctx", {}))


def written(loc: Sequence[int | str]) -> str:
    """The place of a fault as a caller would write it: ("body", "loras", 0, "scale") is loras[0].scale."""
    where, *parts = loc
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return path.lstrip(".") or str(where)
