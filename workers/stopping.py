"""How a program ends, by a signal or an error, with which exit code and which message."""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TextIO

from impala_redis.common.errors import (
    EXIT_INTERRUPTED,
    ImpalaError,
    OutputLost,
    RedisUnreachable,
    RunDirectoryError,
    printable,
)
from impala_redis.workers import voice
from impala_redis.workers.saying import printable_lines, say, say_fault

SHOW_CURSOR = b"\x1b[?25h\n"
# Threads and exit handlers that an environment has left get this long at a program's end.
END_WITHIN_S = 2.0
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A second SIGTERM counts from then on. One that comes sooner may be the same wish by another way:
# systemd and Slurm signal impala-train and its learner, to which impala-train passes it on, and
# `timeout` signals its program, then the program's group.
AGAIN_AFTER_S = 2.0
# So does a Ctrl-C, from when a hand may have typed it after the first signal. One that comes sooner
# is passed on by what started us: a terminal signals both, and `timeout --foreground`, say, us too.
TYPED_AFTER_S = 0.1
# Ends the thread that waits for the numbers of signals.
_NO_SIGNAL = 0


def do_nothing() -> None:
    """What a program without children does before it ends at once."""


class StopFlag:
    """Set by the first Ctrl-C or SIGTERM; a second one ends the process at once.

    A second SIGTERM does so only from AGAIN_AFTER_S after the first signal on, and a Ctrl-C from
    TYPED_AFTER_S on.

    Signals are noticed by a thread, whatever the main thread does, and whoever has set a handler of
    his own in Python: that runs only between two steps of Python code, so not while a library
    computes or waits.
    """

    def __init__(self) -> None:
        # A plain flag: an Event could deadlock, set by a handler that interrupts its own wait.
        self._stopped = False
        # By a monotonic clock. The thread, which keeps its own, may have seen the signal before.
        self._handled_at_s: float | None = None
        self.before_end_at_once: Callable[[], None] = do_nothing
        # A program with nothing to save ends so soon after the first signal, whatever it is in.
        self.end_within_s: float | None = None
        self._noticed_at_s: float | None = None  # the first signal, by the thread
        self._signals, self._arrives = os.pipe()
        os.set_blocking(self._arrives, False)
        os.register_at_fork(after_in_child=self._let_go)
        self.take_signals()
        self._thread = self._start_thread()

    def _start_thread(self) -> threading.Thread:
        thread = threading.Thread(target=self._end_at_second_signal, name="signals", daemon=True)
        thread.start()
        return thread

    @contextlib.contextmanager
    def without_thread(self) -> Iterator[None]:
        """Leaves the process without the thread, so that it can be forked in the `with`.

        Signals that come meanwhile set the flag, and the thread finds them later.
        """
        os.write(self._arrives, bytes([_NO_SIGNAL]))
        self._thread.join()
        try:
            yield
        finally:
            self._thread = self._start_thread()

    def take_signals(self) -> None:
        """Makes Ctrl-C and SIGTERM ours, again if need be: an environment may have taken them."""
        signal.set_wakeup_fd(self._arrives, warn_on_full_buffer=False)
        for number in ENDING_SIGNALS:
            if signal.getsignal(number) != self._on_signal:
                signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)

    def _let_go(self) -> None:
        """Leaves signals to a forked child: the processes of an environment end by SIGTERM."""
        signal.set_wakeup_fd(-1)
        for number in ENDING_SIGNALS:
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, signal.SIG_DFL)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._handled_at_s is None:
            self._handled_at_s = time.monotonic()
        elif _insists(number, self._handled_at_s):
            self._end_at_once()  # an environment may have taken the signals from the thread
        self._stopped = True

    def _end_at_second_signal(self) -> None:
        """Reads the numbers of the signals that arrive, a byte each (on a thread of its own)."""
        while (number := os.read(self._signals, 1)[0]) != _NO_SIGNAL:
            if self._noticed_at_s is not None and _insists(number, self._noticed_at_s):
                self._end_at_once()
            if self._noticed_at_s is None and number in ENDING_SIGNALS:
                self._noticed_at_s, self._stopped = time.monotonic(), True
                if self.end_within_s is not None:
                    ending = threading.Timer(self.end_within_s, os._exit, (EXIT_INTERRUPTED,))
                    ending.daemon = True
                    ending.start()

    def _end_at_once(self) -> None:
        try:
            self.before_end_at_once()
            if sys.stderr.isatty():
                os.write(sys.stderr.fileno(), SHOW_CURSOR)  # a live panel may have hidden it
        finally:
            os._exit(EXIT_INTERRUPTED)

    def __call__(self) -> bool:
        """Whether to stop."""
        return self._stopped

    def wait(self, timeout_s: float) -> bool:
        """Sleeps until the time is over or the program is to stop; returns whether to stop."""
        deadline = time.monotonic() + timeout_s
        while not self._stopped and (left_s := deadline - time.monotonic()) > 0:
            time.sleep(min(left_s, 0.02))
        return self._stopped


def _insists(number: int, asked_at_s: float) -> bool:
    """Whether a signal after the first one asks for the end at once."""
    after_s = {signal.SIGINT: TYPED_AFTER_S, signal.SIGTERM: AGAIN_AFTER_S}
    return number in after_s and time.monotonic() - asked_at_s >= after_s[signal.Signals(number)]


class _DatedFormatter(logging.Formatter):
    """Begins a line with date, time and the zone's offset: logs of several machines are merged.

    What the lines quote may be anyone's: nothing in them acts on a terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines."""
        return printable_lines(super().format(record))

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """The record's time as ISO 8601, in whole seconds."""
        return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="seconds")


class _PatientHandler(logging.StreamHandler[TextIO]):
    """Loses a line, and ends nobody, when an environment has closed the stream."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Complains on standard error, if that is open."""
        with contextlib.suppress(ValueError):
            super().handleError(record)


def set_up_logging(level: str, prefix: str) -> None:
    """Log lines to standard error: time with date and zone, program, message."""
    handler = _PatientHandler(sys.stderr)
    handler.setFormatter(_DatedFormatter(f"%(asctime)s {prefix.replace('%', '%%')}: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    sys.excepthook = say_fault
    voice.tell_errors()


@contextlib.contextmanager
def telling_lost_output() -> Iterator[None]:
    """Ends the program with one sentence when its standard output cannot be written."""
    try:
        yield
    except OSError as error:
        if not _output_is_lost():
            raise
        lost = OutputLost(f"standard output cannot be written ({error.strerror or error})")
        _drop_output()
        say_error(str(lost))
        sys.exit(lost.exit_code)


@contextlib.contextmanager
def ending_in_time() -> Iterator[contextlib.ExitStack]:
    """Ends the process soon after the `with`, whatever an environment has left running in it.

    Python waits at its end for threads that are no daemons, and for exit handlers. What is put on
    the stack is called when that time has begun: it may hang.
    """
    code = 1
    at_end = contextlib.ExitStack()
    try:
        yield at_end
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 0
        raise
    finally:
        closed = threading.Event()
        threading.Thread(target=_end_late, args=(code, closed), name="end", daemon=True).start()
        at_end.close()
        closed.set()


def _end_late(code: int, closed: threading.Event) -> None:
    if closed.wait(END_WITHIN_S):
        threading.main_thread().join()  # a program that runs inside of another has not ended yet
        time.sleep(END_WITHIN_S)
    os._exit(code)


def say_error(sentence: str) -> None:
    """Says with which error the program ends, on standard error and to who has started it."""
    voice.tell(error=sentence)
    with contextlib.suppress(OSError, ValueError):  # a log on a full disk, or a closed stream
        say(f"error: {printable(sentence)}", err=True)


def forget_what_cannot_be_written() -> None:
    """Lets a program end with its own exit code when its log is on a disk that is full.

    What standard error still holds would be written at the end, and that failure has a code, too.
    """
    if sys.stderr is None or sys.stderr.closed:  # by an environment
        return
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


@contextlib.contextmanager
def exit_codes(stop: StopFlag) -> Iterator[None]:
    """Ends the program with one sentence and the error's code instead of a traceback."""
    try:
        yield
    except RedisUnreachable as error:
        if stop():  # asked to stop while it waited for Redis
            sys.exit(EXIT_INTERRUPTED)
        say_error(str(error))
        sys.exit(error.exit_code)
    except ImpalaError as error:
        if error.frames:
            with contextlib.suppress(OSError, ValueError):
                say(error.frames, err=True)
        say_error(str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        if isinstance(error, FileNotFoundError) and _has_no_place():
            say_error("the working directory has been deleted; change to one that exists")
            sys.exit(RunDirectoryError.exit_code)
        if not isinstance(error, BrokenPipeError):
            voice.tell(error=f"{type(error).__name__}: {error}")
            raise
        # The reader of our output went away, as `| head` does.
        _drop_output()
        sys.exit(1)
    finally:
        forget_what_cannot_be_written()


def _has_no_place() -> bool:
    """Whether the working directory is gone: no relative path leads anywhere then."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _output_is_lost() -> bool:
    """Whether standard output takes nothing: what it refused before, or a further line's end."""
    if sys.stdout is None:
        return False
    try:
        sys.stdout.flush()
        os.write(1, b"\n")
    except OSError:
        return True
    return False


def _drop_output() -> None:
    """Lets the interpreter flush standard output at its end without another error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
