"""Files that are there whole or not at all."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Every file that this process has put in its place, in order.
WRITTEN: list[Path] = []


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it takes `path`'s place, on failure it is removed.

    The temporary file keeps the suffix of `path`, since several writers choose their format by it, and is
    flushed to the disk before the rename, so that a power cut leaves the old file or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes the file for its owner alone; a result is for whoever may read the folder.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
        WRITTEN.append(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def all_or_none(files: Iterable[Path]) -> Iterator[None]:
    """Remove these files, which are written one after the other; on failure none of them is there.

    A new table never stands beside old weights, and what was written last says that the others are there.
    """
    files = list(files)

    def remove() -> None:
        for file in files:
            file.unlink(missing_ok=True)

    remove()
    try:
        yield
    except BaseException:
        remove()
        raise
