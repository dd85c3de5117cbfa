"""The figures: what they draw, what they refuse, and that the same input gives the same bytes."""

import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from conftest import ROOT
from ddgm.errors import UserError
from ddgm.figures import curves, fig1, fig2, fig2_curves, fig2_extended, fig3, fig4, registry
from ddgm.figures.style import PAGE, mosaic, wrapped

GRID = 41
METRICS = [f"{kind}_{ends}" for kind in ("kl", "tv") for ends in ("data_model", "data_generator", "generator_model")]


def two_d_arrays(seeds: int = 2) -> dict[str, np.ndarray]:
    """A Gaussian at (1, 2), in samples, energies and exact density; the seeds differ by a shift of the energy."""
    axis = np.linspace(-4, 4, GRID, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    energy = ((x - 1) ** 2 + (y - 2) ** 2) / (2 * 0.5**2)
    stream = np.random.default_rng(0)
    return {
        "samples": (np.array([1, 2]) + 0.5 * stream.normal(size=(seeds, 300, 2))).astype(np.float32),
        "axis": axis,
        "energy": np.stack([energy + 3 + seed for seed in range(seeds)]).astype(np.float32),
        "data_density": np.exp(-energy) / (2 * np.pi * 0.5**2),
        "generator_density": np.stack([np.exp(-energy) / (2 * np.pi * 0.5**2)] * seeds),
    }


def write_two_d(folder: Path, arrays: dict[str, np.ndarray], name: str = "spin") -> tuple[dict, dict, dict, dict]:
    """Samples, metrics, data and titles of one experiment, each by its name."""
    folder.mkdir(exist_ok=True)
    np.savez(folder / f"{name}.npz", **arrays)
    np.save(folder / f"{name}.npy", arrays["samples"][0] if arrays["samples"].ndim == 3 else arrays["samples"])
    rows = []
    for seed in (7, 3):
        log_partition = np.log(2 * np.pi * 0.5**2) - 3 - (seed == 3)
        rows += [(name, seed, "log_partition", log_partition)]
        rows += [(name, seed, metric, 0.1 + 0.01 * seed) for metric in METRICS]
    pd.DataFrame(rows, columns=["experiment", "seed", "metric", "value"]).to_csv(folder / f"{name}.csv", index=False)
    paths = [{name: folder / f"{name}.{ending}"} for ending in ("npz", "csv", "npy")]
    return (*paths, {name: f"the {name} set"})


def for_fig2(folder: Path, arrays: dict[str, np.ndarray], name: str = "spin") -> tuple[dict, dict, dict]:
    samples, _, data, titles = write_two_d(folder, arrays, name)
    return samples, data, titles


def for_extended(folder: Path, arrays: dict[str, np.ndarray], name: str = "spin") -> tuple[dict, dict, dict]:
    samples, metrics, _, titles = write_two_d(folder, arrays, name)
    return samples, metrics, titles


def merged(*several: tuple[dict, ...]) -> list[dict]:
    """The arguments of several experiments as one call's."""
    return [{name: value for part in parts for name, value in part.items()} for parts in zip(*several, strict=True)]


def image_arrays(channels: int = 1, side: int = 12, seeds: int = 2) -> dict[str, np.ndarray]:
    stream = np.random.default_rng(1)
    shape = (channels, side, side)
    return {
        "interpolations": stream.integers(0, 255, (seeds, 4, 6, *shape), dtype=np.uint8),
        "samples": stream.integers(0, 255, (seeds, 50, *shape), dtype=np.uint8),
        "source": np.array("subset: a few"),
    }


def write_images(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(path, **arrays)
    return path


def write_history(path: Path, steps: tuple[int, ...] = (60, 60), entropy: float = 3.0) -> Path:
    rows = [(s, t, 5 - t / 20, 5 - t / 30 + s, entropy + t) for s, last in enumerate(steps) for t in range(last)]
    columns = ["seed", "step", "energy_data", "energy_samples", "entropy"]
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
    return path


def write_trace(path: Path, metrics: Sequence[str] = tuple(fig2_curves.DIVERGENCES)) -> Path:
    """A trace of two seeds at three steps; at the last one seed's energy model is infinitely far."""
    rows = [
        (
            "spin",
            seed,
            step,
            metric,
            np.inf if (seed, step, metric) == (1, 90, "kl_data_model") else 2.0 / (number + step),
        )
        for seed in (0, 1)
        for step in (10, 30, 90)
        for number, metric in enumerate(metrics)
    ]
    pd.DataFrame(rows, columns=["experiment", "seed", "step", "metric", "value"]).to_csv(path, index=False)
    return path


def draw_all(folder: Path) -> list[Path]:
    """Every figure once, as PNG and as PDF, from the same small inputs."""
    folder.mkdir(exist_ok=True)

    def both(name: str) -> list[Path]:
        return [folder / f"{name}.png", folder / f"{name}.pdf"]

    fig1.draw(both("fig1"))
    fig2.draw(*for_fig2(folder / "in", two_d_arrays()), both("fig2"))
    fig2_extended.draw(*for_extended(folder / "in", two_d_arrays()), both("fig2_extended"))
    fig3.draw(write_images(folder / "in" / "digits.npz", image_arrays()), both("fig3"), "digits")
    fig4.draw(write_images(folder / "in" / "faces.npz", image_arrays(3)), both("fig4"), "faces")
    curves.draw(
        {"a_b": write_history(folder / "in" / "history.csv"), "c": folder / "in" / "history.csv"}, both("curves")
    )
    traced = write_trace(folder / "in" / "trace.csv")
    history = {"spin": folder / "in" / "history.csv"}
    fig2_curves.draw({"spin": traced}, history, {"spin": "four-spin, Eq. 15"}, both("fig2_curves"))
    return sorted(folder.glob("*.p*"))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_a_figure_drawn_twice_is_the_same_to_the_byte(tmp_path):
    here = draw_all(tmp_path / "here")
    # Another process with another order of hashes, as another day's run has.
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_figures, pathlib; "
    script += f"test_figures.draw_all(pathlib.Path({str(tmp_path / 'there')!r}))"
    environment = {**os.environ, "PYTHONHASHSEED": "17"}
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", script], check=True, env=environment)
    assert len(here) == 14
    for path in here:
        assert path.read_bytes() == (tmp_path / "there" / path.name).read_bytes(), path.name


def test_a_readers_own_settings_change_nothing(tmp_path):
    fig1.draw([tmp_path / "plain.png"])
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 5, "savefig.facecolor": "black"}):
        fig1.draw([tmp_path / "own.png"])
        assert matplotlib.rcParams["font.size"] == 20
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "own.png").read_bytes()


def test_figure_modules_import_no_torch():
    script = "import sys; from ddgm.figures import fig1, fig2, fig2_curves, fig2_extended, fig3, fig4, curves, claims; "
    script += "print(sorted({'torch', 'matplotlib.pyplot'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert loaded.strip() == "[]"


def test_the_first_seed_is_the_one_drawn(tmp_path):
    def drawn(arrays: dict[str, np.ndarray], figure: str) -> bytes:
        output = tmp_path / "out.png"
        if figure == "fig2":
            fig2.draw(*for_fig2(tmp_path, arrays), [output])
        elif figure == "fig2_extended":
            fig2_extended.draw(*for_extended(tmp_path, arrays), [output])
        else:
            path = write_images(tmp_path / "images.npz", arrays)
            {"fig3": fig3, "fig4": fig4}[figure].draw(path, [output], "digits")
        return output.read_bytes()

    for figure, seeded in (
        ("fig2", ["samples", "energy"]),
        ("fig2_extended", ["energy", "generator_density"]),
        ("fig3", ["samples", "interpolations"]),
        ("fig4", ["samples"]),
    ):
        arrays = two_d_arrays() if "fig2" in figure else image_arrays()
        before = drawn(arrays, figure)
        for name in seeded:
            for seed, same in ((1, True), (0, False)):
                changed = {key: array.copy() for key, array in arrays.items()}
                changed[name][seed] = arrays[name][seed][::-1] // 2
                assert (drawn(changed, figure) == before) is same, (figure, name, seed)


def colour_at(picture: np.ndarray, left: float, top: float, panel: float, x: float, y: float) -> np.ndarray:
    """The colour around (x, y) of the box [-4, 4]² in a panel that begins `left` and `top` inches from the corner."""
    column, row = int((left + panel * (x + 4) / 8) * 200), int((top + panel * (4 - y) / 8) * 200)
    return picture[row - 3 : row + 4, column - 3 : column + 4].mean((0, 1))


def test_low_energy_is_blue_and_lies_where_the_samples_lie(tmp_path):
    turned = two_d_arrays()
    turned["energy"] = turned["energy"][:, ::-1, ::-1]
    arguments = merged(for_fig2(tmp_path, two_d_arrays(), "a"), for_fig2(tmp_path, turned, "b"))
    fig2.draw(*arguments, [tmp_path / "out.png"])
    picture = pixels(tmp_path / "out.png")
    assert picture.shape[1] == PAGE * 200
    top = 0.12 + fig2.LETTERS
    energy = fig2.EDGE + fig2.PANEL + fig2.WITHIN

    for left, low in ((energy, (1, 2)), (energy + fig2.PAIR + fig2.APART, (-1, -2))):
        blue, red = (colour_at(picture, left, top, fig2.PANEL, *at) for at in (low, (1, -2) if low[0] > 0 else (1, 2)))
        assert blue[2] > blue[0] + 80
        assert red[0] > red[2] + 80
    assert colour_at(picture, fig2.EDGE, top, fig2.PANEL, 1, 2).min() < 240
    assert colour_at(picture, fig2.EDGE, top, fig2.PANEL, 1, -2).min() > 240


def test_an_odd_count_leaves_the_last_place_empty(tmp_path):
    arguments = merged(*(for_fig2(tmp_path, two_d_arrays(), name) for name in "abc"))
    fig2.draw(*arguments, [tmp_path / "out.png"])
    picture = pixels(tmp_path / "out.png")
    head, middle = 0.12 + fig2.LETTERS, int((fig2.EDGE + fig2.PAIR + fig2.APART / 2) * 200)
    second = int((2 * head + fig2.PANEL) * 200)
    below = slice(second, second + int(fig2.PANEL * 200) - 4)
    assert (picture[below, middle:] == 255).all()
    assert (picture[below, :middle] < 200).any()


def test_densities_are_dark_where_mass_is_and_an_error_has_the_sign_of_what_is_too_much(tmp_path):
    arrays = two_d_arrays()
    # The generator puts all at the opposite point, the energy is right.
    arrays["generator_density"] = arrays["generator_density"][:, ::-1, ::-1]
    fig2_extended.draw(*for_extended(tmp_path, arrays), [tmp_path / "out.png"])
    picture = pixels(tmp_path / "out.png")
    top = fig2_extended.HEAD + fig2_extended.LETTERS + 0.05

    def at(column: int, x: float, y: float) -> np.ndarray:
        return colour_at(picture, fig2_extended.LEFTS[column], top, fig2_extended.PANEL, x, y)

    for column, sign in ((0, 1), (1, 1), (2, -1)):
        assert at(column, sign, 2 * sign).max() < 60
        assert at(column, -sign, -2 * sign).min() > 250
    assert at(3, 1, 2).min() > 235 and at(3, -1, -2).min() > 235
    missing, too_much = at(4, 1, 2), at(4, -1, -2)
    assert missing[0] > missing[2] + 60
    assert too_much[2] > too_much[0] + 20


def test_the_model_density_is_the_energy_of_the_first_seed_normalised(tmp_path):
    arrays = two_d_arrays()
    samples, metrics, _ = for_extended(tmp_path, arrays)
    row = fig2_extended.read_row("spin", "spin", samples["spin"], metrics["spin"])
    np.testing.assert_allclose(row.model, arrays["data_density"], rtol=1e-4, atol=1e-12)
    assert row.seeds == 2


def test_an_energy_without_integral_is_drawn_as_no_density_at_all(tmp_path, monkeypatch):
    samples, metrics, titles = for_extended(tmp_path, two_d_arrays())
    table = pd.read_csv(metrics["spin"])
    table.loc[table["metric"] == "log_partition", "value"] = np.inf
    table.to_csv(metrics["spin"], index=False)
    row = fig2_extended.read_row("spin", "spin", samples["spin"], metrics["spin"])
    data, model, _, error, _ = row.panels
    assert (model == 0).all() and (error == -data).all() and data.max() == 1
    figures = []
    monkeypatch.setattr(fig2_extended, "save", lambda figure, outputs: figures.append(figure))
    fig2_extended.draw(samples, metrics, titles, [])
    words = [text.get_text() for panel in figures[0].axes for text in panel.texts]
    assert "not integrable" in words and "∞ in 2 of 2" in words


def test_numbers_are_means_with_spread_over_seeds():
    def shown(*values: float) -> str:
        table = pd.DataFrame({"seed": range(len(values)), "metric": "kl_data_model", "value": values})
        return fig2_extended.mean_and_spread(table, "kl_data_model")

    assert shown(0.17, 0.13) == "0.150 ± 0.028"
    assert shown(0.1234) == "0.123"
    assert shown(20.0, 30.0) == "25.0 ± 7.1"
    assert shown(0.0, 3000.0) == "1500 ± 2121"
    assert shown(-1.5, -1.5) == "−1.500 ± 0.000"
    assert shown(1.0, np.inf) == "∞ in 1 of 2"
    assert shown() == "–"


def test_lines_fit_the_width_they_are_wrapped_to():
    words = "four-spin, as in Eq. 15 but without any entropy term at all"
    even, full = (wrapped(words, 1.6, 8, even) for even in (True, False))
    assert " ".join(even) == " ".join(full) == words
    assert len(even) == len(full) == 3
    assert len(full[0]) >= len(even[0]) and len(full[-1]) <= len(even[-1])


def test_end_points_stand_in_the_outer_columns():
    rows, steps, side = 3, 5, 12
    shades = np.arange(10, 10 + steps, dtype=np.uint8)
    images = np.broadcast_to(shades[None, :, None, None, None], (rows, steps, 1, side, side))
    picture = fig3.interpolation_picture(images)
    line = picture[0, :, 0]
    assert (picture == picture[0][None]).all(2)[:side].all()
    assert (line[:side] == shades[0]).all() and (line[-side:] == shades[-1]).all()
    starts = [int(np.flatnonzero(line == shade)[0]) for shade in shades]
    steps_apart = np.diff(starts)
    assert steps_apart[0] == steps_apart[-1] > steps_apart[1] == steps_apart[2] > side
    assert (line[side : starts[1]] == 255).all()


def test_tiles_keep_their_order_and_their_colours():
    images = np.zeros((2, 2, 3, 4, 4), np.uint8)
    images[0, 1, 0] = 200
    images[1, 0, 2] = 100
    picture = mosaic(images)
    assert picture.shape == (9, 9, 3)
    assert (picture[:4, 5:] == [200, 0, 0]).all()
    assert (picture[5:, :4] == [0, 0, 100]).all()


def test_every_pixel_of_an_image_becomes_a_whole_block_of_dots(tmp_path):
    arrays = image_arrays(3, side=64)
    arrays["samples"] = arrays["samples"][:, :17]
    fig4.draw(write_images(tmp_path / "faces.npz", arrays), [tmp_path / "out.png"], "faces")
    picture = pixels(tmp_path / "out.png")
    first = arrays["samples"][0, 0].transpose(1, 2, 0).astype(int)
    # Find the first image by its upper left pixels, then hold the whole of it against its source.
    block = first.repeat(2, 0).repeat(2, 1)
    rows, columns = np.nonzero((picture == block[0, 0]).all(2))
    assert any(np.array_equal(picture[r : r + 128, c : c + 128], block) for r, c in zip(rows, columns, strict=True))


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        ("samples", (2, 300, 3)),
        ("samples", (300, 2)),
        ("axis", (GRID + 1,)),
        ("energy", (2, GRID, GRID + 1)),
        ("data_density", (GRID, GRID, 1)),
        ("generator_density", (GRID, GRID)),
    ],
)
def test_a_wrong_shape_is_refused_by_name(tmp_path, array, shape):
    arrays = two_d_arrays()
    arrays[array] = np.zeros(shape, np.float32)
    with pytest.raises(UserError) as refusal:
        if "density" in array:
            fig2_extended.draw(*for_extended(tmp_path, arrays), [tmp_path / "out.png"])
        else:
            fig2.draw(*for_fig2(tmp_path, arrays), [tmp_path / "out.png"])
    assert "spin.npz" in str(refusal.value) and "has the shape (" in str(refusal.value)
    assert not (tmp_path / "out.png").exists()


def test_a_wrong_shape_of_points_is_refused_by_name(tmp_path):
    arguments = for_fig2(tmp_path, two_d_arrays())
    np.save(tmp_path / "spin.npy", np.zeros((10, 3), np.float32))
    with pytest.raises(UserError, match=r"spin\.npy.*\(10, 3\)"):
        fig2.draw(*arguments, [tmp_path / "out.png"])


@pytest.mark.parametrize("figure", [fig3, fig4])
@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros((2, 50, 12, 12), np.uint8), r"\(2, 50, 12, 12\)"),
        (np.zeros((2, 50, 2, 12, 12), np.uint8), r"2, 12, 12\).*1 or 3 channels"),
        (np.zeros((2, 50, 1, 12, 12), np.float32), "float32"),
        (None, "no array 'samples'"),
    ],
)
def test_images_of_another_shape_or_type_are_refused_by_name(tmp_path, figure, samples, words):
    arrays = image_arrays(1 if samples is None or samples.ndim != 5 else samples.shape[2])
    arrays.pop("samples")
    path = write_images(tmp_path / "digits.npz", arrays if samples is None else {**arrays, "samples": samples})
    with pytest.raises(UserError, match=r"digits\.npz.*" + words):
        figure.draw(path, [tmp_path / "out.png"], "digits")


def test_energies_that_are_no_numbers_are_refused(tmp_path):
    arrays = two_d_arrays()
    arrays["energy"][0, 3, 3] = np.nan
    with pytest.raises(UserError, match=r"spin\.npz.*NaN"):
        fig2.draw(*for_fig2(tmp_path, arrays), [tmp_path / "out.png"])
    with pytest.raises(UserError, match=r"spin\.npz.*NaN"):
        fig2_extended.draw(*for_extended(tmp_path, arrays), [tmp_path / "out.png"])


def test_an_experiment_without_its_partition_function_is_refused(tmp_path):
    samples, metrics, titles = for_extended(tmp_path, two_d_arrays())
    table = pd.read_csv(metrics["spin"])
    table[table["metric"] != "log_partition"].to_csv(metrics["spin"], index=False)
    with pytest.raises(UserError, match=r"spin\.csv.*log_partition"):
        fig2_extended.draw(samples, metrics, titles, [tmp_path / "out.png"])
    with pytest.raises(UserError, match="no metrics"):
        fig2_extended.draw(samples, {}, titles, [tmp_path / "out.png"])
    with pytest.raises(UserError, match="no data"):
        fig2.draw(samples, {}, titles, [tmp_path / "out.png"])
    with pytest.raises(UserError, match="no experiment"):
        fig2.draw({}, {}, {}, [tmp_path / "out.png"])


def test_a_file_that_is_no_array_or_no_table_is_refused_by_name(tmp_path):
    for name in ("broken.npz", "broken.csv"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"broken\.npz"):
        fig4.draw(tmp_path / "broken.npz", [tmp_path / "out.png"], "faces")
    with pytest.raises(UserError, match=r"broken\.csv"):
        curves.draw({"a": tmp_path / "broken.csv"}, [tmp_path / "out.png"])


def test_an_output_of_another_kind_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match=r"fig1\.gif"):
        fig1.draw([tmp_path / "fig1.png", tmp_path / "fig1.gif"])
    assert not list(tmp_path.iterdir())


def test_the_mean_curve_ends_where_the_first_seed_stops(tmp_path):
    history = pd.read_csv(write_history(tmp_path / "history.csv", steps=(30, 60)))
    seeds, mean = curves.by_seed(history, "energy_samples")
    assert len(seeds) == 60 and list(mean.index) == list(range(30))
    assert mean[0] == pytest.approx(5.5)


def test_a_history_that_tells_a_step_twice_is_refused(tmp_path):
    path = write_history(tmp_path / "history.csv")
    table = pd.read_csv(path)
    pd.concat([table, table.iloc[[5]]]).to_csv(path, index=False)
    with pytest.raises(UserError, match=r"history\.csv.*seed 0 at step 5"):
        curves.draw({"a": path}, [tmp_path / "out.png"])


def test_five_curves_without_entropy_are_drawn_a_page_wide(tmp_path):
    path = write_history(tmp_path / "history.csv", entropy=np.nan)
    curves.draw({f"experiment_{number}": path for number in range(5)}, [tmp_path / "out.png"])
    assert pixels(tmp_path / "out.png").shape[1] == 1100


def test_eight_experiments_stay_below_600_kilobytes(tmp_path):
    names = [f"set{number}" for number in range(8)]
    fig2.draw(*merged(*(for_fig2(tmp_path, two_d_arrays(), name) for name in names)), [tmp_path / "o.png"])
    fig2_extended.draw(*merged(*(for_extended(tmp_path, two_d_arrays(), name) for name in names)), [tmp_path / "e.png"])
    assert max((tmp_path / name).stat().st_size for name in ("o.png", "e.png")) < 600_000


def test_every_figure_of_the_registry_has_a_module_that_draws_it_and_a_caption():
    for name in registry.FIGURES:
        assert callable(importlib.import_module(f"ddgm.figures.{name}").draw), name
        assert (ROOT / "workflow/report" / f"{name}.rst").read_text().strip(), name
