"""The README's numbers come from the published tables."""

import importlib.util
import json

import pytest
from PIL import Image

from conftest import ROOT
from ddgm.metrics.table import write


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """workflow/publish.py in a project with one measured experiment."""
    spec = importlib.util.spec_from_file_location("publish", ROOT / "workflow/publish.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "README.md").write_text(f"# before\n\n{module.BEGIN}\n\n{module.END}\n\nafter\n")
    write(
        [("four_spin", seed, "kl_data_model", value) for seed, value in ((0, 1.0), (1, 2.0))],
        tmp_path / "results/paper/metrics/four_spin.csv",
    )
    model = tmp_path / "results/paper/models/four_spin"
    model.mkdir(parents=True)
    provenance = {"seconds": 120.0, "device": "cpu: a processor", "threads": 1}
    (model / "provenance.json").write_text(json.dumps(provenance))
    (tmp_path / "results/paper/figures").mkdir()
    Image.new("RGB", (30, 20), (200, 30, 40)).save(tmp_path / "results/paper/figures/fig2.png")
    return module


def test_a_published_experiment_is_a_row_with_mean_sd_seeds_and_time(publish, tmp_path):
    publish.publish("paper")
    text = publish.filled()
    assert "| four-spin, Eq. 15 (`four_spin`) | 2 | KL(D‖T), nats | 1.500 ± 0.707 | 2 min, cpu: a processor" in text
    assert text.startswith("# before") and text.endswith("after\n")
    assert Image.open(tmp_path / "docs/figures/paper_fig2.png").convert("RGB").getpixel((5, 5)) == (200, 30, 40)
    assert (tmp_path / "docs/results/paper/four_spin.provenance.json").exists()


def test_filling_twice_changes_nothing(publish, tmp_path):
    publish.publish("paper")
    (tmp_path / "README.md").write_text(publish.filled())
    assert publish.filled() == (tmp_path / "README.md").read_text()
