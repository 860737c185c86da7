"""The one error that is the user's to mend: its text says what, where and how."""


class UserError(Exception):
    """A mistake that the user can correct; the command line prints it without a traceback."""
