"""The server's address, password and all, kept from environments and from whoever looks at /proc.

Environments are code that runs in our processes, and they start processes of their own. So a
program takes an address with a secret out of its environment variables once it has read it, and
impala-train hands it to the programs that it starts through a pipe.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from impala_redis.common.errors import ConfigError
from impala_redis.workers import handed

# Names the descriptor of that pipe, for the program that is started with it and no other.
VARIABLE = "IMPALA_REDIS_URL_FD"


@contextlib.contextmanager
def handing_over(url: str) -> Iterator[int]:
    """Gives the descriptor from which the program that is started in the `with` reads the address.

    `handed_over` is what it reads it with.
    """
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb", 0), os.fdopen(reading, "rb", 0) as theirs:
        yield reading
        theirs.close()  # a program that has ended already must not let us wait
        data = os.fsencode(url)
        with contextlib.suppress(BrokenPipeError):
            while data:
                data = data[os.write(writing, data) :]


def pipe_with(url: str) -> int:
    """The descriptor of a new pipe that holds the address, for a program that is started already.

    Raises ConfigError: it is longer than a pipe.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    data = os.fsencode(url)
    with os.fdopen(writing, "wb", 0) as pipe:
        if pipe.write(data) != len(data):
            os.close(reading)
            raise ConfigError("the server's address is too long for several learners; shorten it")
    return reading


def handed_over() -> str | None:
    """The address that impala-train hands over, once; None if this program was started otherwise.

    Raises ValueError: the variable names no such pipe.
    """
    handed.take()
    named = os.environ.pop(VARIABLE, None)
    if named is None:
        return None
    try:
        descriptor = int(named)
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            raise ValueError("it is no pipe")
        with os.fdopen(descriptor, "rb", 0) as pipe:
            url = os.fsdecode(pipe.read())
    except (OSError, OverflowError) as error:
        raise ValueError("it is not open") from error
    if not url:
        raise ValueError("it is empty")
    return url


def forget(variable: str) -> None:
    """Takes an environment variable out of this process: also out of /proc, where that exists."""
    if os.environ.pop(variable, None) is None:
        return
    with contextlib.suppress(OSError, ValueError, IndexError):
        _blank(f"{variable}=".encode())


def _blank(beginning: bytes) -> None:
    """Overwrites the variable among those that the process was started with.

    The system shows them in /proc/PID/environ for as long as the process lives. It reads them from
    the process's own memory, where nothing else looks at them once they are out of the environment.
    """
    shown = Path("/proc/self/environ").read_bytes()
    start = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[47])  # env_start
    if not start:
        return
    place = 0
    with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
        for entry in shown.split(b"\0"):
            if entry.startswith(beginning):
                memory.seek(start + place)
                memory.write(b"\0" * len(entry))
            place += len(entry) + 1
