"""One command on several devices: torchrun's launcher around itself, for an experiment with `devices` above 1."""

import logging
import os
import signal
import sys

from ddgm.errors import UserError

SHUTDOWN = 300  # seconds that processes asked to end have to save what they have


def started_by_torchrun() -> bool:
    """Whether this process is one of several that torchrun has started."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def run_on_devices(devices: int, arguments: list[str], try_again: int) -> int:
    """Run `ddgm ARGUMENTS` as so many processes of this machine, which torchrun starts and ends; gives the exit code.

    Asked to end by a SIGTERM, or if one of them is, that is `try_again`: the state is saved by then. Raises UserError
    if a signal has ended one of them, which then had no time to say why.
    """
    # By its Python interface: the command takes what begins as one of its options for its own.
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=devices, run_id="ddgm", rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", max_restarts=0, shutdown_timeout=SHUTDOWN,
    )  # fmt: skip
    # What it would say of failures, the processes say.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        elastic_launch(config, sys.executable)("-m", "ddgm", *arguments)
    except ChildFailedError as failed:
        number, failure = failed.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            why = ", as one is that takes too much memory" if name == "SIGKILL" else ""
            raise UserError(
                f"process {number} of {devices} was ended by {name}{why}: the same command goes on from the last "
                f"state, if one was saved"
            ) from None
        # The process that speaks has said why.
        return try_again if failure.exitcode == try_again else 1
    except SignalException as asked:
        return {signal.SIGTERM: try_again, signal.SIGINT: 130}.get(asked.sigval, 1)
    return 0
