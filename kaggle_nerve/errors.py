"""The exception for errors that a user can act on."""


class NerveError(Exception):
    """An error that the user can act on. ``str()`` is one sentence: what is wrong, where, what to do.

    The command line prints it without a traceback and exits with 1. Any other exception is a defect of
    this package.
    """

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows in a notebook instead of a traceback."""
        return [f"{type(self).__name__}: {self}"]
