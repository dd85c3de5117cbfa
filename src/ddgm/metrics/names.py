"""What metrics are called, by the table that they stand in: a claim or a search that asks for another is refused before
anything is trained. Imports nothing heavy: the Snakefile reads it.
"""

import re

# The first three are an experiment's table of metrics, by what its evidence is; the others are tables of their own.
# Each is a regular expression: what is measured of several kinds of input or classes has a name for each.
_OF_ENERGIES = r"(energy|auroc)_\w+"
NAMES = {
    "density": (
        "log_partition", r"(kl|tv)_(data_model|data_generator|generator_model)", "kl_data_model_change",
        r"rank_correlation(_near|_far)?", "virial", "quadratic_share", "integrable_within", "inside_99",
        "modes_covered", "mode_share_smallest", "sliced_wasserstein2", r"wasserstein2(_floor)?",
        r"negentropy(_largest)?",
    ),
    "digits": (
        r"(classes_found|kl_to_uniform|confidence|frechet|kernel_distance|precision|recall|density|coverage|sharpness)"
        r"(_floor)?",
        r"share_\d", "spread", "memorised", r"neighbour_distance(_heldout)?", _OF_ENERGIES,
        r"path_(confidence|energy|pixel_step_longest|feature_step_longest)_(z|pixels)",
        r"(lines|between)_\d_\d", r"crossed_\d_\d_by_\d(_pixels)?",
    ),
    "images": (
        r"(swd|swd_\d+|swd_colours|spread|sharpness)(_floor)?", "memorised", r"neighbour_distance(_heldout)?",
        _OF_ENERGIES, r"(fid|kid|inception_precision|inception_recall)(_floor)?",
    ),
    "traces": (
        "energy_sd", r"entropy(_eq_15|_error)?", r"gradient_(cosine|ratio)",
        r"kl_(data_model|data_generator|generator_model)", r"rank_correlation(_near|_far)?",
    ),
    "mixing": ("acceptance", "occupancy_error", "slowdown"),
}  # fmt: skip


def is_in(metric: str, table: str) -> bool:
    """Whether a table of this kind, one of NAMES, has a metric of that name."""
    return any(re.fullmatch(name, metric) for name in NAMES[table])


def in_words(table: str) -> str:
    """The names of a table's metrics, in a line; `*` stands for a number or a word."""
    plain = [re.sub(r"\\d\+?|\\w\+", "*", name) for name in NAMES[table]]
    return ", ".join(re.sub(r"\(([\w|]+)\)\?", r"[\1]", name) for name in plain)
