"""How a program ends, by a signal or an error, with which exit code and which message."""

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType

import click

from impala_redis.common.errors import EXIT_INTERRUPTED, ImpalaError, RedisUnreachable

SHOW_CURSOR = b"\x1b[?25h\n"


class StopFlag:
    """Set by the first Ctrl-C or SIGTERM; the second Ctrl-C ends the process at once."""

    def __init__(self) -> None:
        # A plain flag: an Event could deadlock, set by a handler that interrupts its own wait.
        self._stopped = False
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stopped and number == signal.SIGINT:
            if sys.stderr.isatty():
                os.write(sys.stderr.fileno(), SHOW_CURSOR)  # a live panel may have hidden it
            os._exit(128 + number)
        self._stopped = True

    def __call__(self) -> bool:
        """Whether to stop."""
        return self._stopped

    def wait(self, timeout_s: float) -> bool:
        """Sleeps until the time is over or the program is to stop; returns whether to stop."""
        deadline = time.monotonic() + timeout_s
        while not self._stopped and (left_s := deadline - time.monotonic()) > 0:
            time.sleep(min(left_s, 0.02))
        return self._stopped


def set_up_logging(level: str, prefix: str) -> None:
    """Log lines to standard error: time, program, message."""
    logging.basicConfig(
        level=level.upper(),
        format=f"%(asctime)s {prefix}: %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )


@contextlib.contextmanager
def exit_codes(stop: StopFlag) -> Iterator[None]:
    """Ends the program with one sentence and the error's code instead of a traceback."""
    try:
        yield
    except RedisUnreachable as error:
        if stop():  # asked to stop while it waited for Redis
            sys.exit(EXIT_INTERRUPTED)
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except ImpalaError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output went away, as `| head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
