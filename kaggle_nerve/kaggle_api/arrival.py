"""Watches what the client downloads, and ends it when nothing comes or nothing can be written."""

import time
from collections.abc import Callable

from kaggle_nerve.kaggle_api import failures
from kaggle_nerve.kaggle_api.failures import OF_COMPETITIONS, Fault, KaggleError, Wording


class Arrival:
    """A watcher for `Program.ask`.

    Args:
        measure: gives the bytes on disk, which may also become fewer.
        patience: seconds without a change after which the client is ended.
        on_size: gets each new number of bytes.
        doing: what the client does, for messages.
        wording: names the option that chooses another folder.
    """

    def __init__(
        self,
        measure: Callable[[], int],
        patience: float,
        on_size: Callable[[int], None],
        doing: str,
        wording: Wording = OF_COMPETITIONS,
    ) -> None:
        self.doing = doing
        self._measure, self._patience, self._on_size, self._wording = measure, patience, on_size, wording
        self._size, self._since = -1, time.monotonic()

    def __call__(self, text: str) -> None:
        """Look once; ``text`` is what the client wrote so far. Raises KaggleError to end it."""
        # The client would try five times more, for a minute, to write to a full disk.
        if "No space left on device" in text or "Disk quota exceeded" in text:
            full = Fault("No space left on device")
            raise failures.explain(full, self.doing, "", None, wording=self._wording)
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
