"""The figures: what they draw, what they refuse, and that the same input gives the same bytes."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ddgm.errors import UserError
from ddgm.figures import curves, fig1, fig2, fig3, fig4
from ddgm.figures.style import mosaic

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
    }


def write_two_d(folder: Path, arrays: dict[str, np.ndarray], name: str = "spin") -> tuple[dict, dict, dict, dict]:
    """The four arguments of fig2.draw before its outputs, for one experiment."""
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


def draw_all(folder: Path) -> list[Path]:
    """Every figure once, as PNG and as PDF, from the same small inputs."""
    folder.mkdir(exist_ok=True)

    def both(name: str) -> list[Path]:
        return [folder / f"{name}.png", folder / f"{name}.pdf"]

    fig1.draw(both("fig1"))
    fig2.draw(*write_two_d(folder / "in", two_d_arrays()), both("fig2"))
    fig3.draw(write_images(folder / "in" / "digits.npz", image_arrays()), both("fig3"), "digits")
    fig4.draw(write_images(folder / "in" / "faces.npz", image_arrays(3)), both("fig4"), "faces")
    curves.draw(
        {"a_b": write_history(folder / "in" / "history.csv"), "c": folder / "in" / "history.csv"}, both("curves")
    )
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
    assert len(here) == 10
    for path in here:
        assert path.read_bytes() == (tmp_path / "there" / path.name).read_bytes(), path.name


def test_a_readers_own_settings_change_nothing(tmp_path):
    fig1.draw([tmp_path / "plain.png"])
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 5, "savefig.facecolor": "black"}):
        fig1.draw([tmp_path / "own.png"])
        assert matplotlib.rcParams["font.size"] == 20
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "own.png").read_bytes()


def test_figure_modules_import_no_torch():
    script = "import sys; from ddgm.figures import fig1, fig2, fig3, fig4, curves; "
    script += "print(sorted({'torch', 'matplotlib.pyplot'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert loaded.strip() == "[]"


def test_the_first_seed_is_the_one_drawn(tmp_path):
    def drawn(arrays: dict[str, np.ndarray], figure: str) -> bytes:
        output = tmp_path / "out.png"
        if figure == "fig2":
            fig2.draw(*write_two_d(tmp_path, arrays), [output])
        else:
            path = write_images(tmp_path / "images.npz", arrays)
            {"fig3": fig3, "fig4": fig4}[figure].draw(path, [output], "digits")
        return output.read_bytes()

    for figure in ("fig2", "fig3", "fig4"):
        arrays = two_d_arrays() if figure == "fig2" else image_arrays()
        seeded = {"fig2": ["samples", "energy"], "fig3": ["samples", "interpolations"], "fig4": ["samples"]}[figure]
        before = drawn(arrays, figure)
        for name in seeded:
            for seed, same in ((1, True), (0, False)):
                changed = {key: array.copy() for key, array in arrays.items()}
                changed[name][seed] = arrays[name][seed][::-1] // 2
                assert (drawn(changed, figure) == before) is same, (figure, name, seed)


def test_the_model_density_is_the_energy_of_the_first_seed_normalised(tmp_path):
    arrays = two_d_arrays()
    samples, metrics, data, _ = write_two_d(tmp_path, arrays)
    row = fig2.read_row("spin", "spin", samples["spin"], metrics["spin"], data["spin"])
    np.testing.assert_allclose(row.model_density, arrays["data_density"], rtol=1e-4, atol=1e-12)
    assert row.seeds == 2


def test_low_energy_is_blue_and_lies_where_the_samples_lie(tmp_path):
    fig2.draw(*write_two_d(tmp_path, two_d_arrays()), [tmp_path / "out.png"])
    picture = pixels(tmp_path / "out.png")

    def at(column: int, x: float, y: float) -> np.ndarray:
        """The colour around (x, y) of the box [-4, 4]² in a panel."""
        left = (fig2.LEFT + column * (fig2.PANEL + fig2.BETWEEN) + fig2.PANEL * (x + 4) / 8) * 200
        top = (fig2.HEAD + fig2.PANEL * (4 - y) / 8) * 200
        return picture[int(top) - 3 : int(top) + 4, int(left) - 3 : int(left) + 4].mean((0, 1))

    blue, red = at(1, 1, 2), at(1, 1, -2)
    assert blue[2] > blue[0] + 80
    assert red[0] > red[2] + 80
    assert at(0, 1, 2).min() < 240 < at(0, 1, -2).min()
    for densities in (2, 3):
        assert at(densities, 1, 2).max() < 60
        assert at(densities, 1, -2).min() > 250


def test_numbers_are_means_with_spread_over_seeds(tmp_path):
    samples, metrics, data, _ = write_two_d(tmp_path, two_d_arrays())
    row = fig2.read_row("spin", "spin", samples["spin"], metrics["spin"], data["spin"])

    def shown(*values: float) -> str:
        table = pd.DataFrame({"seed": range(len(values)), "metric": "kl_data_model", "value": values})
        return fig2.mean_and_spread(dataclasses.replace(row, metrics=table), "kl_data_model")

    assert fig2.mean_and_spread(row, "kl_data_model") == "0.150 ± 0.028"
    assert shown(0.1234) == "0.123"
    assert shown(20.0, 30.0) == "25.0 ± 7.1"
    assert shown(1.0, np.inf) == "∞ in 1 of 2"
    assert shown() == "–"


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
        ("energy", (1, GRID, GRID)),
        ("data_density", (GRID, GRID, 1)),
    ],
)
def test_a_wrong_shape_is_refused_by_name(tmp_path, array, shape):
    arrays = two_d_arrays()
    arrays[array] = np.zeros(shape, np.float32)
    with pytest.raises(UserError) as refusal:
        fig2.draw(*write_two_d(tmp_path, arrays), [tmp_path / "out.png"])
    assert "spin.npz" in str(refusal.value) and "has the shape (" in str(refusal.value)
    assert not (tmp_path / "out.png").exists()


def test_a_wrong_shape_of_points_is_refused_by_name(tmp_path):
    arguments = write_two_d(tmp_path, two_d_arrays())
    np.save(tmp_path / "spin.npy", np.zeros((10, 3)))
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
        fig2.draw(*write_two_d(tmp_path, arrays), [tmp_path / "out.png"])


def test_an_experiment_without_its_partition_function_is_refused(tmp_path):
    samples, metrics, data, titles = write_two_d(tmp_path, two_d_arrays())
    table = pd.read_csv(metrics["spin"])
    table[table["metric"] != "log_partition"].to_csv(metrics["spin"], index=False)
    with pytest.raises(UserError, match=r"spin\.csv.*log_partition"):
        fig2.draw(samples, metrics, data, titles, [tmp_path / "out.png"])
    with pytest.raises(UserError, match="no metrics"):
        fig2.draw(samples, {}, data, titles, [tmp_path / "out.png"])


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
    paths = [write_two_d(tmp_path, two_d_arrays(), f"set{number}") for number in range(8)]
    fig2.draw(
        *({k: v for part in parts for k, v in part.items()} for parts in zip(*paths, strict=True)), [tmp_path / "o.png"]
    )
    assert (tmp_path / "o.png").stat().st_size < 600_000
