"""What a notebook's cells print: one line now and then, for its log is kept."""

from kaggle_nerve.progress import Bar, LoggedBar, Reporter


class ConsoleReporter(Reporter):
    """Lines on standard output, which a notebook shows under the cell."""

    def bar(self, label: str, total: int | None, unit: str = "frame") -> Bar:
        """A new bar."""
        return LoggedBar(label, total, unit, self.say)

    def say(self, text: str) -> None:
        """One line, at once."""
        print(text, flush=True)
