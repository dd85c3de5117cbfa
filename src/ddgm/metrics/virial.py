"""Whether a generator is at rest on its energy, and what is left of the energy where it is.

Where batch norm gives the outputs a scale, Eq. 15 with weight 1 is at rest when E[(x - µ)·∂E/∂x] over the samples is 1
in each dimension, as it is over exp(-E) itself (the virial theorem: integrate by parts). A generator that is free in
all else is at rest only where E is a polynomial of second degree on its samples.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def virial(slopes: Array, samples: Array) -> float:
    """E[(x - µ)·∂E/∂x] / d of slopes ∂E/∂x at samples, (n, d) both: 1 over samples of exp(-E), more where they lie too
    wide for it."""
    return float(((samples - samples.mean(0)) * slopes).mean())


def quadratic_share(energies: Array, samples: Array) -> float:
    """R² of a polynomial of second degree as E (n,) at samples (n, d): 1 for such an energy, and for a constant."""
    first, second = np.triu_indices(samples.shape[1])
    terms = np.column_stack([np.ones(len(samples)), samples, samples[:, first] * samples[:, second]])
    rest = energies - terms @ np.linalg.lstsq(terms, energies, rcond=None)[0]
    return float(1 - rest.var() / energies.var()) if energies.var() > 0 else 1.0
