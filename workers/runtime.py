"""What every program shares at its edge: signals, logging, errors to exit codes, where it runs."""

import contextlib
import ctypes
import gc
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click
from threadpoolctl import threadpool_limits

from impala_redis.common.errors import EXIT_INTERRUPTED, ImpalaError, RedisUnreachable
from impala_redis.common.server.connection import keep_trying

log = logging.getLogger(__name__)

Reply = TypeVar("Reply")

SHOW_CURSOR = b"\x1b[?25h\n"

# impala-train tells its learner when the user's command began: `wall_s` is what they waited.
STARTED_AT_VARIABLE = "IMPALA_STARTED_AT_UNIX_S"


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
        """Sleeps, but not past the wish to stop; returns whether to stop."""
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
        if stop():  # it was waiting for Redis when it was asked to stop
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


def holder_name() -> str:
    """Who this process is among the learners of all machines: host:pid#namespace-token."""
    return f"{socket.gethostname()}:{os.getpid()}#{_pid_namespace()}-{secrets.token_hex(4)}"


def is_dead_here(holder: str) -> bool:
    """Whether `holder` was a process of this machine (and container) that is gone."""
    host, _, rest = holder.rpartition(":")
    pid, _, rest = rest.partition("#")
    namespace = rest.partition("-")[0]
    here = _pid_namespace()
    if not here or host != socket.gethostname() or namespace != here or not pid.isdigit():
        return False
    if int(pid) == os.getpid():
        return True  # the process number came back to us
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _pid_namespace() -> str:
    """Tells machines and containers of one host name apart; empty where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        return f"{boot}.{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def started_at_unix_s() -> float:
    """When the command that the user typed began."""
    told = os.environ.get(STARTED_AT_VARIABLE, "")
    with contextlib.suppress(ValueError):
        return float(told)
    return time.time() - process_age_s()


def process_age_s() -> float:
    """Seconds since this process was started, its interpreter's start included (Linux)."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[19])  # starttime, since boot
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return time.process_time()


def every(interval_s: float, at_once: bool = False) -> Callable[[], bool]:
    """A function that is true once per interval; the first time after one, or at once."""
    due_at = time.monotonic() + (0.0 if at_once else interval_s)

    def due() -> bool:
        nonlocal due_at
        if time.monotonic() < due_at:
            return False
        due_at = time.monotonic() + interval_s
        return True

    return due


class Budget:
    """So many times within so long, and no more."""

    def __init__(self, times: int, within_s: float) -> None:
        self._within_s = within_s
        self._spent: deque[float] = deque(maxlen=times)

    def spend(self) -> bool:
        """Whether once more is within the budget; if so it is spent."""
        now, spent = time.monotonic(), self._spent
        if len(spent) == spent.maxlen and now - spent[0] < self._within_s:
            return False
        spent.append(now)
        return True


def wait_for_redis(
    ask: Callable[[], Reply], url: str, give_up_after_s: float, stop: StopFlag
) -> Reply:
    """The first answer of `ask`; says what it waits for. Raises RedisUnreachable in the end."""
    say_so = every(5.0, at_once=True)

    def waiting(error: RedisUnreachable) -> None:
        if say_so():
            log.warning("%s; trying for %.0f s", error, give_up_after_s)

    return keep_trying(ask, give_up_after_s=give_up_after_s, stopped=stop, waiting=waiting)


def keep_memory() -> None:
    """Lets glibc keep what is freed for the next update, instead of giving it back to the system.

    Else every large array is new memory, which the system clears page by page: a third of an
    update's time and more. Other C libraries are left as they are.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in _MALLOC.items():
            mallopt(parameter, value)


@contextlib.contextmanager
def keeping_all() -> Iterator[None]:
    """For a large import: nothing of it is garbage, so it is searched neither now nor later.

    That takes a sixth off torch's time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def one_computing_thread() -> Iterator[None]:
    """Keeps numpy, and torch if it is imported later, from using more than one processor."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read when a library is loaded
    with threadpool_limits(limits=1):  # of those that are
        yield


def share_the_interpreter() -> None:
    """Lets the threads of a program take turns sooner than Python's 5 ms.

    A push or a claim needs the interpreter several times; at 5 ms a turn it would wait longer for
    the computing thread than for Redis.
    """
    sys.setswitchinterval(0.0005)


# By their numbers in malloc.h: the trim threshold and the top pad in bytes, the number of mmaps.
_MALLOC = {-1: 2047 << 20, -2: 16 << 20, -4: 0}

CONTEXT: dict[str, Any] = {
    "auto_envvar_prefix": "IMPALA",
    "show_default": True,
    "help_option_names": ["-h", "--help"],
}
