"""Where a result comes from: code version, library versions, device, data checksum."""

import functools
import hashlib
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ddgm
from ddgm.datasets.prepared import source_of

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).parents[2]
# What decides how a result is made, and what with.
MADE_BY = ("src", "workflow", "Snakefile", "params.yaml", "pyproject.toml", "requirements.lock")


def checksum(file: Path, algorithm: str = "sha256") -> str:
    """A file's digest, in hexadecimal."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, algorithm).hexdigest()


@functools.cache
def code_version() -> str:
    """`version_in_tree` as it was when this process first asked.

    A job asks when it starts: what is committed while it runs has made nothing of its results.
    """
    return version_in_tree()


def version_in_tree() -> str:
    """The package's version and, in a git checkout, its commit, with '-dirty' if anything of MADE_BY differs from it.

    A file there that git does not know is a difference too.
    """
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        # Without a lock, which someone's commit would meet while jobs start.
        changed = _git("--no-optional-locks", "status", "--porcelain", "--untracked-files=all", "--", *MADE_BY)
    except (OSError, subprocess.CalledProcessError):
        return ddgm.__version__
    return f"{ddgm.__version__}+{commit}" + ("-dirty" if changed else "")


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def device_name(device: "torch.device | None" = None) -> str:
    """A GPU's name, or the processor's."""
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def device_in_use() -> str:
    """The GPU that this process has computed on, or else the processor, with its kind before its name."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return f"cuda: {torch.cuda.get_device_name()}"
    return f"cpu: {device_name()}"


LIBRARIES = (
    "torch", "numpy", "scipy", "pandas", "safetensors",
    "matplotlib",  # figures
    "pillow", "simplejpeg",  # the bytes of prepared pictures
    "scikit-learn", "POT", "pytorch-fid", "torch-fidelity",  # metrics
)  # fmt: skip


def versions() -> dict[str, str]:
    """Of this package, of the libraries that results depend on, those that are installed, and of Python."""
    return {"ddgm": code_version(), **dict(installed()), "python": platform.python_version()}


def installed() -> Iterator[tuple[str, str]]:
    """Those of LIBRARIES that are here, with their versions. None is imported for that."""
    for library in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            yield library, metadata.version(library)


def of_run(
    data: str, source: str, held: str, device: "torch.device", seconds: float, earlier: Sequence[str] = ()
) -> dict[str, Any]:
    """The provenance of a finished training on an array with the checksum `data`, made from `source`.

    `held` says whether batches were drawn from memory or from the file, for their order depends on it (examples.py).
    `earlier` are the code versions that it went on from, in their order; the last one's is in `versions`.
    """
    import torch

    from ddgm import distributed

    return {
        "versions": versions(),
        "earlier_code": list(earlier),
        "device": f"{device.type}: {device_name(device)}",
        "processes": distributed.processes(),
        "threads": torch.get_num_threads(),
        "deterministic": device.type == "cpu" or torch.are_deterministic_algorithms_enabled(),
        "data_source": source,
        "data_sha256": data,
        "data_held": held,
        "seconds": round(seconds, 1),
    }


def opening_lines(
    name: str, row: dict[str, Any], array: Path, data: str, device: "torch.device", threads: int
) -> Iterator[str]:
    """The first lines of a training's log: everything that was chosen. `data` is the array's checksum."""
    yield f"experiment    {name}"
    yield f"data          {array}, {source_of(array)}, sha256 {data[:16]}"
    yield f"device        {device.type} ({device_name(device)}), {threads} CPU thread(s)"
    yield f"seeds         {', '.join(map(str, row['seeds']))}"
    yield "versions      " + ", ".join(f"{library} {version}" for library, version in versions().items())
    for key in row:
        if key not in ("dataset", "seeds", "device", "threads"):
            yield f"{key:<13} {row[key]}"
