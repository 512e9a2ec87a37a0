"""Files that some process uses, so that no other deletes them: a lock says so, and goes with the process."""

import fcntl
import os
from pathlib import Path


def hold(path: Path) -> int:
    """Say that this process uses a file, until the descriptor that it returns is closed.

    Raises `OSError` where there is none, or it has been deleted meanwhile.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.fstat(descriptor).st_ino != path.stat().st_ino:
            raise FileNotFoundError(path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_held(path: Path) -> bool:
    """Returns True if a process, this one included, uses or may use the file, and False if it is missing."""
    return not _alone_with(path, delete=False)


def delete_unheld(path: Path) -> bool:
    """Delete a file that no process uses; whether there is none any more."""
    return _alone_with(path, delete=True)


def _alone_with(path: Path, *, delete: bool) -> bool:
    try:
        # For writing: over NFS a lock of this kind is given for no less.
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    except OSError:
        # It belongs to another user, who may use it.
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if delete:
            path.unlink(missing_ok=True)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
