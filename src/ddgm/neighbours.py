"""Nearest neighbours of samples, by whose distances a density is told.

Many points on a line, in the plane or in space are searched by a tree on a CPU, on one thread in half of the time for
512 points and an eighth for 2,048; all else by all distances.
"""

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

# Dimensions at most, and points of a pool at least, for which a tree finds neighbours sooner. Among 256 points it is a
# little sooner on one thread, and all distances take half of its time on two.
FEW, MANY = 3, 512


def log_distances(points: Tensor, pool: Tensor, numbers: list[int]) -> Tensor:
    """log ‖x - its k-th neighbour‖ for each k in `numbers`: x (S, N, d), pool (S, M, d) -> (S, N, numbers).

    Differentiated through these neighbours alone: the gradient of all distances, without the work. Of two points in one
    place the distance counts as 1e-6.
    """
    index = neighbours(points, pool, numbers)
    found = pool.gather(1, index.flatten(1).unsqueeze(2).expand(-1, -1, pool.shape[2])).view(*index.shape, -1)
    return 0.5 * (points.unsqueeze(2) - found).square().sum(3).clamp_min(1e-12).log()


def neighbours(points: Tensor, pool: Tensor, numbers: list[int]) -> Tensor:
    """Where in its seed's pool the neighbours of each point are: (S, N, d), (S, M, d) -> indices (S, N, numbers).

    Neighbour 0 is the nearest: the point itself, where it is in the pool too. No gradient comes through. Points that
    are no numbers have any neighbours.
    """
    points, pool = points.detach(), pool.detach()
    if points.device.type == "cpu" and points.shape[2] <= FEW and pool.shape[1] >= MANY:
        return by_trees(points, pool, numbers)
    # About the middle: the squares that cdist subtracts would round away a batch that has drawn together elsewhere.
    middle = pool.mean(1, keepdim=True)
    nearest = torch.cdist(points - middle, pool - middle).topk(max(numbers) + 1, dim=2, largest=False).indices
    # Not by a list of numbers, which would be sent to the device at each call.
    return torch.stack([nearest[:, :, k] for k in numbers], 2)


# An operation of PyTorch's own kind, for a compiled program to call.
@torch.library.custom_op("ddgm::neighbours_by_trees", mutates_args=())
def by_trees(points: Tensor, pool: Tensor, numbers: list[int]) -> Tensor:
    """`neighbours` by a k-d tree of each seed's pool."""
    ranks = [k + 1 for k in numbers]
    found = [tree(every).query(finite(some), ranks)[1] for some, every in zip(points, pool, strict=True)]
    return torch.from_numpy(np.stack(found))


@by_trees.register_fake
def shape_of_neighbours(points: Tensor, pool: Tensor, numbers: list[int]) -> Tensor:
    return points.new_empty(*points.shape[:2], len(numbers), dtype=torch.int64)


def tree(points: Tensor) -> cKDTree:
    """Cut in the middle rather than at the median: sooner built, and no slower for its few questions."""
    return cKDTree(finite(points), balanced_tree=False, compact_nodes=False)


def finite(points: Tensor) -> np.ndarray:
    """A tree refuses what is no number: a training that has run off is stopped by what watches it, and says why."""
    return np.nan_to_num(points.numpy())
