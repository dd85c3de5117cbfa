"""What a prepared data set holds, as a table: counts, faults, mean and standard deviation of each channel."""

from pathlib import Path

import numpy as np
import pandas as pd

from ddgm.datasets.prepared import read, read_sheet
from ddgm.whole_file import whole_file

COLUMNS = ["dataset", "split", "source", "measure", "value"]
CHANNELS = {1: ("grey",), 3: ("red", "green", "blue")}
AT_ONCE = 4096  # pictures read from the disk


def describe(arrays: list[Path], target: Path) -> None:
    """Write the table of a data set's splits: a row for each split and measure.

    examples, entries (read from the original files), left_out, and one `fault_` for each kind that occurs;
    `mean_` and `sd_` of each channel, in units of a pixel's 0 to 255, or of each coordinate of points. Raises
    UserError if a split's sheet is missing or its array damaged.
    """
    rows = []
    for path in arrays:
        sheet = read_sheet(path, ("dataset", "split", "source", "entries", "left_out", "faults"))
        array = read(path, "r")
        values = {"examples": len(array), "entries": sheet["entries"], "left_out": sheet["left_out"]}
        values |= {f"fault_{fault}": count for fault, count in sheet["faults"].items()}
        names = CHANNELS[array.shape[1]] if array.ndim == 4 else ("x", "y")
        for name, mean, sd in zip(names, *channel_statistics(array), strict=True):
            values |= {f"mean_{name}": mean, f"sd_{name}": sd}
        # Counts keep every digit.
        told = {name: str(value) if isinstance(value, int) else f"{value:.6g}" for name, value in values.items()}
        rows += [(sheet["dataset"], sheet["split"], sheet["source"], *measure) for measure in told.items()]
    with whole_file(target) as path:
        pd.DataFrame(rows, columns=COLUMNS).to_csv(path, index=False)


def channel_statistics(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of uint8 (N, C, H, W) or each column of float (N, C): (C,) each.

    Pixels are counted by value, so that the sums are exact and memory does not grow with N.
    """
    if array.dtype != np.uint8:
        return array.mean(0, dtype=np.float64), array.std(0, dtype=np.float64)
    counts = np.zeros((array.shape[1], 256), np.int64)
    for begin in range(0, len(array), AT_ONCE):
        part = np.asarray(array[begin : begin + AT_ONCE])
        for channel, count in enumerate(counts):
            count += np.bincount(part[:, channel].ravel(), minlength=256)
    levels = np.arange(256)
    mean = counts @ levels / counts.sum(1)
    return mean, np.sqrt(counts @ levels**2 / counts.sum(1) - mean**2)
