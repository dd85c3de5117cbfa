"""The page of a branch: what it says, what it names as missing, what it keeps back."""

import base64
import html
import io
import json
import math
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT, imported
from ddgm import record
from ddgm.errors import UserError
from ddgm.metrics.claims import judge
from ddgm.metrics.table import write
from ddgm.provenance import code_version


@pytest.fixture
def report(tmp_path, monkeypatch):
    """workflow/report.py in a project whose toy branch has one measured experiment and a few figures."""
    module = imported("workflow/report.py")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    return module


@pytest.fixture
def made(report, tmp_path):
    """results/toy of this project."""
    results = tmp_path / "results/toy"
    rows = [("toy_four_spin", seed, "kl_data_model", value) for seed, value in ((0, 0.25), (1, 0.75))]
    rows += [("toy_four_spin", seed, "kl_data_generator", value) for seed, value in ((0, 1.0), (1, math.inf))]
    write(rows, results / "metrics/toy_four_spin.csv")
    model = results / "models/toy_four_spin"
    model.mkdir(parents=True)
    about = {
        "seconds": 90.0, "device": "cpu: a processor", "threads": 1, "processes": 1, "deterministic": False,
        "data_source": "drawn: <b>four</b> & more", "data_sha256": "0123456789abcdef" * 4,
        "versions": {"ddgm": "1.0+gabc-dirty", "torch": "2.0"},
    }  # fmt: skip
    (model / "provenance.json").write_text(json.dumps(about))
    row = report.parameters.load("params.yaml")["experiments"]["toy_four_spin"]
    (model / "experiment.json").write_text(json.dumps({"name": "toy_four_spin", "row": row}))
    (results / "figures").mkdir()
    picture = Image.fromarray(np.arange(256 * 256 * 3, dtype=np.uint8).reshape(256, 256, 3))
    for name in ("fig2", "sheet_four_spin"):
        picture.save(results / f"figures/{name}.png")
    return results


def page(report, branch="toy"):
    report.main([branch])
    return (report.Path("results") / branch / "report.html").read_text()


def test_every_figure_of_the_branch_stands_with_its_caption_and_the_command_that_draws_it(report, made):
    text = page(report)
    drawn = report.Page(report.parameters.load("params.yaml"), "toy")
    figures = re.findall(r'<figure id="(\w+)">(.*?)</figure>', text, re.S)
    assert {name for name, _ in figures} == {path.stem for path in drawn.expected if path.suffix == ".png"}
    for name, content in figures:
        says = re.search(r"<figcaption>(.*?)<", content, re.S)[1]
        assert len(says.split()) > 5, name
        assert f"snakemake --cores 2 --force results/toy/figures/{name}.png" in content


def test_a_picture_lies_in_the_page_and_is_the_one_that_was_drawn(report, made):
    content = re.search(r'<figure id="fig2">.*?base64,([^"]+)"', page(report), re.S)[1]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"), float)
    drawn = np.asarray(Image.open(made / "figures/fig2.png").convert("RGB"), float)
    assert shown.shape == drawn.shape and np.abs(shown - drawn).mean() < 10


def test_numbers_have_error_bars_and_an_infinite_one_is_counted(report, made):
    text = page(report)
    assert "0.500 ± 0.354" in text and "∞ in 1 of 2" in text


def test_the_classifiers_that_judge_stand_with_their_accuracy(report, made):
    folder = made / "classifiers/toy_digits"
    folder.mkdir(parents=True)
    assert "judge digits" not in page(report)
    (folder / "accuracy.csv").write_text(
        "classifier,seed,metric,value\ntoy_digits,0,accuracy,0.96\ntoy_digits,1,accuracy,0.98\n"
    )
    text = page(report)
    assert "The classifiers that judge digits" in text and "0.970 ± 0.014" in text and "0.9600" in text


def test_what_is_missing_is_named_with_the_command_that_makes_it(report, made):
    text = page(report)
    assert "<code>snakemake --cores 2 results/toy/figures/fig1.png</code>" in text
    assert "<code>snakemake --cores 2 results/toy/figures/fig2.png</code>" not in text
    assert "have not been judged yet" in text


def test_the_verdicts_and_the_tests_that_failed_stand_in_the_page(report, made):
    test = {"experiment": "toy_four_spin", "metric": "kl_data_model", "at": None, "seeds": None}
    tests = [{**test, "comparison": "at most", "threshold": threshold} for threshold in (0.1, 2.0)]
    claim = {"says": "The energy fits", "figure": "measures", "tests": tests}
    other = {**claim, "says": "So does the other", "tests": [{**tests[1], "experiment": "toy_digits"}]}
    table = made / "metrics/toy_digits.csv"
    table.write_text((made / "metrics/toy_four_spin.csv").read_text().replace("toy_four_spin", "toy_digits"))
    seeds = {"toy_four_spin": [0, 1], "toy_digits": [0, 1]}
    judge({"fits": claim, "other": other}, {"ours": ["toy_digits"]}, seeds, made, made / "metrics/claims.csv")
    table.unlink()  # No such model lies here, whose provenance the page would ask for.
    text = page(report)
    assert re.search(r"<td>The energy fits</td><td class=\"verdict partly\">◐ 1 of 2</td><td [^>]*></td>", text)
    assert re.search(r"<td>So does the other</td><td [^>]*></td><td class=\"verdict reproduced\">✓ 1 of 1</td>", text)
    assert re.search(r"kl_data_model not at most 0.1: <code>toy_four_spin</code> 0.5 ± [\d.]+", text)


def test_provenance_names_code_device_seeds_data_time_and_parameters(report, made):
    section = re.search(r'<section id="trained-toy_four_spin">(.*?)</section>', page(report), re.S)[1]
    for part in ("1.0+gabc-dirty", "uncommitted changes", "torch 2.0", "cpu: a processor", "0, 1", "0123456789ab",
                 "2 min", "generator_rate: "):  # fmt: skip
        assert part in section, part


def test_code_that_a_training_was_begun_with_and_how_its_data_were_held_are_named(report, made):
    file = made / "models/toy_four_spin/provenance.json"
    more = {"earlier_code": ["1.0+ga", "1.0+gb"], "data_held": "streamed"}
    for about, said in (({}, "streamed: not recorded"), (more, "streamed: streamed")):
        file.write_text(json.dumps(json.loads(file.read_text()) | about))
        section = re.search(r'<section id="trained-toy_four_spin">(.*?)</section>', page(report), re.S)[1]
        assert f"resident or {said}" in section
        assert ("begun with 1.0+ga, 1.0+gb" in section) == bool(about)


def test_what_git_has_without_what_dvc_has_is_no_fault(report, made):
    """A clone before `dvc pull`: tables of metrics, and no model beside them."""
    (made / "models/toy_four_spin/provenance.json").unlink()
    (made / "models/toy_four_spin/experiment.json").unlink()
    assert 'id="trained-toy_four_spin"' not in page(report)


@pytest.mark.parametrize("file", ["metrics/claims.csv", "metrics/toy_four_spin.csv", "metrics.csv"])
def test_a_table_that_was_cut_off_is_one_sentence(file, report, made):
    (made / file).write_text("")
    with pytest.raises(UserError, match=rf"{file} cannot be read as a csv file .*: delete it, and make it again"):
        page(report)


@pytest.mark.parametrize("file", ["provenance.json", "experiment.json"])
@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_damaged_record_is_one_sentence(file, content, report, made):
    path = made / "models/toy_four_spin" / file
    path.write_text(content)
    with pytest.raises(UserError, match=rf"{file} is damaged: restore it, or make again what it is a record of$"):
        page(report)


def test_the_sheet_of_a_data_set_is_not_that_of_one_whose_name_goes_on(report, made):
    about = report.Page(report.parameters.load("params.yaml"), "paper")
    about.expected = [report.Path(f"results/paper/figures/sheet_celeba{end}.png") for end in ("", "_15k")]
    assert [figure["name"] for figure in about.sheet("celeba")] == ["sheet_celeba"]
    assert [figure["name"] for figure in about.sheet("celeba_15k")] == ["sheet_celeba_15k"]


def test_claims_of_an_older_version_are_refused_in_a_sentence(report, made):
    (made / "metrics/claims.csv").write_text("claim,says,holds\nfits,It fits,True\n")
    with pytest.raises(UserError, match=r"claims\.csv was made by an older version: make it again with 'snakemake res"):
        page(report)


def test_files_that_a_job_depends_on_are_files_and_those_of_a_report_say_what_it_shows(report, monkeypatch):
    monkeypatch.chdir(ROOT)
    selection = sys.modules[report.Selection.__module__]
    of_judge = selection.modules("ddgm.metrics.claims", "ddgm.parameters")
    assert all((ROOT / name).is_file() for name in of_judge) and "src/ddgm/parameters.py" in of_judge
    of_report = report.Selection(report.parameters.load("params.yaml")).report_code
    assert {"workflow/selection.py", "src/ddgm/figures/registry.py", "workflow/report/fig2.rst"} <= set(of_report)


def test_text_of_the_results_is_no_markup(report, made):
    text = page(report)
    assert "<b>four</b>" not in text and "&lt;b&gt;four&lt;/b&gt; &amp; more" in text


@pytest.mark.parametrize(
    ("stem", "photographs"),
    [
        ("sheet_celeba", True),
        ("fig4_neighbours_celeba", True),
        ("fig4_landscape_lsun_bedroom", True),
        ("fig4_neighbours_toy_faces", False),
        ("fig4_celeba", False),
        ("sheet_mnist", False),
    ],
)
def test_a_figure_that_shows_data_under_a_licence_is_of_photographs(stem, photographs, report, parameters):
    assert report.shows_photographs(parameters, stem) is photographs


def test_photographs_are_named_and_left_out(report, made, tmp_path):
    figures = tmp_path / "results/paper/figures"
    figures.mkdir(parents=True)
    for name in ("sheet_celeba", "sheet_mnist"):
        (figures / f"{name}.png").write_bytes((made / "figures/fig2.png").read_bytes())
    write([("celeba", 0, "spread", 0.9)], tmp_path / "results/paper/metrics/celeba.csv")
    drawn = {
        figure["name"]: figure
        for figure in report.Page(report.parameters.load("params.yaml"), "paper").figures("sheet_")
    }
    assert drawn["sheet_celeba"]["hidden"] and drawn["sheet_celeba"]["picture"] is None
    assert drawn["sheet_mnist"]["picture"]


def test_what_lies_there_outside_the_branchs_lists_has_a_section_of_its_own(report, made):
    """Of experiments that no list names, and figures of others than their list draws."""
    assert "Outside the lists" not in page(report)
    rows = [("celeba_quarter", seed, "spread", value) for seed, value in ((0, 0.25), (1, 0.75))]
    write(rows, made / "metrics/celeba_quarter.csv")
    model = made / "models/celeba_quarter"
    model.mkdir()
    for file in ("provenance.json", "experiment.json"):
        (model / file).write_text((made / "models/toy_four_spin" / file).read_text())
    # Of the last no rule draws a figure, and the one before shows photographs.
    extra = ["fig4_curves_celeba_quarter", "fig3_mnist", "sheet_mnist", "fig4_neighbours_celeba_quarter", "fig4_gone"]
    for name in extra:
        (made / f"figures/{name}.png").write_bytes((made / "figures/fig2.png").read_bytes())
    text = page(report)
    section = re.search(r'<h2 id="unlisted">Outside the lists</h2>(.*?)<h2', text, re.S)[1]
    figures = dict(re.findall(r'<figure id="(\w+)">(.*?)</figure>', section, re.S))
    assert figures.keys() == set(extra[:-1]) and "fig4_gone" not in text
    for name, content in figures.items():
        assert f'<code class="command">snakemake --cores 2 --force results/toy/figures/{name}.png</code>' in content
        assert ("base64," in content) == (name != "fig4_neighbours_celeba_quarter")
    curves = figures["fig4_curves_celeba_quarter"]
    assert "Learning curves of an image experiment, celeba_quarter" in curves
    assert '<a href="#trained-celeba_quarter">' in curves and 'id="trained-celeba_quarter"' in text
    assert "(<code>celeba_quarter</code>)" in section and "0.500 ± 0.354" in section
    assert "snakemake --cores 2 --force results/toy/metrics/celeba_quarter.csv" in section
    assert '<a href="#unlisted">' in text and text.count('<figure id="fig2">') == 1


def test_the_page_asks_for_nothing_that_is_not_in_it(report, made):
    asked = []

    class Links(HTMLParser):
        def handle_starttag(self, tag, attributes):
            asked.extend(value for name, value in attributes if name in ("src", "href", "srcset", "poster", "data"))

    text = page(report)
    Links().feed(text)
    assert asked and all(link.startswith(("#", "data:")) for link in asked)
    assert "url(" not in text and "@import" not in text and "<script" not in text


def test_the_links_inside_the_page_lead_somewhere(report, made):
    text = page(report)
    targets = set(re.findall(r'id="([\w-]+)"', text))
    linked = set(re.findall(r'href="#([\w-]+)"', text))
    assert "trained-toy_four_spin" in linked and linked <= targets


def test_what_was_not_reproduced_stands_in_the_page(report, made):
    text = page(report)
    for entry in report.parameters.load("params.yaml")["branches"]["toy"]["not_reproduced"]:
        assert f"<b>{entry['what']}</b>" in text
        # Without its markup and entities, as a reader has it.
        read = html.unescape(re.sub("<.*?>", "", text))
        assert entry["why"].replace("`", "") in read


def test_a_data_set_stands_with_its_source_and_each_measure_of_each_split(report, made):
    (made / "data").mkdir()
    lines = ["dataset,split,source,measure,value", "four_spin,train,computed,examples,100000",
             "four_spin,val,computed,examples,10000", "four_spin,train,computed,checksum,0abc"]  # fmt: skip
    (made / "data/four_spin.csv").write_text("\n".join(lines) + "\n")
    section = re.search(r"<h3>four_spin</h3>(.*?)<h3>", page(report), re.S)[1]
    assert "Source: computed." in section
    cells = [re.sub("<.*?>", "", cell).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", section, re.S)]
    assert cells == ["", "train", "val", "examples", "100000", "10000", "checksum", "0abc", ""]


def test_every_job_stands_with_when_how_long_and_with_what_it_ran(report, made, tmp_path):
    figure = report.Path("results/toy/figures/fig2.png")
    record.write(["ddgm", "draw", "fig2", "--branch", "toy"], [figure], report.Path("results"), 12.3)
    other = report.Path("results/paper/figures/fig2.png")
    other.parent.mkdir(parents=True)
    other.write_bytes(b"of another branch")
    record.write(["ddgm", "draw", "fig2", "--branch", "paper"], [other], report.Path("results"), 99.9)
    text = page(report)
    (row,) = re.findall(r"<tr>(?:(?!</tr>).)*ddgm draw fig2 --branch toy(?:(?!</tr>).)*</tr>", text, re.S)
    assert "12.3" in row and code_version() in row and "cpu: " in row and "99.9" not in text
    assert (made / "provenance/report.html.json").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [([], "write 'python workflow/report.py' and one branch"), (["paper"], "nothing in results/paper to report")],
)
def test_a_branch_that_is_not_there_is_refused_in_a_sentence(arguments, says, report, made):
    with pytest.raises(SystemExit, match=says):
        report.main(arguments)
