"""The figures of a branch, a row each. The Snakefile imports this module: nothing heavy may be imported.

A figure is drawn by the `draw` of the module of its name, in this folder, and explained by workflow/report/NAME.rst.
Sheets of data sets and figures of claims have rules of their own.
"""

from dataclasses import dataclass

# What figures are drawn from, each a file of one experiment, and the command that makes it.
FILES = {
    "data": ("data/prepared/{dataset}/train.npy", "ddgm prepare {dataset} train"),
    "history": ("results/{branch}/models/{experiment}/history.csv", "ddgm train {experiment}"),
    "progress": ("results/{branch}/models/{experiment}/progress.npz", "ddgm train {experiment}"),
    "samples": ("results/{branch}/samples/{experiment}.npz", "ddgm sample {experiment}"),
    "metrics": ("results/{branch}/metrics/{experiment}.csv", "ddgm evaluate {experiment}"),
    "evidence": ("results/{branch}/evidence/{experiment}.npz", "ddgm evaluate {experiment}"),
    "interpolations": ("results/{branch}/interpolations/{experiment}.csv", "ddgm evaluate {experiment}"),
    "crossings": ("results/{branch}/crossings/{experiment}.csv", "ddgm evaluate {experiment}"),
    "traces": ("results/{branch}/traces/{experiment}.csv", "ddgm trace {experiment}"),
}


@dataclass(frozen=True)
class Figure:
    """One picture for each experiment that it shows, or one for all of them.

    `draw` takes a file, or where all are shown a mapping from experiments to files, for each word of `drawn_from`;
    then, for each, the outputs and a title; for all, the titles and the outputs.
    """

    shows: str | None  # the list of a branch in params.yaml, "all" for every experiment, None for none
    drawn_from: tuple[str, ...] = ()  # of FILES
    each: bool = False
    titles: bool = True  # where all are shown: whether `draw` takes titles
    photographs: bool = False  # whether it shows data, which CelebA's terms forbid to publish
    category: str = "Figures"  # of the report


FIGURES = {
    "fig1": Figure(None),
    "fig2": Figure("fig2", ("samples", "data")),
    "fig2_extended": Figure("fig2", ("samples", "metrics")),
    "fig2_curves": Figure("traced", ("traces", "history"), category="Training"),
    "fig3": Figure("fig3", ("samples",), each=True),
    "fig3_steps": Figure("fig3", ("evidence", "interpolations"), each=True),
    "fig3_named": Figure("fig3", ("evidence", "crossings"), each=True),
    "fig3_crossings": Figure("fig3", ("crossings",), each=True),
    "fig3_neighbours": Figure("fig3", ("evidence",), each=True),
    "fig3_energies": Figure("fig3", ("evidence",), each=True),
    "fig4": Figure("fig4", ("samples",), each=True),
    "fig4_ordered": Figure("fig4", ("evidence",), each=True),
    "fig4_lines": Figure("fig4", ("samples",), each=True),
    "fig4_progress": Figure("fig4", ("progress",), each=True),
    "fig4_curves": Figure("fig4", ("history",), each=True),
    "fig4_energies": Figure("fig4", ("evidence",), each=True),
    "fig4_neighbours": Figure("fig4", ("evidence",), each=True, photographs=True),
    "fig4_landscape": Figure("fig4", ("evidence",), each=True, photographs=True),
    "curves": Figure("all", ("history",), titles=False, category="Training"),
}
PHOTOGRAPHS = tuple(name for name, figure in FIGURES.items() if figure.photographs)


def showing(shows: str) -> list[str]:
    """The names of the figures that show one list of a branch."""
    return [name for name, figure in FIGURES.items() if figure.shows == shows]
