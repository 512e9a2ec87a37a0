"""The errors of the hub as sentences that a caller may read, without a path, an address or a token."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from models.command import zturbo
from models.errors import HubError


@contextmanager
def hub_errors(repo_id: str, filename: str | None = None) -> Iterator[None]:
    """Turn whatever huggingface_hub, the network or the disk raises within the block into a HubError."""
    what = f"{repo_id}/{filename}" if filename else repo_id
    try:
        yield
    except HubError as error:
        raise HubError(f"{what}: {error}") from None
    except (OSError, EntryNotFoundError, httpx2.HTTPError) as error:
        # huggingface_hub wraps most of what can happen in "not in the local cache".
        wrapped = isinstance(error, LocalEntryNotFoundError) and error.__cause__
        raise HubError(_sentence(wrapped or error, repo_id, what)) from error


def _sentence(error: BaseException, repo_id: str, what: str) -> str:
    match error:
        case GatedRepoError():
            return (
                f"The hub repository {repo_id} is gated: accept its terms on the hub "
                "and give this server a token in HF_TOKEN."
            )
        case RepositoryNotFoundError() | RevisionNotFoundError():
            return f"The hub has no repository {repo_id}, or it is private and HF_TOKEN does not open it."
        case OfflineModeIsEnabled() | LocalEntryNotFoundError():
            return (
                f"{what} is not on this machine, and HF_HUB_OFFLINE forbids to fetch it: "
                f"run `{zturbo()} pull {what}` with a network."
            )
        case EntryNotFoundError():
            return f"The hub has no file {what}."
        case HfHubHTTPError() if error.response.status_code == 401:
            return f"The hub refused the token in HF_TOKEN when asked for {what}."
        case HfHubHTTPError():
            return f"The hub answered {error.response.status_code} when asked for {what}; try again later."
        case httpx2.TimeoutException():
            return f"The hub did not answer in time when asked for {what}; try again later."
        case httpx2.HTTPError():
            return f"The hub cannot be reached from this server to fetch {what}, and it is not in the cache."
    reason = getattr(error, "strerror", None) or type(error).__name__
    return f"{what} could not be kept in the Hugging Face cache ({reason})."
