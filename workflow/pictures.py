"""The pictures of a branch's figures: small enough to keep, and which of them may be shown to others."""

import io
from pathlib import Path
from typing import Any

from PIL import Image

from ddgm.figures.registry import PHOTOGRAPHS


def reduced(picture: Path) -> bytes:
    """A picture as PNG with at most 256 colours: a third of the size, the same to the eye."""
    small, content = Image.open(picture).convert("RGB").quantize(256, dither=Image.Dither.NONE), io.BytesIO()
    small.save(content, "PNG", optimize=True)
    return content.getvalue()


def shows_photographs(config: dict[str, Any], stem: str) -> bool:
    """Whether a figure, `fig4_neighbours_celeba` or `sheet_celeba`, shows pictures of a data set that are photographs.

    Their licences forbid to hand them on. Drawn stand-ins may be.
    """
    for figure in ("sheet", *PHOTOGRAPHS):
        if stem.startswith(f"{figure}_"):
            name = stem.removeprefix(f"{figure}_")
            dataset = name if figure == "sheet" else config["experiments"][name]["dataset"]
            row = config["datasets"][dataset]
            return "side" in row and not row["draw"]
    return False
