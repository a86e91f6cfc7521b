"""Run a program that answers questions, one JSON object a line, under hard time limits."""

import json
import os
import queue
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

END = "\x04"
"""Line on standard error that a program writes before each answer. It occurs in no other output."""

END_SECONDS = 5.0
"""Longest wait for `END` after an answer. A working program writes `END` first, so there is normally no wait."""

POLL_SECONDS = 0.2
"""Seconds between two checks of a program that has not answered."""

Message = dict[str, Any]


class EndedError(Exception):
    """The program ended instead of answering. The text is its standard error since the question; ``code`` is
    its exit code, negative for a signal."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Program:
    """A program that answers questions.

    It is started at the first question, and restarted at the next one after it was stopped. It ends, with its
    whole process group, when this object is deleted. ``command`` and ``environment`` are the ``args`` and ``env``
    of `subprocess.Popen`.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command, self._environment = command, dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: Callable[[], object] = lambda: None

    def ask(
        self,
        question: Message,
        limit: float,
        watch: Callable[[str], None] = lambda _: None,
        on_event: Callable[[Message], None] = lambda _: None,
    ) -> tuple[Message, str] | None:
        """Return the answer and the standard error since the question, or None after ``limit`` seconds.

        ``watch`` gets the standard error so far, several times a second. ``on_event`` gets every message that
        is neither an ``answer`` nor a ``fault``. An exception from either, or Ctrl-C, ends the program and
        propagates. Raises EndedError if the program ends by itself.
        """
        end = time.monotonic() + limit
        try:
            self._start()
            self._errors.clear()
            self._end_seen.clear()
            self._send(question)
            while True:
                message = self._receive()
                if message is not None and not {"answer", "fault"}.isdisjoint(message):
                    self._end_seen.wait(END_SECONDS)
                    return message, self._text()
                if message is not None:
                    on_event(message)
                watch(self._text())
                if time.monotonic() > end:
                    break
        except BaseException:
            self.end()
            raise
        self.end()
        return None

    def end(self) -> None:
        """Kill the program and its child processes."""
        self._finalizer()
        self._process = None

    def _start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self.end()
        process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._process, self._messages = process, queue.SimpleQueue[Message | None]()
        self._errors, self._end_seen = list[str](), threading.Event()
        self._finalizer = weakref.finalize(self, _end, process)
        assert process.stdout and process.stderr
        reader = threading.Thread(
            target=_read_errors, args=(process.stderr, self._errors, self._end_seen), daemon=True
        )
        reader.start()
        threading.Thread(
            target=_read_messages, args=(process.stdout, self._messages, reader), daemon=True
        ).start()

    def _send(self, question: Message) -> None:
        assert self._process and self._process.stdin
        with suppress(BrokenPipeError):  # the end is noticed by the next read
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()

    def _receive(self) -> Message | None:
        """Return the next message, or None if there is none for a moment. Raises EndedError if the program
        has ended."""
        try:
            message = self._messages.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return None
        if message is None:
            raise EndedError(self._text(), self._exit_code())
        return message

    def _exit_code(self) -> int:
        assert self._process
        with suppress(subprocess.TimeoutExpired):  # it closed its output, but runs on
            self._process.wait(END_SECONDS)
        return self._process.returncode or 0

    def _text(self) -> str:
        return "".join(self._errors)


def _read_messages(
    stream: IO[bytes], messages: "queue.SimpleQueue[Message | None]", errors: threading.Thread
) -> None:
    with suppress(ValueError):  # closed, or half a line from a killed program
        for line in stream:
            messages.put(json.loads(line))
    errors.join()  # EndedError needs the last lines
    messages.put(None)


def _read_errors(stream: IO[bytes], errors: list[str], end_seen: threading.Event) -> None:
    with suppress(ValueError):
        for line in stream:
            text = line.decode("utf-8", "replace").replace("\r\n", "\n")
            if text.endswith(f"{END}\n"):  # also if the preceding output lacks a final newline
                errors.append(text.removesuffix(f"{END}\n"))
                end_seen.set()
            else:
                errors.append(text)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            if os.name == "nt":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()
