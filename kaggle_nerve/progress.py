"""How library code tells of long work without printing: it is handed a Reporter.

The default reports nothing. The command line passes one that draws bars on standard error.
"""


class Bar:
    """One running count. Use as a context manager; this base class shows nothing."""

    def update(self, steps: int = 1) -> None:
        """Count ``steps`` more units as done."""

    def note(self, text: str) -> None:
        """Show ``text`` beside the bar, such as the current loss."""

    def expect(self, total: int) -> None:
        """Change the number of units that there are in all."""

    def close(self) -> None:
        """Finish the bar."""

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Reporter:
    """Makes bars and takes messages; this base class is silent."""

    def bar(self, label: str, total: int | None, unit: str = "frame") -> Bar:
        """A bar of ``total`` units (None: unknown)."""
        return Bar()

    def say(self, text: str) -> None:
        """Tell the user one line."""


SILENT = Reporter()
