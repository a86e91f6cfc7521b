"""Watch a download, and stop the client when no data arrives or the disk is full."""

import time
from collections.abc import Callable

from kaggle_nerve.kaggle_api import failures
from kaggle_nerve.kaggle_api.failures import COMPETITION_FAILURES, FailureRules, KaggleError
from kaggle_nerve.kaggle_api.raw_error import RawError


class DownloadWatch:
    """Stall detector for downloads, to be passed as ``watch`` to `Program.ask`.

    Args:
        measure: returns the bytes on disk, which may also decrease.
        patience: seconds without a change after which the client is stopped.
        on_size: called with each new number of bytes.
        doing: participle phrase for messages, such as "downloading the data".
        rules: failure rules of the object that is downloaded.
    """

    def __init__(
        self,
        measure: Callable[[], int],
        patience: float,
        on_size: Callable[[int], None],
        doing: str,
        rules: FailureRules = COMPETITION_FAILURES,
    ) -> None:
        self.doing = doing
        self._measure, self._patience, self._on_size, self._rules = measure, patience, on_size, rules
        self._size, self._since = -1, time.monotonic()

    def __call__(self, text: str) -> None:
        """Check once; ``text`` is what the client has printed so far. Raises KaggleError to stop the client."""
        # Stop now: the client itself would retry a full disk five times, for a minute.
        if "No space left on device" in text or "Disk quota exceeded" in text:
            error = RawError("No space left on device")
            raise failures.explain(error, self.doing, "", None, rules=self._rules)
        size = self._measure()
        if size != self._size:
            self._size, self._since = size, time.monotonic()
            self._on_size(size)
        elif time.monotonic() - self._since > self._patience:
            raise KaggleError(
                failures.TIMEOUT,
                f"Nothing came for {self._patience:.0f} s while {self.doing}: check the network, and run the same "
                "command again; it goes on from there.",
            )
