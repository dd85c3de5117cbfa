"""Evidence that compares generated images with real ones where both are points of many dimensions.

Points are float32 tensors (n, d): the features of a classifier, or pixels. Distances between two sets are matrix
products of a bounded size, and sums run in double precision.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ddgm.errors import UserError
from ddgm.metrics.cutoffs import MEMORISED
from ddgm.metrics.points import COVERED

# Numbers of a matrix of pairs that are held at once: 64 MB in single precision. Not less than 32 MB, for glibc keeps
# freed blocks below that, and the memory grows with every part.
BLOCK = 2**24


def blocks(x: Tensor, columns: int) -> tuple[Tensor, ...]:
    """The rows of x in parts, so that a matrix of a part's rows by `columns` holds at most BLOCK numbers."""
    return x.split(max(1, BLOCK // columns))


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|² as a matrix product, (n, m); rounding may take a distance of 0 a little below it."""
    squares = torch.addmm(y.norm(dim=1).square(), x, y.T, alpha=-2)
    return squares.add_(x.norm(dim=1, keepdim=True).square())


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """The squared Fréchet distance of the Gaussians fitted to x (n, d) and y (m, d) (Heusel et al. 2017).

    |μx - μy|² + tr(Cx + Cy - 2 (Cx^½ Cy Cx^½)^½), in squared units of x. The matrix under the root is symmetric, so its
    eigenvalues are real and the covariances may be singular. Biased upwards, by more the fewer the points.
    """
    fewest, needed = min(len(x), len(y)), x.shape[1] + 1
    if fewest < needed:
        raise UserError(
            f"the Fréchet distance in {x.shape[1]} dimensions was given a set of {fewest} points: draw {needed} or more"
        )
    x, y = x.double(), y.double()
    cov_x, cov_y = x.T.cov(), y.T.cov()
    values, vectors = torch.linalg.eigh(cov_x)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ cov_y @ root).clamp(min=0).sqrt().sum()
    return float((x.mean(0) - y.mean(0)).square().sum() + cov_x.trace() + cov_y.trace() - 2 * shared)


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """The squared MMD of x (n, d) and y (m, d) with the kernel (x·y / d + 1)³ (Bińkowski et al. 2018).

    Unbiased: 0 on average where both have one distribution, and so below 0 for some.
    """
    x, y = x.double(), y.double()

    def kernel(product: Tensor) -> Tensor:
        return product.div_(x.shape[1]).add_(1).pow_(3)

    def across(a: Tensor, b: Tensor) -> float:
        return sum(float(kernel(part @ b.T).sum()) for part in blocks(a, len(b)))

    def within(a: Tensor) -> float:
        return (across(a, a) - float(kernel(a.square().sum(1)).sum())) / (len(a) * (len(a) - 1))

    return within(x) + within(y) - 2 * across(x, y) / (len(x) * len(y))


def squared_radii(x: Tensor, neighbours: int) -> Tensor:
    """The squared distance from each point (n, d) to its k-th nearest other, (n,)."""
    # k + 1, for each point is the nearest to itself
    nearest_few = [
        squared_distances(part, x).topk(neighbours + 1, largest=False).values.amax(1) for part in blocks(x, len(x))
    ]
    return torch.cat(nearest_few)


def manifold_overlap(real: Tensor, generated: Tensor, neighbours: int) -> dict[str, float]:
    """How two sets (n, d), (m, d) lie in the balls around each other's points, out to the k-th nearest of their own.

    precision, recall: the share of generated points in a real ball, of real ones in a generated ball (Kynkäänniemi et
    al. 2019). density: real balls a generated point lies in, over k; coverage: the share of real balls that hold a
    generated point (Naeem et al. 2020). On one distribution density is 1 and coverage 1 - 2^-k where n = m.
    """
    fewest = min(len(real), len(generated))
    if not 1 <= neighbours < fewest:
        raise UserError(f"a point among {fewest} has no neighbour number {neighbours}: allowed are 1 to {fewest - 1}")
    real, generated = real.double(), generated.double()
    real_radii, generated_radii = squared_radii(real, neighbours), squared_radii(generated, neighbours)
    inside, pairs = 0, 0
    covered = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    recalled = covered.clone()
    for part, radii in zip(blocks(generated, len(real)), blocks(generated_radii, len(real)), strict=True):
        squares = squared_distances(part, real)
        in_real = squares <= real_radii
        inside += int(in_real.any(1).sum())
        pairs += int(in_real.sum())
        covered |= in_real.any(0)
        recalled |= (squares <= radii[:, None]).any(0)
    return {
        "precision": inside / len(generated),
        "recall": float(recalled.double().mean()),
        "density": pairs / (neighbours * len(generated)),
        "coverage": float(covered.double().mean()),
    }


def nearest(x: Tensor, pool: Tensor) -> tuple[Tensor, Tensor]:
    """The Euclidean distance from each of x (n, d) to its nearest in the pool (m, d), and its row there: (n,), (n,)."""
    centre = pool.mean(0)  # a common offset would drown differences in single precision
    centred = pool - centre
    rows = torch.cat([squared_distances(part - centre, centred).argmin(1) for part in blocks(x, len(pool))])
    # from the difference, for the product does not give 0 for a copy
    return (x - pool[rows]).norm(dim=1), rows


def memorisation(distance: Tensor, heldout_distance: Tensor) -> dict[str, float]:
    """Whether samples are copies: their distances to the nearest training image, beside those of held-out ones.

    `memorised` is the share of samples closer than the closest hundredth of held-out images: 0.01 if nothing is.
    """
    closest = heldout_distance.quantile(MEMORISED)
    return {
        "neighbour_distance": float(distance.median()),
        "neighbour_distance_heldout": float(heldout_distance.median()),
        "memorised": float((distance < closest).double().mean()),
    }


def sharpness(images: Tensor) -> float:
    """The variance of the discrete Laplacian over an image (N, 1, H, W), mean over images (Pech-Pacheco et al. 2000).

    In squared units of a pixel; lower where images are blurred, higher where they are noisy.
    """
    laplacian = images.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    return float(F.conv2d(images, laplacian[None, None]).flatten(1).var(1, correction=0).mean())


def sharpness_ratio(pixels: Tensor, data_pixels: Tensor) -> float:
    """Sharpness of images over that of data, both of 0 to 255: 1 if as sharp, less if blurred, more if noisy."""
    return sharpness(pixels.float() / 255) / sharpness(data_pixels.float() / 255)


def class_balance(classes: Tensor, number: int) -> dict[str, float]:
    """How evenly predicted classes (n,), of 0 to number - 1, are filled.

    kl_to_uniform: KL(histogram ‖ uniform) in nats, 0 if even and log(number) if one class has all. classes_found: those
    with at least COVERED of the share they are due.
    """
    counts = classes.bincount(minlength=number).double()
    shares = counts * number / len(classes)  # of what is due
    return {
        "kl_to_uniform": float(shares.xlogy(shares).mean()),
        "classes_found": float((shares >= COVERED).sum()),
    }
