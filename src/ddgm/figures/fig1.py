"""Figure 1: the framework: a deep energy model and a deep generative model, each trained through the other."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Line

from ddgm.figures.style import DATA, ENERGY, ENTROPY, PAGE, SAMPLES, blank_page, look, save

TALL = 3.35  # inches; one unit of the drawing is an inch
Point = tuple[float, float]


class Box:
    """A box with words, by its centre and size in inches; its edges are where arrows begin and end."""

    def __init__(
        self, axes: Axes, centre: Point, wide: float, high: float, words: str, fill: str = "white",
        line: str = "#444444", size: float = 7,
    ) -> None:  # fmt: skip
        x, y = centre
        self.left, self.right = (x - wide / 2, y), (x + wide / 2, y)
        self.bottom, self.top = (x, y - high / 2), (x, y + high / 2)
        axes.add_patch(
            FancyBboxPatch(
                (x - wide / 2, y - high / 2), wide, high, boxstyle="round,pad=0,rounding_size=0.05",
                facecolor=fill, edgecolor=line, linewidth=0.7, zorder=2,
            )
        )  # fmt: skip
        axes.text(x, y, words, ha="center", va="center", size=size, linespacing=1.35, zorder=3)


def _arrow(axes: Axes, points: Sequence[Point], colour: str, width: float = 0.9, style: str = "-") -> None:
    """An arrow along `points`, straight from one to the next, with rounded corners."""
    bend = 0.06
    vertices, codes = [points[0]], [Line.MOVETO]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        for end in (before, after):
            step = np.subtract(end, corner)
            vertices.append(tuple(corner + step * bend / np.hypot(*step)))
        vertices.insert(-1, corner)
        codes += [Line.LINETO, Line.CURVE3, Line.CURVE3]
    axes.add_patch(
        FancyArrowPatch(
            path=Line([*vertices, points[-1]], [*codes, Line.LINETO]), arrowstyle="-|>,head_length=3,head_width=1.5",
            mutation_scale=1.3, color=colour, linewidth=width, linestyle=style, joinstyle="miter", zorder=4,
        )
    )  # fmt: skip


def _panel(axes: Axes, corner: Point, wide: float, high: float, fill: str) -> None:
    axes.add_patch(
        FancyBboxPatch(
            corner, wide, high, boxstyle="round,pad=0,rounding_size=0.08", facecolor=fill, linewidth=0, zorder=0
        )
    )


def _cloud(axes: Axes, centre: Point, side: float, colour: str, spread: float, seed: int) -> Box:
    """A small box with points along a spiral: a set of examples."""
    box = Box(axes, centre, side, side, "", line=colour)
    stream = np.random.default_rng(seed)
    turn = 2 * np.pi * np.sqrt(stream.uniform(0.02, 1, 160))
    arm = np.pi * stream.integers(0, 2, 160)
    radius = 0.42 * side * turn / turn.max()
    x = centre[0] + radius * np.cos(turn + arm) + spread * stream.normal(size=160)
    y = centre[1] + radius * np.sin(turn + arm) + spread * stream.normal(size=160)
    inside = (abs(x - centre[0]) < 0.45 * side) & (abs(y - centre[1]) < 0.45 * side)
    axes.scatter(x[inside], y[inside], s=1.3, color=colour, linewidths=0, alpha=0.8, zorder=3)
    return box


def _landscape(axes: Axes, left: float, bottom: float, wide: float, high: float) -> None:
    """An energy in one dimension: data pull it down where they lie, samples push it up where they lie."""
    axes.add_patch(
        FancyBboxPatch(
            (left, bottom), wide, high, boxstyle="round,pad=0,rounding_size=0.05", facecolor="white",
            edgecolor="#444444", linewidth=0.7, zorder=2,
        )
    )  # fmt: skip

    def energy(u: np.ndarray | float) -> np.ndarray | float:
        """Height in inches over the bottom at `u`, 0 to 1 across."""
        valleys = 0.30 * np.exp(-(((u - 0.27) / 0.10) ** 2)) + 0.20 * np.exp(-(((u - 0.72) / 0.12) ** 2))
        return high * (0.62 + 0.35 * (u - 0.5) ** 2 - valleys / 0.62)

    u = np.linspace(0.05, 0.95, 200)
    axes.plot(left + wide * u, bottom + energy(u), color=ENERGY, linewidth=1.1, zorder=3)
    for places, colour, way in (((0.22, 0.31), DATA, -1), ((0.66, 0.77), SAMPLES, 1)):
        for place in places:
            x, y = left + wide * place, bottom + energy(place)
            axes.scatter([x], [y], s=7, color=colour, linewidths=0, zorder=5)
            tail = 0.30 if way < 0 else 0.03
            _arrow(axes, [(x, y + tail), (x, y + 0.33 - tail)], colour, width=0.8)


def draw(outputs: Sequence[Path]) -> None:
    """The framework, drawn by code: both models, the two phases, the alignment and the entropy, with equations.

    Raises UserError for an output that is neither .png nor .pdf.
    """
    with look():
        figure = blank_page(TALL)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, PAGE), ylim=(0, TALL))
        axes.set_axis_off()
        _draw_framework(axes)
        save(figure, outputs)


def _draw_framework(axes: Axes) -> None:
    def words(x: float, y: float, text: str, colour: str = "black", ha: str = "left", **style: object) -> None:
        axes.text(x, y, text, color=colour, ha=ha, va="center", linespacing=1.35, zorder=3, **{"size": 7, **style})

    edge = 1.18  # where the models' panels begin; left of it are the two sets of examples
    _panel(axes, (edge, 1.90), PAGE - edge - 0.05, 1.40, "#f1eee6")
    _panel(axes, (edge, 0.05), PAGE - edge - 0.05, 1.20, "#e8eff5")
    words(edge + 0.1, 3.16, "(a)  deep energy model", weight="bold")
    words(2.72, 3.16, r"Eq. 9: minimise $D_{KL}(P_\mathcal{D}\,\Vert\,P_\Theta)$")
    words(edge + 0.1, 1.11, "(b)  deep generative model", weight="bold")
    words(3.05, 1.11, r"Eq. 10: minimise $D_{KL}(P_\phi\,\Vert\,P_\Theta)$")

    # The energy model, from left to right.
    up, down, high = 2.77, 2.23, 0.42
    middle = (up + down) / 2
    x = Box(axes, (1.44, middle), 0.3, 0.3, r"$\mathbf{x}$", size=9)
    features = Box(axes, (2.20, up), 0.64, high, "features\n" r"$f_\varphi(\mathbf{x})$")
    experts = Box(axes, (3.36, up), 1.24, high, "")
    words(3.36, up + 0.105, "experts", ha="center")
    words(3.36, up - 0.07, r"$-\sum_i\,\log(1+e^{W_i^T f_\varphi(\mathbf{x})\,+\,b_i})$", ha="center")
    quadratic = Box(axes, (2.93, down), 2.10, high, "")
    words(2.93, down + 0.10, "global variance and mean", ha="center")
    words(2.93, down - 0.08, r"$\mathbf{x}^T\mathbf{x}\,/\,\sigma^2-\mathbf{b}^T\mathbf{x}$", ha="center")
    fork = (x.right[0] + features.left[0]) / 2 - 0.03
    for height, box in ((up, features), (down, quadratic)):
        _arrow(axes, [x.right, (fork, middle), (fork, height), box.left], ENERGY)
    _arrow(axes, [features.right, experts.left], ENERGY)
    plus, radius = (4.20, middle), 0.1
    axes.add_patch(Circle(plus, radius, facecolor="white", edgecolor="#444444", linewidth=0.7, zorder=2))
    axes.text(*plus, "+", ha="center", va="center_baseline", size=9, zorder=3)
    _arrow(axes, [experts.right, (plus[0], up), (plus[0], middle + radius)], ENERGY)
    _arrow(axes, [quadratic.right, (plus[0], down), (plus[0], middle - radius)], ENERGY)
    left, wide, tall = 4.50, 0.86, 0.76
    _arrow(axes, [(plus[0] + radius, middle), (left, middle)], ENERGY)
    _landscape(axes, left, middle - tall / 2, wide, tall)
    words(left + wide / 2, middle + tall / 2 + 0.1, r"energy $E_\Theta(\mathbf{x})$, Eq. 11", ha="center", size=6.5)

    # The generator, from right to left, so that its samples come out beneath the energy model's input.
    level = 0.52
    generator = Box(
        axes, (2.35, level), 1.46, 0.64, r"generator $G_\phi$" "\n" "layers with\nbatch normalisation"
    )  # fmt: skip
    latent = Box(axes, (4.49, level + 0.22), 1.74, 0.26, r"latent  $\mathbf{z}\,\sim\,U(-1,\,1)$")
    entropy = Box(axes, (4.49, level - 0.165), 1.74, 0.43, "", line=ENTROPY)
    words(4.49, level - 0.055, r"entropy $H(P_\phi)$, approximately", ENTROPY, ha="center")
    words(4.49, level - 0.235, r"$\sum_a\ \frac{1}{2}\,\log(2e\pi\sigma_a^2)$", ENTROPY, ha="center")
    _arrow(axes, [latent.left, (generator.right[0], latent.left[1])], ENERGY)
    _arrow(axes, [entropy.left, (generator.right[0], entropy.left[1])], ENTROPY, 1.3)
    words((generator.right[0] + entropy.left[0]) / 2, level - 0.02, "Eq. 15:", ENTROPY, ha="center", size=6.5)
    words((generator.right[0] + entropy.left[0]) / 2, level - 0.28, "raise it", ENTROPY, ha="center", size=6.5)

    # The examples, and the forces between the models.
    side, column = 0.72, 0.46
    data = _cloud(axes, (column, middle), side, DATA, 0.010, 3)
    samples = _cloud(axes, (column, level), side, SAMPLES, 0.022, 5)
    words(column, middle + side / 2 + 0.1, r"training data $\mathbf{x}^{{+}}$", DATA, ha="center")
    words(column, level - side / 2 - 0.09, r"samples $\mathbf{x}^{{-}}$", SAMPLES, ha="center")
    _arrow(axes, [data.right, x.left], DATA, 1.3)
    _arrow(axes, [generator.left, samples.right], ENERGY)
    turn = 1.60
    _arrow(axes, [samples.top, (column, turn), (x.bottom[0], turn), x.bottom], SAMPLES, 1.3)
    words(0.05, 1.93, "positive phase, Eq. 7:\n" r"push $E(\mathbf{x}^{{+}})$ down", DATA)
    words(column + 0.09, 1.41, "negative phase, Eq. 12:\n" r"push $E(\mathbf{x}^{{-}})$ up", SAMPLES)
    _arrow(axes, [(2.93, 1.90), (2.93, generator.top[1])], "black", 1.3)
    words(
        3.05,
        1.58,
        "alignment, Eq. 14: move samples to low\n"
        r"energy, down $\partial E_\Theta(G_\phi(\mathbf{z}))\,/\,\partial\phi$",
    )
