"""The figures of colour images: what they draw, what they refuse, and that the same input gives the same bytes."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ddgm.errors import UserError
from ddgm.figures import (
    fig3_neighbours,
    fig4_curves,
    fig4_energies,
    fig4_landscape,
    fig4_lines,
    fig4_neighbours,
    fig4_ordered,
    fig4_progress,
    registry,
    ridges,
    style,
)

FIGURES = {
    "ordered": fig4_ordered,
    "lines": fig4_lines,
    "progress": fig4_progress,
    "energies": fig4_energies,
    "neighbours": fig4_neighbours,
    "landscape": fig4_landscape,
}
PAGED = [name for name in FIGURES if name != "lines"]


def arrays_of(name: str, seeds: int = 2, n: int = 40, side: int = 8, k: int = 3, times: int = 4) -> dict:
    """Small random arrays for one figure; there are more samples than neighbours, as measured on more than is shown."""
    stream = np.random.default_rng(0)

    def pictures(*shape: int) -> np.ndarray:
        return stream.integers(0, 256, (*shape, 3, side, side), dtype=np.uint8)

    def numbers(*shape: int) -> np.ndarray:
        return stream.normal(2, 3, shape).astype(np.float32)

    arrays = {"source": np.array("original files")}
    if name == "lines":
        return arrays | {"interpolations": pictures(seeds, 4, 6)}
    if name == "progress":
        return arrays | {"steps": 10 ** np.arange(times), "samples": pictures(times, seeds, n)}
    for number, kind in enumerate(fig4_energies.KINDS):
        far = 0.0 if number < 2 else 10.0**number
        arrays[f"energy_{kind}"] = stream.normal(far, 2, (seeds, 50 + number)).astype(np.float32)
        if kind != "test":
            arrays[f"auroc_{kind}"] = np.linspace(0.9, 1, seeds, dtype=np.float32)
    return arrays | {
        "samples": pictures(seeds, n),
        "sample_energy": numbers(seeds, n),
        "neighbours": pictures(seeds, min(n, 30)),
        "neighbour_distance": stream.uniform(2, 8, (seeds, n)).astype(np.float32),
        "heldout_distance": stream.uniform(3, 9, 70).astype(np.float32),
        "slice_axis_a": np.linspace(-0.5, 1.5, 12),
        "slice_axis_b": np.linspace(-0.2, 1.2, 12),
        "slice_energy": numbers(12, 12),
        "slice_corners": pictures(3),
        "slice_places": np.array([[0, 0], [1, 0], [0.4, 1]]),
        "descent": pictures(k, times),
        "descent_energy": numbers(k, 21),
        "descent_kinds": np.array([*fig4_landscape.KINDS] * k)[:k],
        "descent_steps": np.linspace(0, 20, times).astype(int),
    }


def write(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    np.savez(folder / "faces.npz", **arrays)
    return folder / "faces.npz"


def draw(name: str, folder: Path, outputs: list[Path], arrays: dict[str, np.ndarray] | None = None) -> None:
    """One figure from small inputs, or from `arrays`."""
    FIGURES[name].draw(write(folder, arrays_of(name) if arrays is None else arrays), outputs, "faces")


def draw_all(folder: Path) -> list[Path]:
    for name in FIGURES:
        draw(name, folder / "in", [folder / f"{name}.png", folder / f"{name}.pdf"])
    return sorted(folder.glob("*.p*"))


@pytest.fixture
def drawn(monkeypatch, tmp_path) -> Callable[..., Figure]:
    """Draws, but keeps the figure instead of saving it."""
    figures: list[Figure] = []
    for module in (*FIGURES.values(), fig3_neighbours, style):
        if hasattr(module, "save"):
            monkeypatch.setattr(module, "save", lambda figure, outputs, **_: figures.append(figure))

    def figure_of(name: str, arrays: dict[str, np.ndarray] | None = None) -> Figure:
        draw(name, tmp_path / "in", [], arrays)
        return figures[-1]

    return figure_of


def words_of(figure: Figure) -> list[str]:
    texts = [text for panel in figure.axes for text in panel.texts] + figure.texts
    return [text.get_text().replace("\u00a0", " ").replace("\n", " ") for text in texts]


def test_a_figure_drawn_twice_is_the_same_to_the_byte(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    here = draw_all(tmp_path / "here")
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_image_figures, pathlib; "
    script += f"test_image_figures.draw_all(pathlib.Path({str(tmp_path / 'there')!r})); "
    script += "assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", script], check=True)
    assert len(here) == 12
    for path in here:
        assert path.read_bytes() == (tmp_path / "there" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize(
    "sizes", [{"seeds": 1, "n": 1, "k": 1, "times": 1}, {"seeds": 3, "n": 60, "side": 16, "k": 9, "times": 12}]
)
def test_one_seed_few_pictures_or_many_are_drawn_a_page_wide(tmp_path, name, sizes):
    draw(name, tmp_path, [tmp_path / "out.png"], arrays_of(name, **sizes))
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size[0] / picture.info["dpi"][0] == pytest.approx(5.5, abs=0.02)


@pytest.mark.parametrize("name", FIGURES)
def test_each_figure_says_which_seed_is_drawn_that_none_is_chosen_and_what_was_learnt(drawn, name):
    for seeds, which in ((1, "the only seed"), (2, "all 2 seeds" if name == "energies" else "the first of 2 seeds")):
        said = words_of(drawn(name, arrays_of(name, seeds)))[-1].lower()
        assert which in said and "none chosen" in said and "trained on the original files" in said


@pytest.mark.parametrize("name", ["neighbours", "landscape"])
def test_a_figure_that_shows_photographs_says_so_and_is_not_published(drawn, name):
    assert words_of(drawn(name))[-1].endswith("not to be published.")
    assert f"fig4_{name}" in registry.PHOTOGRAPHS


@pytest.mark.parametrize(
    ("name", "array"),
    [("ordered", "samples"), ("ordered", "sample_energy"), ("neighbours", "samples"), ("lines", "interpolations")],
)
def test_the_first_seeds_pictures_are_the_ones_drawn(tmp_path, name, array):
    outputs = []
    for changed in (None, 1, 0):
        arrays = arrays_of(name)
        if changed is not None:
            arrays[array][changed] = arrays[array][changed][::-1]
        outputs.append(tmp_path / f"{changed}.png")
        draw(name, tmp_path, outputs[-1:], arrays)
    plain, other, first = (path.read_bytes() for path in outputs)
    assert plain == other and plain != first


@pytest.mark.parametrize(
    ("name", "array", "at", "dots"),
    [
        ("ordered", "samples", (0, 5), 2),
        ("progress", "samples", (1, 0, 3), 2),
        ("neighbours", "neighbours", (0, 9), 2),
        ("landscape", "descent", (1, 2), 2),
        ("landscape", "slice_corners", (2,), 2),
        ("lines", "interpolations", (0, 1, 3), 3),
    ],
)
def test_every_pixel_of_an_image_becomes_a_whole_block_of_dots(tmp_path, name, array, at, dots):
    arrays = arrays_of(name, side=64)
    draw(name, tmp_path, [tmp_path / "out.png"], arrays)
    picture = np.asarray(Image.open(tmp_path / "out.png").convert("RGB")).astype(int)
    block = arrays[array][at].transpose(1, 2, 0).astype(int).repeat(dots, 0).repeat(dots, 1)
    high, wide = block.shape[:2]
    rows, columns = np.nonzero((picture == block[0, 0]).all(2))
    assert any(np.array_equal(picture[r : r + high, c : c + wide], block) for r, c in zip(rows, columns, strict=True))


def test_samples_stand_in_the_order_of_their_energy_at_evenly_spaced_ranks(drawn):
    arrays = arrays_of("ordered", n=118)
    arrays["sample_energy"][0] = np.arange(118)[::-1] - 20
    words = words_of(drawn("ordered", arrays))
    assert words[:40] == [f"{energy:.1f}".replace("-", "−") for energy in range(-20, 98, 3)]
    assert "the ranks 1, 4, 7, …, 118, none chosen" in words[-1]


def test_a_row_of_progress_has_its_step_on_the_left(drawn):
    assert words_of(drawn("progress"))[:4] == ["1", "10", "100", "1,000"]
    words = words_of(drawn("progress", arrays_of("progress", times=12)))
    assert len(words) == 12 and "10 of 12 times that were kept" in words[-1]


def test_training_pictures_too_are_compared_with_held_out_ones(drawn):
    words = words_of(drawn("energies"))
    assert words.count("0.950 ± 0.071") == len(fig4_energies.KINDS) - 1
    arrays = {name: array for name, array in arrays_of("energies").items() if not name.endswith("_other_domain")}
    assert "another data set" not in words_of(drawn("energies", arrays))


@pytest.mark.parametrize("name", PAGED)
def test_no_words_leave_the_page(drawn, name):
    figure = drawn(name, arrays_of(name, side=64, k=6, times=6))
    figure.draw_without_rendering()
    renderer = figure._get_renderer()
    for text in [text for panel in figure.axes for text in panel.texts] + figure.texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 and box.y1 <= figure.bbox.height, text


def test_energies_in_print_have_a_minus_sign_and_no_needless_decimals():
    assert ridges.in_nats(np.array([-3.21, -0.001])) == ["−3.21", "0.00"]
    assert ridges.in_nats(np.array([-3.21, 12.0])) == ["−3.2", "12.0"]
    assert ridges.in_nats(np.array([-3.21, 2504.2])) == ["−3", "2504"]


@pytest.mark.parametrize("places", [[[0.5, 1], [1.9, 1], [1, 0.1]], [[1, 1], [1.02, 1], [1, 1.02]]])
def test_pinned_pictures_cover_neither_a_place_nor_each_other(places):
    places, size, panel = np.array(places), np.array([0.45, 0.55]), np.array([2.3, 2.3])
    corners = fig4_landscape.pinned(places, size, panel)
    assert (corners >= 0).all() and (corners + size <= panel).all()
    for number, corner in enumerate(corners):
        assert not ((places > corner) & (places < corner + size)).all(1).any()
        assert all((np.abs(corner - other) >= size).any() for other in corners[:number])


def test_energies_that_are_all_the_same_are_drawn(tmp_path):
    arrays = arrays_of("landscape") | {"slice_energy": np.zeros((12, 12)), "descent_energy": np.zeros((3, 21))}
    draw("landscape", tmp_path, [tmp_path / "out.png"], arrays | {"energy_test": np.zeros((2, 5))})


@pytest.mark.parametrize(
    ("name", "array", "value", "words"),
    [
        ("ordered", "sample_energy", np.zeros((2, 39)), "'sample_energy'.*n=40"),
        ("ordered", "sample_energy", np.full((2, 40), np.nan), "'sample_energy' holds NaN"),
        ("ordered", "samples", np.zeros((2, 40, 3, 8, 8), np.float32), "float32"),
        ("lines", "interpolations", np.zeros((2, 4, 2, 3, 8, 8), np.uint8), "at least 3 steps"),
        ("lines", "interpolations", None, "no array 'interpolations'"),
        ("progress", "steps", np.arange(3), "'samples'.*T=3"),
        ("progress", "steps", np.array([0, 5, 5, 9]), r"'steps' \[0, 5, 5, 9\] do not rise"),
        ("energies", "energy_noise", np.full((2, 9), np.inf), "'energy_noise' holds NaN or infinite"),
        ("energies", "auroc_train", np.ones(3), "'auroc_train'.*S=2"),
        ("energies", "energy_test", None, "no array 'energy_test'"),
        ("neighbours", "neighbours", np.zeros((2, 41, 3, 8, 8), np.uint8), "'samples'.*41 neighbours"),
        ("neighbours", "neighbours", np.zeros((2, 30, 1, 8, 8), np.uint8), "'neighbours'"),
        ("neighbours", "neighbour_distance", np.full((2, 40), np.nan), "NaN"),
        ("landscape", "slice_energy", np.zeros((12, 11)), "'slice_energy'.*a=12"),
        ("landscape", "slice_axis_a", np.zeros(12), "'slice_axis_a'.*must rise"),
        ("landscape", "slice_places", np.zeros((2, 2)), "'slice_places'"),
        ("landscape", "slice_corners", np.zeros((3, 3, 8, 8)), "float64"),
        ("landscape", "descent_energy", np.full((3, 21), np.nan), "'descent_energy' holds NaN"),
        ("landscape", "descent_kinds", np.array(["test", "letters", "noise"]), "'letters', and may hold test, samples"),
        ("landscape", "descent_steps", np.array([0, 5, 10, 21]), "between 0 and 20"),
    ],
)  # fmt: skip
def test_arrays_of_another_form_are_refused_by_name(tmp_path, name, array, value, words):
    arrays = arrays_of(name)
    arrays.pop(array)
    with pytest.raises(UserError, match=r"faces\.npz.*" + words):
        draw(name, tmp_path, [tmp_path / "out.png"], arrays if value is None else arrays | {array: value})
    assert not (tmp_path / "out.png").exists()


def history_of(folder: Path, seeds: int = 2, columns: Callable[[pd.DataFrame], pd.DataFrame] = lambda t: t) -> Path:
    """A training's history.csv."""
    rows = [(seed, step, -1e3 / step, -9e2 / step, 2.0, 0.9) for seed in range(seeds) for step in range(50, 501, 50)]
    table = pd.DataFrame(rows, columns=["seed", "step", "energy_data", "energy_samples", "entropy", "spread"])
    columns(table).to_csv(folder / "history.csv", index=False)
    return folder / "history.csv"


def test_the_curves_of_an_image_experiment_are_drawn_and_are_the_same_bytes_twice(tmp_path):
    history = history_of(tmp_path)
    drawn = [tmp_path / "one.png", tmp_path / "two.png", tmp_path / "one.pdf", tmp_path / "two.pdf"]
    fig4_curves.draw(history, drawn[0::2], "Faces")
    fig4_curves.draw(history, drawn[1::2], "Faces")
    assert drawn[0].read_bytes() == drawn[1].read_bytes() and drawn[2].read_bytes() == drawn[3].read_bytes()
    assert np.asarray(Image.open(drawn[0])).std() > 10


@pytest.mark.parametrize(
    ("values", "scale"), [([-711.0, -708.0], "linear"), ([-0.5, 12.0], "linear"), ([-900.0, 300.0], "symlog")]
)
def test_an_axis_of_nats_has_numbers_on_it_whatever_it_spans(values, scale):
    panel = Figure().subplots()
    panel.plot(values)
    fig4_curves.scale_nats(panel, np.array(values))
    low, high = panel.get_ylim()
    assert panel.get_yscale() == scale
    assert sum(low <= tick <= high for tick in panel.get_yticks()) >= 3


def test_curves_without_the_spread_are_refused_in_a_sentence(tmp_path):
    history = history_of(tmp_path, columns=lambda table: table.drop(columns="spread"))
    with pytest.raises(UserError, match=r"history.csv has no column 'spread'; a header spread is needed"):
        fig4_curves.draw(history, [tmp_path / "one.png"], "Faces")
