"""How fast faces become 64x64 arrays, beside torchvision's loader, and how much memory it takes.

python benchmarks/preparation.py FOLDER [--repeats 5] [--memory]

FOLDER holds img_align_celeba.zip and list_eval_partition.txt. Every competitor reads the same faces (the training
split), in a process of its own tied to the same cores, in turn, `repeats` times; rates and ratios are medians, the
ratios of neighbouring runs. Written to docs/results/benchmarks/. Imports and, for torchvision, the unpacking of the zip
into a folder are not timed. Nothing heavy is imported here: the processes that decode import this file too.
"""

import argparse
import hashlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from result import write

from ddgm.datasets import celeba
from ddgm.datasets.verify import verify_raw_files

COMMON = {"kind": "celeba", "draw": None, "folder": None, "side": 64, "crop": None, "max_images": None}
CROP = 148
MORE = 10  # times the faces, for the memory


def ours(folder: Path, faces: Path, cores: int, **settings: object) -> Callable[[], None]:
    files = {name: f"md5:{md5(folder / name)}" for name in (celeba.ARCHIVE, celeba.PARTITION)}
    row = COMMON | settings | {"subset": {"says": "subset: the benchmark's", "checksums": files}}
    target = faces.parent / "prepared" / "train.npy"

    def run() -> None:
        verify_raw_files("benchmark", row, "train", folder)
        celeba.prepare(row, folder, "train", target, cores)

    return run


def md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def torchvision_loader(folder: Path, faces: Path, cores: int, steps: str) -> Callable[[], None]:
    import torch
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

    torch.set_num_threads(1)
    crops = [CenterCrop(CROP), Resize(64)] if steps == "crop" else [Resize(64), CenterCrop(64)]

    def run() -> None:
        loader = DataLoader(ImageFolder(str(faces), Compose([*crops, ToTensor()])), batch_size=128, num_workers=cores)
        for _ in loader:
            pass

    return run


def decode(part: list[bytes], draft: bool) -> None:
    from PIL import Image

    for data in part:
        picture = Image.open(io.BytesIO(data))
        if draft:
            picture.draft(None, (64, 78))
        picture.load()


def decoder(folder: Path, faces: Path, cores: int, draft: bool) -> Callable[[], None]:
    content = [path.read_bytes() for path in sorted(faces.rglob("*.jpg"))]
    parts = [content[number::cores] for number in range(cores)]
    if cores == 1:
        return lambda: decode(parts[0], draft)
    pool = ProcessPoolExecutor(cores)
    list(pool.map(decode, parts, [draft] * cores))  # started and warm

    return lambda: list(pool.map(decode, parts, [draft] * cores))


# The yardstick comes right after what is compared with it: this machine's speed drifts.
COMPETITORS: dict[str, Callable[[Path, Path, int], Callable[[], None]]] = {
    "ddgm prepare, as in params.yaml (whole face, Lanczos, reduced decoding)": lambda *a: ours(*a, draft=True),
    f"torchvision CenterCrop({CROP}), Resize(64), DataLoader": lambda *a: torchvision_loader(*a, steps="crop"),
    f"ddgm prepare, centre crop {CROP}, Lanczos, reduced decoding": lambda *a: ours(*a, draft=True, crop=CROP),
    "torchvision Resize(64), CenterCrop(64), DataLoader": lambda *a: torchvision_loader(*a, steps="whole"),
    "ddgm prepare, whole face, Lanczos, full decoding (the lab's to the bit)": lambda *a: ours(*a, draft=False),
    "Pillow's decoder alone, reduced": lambda *a: decoder(*a, draft=True),
    "Pillow's decoder alone, full": lambda *a: decoder(*a, draft=False),
}
YARDSTICK = f"torchvision CenterCrop({CROP}), Resize(64), DataLoader"


def one_run(name: str, folder: Path, faces: Path, cores: int) -> float:
    """Seconds of one competitor, in this process."""
    run = COMPETITORS[name](folder, faces, cores)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def in_a_process(arguments: list[str], cores: int) -> subprocess.Popen:
    chosen = sorted(os.sched_getaffinity(0))[:cores]
    return subprocess.Popen(
        [sys.executable, __file__, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, chosen),
    )  # fmt: skip


def measure_speed(folder: Path, repeats: int, work: Path) -> Iterator[dict[str, object]]:
    faces = work / "faces"
    unpack_split(folder, faces / "train")
    count = len(list((faces / "train").iterdir()))
    for cores in range(1, min(2, len(os.sched_getaffinity(0))) + 1):
        seconds: dict[str, list[float]] = {name: [] for name in COMPETITORS}
        for _ in range(repeats):
            for name in COMPETITORS:
                process = in_a_process(["--one", name, str(folder), str(faces), str(cores)], cores)
                seconds[name].append(json.loads(process.communicate()[0]))
        for name, times in seconds.items():
            ratios = [yardstick / own for yardstick, own in zip(seconds[YARDSTICK], times, strict=True)]
            yield {
                "what": name,
                "cores": cores,
                "images": count,
                "images_per_second": round(count / statistics.median(times)),
                "slowest": round(count / max(times)),
                "fastest": round(count / min(times)),
                "times_torchvision": round(statistics.median(ratios), 2),
            }


def unpack_split(folder: Path, target: Path) -> None:
    """The training faces as files, for ImageFolder."""
    target.mkdir(parents=True)
    partition = celeba.read_partition(folder / celeba.PARTITION)
    with zipfile.ZipFile(folder / celeba.ARCHIVE) as archive:
        for member in archive.namelist():
            name = member.removeprefix(celeba.FOLDER)
            if partition.get(name) == "train":
                (target / name).write_bytes(archive.read(member))


def measure_memory(folder: Path, work: Path) -> Iterator[dict[str, object]]:
    """The largest sum of resident memory of all processes, seen 20 times a second."""
    cores = min(2, len(os.sched_getaffinity(0)))
    name = next(iter(COMPETITORS))
    for times in (1, MORE):
        place = work / f"{times}"
        multiply(folder, place, times)
        seen: list[int] = []
        process = in_a_process(["--one", name, str(place), str(work / "faces"), str(cores)], cores)
        watcher = threading.Thread(target=watch, args=(process.pid, seen))
        watcher.start()
        seconds = json.loads(process.communicate()[0])
        watcher.join()
        facts = json.loads((work / "prepared" / "train.json").read_text())
        yield {
            "what": name,
            "cores": cores,
            "images": facts["entries"],
            "images_per_second": round(facts["entries"] / seconds),
            "peak_megabytes": round(max(seen) / 1e6),
        }


def watch(process: int, seen: list[int]) -> None:
    import psutil

    try:
        parent = psutil.Process(process)
        while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
            total = 0
            for one in (parent, *parent.children(recursive=True)):
                try:
                    total += one.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            seen.append(total)
            time.sleep(0.05)
    except psutil.NoSuchProcess:
        return


def multiply(folder: Path, target: Path, times: int) -> None:
    """A container of the same faces, all for training, each `times` times under new names."""
    target.mkdir()
    lines: list[str] = []
    with (
        zipfile.ZipFile(folder / celeba.ARCHIVE) as archive,
        zipfile.ZipFile(target / celeba.ARCHIVE, "w") as large,
    ):
        for member in (name for name in archive.namelist() if name.endswith(".jpg")):
            data = archive.read(member)
            for _ in range(times):
                name = f"{len(lines):07d}.jpg"
                large.writestr(celeba.FOLDER + name, data)
                lines.append(f"{name} 0\n")
    (target / celeba.PARTITION).write_text("".join(lines))


def versions() -> dict[str, str]:
    import PIL
    import simplejpeg
    import torchvision
    from PIL import features

    return {
        "pillow": PIL.__version__,
        "libjpeg_turbo": str(features.version("libjpeg_turbo")),
        "simplejpeg": simplejpeg.__version__,
        "torchvision": torchvision.__version__,
    }


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        _, _, name, folder, faces, cores = sys.argv
        print(json.dumps(one_run(name, Path(folder), Path(faces), int(cores))))
        return
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument(
        "--memory", action="store_true", help="measure memory, at all faces and at ten times as many"
    )
    asked = arguments.parse_args()
    for name in (celeba.ARCHIVE, celeba.PARTITION):
        if not (asked.folder / name).is_file():
            sys.exit(f"{asked.folder} holds no {name}: write the folder of both, as data/raw/celeba_15k")
    with tempfile.TemporaryDirectory() as work:
        if asked.memory:
            lines = list(measure_memory(asked.folder, Path(work)))
        else:
            lines = list(measure_speed(asked.folder, asked.repeats, Path(work)))
    write("preparation_memory" if asked.memory else "preparation_speed", lines, versions())
    for line in lines:
        print(*line.values(), sep="\t")


if __name__ == "__main__":
    main()
