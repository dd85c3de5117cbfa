"""What DVC takes on trust: whether the objects of a remote are what dvc.lock says.

python workflow/remote.py check [REMOTE]            compare sizes: finds what an interrupted `dvc push` left half-sent
python workflow/remote.py check [REMOTE] --read     read every object and compare its content: as long as a whole pull
python workflow/remote.py check [REMOTE] --remove   also remove what is wrong, so that `dvc push` sends it again
python workflow/remote.py reach [REMOTE]            write an object and remove it: whether `dvc push` will be let

`dvc push` skips an object whose name the remote has, whatever is in it; on WebDAV a killed push can leave half of one.
"""

import argparse
import hashlib
import importlib
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

from botocore.exceptions import BotoCoreError
from dvc.exceptions import DvcException
from dvc.repo import Repo


def fault(out: Any, odb: Any, read: bool) -> str | None:
    """What is wrong with the remote's object of an output, in half a sentence."""
    path, oid = odb.oid_to_path(out.hash_info.value), out.hash_info.value
    try:
        size = odb.fs.info(path).get("size")
    except FileNotFoundError as error:
        # Over HTTP a server that cannot be reached is told in the same way, with its reason behind it.
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
            raise error.__cause__ from None
        return "is missing"
    # A folder's object is a list of its files, and no copy of them.
    if size is not None and not out.hash_info.isdir and size != out.meta.size:
        return f"has {size} bytes, and not {out.meta.size}"
    if read:
        with odb.fs.open(path, "rb") as handle:
            found = hashlib.file_digest(handle, "md5").hexdigest()
        return f"has content {found}" if found != oid.removesuffix(".dir") else None
    return None


def check(remote: str | None, read: bool, remove: bool) -> int:
    """Name every object that is not as dvc.lock says; 1 if there is one."""
    with Repo() as repo:
        odb = repo.cloud.get_remote_odb(remote)
        outs = [out for out in repo.index.outs if out.use_cache and out.hash_info]
        with ThreadPoolExecutor(8) as threads:
            faults = list(threads.map(partial(fault, odb=odb, read=read), outs))
        wrong = [(out, said) for out, said in zip(outs, faults, strict=True) if said]
        for out, said in wrong:
            path = odb.oid_to_path(out.hash_info.value)
            print(f"{out}: its object {odb.fs.unstrip_protocol(path)} {said}")
            if remove and said != "is missing":
                # Two outputs of one content share an object.
                with suppress(FileNotFoundError):
                    odb.fs.remove(path)
    here = f" {remote}" if remote else ""
    if not wrong:
        print(f"as dvc.lock says: all {len(outs)} objects" + ("" if read else ", by their sizes"))
    elif remove or all(said == "is missing" for _, said in wrong):
        to = f" -r {remote}" if remote else ""
        print(f"write 'dvc push{to}' in a clone that has these files")
    else:
        flags = " --read --remove" if read else " --remove"
        print(f"write 'python workflow/remote.py check{here}{flags}', and 'dvc push' in a clone that has these files")
    return int(bool(wrong))


def reach(remote: str | None) -> int:
    """Write an object that is none of DVC's, and remove it."""
    with Repo() as repo:
        odb = repo.cloud.get_remote_odb(remote)
        probe = odb.fs.join(odb.path, f"reached-{uuid4()}")
        odb.fs.makedirs(odb.path, exist_ok=True)
        with odb.fs.open(probe, "wb") as handle:
            handle.write(b"ddgm")
        odb.fs.remove(probe)
    return 0


class Arguments(argparse.ArgumentParser):
    """A slip is one sentence and exit code 1, as it is everywhere else."""

    def error(self, message: str) -> NoReturn:
        sys.exit(f"{message}: write 'python workflow/remote.py' and check or reach (--help says what else)")


def main() -> int:
    arguments = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("verb", choices=["check", "reach"])
    arguments.add_argument("remote", nargs="?", help="the default one if not given")
    arguments.add_argument("--read", action="store_true")
    arguments.add_argument("--remove", action="store_true")
    asked = arguments.parse_args()
    os.chdir(Path(__file__).parents[1])
    try:
        return reach(asked.remote) if asked.verb == "reach" else check(asked.remote, asked.read, asked.remove)
    except (DvcException, BotoCoreError, OSError, *of_webdav()) as error:
        print(f"the remote cannot be {'written' if asked.verb == 'reach' else 'read'}: {error}", file=sys.stderr)
        return 1


def of_webdav() -> Iterator[type[Exception]]:
    """The faults of WebDAV's libraries, where they are installed."""
    for module, fault in (("httpx", "HTTPError"), ("webdav4.client", "ClientError")):
        with suppress(ImportError):
            yield getattr(importlib.import_module(module), fault)


if __name__ == "__main__":
    sys.exit(main())
