"""The one exception that a user is meant to read."""


class NerveError(Exception):
    """A fault somebody can act on. ``str()`` is one sentence: what is wrong, where, what to do.

    The command line prints it without a traceback and exits with 1. Anything else that is raised
    is a defect of this package.
    """

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: IPython asks for it."""
        return [f"{type(self).__name__}: {self}"]
