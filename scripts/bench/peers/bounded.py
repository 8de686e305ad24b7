"""Runs one command, bounded in time, and ends everything that it started, whatever happens.

The command is in a session of its own and writes into a log. What leaves its process group, as
workers of some peers do, comes to us when its parent ends (Linux), and is ended too.
"""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from impala_redis.common.errors import printable
from impala_redis.common.local import children

_PR_SET_CHILD_SUBREAPER = 36
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
# A family of processes that was asked to end is killed after this time.
GRACE_S = 10.0


class Failed(Exception):
    """A command did not do what it was started for; the message is for the table."""


def run(command: Sequence[str], log: Path, limit_s: float, environment: Mapping[str, str]) -> None:
    """Runs it to its end. Raises Failed: a bad exit code, or not over within the limit."""
    adopt_orphans()
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    others = children_of_ours()
    try:
        process = children.spawn(
            command, log_file=log, death_signal=signal.SIGTERM, environment=environment
        )
    except OSError as error:
        raise Failed(f"cannot be started: {error}") from error
    try:
        code = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        raise Failed(f"not over within {limit_s:.0f} s") from None
    finally:
        end_family(process, others)
    if code:
        raise Failed(last_words(log) or f"ended with exit code {code} and no word")


def adopt_orphans() -> None:
    """Makes orphaned descendants children of this process, not of process 1 (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children_of_ours() -> set[int]:
    """The ids of our child processes; none where the system does not list them."""
    try:
        listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    except OSError:
        return set()
    return {int(pid) for pid in listed.split()}


def end_family(process: subprocess.Popen[bytes], others: set[int]) -> None:
    """Ends the process, its group, and what they left behind, but not `others`."""
    try:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        # Each one that ends may leave children of its own to us.
        while left := children_of_ours() - others:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def last_words(log: Path) -> str:
    """The last line that names an error, or else the last line, in at most 160 characters."""
    text = _COLOUR.sub("", log.read_text(errors="replace"))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return printable((errors or lines or [""])[-1])[:160]
