"""Locks that the kernel keeps, and lets go of when a process ends, however it ends: none is left behind."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddgm.errors import UserError

# What a file system says that has no locks, as some mounts over a network.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def lockable(folder: Path) -> Iterator[None]:
    """UserError, in place of an OSError, where nothing in `folder` can be locked."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise UserError(
            f"{folder} lies on a file system without locks ({error.strerror}): mount it with flock, or work in "
            f"another folder"
        ) from None


def lock(handle: int, folder: Path, wait: bool = False) -> bool:
    """Lock an open file in `folder`, or the open folder itself.

    Where another process has it: False at once, or with `wait` a lock when that one lets go. Raises UserError where
    nothing in `folder` can be locked.
    """
    with lockable(folder):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
