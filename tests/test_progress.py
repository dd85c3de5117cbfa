"""What a person sees while a training runs."""

import io
import logging

from ddgm import progress
from ddgm.progress import Progress, start_log


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_with_the_numbers(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with Progress("mnist", 200) as bar:
        bar.show(200, "E(x+) -3.1  E(x-) -2.9  H 12.5")
    shown = screen.getvalue()
    assert "mnist" in shown and "200/200" in shown and "E(x+) -3.1  E(x-) -2.9  H 12.5" in shown


def test_of_several_processes_those_that_are_quiet_draw_no_bar(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    before = progress.log.level
    progress.log.setLevel(logging.CRITICAL)
    try:
        with Progress("mnist", 200) as bar:
            bar.show(200, "E(x+) -3.1")
    finally:
        progress.log.setLevel(before)
    assert screen.getvalue() == ""


def test_what_another_process_adds_to_the_log_stays_beside_what_is_written_next(monkeypatch, tmp_path):
    """The launcher of several processes and the first of them write to one file."""
    monkeypatch.setattr("sys.stderr", io.StringIO())
    file = tmp_path / "train.log"
    file.write_text("of the run before\n")
    log = start_log(file)
    log.info("first")
    with file.open("a") as other:
        other.write("the launcher's\n")
    log.info("second")
    assert file.read_text().splitlines() == ["first", "the launcher's", "second"]


def test_a_file_gets_a_line_now_and_then_and_the_last_one(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    start_log(tmp_path / "train.log")
    with Progress("mnist", 200) as bar:
        for step in (50, 100, 150, 200):
            now[0] += 20.0
            bar.show(step, "E(x+) -3.1")
    logging.getLogger("ddgm").handlers[1].flush()
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert lines == ["mnist: step 100/200, 2.5/s, E(x+) -3.1", "mnist: step 200/200, 2.5/s, E(x+) -3.1"]
