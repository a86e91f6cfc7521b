"""Print a notebook's progress as occasional lines, since its log is kept."""

from kaggle_nerve.progress import Bar, LogBar, Reporter


class ConsoleReporter(Reporter):
    """Reports lines on standard output, which a notebook shows under the cell."""

    def bar(self, label: str, total: int | None, unit: str = "frame") -> Bar:
        """Return a new bar."""
        return LogBar(label, total, unit, self.say)

    def say(self, text: str) -> None:
        """Print one line, unbuffered."""
        print(text, flush=True)
