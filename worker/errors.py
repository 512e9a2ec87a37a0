"""What can go wrong in a request's life, outside the model itself.

WorkerError                code
├── FetchError             fetch_failed          a caller's URL, data URI or upload could not be had
├── ImageError             image_invalid         the bytes are no picture that we take
├── StorageError           storage_failed        an output could not be kept
├── Refused                refused               no more requests are taken for now, at all or from one key
├── KeyReused              key_reused            an Idempotency-Key came with another body before
├── LeaseLost              lease_lost            another worker or a cancel took the request away
├── StoreUnavailable       store_unavailable     Redis cannot be reached or cannot write
└── SetupError             setup_failed          this machine lacks something that `serve` needs

`code` is what a caller reads in `error.type`; the message is one sentence that says what, where and what to
do.
"""


class WorkerError(Exception):
    """Base of this layer. `str(error)` is the sentence shown to the caller."""

    code = "worker_error"


class FetchError(WorkerError):
    code = "fetch_failed"


class ImageError(WorkerError):
    code = "image_invalid"


class StorageError(WorkerError):
    code = "storage_failed"


class Refused(WorkerError):
    code = "refused"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds until the request is likely to be taken."""


class KeyReused(WorkerError):
    code = "key_reused"


class LeaseLost(WorkerError):
    code = "lease_lost"

    def __init__(self, message: str, standing: str) -> None:
        super().__init__(message)
        self.standing = standing
        """`gone`, `cancelled`, or `fenced`: another worker has the request or it is over."""


class StoreUnavailable(WorkerError):
    code = "store_unavailable"


class SetupError(WorkerError):
    code = "setup_failed"
