"""This process on its machine: its name as a lease's holder, its age, memory and threads."""

import contextlib
import ctypes
import gc
import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from threadpoolctl import threadpool_limits

# impala-train gives its learner the time at which the user's command began; `wall_s` starts there.
STARTED_AT_VARIABLE = "IMPALA_STARTED_AT_UNIX_S"

# Parameters of malloc.h: the trim threshold and the top pad in bytes, the most mmaps.
_MALLOC = {-1: 2047 << 20, -2: 16 << 20, -4: 0}

# What libraries read as they are loaded: how many threads they start.
_THREADS_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_numpy_has_one_thread = False


def holder_name() -> str:
    """A name that no other learner on any machine has: host:pid#namespace-token."""
    return f"{socket.gethostname()}:{os.getpid()}#{_pid_namespace()}-{secrets.token_hex(4)}"


def is_dead_here(holder: str) -> bool:
    """Whether `holder` was a process of this machine (and container) that is gone."""
    host, _, rest = holder.rpartition(":")
    pid, _, rest = rest.partition("#")
    namespace = rest.partition("-")[0]
    here = _pid_namespace()
    is_number = re.fullmatch("[1-9][0-9]{0,8}", pid)  # anybody may have written it
    if not here or host != socket.gethostname() or namespace != here or not is_number:
        return False
    if int(pid) == os.getpid():
        return True  # we were given the process number of one that is gone
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    with contextlib.suppress(OSError, IndexError):
        # One that has ended stays in the table until its parent asks for its exit code.
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state in ("Z", "X")
    return False


def _pid_namespace() -> str:
    """A text that differs between machines and containers of one host name; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        return f"{boot}.{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def started_at_unix_s() -> float:
    """When the command that the user typed began."""
    with contextlib.suppress(ValueError):
        return float(os.environ.get(STARTED_AT_VARIABLE, ""))
    return time.time() - process_age_s()


def process_age_s() -> float:
    """Seconds since this process was started; its processor time on systems other than Linux."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[19])  # starttime, since boot
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return time.process_time()


def usable_cores() -> int:
    """How many processor cores the system lets this process use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_memory() -> None:
    """Lets glibc keep freed memory for the next update, instead of returning it to the system.

    Otherwise every large array is new memory, which the system clears page by page: that takes a
    third of an update's time or more. Other C libraries are left as they are.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in _MALLOC.items():
            mallopt(parameter, value)


@contextlib.contextmanager
def keeping_all() -> Iterator[None]:
    """Keeps the garbage collector from what a large import makes, now and later.

    It is no garbage; importing torch takes a sixth less time.
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
    if _numpy_has_one_thread:  # looking for libraries takes longer than all else up to the run
        yield
        return
    with threadpool_limits(limits=1):  # for libraries that are loaded already
        yield


@contextlib.contextmanager
def loading_for_one_thread() -> Iterator[None]:
    """Has numpy, if it is first imported in the `with`, compute with one thread from then on.

    Its library would start threads as it is loaded; and the environment is as before afterwards.
    """
    global _numpy_has_one_thread
    is_new, before = "numpy" not in sys.modules, dict(os.environ)
    os.environ |= dict.fromkeys(_THREADS_VARIABLES, "1")
    try:
        yield
    finally:
        for name in _THREADS_VARIABLES:
            os.environ.pop(name)
        os.environ |= {name: before[name] for name in _THREADS_VARIABLES if name in before}
        _numpy_has_one_thread |= is_new and "numpy" in sys.modules


def take_output() -> Callable[[str], None]:
    """Returns what writes lines to standard output; all that others print goes to standard error.

    That lasts until the process ends: what an environment has printed may still wait in a buffer.
    """
    sys.stdout.flush()
    ours = os.dup(1)
    os.dup2(2, 1)

    def write(text: str) -> None:
        data = f"{text}\n".encode(errors="replace")
        try:
            while data:
                data = data[os.write(ours, data) :]
        except OSError:
            os.dup2(ours, 1)  # whoever looks why finds it where it is looked for
            raise

    return write


def share_the_interpreter() -> None:
    """Lets the threads of a program take turns sooner than Python's 5 ms.

    A push or a claim needs the interpreter several times; at 5 ms a turn it would wait longer for
    the computing thread than for Redis.
    """
    sys.setswitchinterval(0.0005)
