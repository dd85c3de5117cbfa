"""Are the samples of Figure 4 new? Each above the training picture nearest to it, and how far away that is.

What it draws shows photographs of the data set: it is not to be published.
"""

from collections.abc import Sequence
from pathlib import Path

from ddgm.figures import fig3_neighbours

# CelebA's terms forbid to publish its photographs; workflow/publish.py leaves this figure out.
PICTURES = fig3_neighbours.Kind(
    "training picture", "held-out pictures", 3, across=8, wide=5.4, largest=0.66, below=True,
    distance="of means over 4x4 pixels, which run from 0 to 1", photographs=True,
)  # fmt: skip


def draw(evidence: Path, outputs: Sequence[Path], title: str) -> None:
    """As `fig3_neighbours.draw`, with colour pictures and the distances below them."""
    fig3_neighbours.draw(evidence, outputs, title, PICTURES)
