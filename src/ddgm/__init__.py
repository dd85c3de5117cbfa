"""Deep directed generative models with energy-based probability estimation (Kim and Bengio, 2016), reproduced."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # PyTorch takes seconds to import, and the Snakefile needs none of it.
    if name == "load":
        from ddgm.experiment import load

        return load
    raise AttributeError(f"module 'ddgm' has no attribute '{name}'")
