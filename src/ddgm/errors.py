"""The one exception that a user's mistake, or a fault outside the code, becomes."""


class UserError(Exception):
    """One sentence for the person at the keyboard: what is wrong, with which value, and what to write instead.

    The command line prints it alone, without a traceback, and exits with code 1.
    """
