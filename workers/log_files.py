"""The log files of the programs that impala-train starts: their size, and the errors in them."""

import contextlib
import os
import signal
from pathlib import Path

from impala_redis.common.errors import printable
from impala_redis.common.files import open_to_append, open_to_read

# What an actor prints beyond this is cut off at the next look, but for its beginning.
MOST_LOG_BYTES, KEPT_LOG_BYTES = 64_000_000, 1_000_000
# A program's last error is looked for in so much of its log's end.
LOOKED_AT_BYTES = 1_000_000
# With this torchrun ends when one of its programs has failed; it says nothing of why.
_OF_TORCHRUN = "ChildFailedError"


def last_error_in(path: Path, start: int) -> str | None:
    """The last line of a log that reads like an error, fit for a terminal; None without one.

    Args:
      path: the log file.
      start: how many bytes of it are from earlier sessions.
    """
    try:
        with open_to_read(path) as file:
            end = os.fstat(file.fileno()).st_size
            file.seek(max(start, end - LOOKED_AT_BYTES))
            words = file.read(LOOKED_AT_BYTES).decode(errors="replace")
    except OSError as error:
        return f"its log cannot be read ({error.strerror})"
    for line in reversed(words.splitlines()):
        if line.startswith("error: ") or ("Error" in line and _OF_TORCHRUN not in line):
            return printable(line.removeprefix("error: "))
    return None


def silent_end(code: int) -> str:
    """How a program came to its end that has said nothing."""
    if code == -signal.SIGKILL:
        return "it was killed, perhaps for want of memory"
    if code < 0:
        with contextlib.suppress(ValueError):  # a signal without a name
            return f"it was ended by the signal {signal.Signals(-code).name} without a word"
    return "it ended without a word, as by os._exit in the environment's code"


def cut_log(path: Path) -> bool:
    """Cuts a log that has grown too large, as by an environment that prints without end.

    Its writer goes on at the new end: it appends. Returns whether it was cut.
    """
    with contextlib.suppress(OSError):  # no log, or no room for the note
        if path.stat().st_size <= MOST_LOG_BYTES:
            return False
        with open_to_append(path, buffering=0) as file:
            file.truncate(KEPT_LOG_BYTES)
            file.write(f"\n[cut here: the log had more than {MOST_LOG_BYTES:,} bytes]\n".encode())
        return True
    return False
