"""The figures of digits' evidence: what they draw, what they refuse, and that the same input gives the same bytes."""

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
from ddgm.figures import fig3_crossings, fig3_energies, fig3_named, fig3_neighbours, fig3_steps, ridges
from ddgm.figures.style import not_to_be_published, trained_on

FIGURES = {
    "steps": fig3_steps,
    "named": fig3_named,
    "crossings": fig3_crossings,
    "neighbours": fig3_neighbours,
    "energies": fig3_energies,
}
SHOWN = ("test", "samples", "letters", "inverted", "noise")


def evidence_of(seeds: int = 2, rows: int = 3, steps: int = 5, side: int = 8, n: int = 24) -> dict[str, np.ndarray]:
    """Small random evidence; there are more distances than samples, as measured on more than is shown."""
    stream = np.random.default_rng(0)

    def pictures(*shape: int) -> np.ndarray:
        return stream.integers(0, 256, (*shape, 1, side, side), dtype=np.uint8)

    arrays = {
        "source": np.array("original files"),
        "interpolations": pictures(seeds, rows, steps),
        "step_class": stream.integers(0, 10, (seeds, rows, steps)),
        "step_confidence": stream.uniform(0.3, 1, (seeds, rows, steps)).astype(np.float32),
        "step_energy": stream.normal(2, 3, (seeds, rows, steps)).astype(np.float32),
        "named": np.array([[8, 2, 3], [5, 2, 3], [7, 4, 9]]),
        "named_counts": np.array([rows, 1, 0]),
        "named_lines": pictures(3, rows, steps),
        "named_class": stream.integers(0, 10, (3, rows, steps)),
        "named_confidence": stream.uniform(0.3, 1, (3, rows, steps)).astype(np.float32),
        "named_energy": stream.normal(2, 3, (3, rows, steps)).astype(np.float32),
        "samples": pictures(seeds, n),
        "neighbours": pictures(seeds, n),
        "neighbour_distance": stream.uniform(2, 8, (seeds, n + 30)).astype(np.float32),
        "heldout_distance": stream.uniform(3, 9, 70).astype(np.float32),
        "inputs": pictures(len(SHOWN), 3),
        "input_kinds": np.array(SHOWN),
        "gradients": stream.normal(size=(len(SHOWN), 3, 1, side, side)).astype(np.float32),
    }
    for number, kind in enumerate(fig3_energies.KINDS):
        far = 0.0 if number < 2 else 10.0**number
        arrays[f"energy_{kind}"] = stream.normal(far, 2, (seeds, 50 + number)).astype(np.float32)
        if kind in fig3_energies.COMPARED:
            arrays[f"auroc_{kind}"] = np.linspace(0.9, 1, seeds, dtype=np.float32)
    return arrays


def write_evidence(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(folder / "digits.npz", **arrays)
    return folder / "digits.npz"


def write_paths(folder: Path, seeds: int = 2, steps: int = 5, lengths: bool = True) -> Path:
    rows = [
        ("digits", seed, path, step, metric, 0.5 + 0.1 * seed + 0.05 * step)
        for seed in range(seeds)
        for path in fig3_steps.PATHS
        for metric in fig3_steps.MEASURES
        for step in range(steps)
        if (step and lengths) or not metric.endswith("_step")
    ]
    columns = ["experiment", "seed", "path", "step", "metric", "value"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "interpolations.csv", index=False)
    return folder / "interpolations.csv"


CROSSED = [(0, 8, 2, 3, 0.4), (1, 8, 2, 3, 0.2), (0, 8, 2, 6, 0.1), (0, 2, 8, 6, 0.5), (1, 4, 7, 9, 1.0)]


def write_crossings(folder: Path, rows: list[tuple] = CROSSED) -> Path:
    table = pd.DataFrame(rows, columns=["seed", "from", "to", "between", "share"])
    table.insert(0, "experiment", "digits")
    table.to_csv(folder / "crossings.csv", index=False)
    return folder / "crossings.csv"


def draw(name: str, folder: Path, outputs: list[Path], arrays: dict[str, np.ndarray] | None = None) -> None:
    """One figure from small inputs, or from `arrays` as its evidence."""
    folder.mkdir(exist_ok=True)
    arrays = evidence_of() if arrays is None else arrays
    inputs = [write_crossings(folder)] if name == "crossings" else [write_evidence(folder, arrays)]
    if name == "steps":
        seeds, _, steps = arrays["step_class"].shape
        inputs.append(write_paths(folder, seeds, steps))
    if name == "named":
        inputs.append(write_crossings(folder))
    FIGURES[name].draw(*inputs, outputs, "digits")


def draw_all(folder: Path) -> list[Path]:
    for name in FIGURES:
        draw(name, folder / "in", [folder / f"{name}.png", folder / f"{name}.pdf"])
    return sorted(folder.glob("*.p*"))


@pytest.fixture
def drawn(monkeypatch) -> Callable[..., Figure]:
    """Draws, but keeps the figure instead of saving it."""
    figures: list[Figure] = []
    for module in FIGURES.values():
        monkeypatch.setattr(module, "save", lambda figure, outputs, **_: figures.append(figure))

    def figure_of(name: str, *inputs: Path) -> Figure:
        FIGURES[name].draw(*inputs, [], "digits")
        return figures[-1]

    return figure_of


def words_of(figure: Figure) -> list[str]:
    texts = [text for panel in figure.axes for text in panel.texts] + figure.texts
    return [text.get_text().replace("\u00a0", " ").replace("\n", " ") for text in texts]


def test_a_figure_drawn_twice_is_the_same_to_the_byte(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    here = draw_all(tmp_path / "here")
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_digit_figures, pathlib; "
    script += f"test_digit_figures.draw_all(pathlib.Path({str(tmp_path / 'there')!r})); "
    script += "assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", script], check=True)
    assert len(here) == 2 * len(FIGURES)
    for path in here:
        assert path.read_bytes() == (tmp_path / "there" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("name", ["steps", "named", "neighbours", "energies"])
@pytest.mark.parametrize(
    "sizes",
    [
        {"seeds": 1, "rows": 1, "steps": 3, "n": 1},
        {"seeds": 3, "rows": 12, "steps": 17, "side": 28, "n": 40},
    ],
)
def test_one_seed_few_pictures_or_many_are_drawn_a_page_wide(tmp_path, name, sizes):
    draw(name, tmp_path, [tmp_path / "out.png"], evidence_of(**sizes))
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size[0] / picture.info["dpi"][0] == pytest.approx(5.5, abs=0.01)


@pytest.mark.parametrize(
    ("name", "array"),
    [("steps", "interpolations"), ("steps", "step_class"), ("steps", "step_energy"), ("neighbours", "samples")],
)
def test_the_first_seeds_pictures_are_the_ones_drawn(tmp_path, name, array):
    outputs = []
    for changed in (None, 1, 0):
        arrays = evidence_of()
        if changed is not None:
            arrays[array][changed] = arrays[array][changed][::-1]
        outputs.append(tmp_path / f"{changed}.png")
        draw(name, tmp_path, outputs[-1:], arrays)
    plain, other, first = (path.read_bytes() for path in outputs)
    assert plain == other and plain != first


@pytest.mark.parametrize("name", ["steps", "neighbours", "energies"])
def test_every_pixel_of_a_digit_becomes_a_whole_block_of_dots(tmp_path, name):
    array = {"steps": "interpolations", "neighbours": "neighbours", "energies": "inputs"}[name]
    arrays = evidence_of(rows=2, steps=12, side=28)
    draw(name, tmp_path, [tmp_path / "out.png"], arrays)
    picture = np.asarray(Image.open(tmp_path / "out.png").convert("RGB")).astype(int)
    source = arrays[array][0, 1] if array != "interpolations" else arrays[array][0, 1, 1]
    dots = 3 if name == "energies" else 2
    block = source[0].astype(int).repeat(dots, 0).repeat(dots, 1)[..., None].repeat(3, 2)
    high, wide = block.shape[:2]
    rows, columns = np.nonzero((picture == block[0, 0]).all(2))
    assert any(np.array_equal(picture[r : r + high, c : c + wide], block) for r, c in zip(rows, columns, strict=True))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("original files", "trained on the original files"),
        ("computed", "trained on computed"),
        ("subset: 20 of 100 faces", "trained on a subset (20 of 100 faces)"),
        (
            "scikit-learn's digits: 9 pictures, seed 0",
            "trained on a stand-in, scikit-learn's digits (9 pictures, seed 0)",
        ),
        ("drawn by code: 600 pictures, seed 0", "trained on a stand-in, drawn by code (600 pictures, seed 0)"),
    ],
)
def test_what_a_pair_was_trained_on_is_said_in_words(source, words):
    assert trained_on(np.array(source)) == words


def test_photographs_are_said_not_to_be_published_and_drawn_pictures_are_not():
    assert "not to be published" in not_to_be_published(np.array("subset: 20 faces"), "pictures")
    assert not_to_be_published(np.array("drawn by code: 600 pictures, seed 0"), "pictures") == ""


def test_a_digit_between_is_that_of_neither_end():
    classes = np.array([[8, 8, 3, 2, 2], [1, 1, 1, 7, 1]])
    assert fig3_steps.between(classes).tolist() == [[False, False, True, False, False], [False] * 3 + [True, False]]


def test_a_sure_digit_between_is_marked_and_an_unsure_one_grey(tmp_path, drawn):
    arrays = evidence_of(seeds=1, rows=1)
    arrays["step_class"][:] = [8, 8, 3, 3, 2]
    arrays["step_confidence"][:] = [0.9, 0.2, 0.9, 0.2, 0.9]
    figure = drawn("steps", write_evidence(tmp_path, arrays), write_paths(tmp_path, 1))
    looks = [(text.get_text(), text.get_color(), text.get_weight()) for text in figure.axes[0].texts]
    grey, black = (fig3_steps.GREY, "normal"), ("black", "normal")
    assert looks == [("8", *black), ("8", *grey), ("3", "white", "bold"), ("3", *grey), ("2", *black)]
    assert len(figure.axes[0].patches) == 1


def test_letters_stand_under_the_middle_of_their_pictures():
    middles = fig3_steps.tile_middles(5, 8)
    assert middles[0] == 4
    apart = np.diff(middles)
    assert apart[0] == apart[-1] > apart[1] == apart[2] > 8


def test_paths_are_drawn_with_the_lengths_that_were_measured(tmp_path, drawn):
    evidence = write_evidence(tmp_path, evidence_of())

    def titles(table: Path) -> list[str]:
        return [title for panel in drawn("steps", evidence, table).axes if (title := panel.get_title(loc="left"))]

    assert titles(write_paths(tmp_path)) == list(fig3_steps.MEASURES.values())
    assert titles(write_paths(tmp_path, lengths=False)) == ["classifier's confidence", "energy (nats)"]


def test_where_no_two_samples_differ_in_class_the_figures_say_so(tmp_path, drawn):
    empty = write_paths(tmp_path, seeds=0)
    figure = drawn("steps", write_evidence(tmp_path, evidence_of()), empty)
    assert words_of(figure).count("no two classes") == 4
    assert words_of(drawn("crossings", write_crossings(tmp_path, []))).count("–") == 90


def test_a_cell_names_the_digit_crossed_most_often_and_its_share_over_seeds(tmp_path, drawn):
    words = words_of(drawn("crossings", write_crossings(tmp_path)))
    # 8 to 2: 3 by 0.4 and 0.2; 2 to 8: 6 by 0.5, and no lines in the other seed; 4 to 7: 9 by 1, and none.
    assert words.count("–") == 87
    assert [word for word in words[:-2] if word != "–"] == ["6", "50", "9", "100", "3", "30"]
    note = words[-1]
    assert "8–2 through 3: 30 ± 14 % of 8→2, 0 % of 2→8" in note
    assert "5–2 through 3: none drawn;" in note
    assert "7–4 through 9: none drawn of 7→4, 100 % of 4→7" in note


def test_the_papers_examples_are_framed_in_both_directions(tmp_path, drawn):
    panel = drawn("crossings", write_crossings(tmp_path)).axes[0]
    frames = [patch.get_xy() for patch in panel.patches if not patch.get_fill()]
    cells = {(round(x + 0.46), round(y + 0.46)) for x, y in frames}
    assert cells == {(8, 2), (2, 8), (5, 2), (2, 5), (7, 4), (4, 7)}


def test_the_papers_lines_are_drawn_where_there_are_any_beside_the_shares_of_all(tmp_path, drawn):
    figure = drawn("named", write_evidence(tmp_path, evidence_of()), write_crossings(tmp_path))
    words = words_of(figure)
    assert "8 to 2 by way of 3, says the paper. Of our lines: 30 ± 14 %" in words
    assert "7 to 4 by way of 9, says the paper. Of our lines: none drawn" in words
    assert words.count("no line joins 7 and 4") == 1
    assert [len(panel.images) for panel in figure.axes if panel.images] == [3, 1]
    bars = next(panel for panel in figure.axes if panel.containers)
    heights = dict(
        zip(
            [label.get_text() for label in bars.get_xticklabels()],
            [bar.get_height() for bar in bars.patches],
            strict=True,
        )
    )
    assert heights == pytest.approx({"0": 0, "1": 0, "3": 0.3, "4": 0, "5": 0, "6": 0.05, "7": 0, "9": 0})


def test_of_a_long_line_eleven_pictures_are_shown_with_both_ends(tmp_path, drawn):
    arrays = evidence_of(steps=21)
    arrays["named_class"][:] = np.arange(21) % 10
    arrays["named_confidence"][:] = 1
    words = words_of(drawn("named", write_evidence(tmp_path, arrays), write_crossings(tmp_path)))
    assert [word for word in words if len(word) == 1][:11] == [str(step % 10) for step in range(0, 21, 2)]


def test_the_share_of_near_samples_is_measured_by_test_digits():
    bound, near = fig3_neighbours.near_share(np.array([[0.5, 5, 6, 7], [0.1, 0.2, 6, 7]]), np.linspace(1, 101, 101))
    assert bound == pytest.approx(2.0)
    assert near.tolist() == [0.25, 0.5]


def test_the_bent_axis_is_linear_about_the_test_digits_and_keeps_the_order():
    energies = {"test": np.linspace(-9, 9, 100)[None], "noise": np.full((1, 5), 4e4)}
    linear = ridges.linear_part(energies)
    assert linear == 10
    at = ridges.bent(np.array([-100, -10, -5, 0, 5, 10, 100, 1000.0]), linear)
    np.testing.assert_allclose(at, [-2, -1, -0.5, 0, 0.5, 1, 2, 3])
    assert ridges.linear_part({"test": energies["test"], "noise": np.full((1, 5), 50.0)}) is None
    assert ridges.linear_part({"test": np.zeros((1, 5))}) is None


def test_aurocs_are_means_with_spread_over_seeds(tmp_path, drawn):
    words = words_of(drawn("energies", write_evidence(tmp_path, evidence_of())))
    assert words.count("0.950 ± 0.071") == len(fig3_energies.COMPARED)
    words = words_of(drawn("energies", write_evidence(tmp_path, evidence_of(seeds=1))))
    assert words.count("0.900") == len(fig3_energies.COMPARED)


def test_a_kind_that_was_not_measured_is_left_out(tmp_path, drawn):
    arrays = {name: array for name, array in evidence_of().items() if not name.endswith("_letters")}
    shown = [kind != "letters" for kind in SHOWN]
    arrays |= {name: arrays[name][shown] for name in ("inputs", "input_kinds", "gradients")}
    words = words_of(drawn("energies", write_evidence(tmp_path, arrays)))
    assert "letters" not in words and words.count("test digits") == 2


def test_gradients_are_drawn_as_what_lowers_the_energy_each_kind_on_its_own_scale():
    inputs = np.zeros((3, 1, 1, 2, 2), np.uint8)
    gradients = np.zeros((3, 1, 1, 2, 2), np.float32)
    gradients[0, 0, 0] = [[-1, 1], [0, 0.5]]
    gradients[1] = 100 * gradients[0]
    tiles, limits = fig3_energies.gradient_tiles(inputs, gradients)
    assert tiles.shape == (3, 2, 3, 2, 2)
    np.testing.assert_allclose(limits, [1, 100, 0], rtol=0.02)
    assert (tiles[:, 0] == 0).all()
    assert (tiles[0] == tiles[1]).all()
    brighter, darker, nothing = tiles[0, 1, :, 0, 0], tiles[0, 1, :, 0, 1], tiles[0, 1, :, 1, 0]
    assert brighter[0] > brighter[2] + 60 and darker[2] > darker[0] + 20
    assert nothing.min() > 240 and tiles[2, 1].min() > 240


@pytest.mark.parametrize(
    ("name", "array", "value", "words"),
    [
        ("steps", "step_class", np.zeros((2, 3, 4), np.int64), "'step_class'.*steps=5"),
        ("steps", "interpolations", np.zeros((2, 3, 2, 1, 8, 8), np.uint8), "has the shape"),
        ("steps", "interpolations", np.zeros((2, 3, 5, 1, 8, 8), np.float32), "float32"),
        ("steps", "step_energy", np.full((2, 3, 5), np.nan, np.float32), "NaN"),
        ("neighbours", "neighbours", np.zeros((2, 25, 1, 8, 8), np.uint8), r"'samples'.*24.*25 neighbours"),
        ("neighbours", "neighbour_distance", np.zeros((2, 23), np.float32), r"\(2, 23\).*24 neighbours"),
        ("neighbours", "heldout_distance", np.full(9, np.inf, np.float32), "infinite"),
        ("energies", "energy_noise", np.full((2, 9), np.nan, np.float32), "'energy_noise'.*NaN"),
        ("energies", "auroc_noise", np.ones(3, np.float32), "'auroc_noise'.*S=2"),
        ("energies", "gradients", np.zeros((5, 2, 1, 8, 8), np.float32), "'gradients'"),
        ("energies", "input_kinds", np.array(["test"]), "'input_kinds'"),
        ("energies", "energy_test", None, "no array 'energy_test'"),
    ],
)
def test_arrays_of_another_form_are_refused_by_name(tmp_path, name, array, value, words):
    arrays = evidence_of()
    arrays.pop(array)
    with pytest.raises(UserError, match=r"digits\.npz.*" + words):
        draw(name, tmp_path, [tmp_path / "out.png"], arrays if value is None else arrays | {array: value})
    assert not (tmp_path / "out.png").exists()


def test_named_lines_of_another_form_are_refused(tmp_path):
    arrays = evidence_of() | {"named_class": np.zeros((3, 3, 4), np.int64)}
    with pytest.raises(UserError, match=r"'named_class'.*steps=5"):
        draw("named", tmp_path, [tmp_path / "out.png"], arrays)


def test_two_steps_are_refused(tmp_path):
    with pytest.raises(UserError, match="at least 3 steps"):
        draw("steps", tmp_path, [tmp_path / "out.png"], evidence_of(steps=2))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([(0, 8, 2, 10, 0.5)], "'between' is 10"),
        ([(0, 8, 2, 3, 1.5)], "share is 1.5"),
        ([(0, 8, 2, 3, 0.5), (0, 8, 2, 3, 0.4)], "two rows for seed 0 from 8 to 2 through 3"),
    ],
)
def test_crossings_that_cannot_be_are_refused(tmp_path, rows, words):
    with pytest.raises(UserError, match=r"crossings\.csv.*" + words):
        fig3_crossings.draw(write_crossings(tmp_path, rows), [tmp_path / "out.png"], "digits")


def test_tables_of_several_experiments_or_without_a_path_are_refused(tmp_path):
    evidence, path = write_evidence(tmp_path, evidence_of()), write_paths(tmp_path)
    table = pd.read_csv(path)
    table[table["path"] == "z"].to_csv(path, index=False)
    with pytest.raises(UserError, match=r"interpolations\.csv.*'pixels'"):
        fig3_steps.draw(evidence, path, [tmp_path / "out.png"], "digits")
    pd.concat([table, table.assign(experiment="others")]).to_csv(path, index=False)
    with pytest.raises(UserError, match=r"interpolations\.csv holds digits, others"):
        fig3_steps.draw(evidence, path, [tmp_path / "out.png"], "digits")
    table.drop(columns="value").to_csv(path, index=False)
    with pytest.raises(UserError, match=r"interpolations\.csv has no column 'value'"):
        fig3_steps.draw(evidence, path, [tmp_path / "out.png"], "digits")
