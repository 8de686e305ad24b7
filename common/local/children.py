"""Child processes that never outlive this one, not even after kill -9 (on Linux)."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from impala_redis.common.files import open_to_append

_PR_SET_PDEATHSIG = 1


class Process(Protocol):
    """A child process, as `subprocess.Popen` has it."""

    pid: int

    @property
    def returncode(self) -> int | None:
        """The exit code; None before `poll` or `wait` has found it."""

    def poll(self) -> int | None:
        """The exit code; None while it runs; minus the number of the signal that has ended it."""

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end; the exit code. Raises subprocess.TimeoutExpired after `timeout` s."""

    def terminate(self) -> None:
        """Asks it to end."""

    def kill(self) -> None:
        """Ends it at once."""


def spawn(
    command: Sequence[str | Path],
    *,
    log_file: Path | None,
    death_signal: signal.Signals,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Starts a process whose output goes to `log_file`, and which gets `death_signal` if we die.

    It reads nothing, or what comes from the descriptor `stdin`. Without a log file its output is
    lost. The signal comes when the thread that calls this ends, so call it from the main thread.
    The process has a session of its own: a Ctrl-C in the terminal reaches only us, and we end it.

    Raises OSError, also when the log's name is that of a symbolic link or of no regular file.
    """
    with open_to_append(log_file) if log_file else Path(os.devnull).open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment) if environment is not None else None,
            start_new_session=True,
            pass_fds=pass_fds,
            preexec_fn=tie_to_parent(death_signal),
        )


def end(process: Process, grace_s: float) -> int:
    """Asks the process to end, kills it after `grace_s` seconds, and returns its exit code."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def tie_to_parent(
    death_signal: signal.Signals, parent: int | None = None
) -> Callable[[], None] | None:
    """What a child runs before its program so that it ends with us; None where that is unknown.

    There only an orderly end of ours ends the child. One that asks for this itself gives the number
    of its parent.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = parent or os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return tie
