"""One command on several devices: torchrun around itself, which an experiment with `devices` above 1 starts."""

import os
import signal
import subprocess
import sys
from types import FrameType


def started_by_torchrun() -> bool:
    """Whether this process is one of several that torchrun has started."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def run_on_devices(devices: int, arguments: list[str]) -> int:
    """Run `ddgm ARGUMENTS` as so many processes of this machine; gives the exit code.

    A signal goes on to torchrun, and from there to each process. Torchrun itself says 1 whatever its processes say:
    asked to end, the code is that of a training that can be run again.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(devices)]
    # A session of its own: Ctrl-C at the terminal would reach every process twice.
    run = subprocess.Popen([*command, "-m", "ddgm", *arguments], start_new_session=True)
    asked = 0

    def forward(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = number
        run.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, forward)
    code = run.wait()
    return {signal.SIGTERM: 75, signal.SIGINT: 130}.get(asked, code) if code else 0
