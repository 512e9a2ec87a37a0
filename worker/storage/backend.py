"""The backend that the settings choose: a local folder, or an S3 store whose package may not be installed."""

from worker.config import WorkerSettings
from worker.storage.folder import FolderObjects
from worker.storage.objects import Objects


def open_objects(settings: WorkerSettings, patience_seconds: float = 0) -> Objects:
    """Opens it; `patience_seconds` is how long each call waits for a store that is away.

    Raises SetupError when its package is not installed.
    """
    if not settings.storage:
        return FolderObjects(settings.data_dir)
    from worker.storage.s3 import S3Objects

    return S3Objects(settings.storage, patience_seconds)
