"""What a person sees while a command runs: a log, and a bar on a terminal or a line now and then elsewhere."""

import logging
import sys
import time
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

log = logging.getLogger("ddgm")
LINE_SECONDS = 30


def start_log(file: Path | None) -> logging.Logger:
    """Log to standard error, and to `file` as well."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
        # Each line at the end: with several processes, their launcher writes to the file as well.
        handlers.append(logging.FileHandler(file, mode="a"))
    for old in log.handlers[:]:
        log.removeHandler(old)
        old.close()
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
    # A log that cannot be written, as on a full disk, must not drown what the terminal says.
    logging.raiseExceptions = False
    log.setLevel(logging.INFO)
    return log


class Progress:
    """A tqdm bar on a terminal; elsewhere a log line every LINE_SECONDS and at the end."""

    def __init__(self, name: str, total: int, initial: int = 0, unit: str = "step") -> None:
        self.name, self.total, self.unit = name, total, unit
        # Of several processes one speaks.
        seen = sys.stderr.isatty() and log.isEnabledFor(logging.ERROR)
        self.bar = tqdm(total=total, initial=initial, desc=name, unit=unit, disable=not seen)
        self.initial, self.started = initial, time.monotonic()
        self.spoke = self.started

    def show(self, done: int, text: str) -> None:
        """Say how far it is, with a few numbers in `text`."""
        if not self.bar.disable:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(done - self.bar.n)
        now = time.monotonic()
        if self.bar.disable and (now - self.spoke > LINE_SECONDS or done == self.total):
            rate = (done - self.initial) / (now - self.started)
            log.info(f"{self.name}: {self.unit} {done}/{self.total}, {rate:.1f}/s, {text}")
            self.spoke = now

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()
