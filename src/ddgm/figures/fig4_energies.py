"""What the energy of colour images tells apart: its values by kind of picture."""

from collections.abc import Sequence
from pathlib import Path

from ddgm.figures.inches import page_of
from ddgm.figures.ridges import AXIS, HEAD, RIDGE, draw_ridges, linear_part, read_energies, ridges_in_words
from ddgm.figures.style import DATA, ENERGY, SAMPLES, look, save, trained_on
from ddgm.reading import read_arrays

KINDS = {
    "train": ("training pictures", DATA),
    "test": ("held-out pictures", DATA),
    "samples": ("samples", SAMPLES),
    "other_domain": ("another data set", ENERGY),
    "inverted": ("inverted pictures", ENERGY),
    "shuffled": ("shuffled pixels", ENERGY),
    "noise": ("noise", ENERGY),
}
COMPARED = tuple(kind for kind in KINDS if kind != "test")


def draw(evidence: Path, outputs: Sequence[Path], title: str) -> None:
    """The energies of all seeds by kind of picture.

    evidence  npz: energy_KIND (S, m), nats above the held-out pictures' mean, for kinds of KINDS; auroc_KIND (S,) of
              all but "test"; source: what the pair was trained on

    Raises UserError for arrays of another form.
    """
    energies, aurocs = read_energies(evidence, KINDS, COMPARED)
    source = read_arrays(evidence, {"source": ()})["source"]
    linear = linear_part(energies)
    note = ridges_in_words(len(energies["test"]), linear, "a held-out picture")
    note = f"{note[0].upper()}{note[1:]}. None chosen; {trained_on(source)}."
    with look():
        figure, place = page_of(f"{title}: what the energy tells apart", HEAD + RIDGE * len(energies) + AXIS, note)
        draw_ridges(place, energies, aurocs, KINDS, linear, "held-out")
        save(figure, outputs)
