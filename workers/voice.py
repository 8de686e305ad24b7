"""A program's own way to the terminal of impala-train: a pipe, which needs no room on any disk.

impala-train gives each program that it starts the writing end of a pipe. What matters goes through
it as lines of JSON, beside the log file:

    {"log": ...}     a line of the log that is an error, or that the user should know
    {"error": ...}   the sentence with which the program ends
    {"result": ...}  what a learner has reached: RESULT of result.json
    {"code": ...}    the exit code with which the program ends
"""

import contextlib
import functools
import json
import logging
import os
import select
import stat
from collections.abc import Iterator
from typing import Any

from impala_redis.common.errors import printable
from impala_redis.workers import handed

# What is told of a result. The whole could be longer than a line, by the names of strangers in it.
RESULT = ("status", "frames", "wall_s", "mean_return_100", "score")
# These may be unknown; the score is there only where there are tasks.
MAYBE_UNKNOWN = ("mean_return_100", "score")
# No figure of a result is as large; an int may be.
LEAST_ABSURD = 1e300
MOST_CODE = 255

# Names the pipe's descriptor, for the program that is started with it and no other.
VARIABLE = "IMPALA_VOICE_FD"
# So long a line is written whole or not at all (POSIX: at least 512 bytes, Linux 4,096).
MOST_BYTES = 4096
# The listener takes so many of these at one look: whoever writes without end must not hold it.
LONGEST_LOOK = 256
# A text is cut to this length: with up to 6 bytes a character the line is short enough.
MOST_CHARACTERS = 600


def tell(**message: Any) -> None:
    """Sends a message to whoever has started this program; does nothing if nobody listens."""
    descriptor = _descriptor()
    if descriptor is None:
        return
    cut = {n: m[:MOST_CHARACTERS] if isinstance(m, str) else m for n, m in message.items()}
    # It begins a line of its own, too: somebody else may have left half of one there.
    line = b"\n" + json.dumps(cut, ensure_ascii=False).encode(errors="replace") + b"\n"
    with contextlib.suppress(OSError):  # nobody reads it any more, or nobody has for very long
        if len(line) <= MOST_BYTES:
            os.write(descriptor, line)


def tell_errors() -> None:
    """Sends every line of the log that is an error, too."""
    if _descriptor() is not None:
        logging.getLogger().addHandler(_Handler(logging.ERROR))


@contextlib.contextmanager
def telling_code() -> Iterator[None]:
    """Tells with which exit code the program ends: torchrun, which starts learners, has its own."""
    code = 1
    try:
        yield
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        raise
    finally:
        tell(code=code)


def begin_again() -> None:
    """Lets a program that was forked find the pipe of its own, not its parent's."""
    _descriptor.cache_clear()


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tell(log=record.getMessage())


@functools.cache
def _descriptor() -> int | None:
    """The pipe that this program was started with."""
    with contextlib.suppress(ValueError):
        handed.take()
    named = os.environ.pop(VARIABLE, "")  # the programs that it starts do not have it
    try:
        descriptor = int(named)
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return None
        os.set_inheritable(descriptor, False)
        os.set_blocking(descriptor, False)
    except (ValueError, OSError):
        return None
    return descriptor


def _can_be_shown(result: dict[str, Any]) -> bool:
    """Whether a result has what RESULT names, each of its kind.

    An environment's code finds the pipe in its own process, and may write to it.
    """
    status, *numbers = (({"score": None} | result).get(name, "") for name in RESULT)
    known = [
        number
        for name, number in zip(RESULT[1:], numbers, strict=True)
        if number is not None or name not in MAYBE_UNKNOWN
    ]
    return isinstance(status, str) and all(
        type(number) in (int, float) and abs(number) < LEAST_ABSURD for number in known
    )


class Listener:
    """The reading end: the messages of one program, which is started with `writing`."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        self._mine = [self._reading, self.writing]
        os.set_blocking(self._reading, False)
        self._partial = b""
        self._lines: list[str] = []
        self.error: str | None = None  # the sentence with which the program has ended
        self.code: int | None = None  # and its exit code
        self.result: dict[str, Any] | None = None
        self._has_ended = False

    def started(self) -> None:
        """Gives the writing end up: the program has it now."""
        os.close(self._mine.pop())

    def hear(self) -> list[str]:
        """The lines of the log that came since the last call; keeps error, code and result.

        Texts are fit for a terminal, whatever they quote.
        """
        self.listen()
        lines, self._lines = self._lines, []
        return lines

    def listen(self) -> None:
        """Takes what has come by now, and keeps the lines of the log for the next `hear`."""
        for message in self._messages():
            if isinstance(text := message.get("log"), str):
                self._lines.append(printable(text))
            if isinstance(text := message.get("error"), str):
                self.error = printable(text)
            if isinstance(result := message.get("result"), dict) and _can_be_shown(result):
                self.result = result
            if type(code := message.get("code")) is int and 0 <= code <= MOST_CODE:
                self.code = code

    def forget_the_end(self) -> None:
        """Forgets code and result of a program, for one that takes its place.

        The error stays until there is another: one that ends for the same reason may not repeat it.
        """
        self.listen()
        self.code = self.result = None

    def wait(self, timeout_s: float) -> bool:
        """Waits until there is something to hear; False at once if the pipe has ended."""
        if not self._has_ended:
            select.select([self._reading], [], [], timeout_s)
        return not self._has_ended

    def close(self) -> None:
        """Reads no more."""
        while self._mine:
            os.close(self._mine.pop())

    def _messages(self) -> list[dict[str, Any]]:
        if self._reading not in self._mine:  # closed
            return []
        pieces = [self._partial]
        with contextlib.suppress(BlockingIOError):
            while len(pieces) <= LONGEST_LOOK and not self._has_ended:
                pieces.append(os.read(self._reading, MOST_BYTES))
                self._has_ended = not pieces[-1]
        *lines, partial = b"".join(pieces).split(b"\n")
        self._partial = partial[: MOST_BYTES + 1]  # enough to know that it is none of ours
        found = []
        for line in lines:
            if len(line) > MOST_BYTES:
                continue
            with contextlib.suppress(ValueError, RecursionError):
                message = json.loads(line)
                if isinstance(message, dict):
                    found.append(message)
        return found
