"""The command line as a user meets it: one sentence and exit code 1 for a mistake, nothing half-made."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from conftest import DUMPER, ROOT
from ddgm import cli, record, whole_file
from ddgm.datasets.writing import write
from ddgm.errors import TRY_AGAIN


@pytest.fixture
def project(tmp_path, monkeypatch, parameters):
    """An empty project folder with params.yaml, small enough to train in."""
    for name in ("toy_four_spin", "toy_digits"):
        parameters["experiments"][name]["schedule"].update(steps=5, batch=16)
    parameters["datasets"]["four_spin"]["points"] = 200
    parameters["branches"]["toy"]["evaluation"].update(samples=2000, points=1000, transport=50)
    (tmp_path / "params.yaml").write_text(yaml.dump(parameters, Dumper=DUMPER))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DDGM_MIRROR", raising=False)
    return tmp_path


def said(capsys):
    return capsys.readouterr().err.strip().splitlines()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("draw fig9", "argument figure: there is no 'fig9': did you mean 'fig4'? allowed are fig1,"),
        ("trian toy_four_spin", "there is no 'trian': did you mean 'train'? allowed are fetch,"),
        ("train", "arguments are required: experiment ('ddgm train --help' shows what to write)"),
        ("train toy_four_spin --quick", "unrecognized arguments: --quick"),
        ("prepare four_spin train --workers 0", "argument --workers: '0' is no whole number from 1: write 1 or more"),
        ("train toy_four_spin --threads two", "argument --threads: 'two' is no whole number from 1"),
        ("train toy_four_spin --checkpoint-minutes nan", "'nan' is no time in minutes: write a number from 0"),
        ("train toy_four_spin --checkpoint-minutes -1", "'-1' is no time in minutes: write a number from 0"),
        ("train toy_four_spin --params .", "is no text file"),
        ("search toy_faces --branch toy", "no search of branch toy varies 'toy_faces'"),
        ("train mnst", "experiments has no entry 'mnst': did you mean 'mnist'?"),
        ("prepare cifar train", "datasets has no entry 'cifar'"),
        ("prepare four_spin val", "has no split 'val': allowed are train, test"),
        ("prepare toy_faces foo", "a data set of kind celeba has no split 'foo': write one of train"),
        ("train toy_four_spin", "train.npy is missing: make it with 'ddgm prepare four_spin train'"),
        ("sample toy_four_spin", "holds no trained model"),
        ("evaluate toy_four_spin", "holds no trained model"),
        ("draw fig3", "drawn for one experiment: write 'ddgm draw fig3 EXPERIMENT'"),
        ("draw fig4 toy_faces", "toy_faces.npz is missing: make it with 'ddgm sample toy_faces --branch toy'"),
        ("draw fig4_energies", "drawn for one experiment: write 'ddgm draw fig4_energies EXPERIMENT'"),
        (
            "draw fig4_ordered toy_faces",
            "toy_faces.npz is missing: make it with 'ddgm evaluate toy_faces --branch toy'",
        ),
        ("draw fig4_lines toy_faces", "toy_faces.npz is missing: make it with 'ddgm sample toy_faces --branch toy'"),
        ("draw fig4_curves toy_faces", "history.csv is missing: make it with 'ddgm train toy_faces --branch toy'"),
        ("draw fig4_progress toy_faces", "progress.npz is missing: make it with 'ddgm train toy_faces --branch toy'"),
        ("draw fig4_landscape toy_digits", "is for data that are colour images, and those of toy_digits are digits"),
        ("draw fig3_energies toy_faces", "is for data that are digits, and those of toy_faces are colour"),
        (
            "tabulate --branch toy",
            "toy_four_spin.csv is missing: make it with 'ddgm evaluate toy_four_spin --branch toy'",
        ),
        ("trace toy_two_spiral", "holds no trained model"),
        ("mix toy_two_spiral", "holds no trained model"),
        ("search toy_four_spin", "train.npy is missing: make it with 'ddgm prepare four_spin train'"),
        (
            "rank planar --branch toy",
            "search/toy_four_spin.csv is missing: make it with 'ddgm search toy_four_spin --branch toy'",
        ),
        (
            "judge --branch toy",
            "metrics/toy_four_spin.csv is missing: make it with 'ddgm evaluate toy_four_spin --branch toy'",
        ),
        (
            "trace toy_digits",
            "trace is for data that are two-dimensional, and those of toy_digits are digits: such data",
        ),
        (
            "mix mnist",
            "mix is for data that are two-dimensional, and those of mnist are digits: such data sets are four",
        ),
        ("reference four_spin", "reference is for data that are colour images, and those of four_spin are two-dim"),
        ("draw fig1 mnist", "fig1 takes no name: write 'ddgm draw fig1' in place of 'ddgm draw fig1 mnist'"),
        ("draw curves toy_faces", "curves takes no name: write 'ddgm draw curves' in place of"),
        ("draw claim", "drawn of one claim: write 'ddgm draw claim CLAIM'"),
        ("draw claim mcmc_mixes --branch toy", "has no entry 'mcmc_mixes': did you mean 'mcmc_mixes_badly'?"),
        ("draw claim mcmc_mixes_badly --branch toy", "claims.csv is missing: make it with 'ddgm judge --branch toy'"),
        ("draw fig4 celeba_quarter --branch paper", "make it with 'ddgm sample celeba_quarter --branch paper'"),
        ("draw fig4 celeba_quarter", "write --branch and one of paper, toy, or its name into one figure's list"),
        (
            "draw fig2_extended --branch toy",
            "toy_four_spin.npz is missing: make it with 'ddgm sample toy_four_spin --branch toy'",
        ),
        ("train toy_four_spin --branch tiny", "there is no branch 'tiny': allowed are paper, toy"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_1(arguments, sentence, project, capsys):
    assert cli.main(arguments.split()) == 1
    lines = said(capsys)
    assert len(lines) == 1 and lines[0].startswith("ddgm: ") and sentence in lines[0]
    assert not (project / "results").exists() and not (project / "data").exists()


def test_a_jobs_parameters_may_be_longer_than_a_files_name(project, capsys):
    checksums = {f"{name}.gz": f"md5:{'0' * 32}" for name in ("images", "labels", "t10k-images", "t10k-labels")}
    row = {"kind": "mnist", "draw": None, "subset": {"says": "subset: few", "checksums": checksums}}
    given = json.dumps({f"datasets.mnist.{key}": value for key, value in row.items()})
    assert len(given) > 255 and cli.main(["fetch", "mnist", "labels.gz", "--params", given]) == 1
    assert said(capsys)[-1].startswith("ddgm: mnist has no raw file 'labels.gz'")


def test_what_is_not_the_published_file_is_not_prepared(project, capsys):
    raw = project / "data/raw/mnist/train-images-idx3-ubyte.gz"
    raw.parent.mkdir(parents=True)
    raw.write_bytes(b"another file")
    assert cli.main(["prepare", "mnist", "train"]) == 1
    (sentence,) = said(capsys)
    assert (
        "data/raw/mnist/train-images-idx3-ubyte.gz is not" in sentence and "remove it and run 'ddgm fetch" in sentence
    )
    assert not (project / "data/prepared").exists()


@pytest.mark.parametrize(("asked", "threads"), [([], 2), (["--threads", "3"], 3)])
def test_a_training_has_the_threads_of_its_row_unless_others_are_asked_for(
    asked, threads, project, monkeypatch, parameters
):
    parameters["experiments"]["toy_four_spin"]["threads"] = 2
    (project / "params.yaml").write_text(yaml.dump(parameters, Dumper=DUMPER))
    array = project / "data/prepared/four_spin/train.npy"
    array.parent.mkdir(parents=True)
    array.touch()
    given = []
    monkeypatch.setattr("ddgm.training.train", lambda *_, **options: given.append(options["threads"]))
    assert cli.main(["train", "toy_four_spin", *asked]) == 0
    assert given == [threads]


def test_memory_that_the_kernel_does_not_give_is_one_sentence(project, capsys, monkeypatch):
    def fetch(*_):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("ddgm.datasets.download.fetch", fetch)
    assert cli.main(["fetch", "mnist", "train-images-idx3-ubyte.gz"]) == 1
    (sentence,) = said(capsys)
    assert sentence.startswith("ddgm: fetch: ") and "memory" in sentence


@pytest.mark.parametrize("rank", ["1", "x"])
def test_a_rank_that_torchrun_has_not_given_silences_nothing(rank, project, capsys, monkeypatch):
    monkeypatch.setenv("RANK", rank)
    assert cli.main(["train", "mnst"]) == 1
    assert "did you mean 'mnist'?" in said(capsys)[0]


def test_of_several_processes_another_speaks_where_the_first_does_not(project, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "ddgm")
    monkeypatch.setattr(cli, "FIRST_SPEAKS", 0.01)
    assert cli.main(["train", "mnst"]) == 1
    assert "did you mean 'mnist'?" in said(capsys)[0]


def test_every_verb_from_points_to_pictures(project, capsys):
    for command in (
        "prepare four_spin train", "prepare four_spin test", "train toy_four_spin", "sample toy_four_spin",
        "evaluate toy_four_spin", "draw fig1 --branch toy", "train toy_four_spin",
    ):  # fmt: skip
        assert cli.main(command.split()) == 0, said(capsys)
    made = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    assert made >= {
        "data/prepared/four_spin/train.npy",
        "results/toy/models/toy_four_spin/weights.safetensors",
        "results/toy/samples/toy_four_spin.npz",
        "results/toy/metrics/toy_four_spin.csv",
        "results/toy/figures/fig1.png",
        "results/toy/figures/fig1.pdf",
    }
    assert not [path for path in made if "/." in path], "no temporary file is left"


def test_the_first_lines_of_a_log_say_what_was_chosen(project, capsys):
    cli.main(["prepare", "four_spin", "train"])
    assert cli.main(["train", "toy_four_spin", "--log", "logs/train.log"]) == 0
    lines = (project / "logs/train.log").read_text().splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["experiment", "data", "device", "seeds", "versions"]
    assert said(capsys)[-1] == lines[-1], "the terminal hears it too"


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "the disk is full: free some space"),
        (errno.EDQUOT, "the disk quota is used up: free some space"),
        (errno.EIO, "somewhere: the disk, or the way to it, failed: check it"),
        (errno.EACCES, "no permission there (reading or writing)"),
    ],
)
def test_a_fault_of_the_disk_is_one_sentence_and_leaves_nothing(number, sentence, project, capsys, monkeypatch):
    def fail(*_, **__):
        raise OSError(number, "fault", "somewhere")

    monkeypatch.setattr("numpy.save", fail)
    assert cli.main(["prepare", "four_spin", "train"]) == 1
    (line,) = said(capsys)
    assert sentence in line
    assert not list((project / "data/prepared/four_spin").glob("*.npy"))
    assert not list((project / "data/prepared/four_spin").glob(".*"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--log logs", "ddgm: logs: a folder lies where a file is needed: move it away"),
        ("--log params.yaml/x.log", "ddgm: params.yaml: a file, or a link that leads nowhere, lies where a folder is"),
        ("", "ddgm: data: a file, or a link that leads nowhere, lies where a folder is needed: move it away"),
    ],
)
def test_a_path_that_cannot_be_written_is_named_in_one_sentence(options, sentence, project, capsys):
    (project / "logs").mkdir()
    (project / "data").symlink_to("away")
    assert cli.main(["prepare", "four_spin", "train", *options.split()]) == 1
    (line,) = said(capsys)
    assert sentence in line.replace(f"{project}/", "")


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (MemoryError(), ""),
        (MemoryError("Unable to allocate 7.45 TiB for an array with shape (9,)"), " for 7.45 TiB more"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has"), " for 20.00 GiB more"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 400 bytes."),
            " for 400 bytes more",
        ),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), ""),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), ""),
    ],
)
def test_too_little_memory_is_one_sentence_that_says_what_to_lower(error, wanted, project, capsys, monkeypatch):
    (project / "data/prepared/four_spin").mkdir(parents=True)
    (project / "data/prepared/four_spin/train.npy").touch()

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("ddgm.training.train", fail)
    assert cli.main(["train", "toy_four_spin"]) == 1
    line = said(capsys)[-1]
    assert line.startswith(f"ddgm: train: not enough memory{wanted}: write a smaller experiments.toy_four_spin.sched")
    monkeypatch.setattr("ddgm.metrics.dataset.describe", fail)
    (project / "data/prepared/four_spin/test.npy").touch()
    assert cli.main(["describe", "four_spin"]) == 1
    assert said(capsys)[0].endswith("end other programs, or run the same command where there is more")


def test_what_is_made_of_a_toy_data_set_goes_to_the_toy_branch(project, capsys):
    """As with an experiment, and without --branch; and what is missing is asked for before a network is."""
    assert cli.main(["reference", "toy_faces"]) == 1
    assert said(capsys)[0].startswith("ddgm: data/prepared/toy_faces/train.npy is missing: make it with 'ddgm prepare ")
    assert cli.main(["classify", "toy_digits"]) == 1
    assert "data/prepared/toy_digits/train.npy is missing" in said(capsys)[0]
    digits = yaml.safe_load((project / "params.yaml").read_text())["datasets"]["toy_digits"]
    for split in ("train", "test"):
        array = Path(f"data/prepared/toy_digits/{split}.npy")
        array.parent.mkdir(parents=True, exist_ok=True)
        write(digits, array, np.zeros((3, 1, 28, 28), np.uint8))
    assert cli.main(["describe", "toy_digits"]) == 0
    assert cli.main(["draw", "sheet", "toy_digits"]) == 0
    assert Path("results/toy/data/toy_digits.csv").is_file() and not Path("results/paper").exists()
    assert Path("results/toy/figures/sheet_toy_digits.png").is_file()


@pytest.mark.parametrize("fault", [RuntimeError("shapes do not match"), OSError(errno.EBADF, "bad file")])
def test_another_fault_of_a_library_keeps_its_traceback(fault, project, monkeypatch):
    def fail(*_, **__):
        raise fault

    monkeypatch.setattr("ddgm.cli.existing", fail)
    with pytest.raises(type(fault), match=r"shapes do not match|bad file"):
        cli.main(["train", "toy_four_spin"])


@pytest.mark.parametrize("kilobytes", [200, 1200])
def test_a_training_on_a_full_disk_ends_with_one_sentence(kilobytes, project, capsys):
    """On a real file system that the state does not fit on, or the state and not the model beside it."""
    full = project / "results"
    full.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(full)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small file system to fill")
    try:
        assert cli.main(["prepare", "four_spin", "train"]) == 0
        assert cli.main(["train", "toy_four_spin"]) == 1
        assert "the disk is full: free some space" in said(capsys)[-1]
        names = {path.name for path in full.rglob("*") if path.is_file()}
        states = {"toy_four_spin.lock", *(name for name in names if re.fullmatch(r"\d{9}\.pt", name))}
        assert names <= states, "nothing half-made"
        assert ("000000005.pt" in names) == (kilobytes == 1200), "a state to go on from, where it fits"
    finally:
        subprocess.run(["umount", str(full)], check=True)


def test_the_options_of_train_reach_the_training(project, monkeypatch):
    (project / "data/prepared/four_spin").mkdir(parents=True)
    (project / "data/prepared/four_spin/train.npy").touch()
    asked = {}
    monkeypatch.setattr("ddgm.training.train", lambda *_, **options: asked.update(options))
    options = ["--restart", "--threads", "3", "--checkpoint-minutes", "0.5", "--checkpoints", "7"]
    assert cli.main(["train", "toy_four_spin", *options]) == 0
    assert asked == {"threads": 3, "restart": True, "checkpoint_minutes": 0.5, "checkpoints": 7}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_asked_to_end_removes_what_is_half_made(number, code, project, monkeypatch):
    (project / "data/prepared/four_spin").mkdir(parents=True)
    for split in ("train", "test"):
        (project / f"data/prepared/four_spin/{split}.npy").touch()
    begun = []

    def halfway(arrays, target):
        with whole_file.whole_file(target) as path:
            path.write_text("half")
            begun.append(path)
            os.kill(os.getpid(), number)

    monkeypatch.setattr("ddgm.metrics.dataset.describe", halfway)
    before = signal.getsignal(signal.SIGTERM)
    try:
        found = cli.main(["describe", "four_spin"])
    except SystemExit as ending:
        found = ending.code
    finally:
        signal.signal(signal.SIGTERM, before)
    assert found == code and len(begun) == 1
    assert not [path for path in (project / "results").rglob("*") if path.is_file()]


@pytest.mark.parametrize("command", ["train toy_four_spin", "search toy_four_spin --branch toy"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, TRY_AGAIN)])
def test_what_goes_on_says_try_again_also_before_its_first_round(number, code, command, project, monkeypatch):
    cli.main(["prepare", "four_spin", "train"])
    monkeypatch.setattr("ddgm.training.Run", lambda *_, **__: os.kill(os.getpid(), number))
    before = signal.getsignal(signal.SIGTERM)
    try:
        found = cli.main(command.split())
    except SystemExit as ending:
        found = ending.code
    finally:
        signal.signal(signal.SIGTERM, before)
    assert found == code


def test_a_whole_file_is_there_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep/file.txt"
    with pytest.raises(ZeroDivisionError), whole_file.whole_file(target) as path:
        path.write_text("half")
        raise ZeroDivisionError
    assert list(target.parent.iterdir()) == []
    target.write_text("old")
    with whole_file.whole_file(target) as path:
        path.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new" and target.stat().st_mode & 0o777 == 0o666 & ~umask()


def test_of_files_that_belong_together_all_are_there_or_none(tmp_path):
    files = [tmp_path / name for name in ("weights", "table")]
    for file in files:
        file.write_text("old")
    with pytest.raises(OSError, match="full"), whole_file.all_or_none(files):
        assert not list(tmp_path.iterdir()), "no new file stands beside an old one, even after kill -9"
        files[0].write_text("new")
        raise OSError("the disk is full")
    assert not list(tmp_path.iterdir())


def umask():
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_job_whose_record_cannot_be_written_is_done_all_the_same(project, capsys):
    assert cli.main(["prepare", "four_spin", "train"]) == 0
    (project / "results/toy").mkdir(parents=True)
    (project / "results/toy/provenance").write_text("in the way")
    assert cli.main(["train", "toy_four_spin"]) == 0
    assert "this job has no record, for results/toy/provenance" in capsys.readouterr().err
    assert (project / "results/toy/models/toy_four_spin/weights.safetensors").exists()


def test_a_signal_while_a_job_is_recorded_does_not_undo_it(project, monkeypatch):
    def interrupted(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)

    cli.main(["prepare", "four_spin", "train"])
    monkeypatch.setattr(record, "write", interrupted)
    before = signal.getsignal(signal.SIGINT)
    assert cli.main(["train", "toy_four_spin"]) == 0
    assert signal.getsignal(signal.SIGINT) is before


def test_who_reads_no_further_ends_a_command_quietly(project):
    made = {"path": "results/toy/metrics.csv", "md5": "0" * 32}
    (project / "dvc.lock").write_text(yaml.safe_dump({"stages": {"tabulate-toy": {"cmd": "x", "outs": [made]}}}))
    command = f"{sys.executable} -m ddgm provenance results/toy/metrics.csv; echo $? >&2"
    done = subprocess.run(["bash", "-c", f"({command}) | true"], capture_output=True, text=True, cwd=project)
    assert done.stderr == "141\n"


def test_python_m_ddgm_is_the_console_script():
    run = subprocess.run([sys.executable, "-m", "ddgm", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0 and "fetch" in run.stdout and "evaluate" in run.stdout
    assert Path(sys.executable).with_name("ddgm").exists()


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (
            "workflow/remote.py",
            "the following arguments are required: verb: write 'python workflow/remote.py' and check",
        ),
        ("workflow/remote.py chek", "invalid choice: 'chek'"),
        (
            "benchmarks/preparation.py docs",
            "docs holds no img_align_celeba.zip: write the folder of both, as data/raw/",
        ),
    ],
)
def test_a_slip_in_a_scripts_arguments_is_one_sentence(command, sentence):
    done = subprocess.run([sys.executable, *command.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert sentence in done.stderr and len(done.stderr.splitlines()) == 1
