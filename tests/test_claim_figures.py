"""The claims' figures: what stands in them, that nothing overlaps or is cut, and what they refuse."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from ddgm.errors import UserError
from ddgm.figures import claims
from ddgm.figures.curves import over_seeds
from ddgm.figures.metric import METRICS, metric_named
from ddgm.figures.style import PAGE

TITLES = {
    "spin": "four-spin, Eq. 15",
    "spin_none": "four-spin, no entropy term",
    "spin_exact": "four-spin, exact likelihood by quadrature",
    "spin_langevin": "four-spin, Langevin negatives",
    "spin_persistent": "four-spin, persistent chains",
    "spin_gan": "four-spin, GAN",
    "spin_classifier": "four-spin, energy as a classifier (Eq. 8)",
    "spin_student": "four-spin, Student-t experts (Eq. 3)",
    "spin_logistic": "four-spin, logistic experts (Eq. 4)",
    "spin_rbm": "four-spin, RBM (Eq. 5)",
    "spin_neighbour": "four-spin, nearest-neighbour entropy",
    "spiral": "two-spiral, Eq. 15",
    "spiral_neighbour": "two-spiral, nearest-neighbour entropy",
}
SETS = {name: "four_spin" if name.startswith("spin") and name[4:5] in ("", "_") else "two_spiral" for name in TITLES}
RECIPE = "the paper's"
SAYS = "The deep generative model properly draws samples according to the energy model distribution (section 4)."


def write_claims(path: Path, *tests: tuple, verdict: str = "partly", wanted: str = "the mean") -> Path:
    """A claim named `c`; a test is experiment, metric, at, comparison, threshold, holds."""
    rows = [
        ("c", SAYS, RECIPE, e, metric, at, 5, 0.1, 0.01, comparison, threshold, wanted, holds, verdict)
        for e, metric, at, comparison, threshold, holds in tests
    ]
    columns = "claim says recipe experiment metric at seeds mean sd comparison threshold wanted holds verdict"
    pd.DataFrame(rows, columns=columns.split(" ")).to_csv(path, index=False)
    return path


def write_tables(folder: Path, rows: list[tuple], columns: str) -> dict[str, Path]:
    """A csv for each experiment of `rows`."""
    table = pd.DataFrame(rows, columns=columns.split())
    paths = {}
    for name, part in table.groupby("experiment", sort=False):
        paths[name] = folder / f"{name}.csv"
        part.to_csv(paths[name], index=False)
    return paths


def metric_tables(folder: Path, names: list[str], **values: list[float]) -> dict[str, Path]:
    """The same values, one for each seed, in every experiment."""
    rows = [(e, seed, m, v) for e in names for m, vs in values.items() for seed, v in enumerate(vs)]
    return write_tables(folder, rows, "experiment seed metric value")


def trace_tables(folder: Path, names: list[str], metrics: list[str]) -> dict[str, Path]:
    rows = [
        (e, seed, step, m, (1 + number / 20) * (1 - np.exp(-step / 500)) - 0.1 + 0.01 * seed)
        for number, e in enumerate(names)
        for m in metrics
        for seed in range(3)
        for step in range(100, 2001, 100)
    ]
    return write_tables(folder, rows, "experiment seed step metric value")


def mixing_tables(folder: Path, names: list[str]) -> dict[str, Path]:
    rows = []
    for e in names:
        for seed in range(2):
            rows += [(e, seed, "generator", s, 1e-4 * 10**s, "occupancy_error", 0.02 + 0.01 * seed) for s in range(3)]
            for sampler in ("Langevin from one mode", "Langevin from noise"):
                steps = [0, 1, 10, 100, 1000]
                rows += [(e, seed, sampler, s, 1e-3 * s, "occupancy_error", 0.7 * np.exp(-s / 300)) for s in steps]
    return write_tables(folder, rows, "experiment seed sampler step seconds metric value")


@pytest.fixture
def caught(monkeypatch) -> list[Figure]:
    """The figures that would have been saved."""
    figures: list[Figure] = []
    monkeypatch.setattr(claims, "save", lambda figure, outputs: figures.append(figure))
    return figures


def drawn_words(figure: Figure) -> list[tuple[str, float, Bbox]]:
    """All texts that a reader sees, each with its size in points and where it stands, in dots."""
    seen: list[Text] = []
    draw = Text.draw

    def note_and_draw(self: Text, renderer: object) -> None:
        if self.get_visible() and self.get_text().strip():
            seen.append(self)
        draw(self, renderer)

    with claims.look(), pytest.MonkeyPatch.context() as patched:
        patched.setattr(Text, "draw", note_and_draw)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return [(text.get_text(), text.get_size(), text.get_window_extent(canvas.get_renderer())) for text in seen]


def draw_measures(folder: Path) -> None:
    tables = metric_tables(folder, list(TITLES), kl_generator_model=[0.05, 0.1, np.inf], modes_covered=[0.75, 1.0, 1.0])
    tests = [
        ("spin", "kl_generator_model", "", "at most", 0.1, True),
        ("spiral", "modes_covered", "", "at least", 1, False),
    ]
    claims.measures("c", write_claims(folder / "claims.csv", *tests), tables, TITLES, [])


def draw_traces(folder: Path) -> None:
    metrics = ["rank_correlation", "rank_correlation_near", "rank_correlation_far"]
    tests = [("spin", metric, at, "at least", 0.8, True) for metric in metrics for at in ("first", "last")]
    path = write_claims(folder / "claims.csv", *tests)
    claims.traces("c", path, trace_tables(folder, list(TITLES), metrics), TITLES, SETS, [])


def draw_mixing(folder: Path) -> None:
    path = write_claims(folder / "claims.csv", ("spin", "occupancy_error", "last", "at most", 0.1, True))
    claims.mixing(
        "c", path, mixing_tables(folder, ["spin", "spiral", "spin_neighbour", "spiral_neighbour"]), TITLES, []
    )


@pytest.mark.parametrize("draw", [draw_measures, draw_traces, draw_mixing])
def test_words_are_legible_whole_and_apart_with_many_experiments(tmp_path, caught, draw: Callable[[Path], None]):
    draw(tmp_path)
    (figure,) = caught
    words, page = drawn_words(figure), figure.bbox
    assert len(words) > 15
    for text, size, box in words:
        assert size >= 6, text
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1, text
    for (one, _, here), (other, _, there) in combinations(words, 2):
        assert not here.padded(-1).overlaps(there.padded(-1)), (one, other)


def test_the_claim_stands_above_with_its_verdict_and_the_count_of_tests(tmp_path, caught):
    draw_measures(tmp_path)
    words = [text for text, *_ in drawn_words(caught[0])]
    assert any(text.replace("\n", " ") == SAYS for text in words)
    assert f"◐ {RECIPE}: 1 of 2 tests hold" in words


def test_a_tested_experiment_has_its_allowed_side_shaded_and_a_sign(tmp_path, caught):
    tables = metric_tables(tmp_path, ["spin", "spiral", "spin_gan"], modes_covered=[0.5, 1.0])
    tests = [
        ("spin", "modes_covered", "", "at least", 0.6, True),
        ("spiral", "modes_covered", "", "at most", 0.3, False),
    ]
    claims.measures("c", write_claims(tmp_path / "claims.csv", *tests), tables, TITLES, [])
    (panel,) = caught[0].axes
    shaded = [(r.get_x(), r.get_x() + r.get_width()) for r in panel.patches if isinstance(r, Rectangle)]
    assert shaded == [pytest.approx((0.6, 1.03)), pytest.approx((-0.03, 0.3))]
    signs = [text.get_text() for text in panel.texts]
    assert signs == ["✓", "✗"]
    assert panel.get_title() == "modes covered"


def test_infinite_values_stand_right_of_all_finite_ones(tmp_path, caught):
    tables = metric_tables(tmp_path, ["spin"], kl_generator_model=[0.05, 0.1, np.inf, np.inf])
    path = write_claims(tmp_path / "claims.csv", ("spin", "kl_generator_model", "", "at most", 0.2, False))
    claims.measures("c", path, tables, TITLES, [])
    (panel,) = caught[0].axes
    assert panel.get_xscale() == "log"
    infinite = next(text for text in panel.texts if text.get_text() == "∞ ×2")
    assert 0.2 < infinite.get_position()[0] < panel.get_xlim()[1]
    seeds = next(line for line in panel.lines if line.get_marker() == "o")
    assert list(seeds.get_xdata()) == [0.05, 0.1]


@pytest.mark.parametrize("other", ["kl_data_model", "other"])
def test_what_could_not_be_measured_is_said_and_what_does_not_apply_is_left_blank(other, tmp_path, caught):
    tables = metric_tables(tmp_path, ["spin"], kl_data_model=[0.1]) | metric_tables(
        tmp_path, ["spiral"], **{other: [np.nan]}
    )
    path = write_claims(tmp_path / "claims.csv", ("spin", "kl_data_model", "", "at most", 0.2, True))
    claims.measures("c", path, tables, TITLES, [])
    said = "not measured" in [text for text, *_ in drawn_words(caught[0])]
    assert said == (other == "kl_data_model")


@pytest.mark.parametrize(("values", "low"), [([0.94, 0.98], 0.93), ([0.3, 0.98], -0.03)])
def test_shares_that_are_all_close_to_one_fill_their_axis(values, low, tmp_path, caught):
    tables = metric_tables(tmp_path, ["spin"], confidence=values)
    path = write_claims(tmp_path / "claims.csv", ("spin", "confidence", "", "at least", 0.95, True))
    claims.measures("c", path, tables, TITLES, [])
    (panel,) = caught[0].axes
    assert panel.get_xlim()[0] == pytest.approx(low, abs=0.01) and 1 < panel.get_xlim()[1] < 1.04


def test_verdicts_stand_in_the_order_of_the_whole_table(tmp_path):
    path = write_claims(
        tmp_path / "claims.csv", ("spin", "a", "", "at most", 1, True), ("spin", "b", "", "at most", 1, False)
    )
    table = pd.read_csv(path).assign(recipe=["ours", RECIPE])
    pd.concat([table[1:].assign(claim="first"), table]).to_csv(path, index=False)
    said = claims.read_claim("c", path).verdicts()
    assert said == [f"◐ {RECIPE}: 0 of 1 tests hold", "◐ ours: 1 of 1 tests hold"]


def test_a_log_axis_has_numbers_that_can_be_read(tmp_path, caught):
    assert [claims.power(value) for value in (1e-5, 0.01, 10, 1e6)] == ["10⁻⁵", "0.01", "10", "10⁶"]
    path = write_claims(tmp_path / "claims.csv", ("spin", "kl_data_model", "", "at most", 0.04, True))
    claims.measures("c", path, metric_tables(tmp_path, ["spin"], kl_data_model=[0.03]), TITLES, [])
    words = [text for text, *_ in drawn_words(caught[0])]
    assert "0.01" in words and "0.1" in words


def test_a_trace_is_the_mean_over_seeds_and_its_threshold_stands_at_its_end(tmp_path, caught):
    rows = [("spin", seed, step, "gradient_cosine", 0.9 + 0.02 * seed) for seed in (0, 1) for step in (5, 10, 20)]
    tables = write_tables(tmp_path, rows, "experiment seed step metric value")
    tests = [
        ("spin", "gradient_cosine", "first", "at least", 0.8, True),
        ("spin", "gradient_cosine", "last", "at most", 0.85, False),
    ]
    claims.traces("c", write_claims(tmp_path / "claims.csv", *tests), tables, TITLES, SETS, [])
    (panel,) = caught[0].axes
    mean, first, last = panel.lines
    np.testing.assert_allclose(mean.get_ydata(), 0.91)
    assert (first.get_marker(), last.get_marker()) == ("^", "v")
    assert first.get_xdata()[0] < 5 and last.get_xdata()[0] > 20
    assert last.get_markerfacecolor() == "white" != first.get_markerfacecolor()


def test_data_sets_are_rows_and_metrics_columns(tmp_path, caught):
    draw_traces(tmp_path)
    panels = caught[0].axes
    assert [panel.get_title() for panel in panels[:3]] == ["at the data", "near the data", "in the whole box"]
    tops = [panel.get_position().y1 for panel in panels]
    assert len(panels) == 6 and tops[0] == tops[2] > tops[3] == tops[5]
    names = [text.get_text() for text in panels[2].get_legend().get_texts()]
    assert names[0] == "Eq. 15" and panels[2].get_legend().get_title().get_text() == "four-spin"


def test_the_mean_of_a_trace_ends_where_the_first_seed_stops():
    rows = [(seed, step, seed + step) for seed, last in ((0, 30), (1, 50)) for step in range(0, last + 1, 10)]
    mean = over_seeds(pd.DataFrame(rows, columns=["seed", "step", "value"]))
    assert list(mean.index) == [0, 10, 20, 30]
    assert list(mean["mean"]) == [0.5, 10.5, 20.5, 30.5]
    assert list(mean["least"]) == [0, 10, 20, 30] and list(mean["greatest"]) == [1, 11, 21, 31]


def test_the_generator_is_points_and_a_chain_a_line_without_its_start(tmp_path, caught):
    draw_mixing(tmp_path)
    panel = caught[0].axes[0]
    points = [line for line in panel.lines if line.get_marker() == "o"]
    chains = [line for line in panel.lines if line.get_linestyle() == "-"]
    assert len(points) == 1 and len(chains) == 2
    np.testing.assert_allclose(points[0].get_ydata(orig=False), 0.025)
    np.testing.assert_allclose(chains[0].get_xdata(), [1e-3, 1e-2, 1e-1, 1])
    assert panel.get_xscale() == "log"


@pytest.mark.parametrize("error", [0.003, 0.006, 0.011, 0.022])
def test_seeds_that_are_equal_up_to_rounding_are_drawn(error, tmp_path, caught):
    rows = [("spin", seed, "generator", 0, 0.01, "occupancy_error", error) for seed in range(3)]
    tables = write_tables(tmp_path, rows, "experiment seed sampler step seconds metric value")
    path = write_claims(tmp_path / "claims.csv", ("spin", "occupancy_error", "generator", "at most", 0.1, True))
    claims.mixing("c", path, tables, TITLES, [])
    (points,) = [line for line in caught[0].axes[0].lines if line.get_marker() == "o"]
    np.testing.assert_allclose(points.get_ydata(orig=False), error)


def test_what_is_not_there_is_refused_by_name(tmp_path, caught):
    path = write_claims(tmp_path / "claims.csv", ("spin", "kl_data_model", "", "at most", 0.2, True))
    tables = metric_tables(tmp_path, ["spin"], other=[1.0])
    with pytest.raises(UserError, match="kl_data_model, which no table holds"):
        claims.measures("c", path, tables, TITLES, [])
    with pytest.raises(UserError, match="no claim 'd', only c"):
        claims.measures("d", path, tables, TITLES, [])
    with pytest.raises(UserError, match="no experiment to draw"):
        claims.measures("c", path, {}, TITLES, [])
    with pytest.raises(UserError, match="table of spin but no title"):
        claims.measures("c", path, tables, {}, [])
    with pytest.raises(UserError, match=r"spin\.csv has no column 'step'"):
        claims.traces("c", path, tables, TITLES, SETS, [])
    with pytest.raises(UserError, match=r"spin\.csv has no column 'sampler'"):
        claims.mixing("c", path, tables, TITLES, [])
    traces = trace_tables(tmp_path, ["spin"], ["kl_data_model"])
    with pytest.raises(UserError, match="spin but not its data set"):
        claims.traces("c", path, traces, TITLES, {}, [])
    assert not caught


@pytest.mark.parametrize(("comparison", "verdict"), [("below", "partly"), ("at most", "maybe")])
def test_a_claim_in_other_words_is_refused(tmp_path, comparison, verdict):
    path = write_claims(tmp_path / "c.csv", ("spin", "kl_data_model", "", comparison, 0.2, True), verdict=verdict)
    with pytest.raises(UserError, match=r"c\.csv.*write one of"):
        claims.read_claim("c", path)


def test_a_claim_is_written_as_png_and_pdf_a_page_wide(tmp_path):
    tables = metric_tables(tmp_path, ["spin", "spiral"], kl_data_model=[0.1, 0.2])
    path = write_claims(tmp_path / "claims.csv", ("spin", "kl_data_model", "", "at most", 0.2, True))
    outputs = [tmp_path / "claim.png", tmp_path / "claim.pdf"]
    claims.measures("c", path, tables, TITLES, outputs)
    first = [output.read_bytes() for output in outputs]
    with Image.open(outputs[0]) as picture:
        assert picture.format == "PNG"
        assert picture.size[0] / picture.info["dpi"][0] == pytest.approx(PAGE, abs=0.02)
    assert first[1].startswith(b"%PDF")
    claims.measures("c", path, tables, TITLES, outputs)
    assert [output.read_bytes() for output in outputs] == first


@pytest.mark.parametrize(("wanted", "said"), [("the mean", False), ("4 seeds", True)])
def test_a_test_of_so_many_seeds_is_explained(wanted, said, tmp_path, monkeypatch):
    tables = metric_tables(tmp_path, ["spin", "spiral"], kl_data_model=[0.1, 0.2])
    path = write_claims(tmp_path / "c.csv", ("spin", "kl_data_model", "", "at most", 0.2, True), wanted=wanted)
    notes = []
    drawn = claims.page_of
    monkeypatch.setattr(claims, "page_of", lambda *page, **more: (notes.append(page[2]), drawn(*page, **more))[1])
    claims.measures("c", path, tables, TITLES, [tmp_path / "claim.png"])
    assert ("Some tests ask for 4 seeds in the shade, and not for the mean." in notes[0]) is said


def test_a_threshold_that_is_infinite_has_no_place_on_the_axis(tmp_path):
    tables = metric_tables(tmp_path, ["spin"], kl_data_model=[0.1, 0.3])
    path = write_claims(tmp_path / "claims.csv", ("spin", "kl_data_model", "", "at most", np.inf, True))
    claims.measures("c", path, tables, TITLES, [tmp_path / "claim.png"])
    assert (tmp_path / "claim.png").exists()


def test_no_two_metrics_have_the_same_words_and_an_unlisted_one_has_its_own():
    words = [(metric.label, metric.meaning) for metric in METRICS.values()]
    assert len(set(words)) == len(words)
    assert metric_named("emptiest_corner").label == "emptiest corner"
