"""What ends a command: a user's mistake, or a machine that is taken away."""

# sysexits' "try again": what a training says that was asked to end, and has saved its state.
TRY_AGAIN = 75


class UserError(Exception):
    """One sentence for the person at the keyboard: what is wrong, with which value, and what to write instead.

    The command line prints it alone, without a traceback, and exits with code 1.
    """


class DivergenceError(UserError):
    """A training that ran off: a value that is no finite number, or energies and samples beyond what `watch` allows."""
