"""The classifier that judges digits: a small convolutional net, whose last hidden layer is the metrics' feature space.

It is evidence, and no part of the method: no energy or generator is trained with it.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from ddgm import provenance
from ddgm.datasets.prepared import Split, read, source_of
from ddgm.errors import UserError, again
from ddgm.experiment import PROVENANCE, WEIGHTS, read_tensors, save_weights, weights_that_fit
from ddgm.progress import Progress, log
from ddgm.reading import read_table
from ddgm.whole_file import all_or_none, whole_file

CLASSES = 10
CLASSIFIER, ACCURACY = "classifier.json", "accuracy.csv"


class Classifier(nn.Module):
    """p(digit | x) of images (N, C, H, W) with pixels from 0 to 1: logits (N, 10).

    3x3 convolutions that each halve height and width, then a linear layer to `features`, with batch norm and ReLU after
    each.
    """

    def __init__(self, shape: tuple[int, int, int], widths: list[int], features: int) -> None:
        super().__init__()
        channels, height, width = shape
        layers: list[nn.Module] = []
        for maps in widths:
            layers += [nn.Conv2d(channels, maps, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(maps), nn.ReLU()]
            channels, height, width = maps, (height + 1) // 2, (width + 1) // 2
        layers += [nn.Flatten(), nn.Linear(channels * height * width, features, bias=False)]
        self.body = nn.Sequential(*layers, nn.BatchNorm1d(features), nn.ReLU())
        self.head = nn.Linear(features, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    @torch.no_grad()
    def judge(self, pixels: Tensor, batch: int = 1000) -> tuple[Tensor, Tensor]:
        """Features (N, features) and probabilities (N, 10) of uint8 images (N, C, H, W)."""
        features = torch.cat([self.body(part.float() / 255) for part in pixels.split(batch)])
        return features, torch.softmax(self.head(features), 1)


def labelled(array: Path) -> tuple[Tensor, Tensor]:
    """Pictures (N, C, H, W), uint8, and the digit of each, (N,); UserError if the index beside them has no digits."""
    images, path = torch.from_numpy(read(array)), Split(array).index
    index = read_table(path, [])
    if "label" not in index:
        raise UserError(f"{path} has no column 'label': a classifier needs a data set with digits")
    digits = pd.to_numeric(index["label"], errors="coerce")
    wrong = index["label"][~digits.isin(range(CLASSES))].tolist()
    if wrong:
        raise UserError(f"{path} has {wrong[0]!r} under label, and 0 to {CLASSES - 1} are allowed: {again(path)}")
    if len(digits) != len(images):
        raise UserError(f"{path} has {len(digits)} rows for the {len(images)} examples of {array}: {again(path)}")
    return images, torch.tensor(digits.to_numpy(np.int64))


def shifted(x: Tensor, most: int, stream: torch.Generator) -> Tensor:
    """A batch (N, C, H, W) moved by up to `most` pixels each way, all by the same, black where nothing is left."""
    down, right = torch.randint(-most, most + 1, (2,), generator=stream).tolist()
    return pad(x, (right, -right, down, -down))


def batches(images: Tensor, labels: Tensor, batch: int, stream: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order: (pixels from 0 to 1, labels), the last incomplete batch left out."""
    order = torch.randperm(len(images), generator=stream)
    for chosen in order[: len(order) // batch * batch].split(batch):
        yield images[chosen].float() / 255, labels[chosen]


def fit(row: dict[str, Any], images: Tensor, labels: Tensor, seed: int, bar: Progress) -> Classifier:
    """Train one classifier on uint8 images (N, C, H, W) and labels (N,): Adam, one cycle of its rate (Smith 2018)."""
    stream = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    # Channels last: convolutions on a CPU take half the time.
    net = Classifier(tuple(images.shape[1:]), row["widths"], row["features"]).to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(net.parameters(), weight_decay=row["weight_decay"])
    steps = row["epochs"] * (len(images) // row["batch"])
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, row["rate"], total_steps=steps)
    first = row["seeds"].index(seed) * row["epochs"]
    for epoch in range(row["epochs"]):
        for x, digits in batches(images, labels, row["batch"], stream):
            x = shifted(x, row["shift"], stream).to(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=row["precision"] == "bfloat16"):
                logits = net(x)
            loss = cross_entropy(logits.float(), digits)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rate.step()
        bar.show(first + epoch + 1, f"seed {seed}, cross entropy {loss.item():.4f}")
    return net.eval()


def accuracy(net: Classifier, images: Tensor, labels: Tensor) -> float:
    """Share of uint8 images (N, C, H, W) whose digit is told right."""
    return float((net.judge(images)[1].argmax(1) == labels).double().mean())


def train(name: str, row: dict[str, Any], train_array: Path, test_array: Path, directory: Path) -> None:
    """Train a classifier of data set `name` for each seed, and leave weights, accuracies and provenance."""
    torch.set_num_threads(row["threads"])
    images, labels = labelled(train_array)
    held_out, held_out_labels = labelled(test_array)
    if len(images) < row["batch"]:
        raise UserError(
            f"classifiers.{name}.batch is {row['batch']}, and there are {len(images)} digits to train on: write less"
        )
    if row["shift"] >= (side := min(images.shape[2:])):
        raise UserError(
            f"classifiers.{name}.shift is {row['shift']}, which moves a digit of {side} pixels out of sight: write less"
        )
    directory.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    weights, rows = {}, []
    with Progress(f"classifier of {name}", row["epochs"] * len(row["seeds"]), unit="epoch") as bar:
        for seed in row["seeds"]:
            net = fit(row, images, labels, seed, bar)
            weights[seed] = {"classifier": net.state_dict()}
            rows.append((name, seed, "accuracy", accuracy(net, held_out, held_out_labels)))
            log.info(f"classifier of {name}, seed {seed}: {rows[-1][3]:.4f} of the test digits told right")
    seconds = time.monotonic() - started
    device = torch.device("cpu")
    about = provenance.of_run(provenance.checksum(train_array), source_of(train_array), "resident", device, seconds)
    # Without the last one there is no classifier.
    with all_or_none(directory / file for file in (CLASSIFIER, PROVENANCE, ACCURACY, WEIGHTS)):
        save_weights(directory, weights)
        with whole_file(directory / ACCURACY) as path:
            pd.DataFrame(rows, columns=["dataset", "seed", "metric", "value"]).to_csv(path, index=False)
        for file, content in ((PROVENANCE, about), (CLASSIFIER, {"shape": list(images.shape[1:]), "row": row})):
            with whole_file(directory / file) as path:
                path.write_text(json.dumps(content, indent=2) + "\n")


def load(directory: Path, seed: int | None = None) -> Classifier:
    """The trained classifier of one seed, the first by default. Raises UserError if there is none."""
    try:
        about = json.loads((directory / CLASSIFIER).read_text())
        row, shape = about["row"], about["shape"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{directory} holds no trained classifier: make it with 'ddgm classify {directory.name} --branch "
            f"{directory.parents[1].name}'"
        ) from None
    net = Classifier(tuple(shape), row["widths"], row["features"])
    prefix = f"{row['seeds'][0] if seed is None else seed}.classifier."
    tensors = read_tensors(directory / WEIGHTS)
    with weights_that_fit(directory):
        net.load_state_dict({n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)})
    return net.eval()
