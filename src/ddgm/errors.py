"""What ends a command: a user's mistake, too little memory, or a machine that is taken away."""

import sys
from pathlib import Path

# sysexits' "try again": what a training says that was asked to end, and has saved its state.
TRY_AGAIN = 75


class UserError(Exception):
    """One sentence for the person at the keyboard: what is wrong, with which value, and what to write instead.

    The command line prints it alone, without a traceback, and exits with code 1.
    """


class DivergenceError(UserError):
    """A training that ran off: a value that is no finite number, or energies and samples beyond what `watch` allows."""


def again(path: Path) -> str:
    """What to do about a damaged file that the pipeline made: the end of a sentence."""
    return f"delete it, and make it again with 'snakemake {path}'"


def out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the machine, or of a device, was too small. Imports no PyTorch that is not there yet."""
    torch = sys.modules.get("torch")
    of_device = torch is not None and isinstance(error, torch.OutOfMemoryError)
    # PyTorch has no error of its own for it on a CPU, nor where a library of CUDA's says so.
    said = any(words in str(error) for words in ("can't allocate memory", "CUDA error: out of memory", "_ALLOC_FAILED"))
    return isinstance(error, MemoryError) or of_device or (isinstance(error, RuntimeError) and said)
