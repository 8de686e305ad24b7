"""A program as a fork of this process: it begins with the imports that this process has made.

Only a process with one thread is forked: what other threads hold at that moment, such as a lock,
would be held for ever in the new process. And nothing of this process may act in the new one:

    its open files      are closed, but for those that are handed over
    its unwritten text  is written before the fork
    its garbage         is never collected there: closing a file could close another of that number
    its `with` blocks   are not left there: the new process ends by `os._exit`, after what Python
                        does at its end (threads, exit handlers, unwritten text)

The exit handlers are those of both: modules register theirs as they are imported, and the new
process needs them, too.
"""

import atexit
import contextlib
import ctypes
import gc
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from impala_redis.common.files import open_to_append
from impala_redis.common.local import children

_PR_SET_NAME = 15
# A thread that was joined is gone from Python a moment before it is gone from the system.
_THREADS_GO_WITHIN_S = 0.1


def can_fork() -> bool:
    """Whether a fork of this process would be as sound as a new process."""
    return threading.active_count() == 1 and _can_wait() and _is_alone()


class Forked:
    """A process that was forked, with the methods of `subprocess.Popen` that are needed here."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        # Its number is its own until its exit code is taken, which nobody does while a signal is
        # sent. The handler of a signal may come in between on the same thread, and send one.
        self._number_is_its_own = threading.RLock()

    def poll(self) -> int | None:
        """The exit code; None while it runs; minus the number of the signal that has ended it."""
        with self._number_is_its_own:
            if self.returncode is None:
                try:
                    pid, status = os.waitpid(self.pid, os.WNOHANG)
                except ChildProcessError:  # we were started with SIGCHLD ignored
                    pid, status = self.pid, 0
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end; the exit code. Raises subprocess.TimeoutExpired after `timeout` s."""
        if self.poll() is None:
            # It may be gone by now, with its exit code, if we were started with SIGCHLD ignored.
            with contextlib.suppress(ProcessLookupError):
                self._await_end(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return code

    def _await_end(self, timeout: float | None) -> None:
        handle = os.pidfd_open(self.pid)
        try:
            end = select.poll()
            end.register(handle, select.POLLIN)
            end.poll(None if timeout is None else timeout * 1000)
        finally:
            os.close(handle)

    def terminate(self) -> None:
        """Asks it to end (on any thread)."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once (on any thread)."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        with self._number_is_its_own:
            if self.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, number)


def fork(
    program: Callable[[], object],
    shown_as: Sequence[str],
    *,
    log_file: Path | None,
    death_signal: signal.Signals,
    environment: Mapping[str, str],
    pass_fds: Collection[int] = (),
) -> Forked:
    """Starts a process that calls `program` and ends; all else is as `children.spawn` has it.

    Its exit code is that of the SystemExit that `program` raises, 0 without one, and 1 after
    another error. `shown_as` is its command line for ps, as far as there is room.

    Call it from the main thread, when `can_fork`. Raises OSError.
    """
    tie = children.tie_to_parent(death_signal)
    with (
        open_to_append(log_file) if log_file else Path(os.devnull).open("ab") as output,
        Path(os.devnull).open("rb") as nothing,
    ):
        _flush()
        gc.freeze()
        pid = os.fork()
        if pid == 0:
            try:
                if tie is not None:
                    tie()
                os.setsid()
                for number, file in enumerate((nothing, output, output)):
                    os.dup2(file.fileno(), number)
                _close_all_but({0, 1, 2, *pass_fds})
                os.environ.clear()
                os.environ.update(environment)
                _show_as(shown_as)
                _end_with(program)
            finally:
                os._exit(1)
    return Forked(pid)


def _can_wait() -> bool:
    """Whether this kernel, and what confines us in it, gives handles of processes."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):  # no Linux; one before 5.3, or a sandbox
        return False
    return True


def _is_alone() -> bool:
    """Whether the system sees one thread here: libraries in C have some that Python knows not."""
    deadline = time.monotonic() + _THREADS_GO_WITHIN_S
    with contextlib.suppress(OSError):  # no /proc
        while len(list(Path("/proc/self/task").iterdir())) > 1:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.0005)
        return True
    return False


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # full, closed, or none
            stream.flush()


def _close_all_but(kept: Collection[int]) -> None:
    for descriptor in [int(entry.name) for entry in os.scandir("/proc/self/fd")]:
        if descriptor not in kept:
            with contextlib.suppress(OSError):  # the one by which they were listed
                os.close(descriptor)


def _show_as(command: Sequence[str]) -> None:
    """Lets the system show the process under its own name and command line.

    The name is what top shows. The command line is shown from the memory in which the process that
    was forked has its own; nothing else looks there.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        ctypes.CDLL(None).prctl(_PR_SET_NAME, os.fsencode(command[0]), 0, 0, 0)
        stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(stat[45]), int(stat[46])  # arg_start, arg_end
        if 0 < start < end:
            words = b"\0".join(map(os.fsencode, command))[: end - start - 1]
            with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
                memory.seek(start)
                memory.write(words.ljust(end - start, b"\0"))


def _end_with(program: Callable[[], object]) -> NoReturn:
    """Calls the program, and ends the process as Python ends one."""
    code = 0
    try:
        program()
    except SystemExit as leaving:
        if isinstance(leaving.code, str):
            sys.excepthook(*sys.exc_info())  # which says it
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    finally:
        _flush()
        ctypes.CDLL(None).fflush(None)  # what a library in C has printed
        os._exit(code)
