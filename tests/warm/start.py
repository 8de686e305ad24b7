"""Asks the warm parent for programs: real processes, children of the tests as any other.

A program starts cold, by an interpreter of its own, when it is not one of the installed commands or
a script of the tests, when its environment differs in what the interpreter or a library reads as it
is loaded, when a file in its folders bears the name of a module, when the limits of its resources
are others, where it is a line for a shell, and where there is no Linux, or one that gives no
orphans away. Tests that must see a real start or end say `cold=True`: of memory, of what
/proc/PID/cmdline shows, and of the one command that a user begins with. What a warm impala-train
forks has its imports, torch above all.
"""

import ctypes
import importlib.metadata
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from impala_redis.common.local import children

_PR_SET_CHILD_SUBREAPER = 36

# Beginnings of the names of variables that are read before a program's first line, or while one of
# the libraries is loaded that the warm parent has loaded already.
_READ_EARLY = (
    *("CUDA", "GOMP_", "KMP_", "LANG", "LC_", "LD_", "MALLOC_", "MKL_", "NPY_", "NUMEXPR_", "OMP_"),
    *("OPENBLAS_", "PYTHON", "PYTORCH", "TORCH", "TZ"),
)


class WarmParent:
    """Starts the process that forks, when the first program is asked for."""

    def __init__(self) -> None:
        self._environment, self._limits = dict(os.environ), _limits()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None

    def can_start(self, command: Sequence[str], environment: Mapping[str, str], cwd: Path) -> bool:
        """Whether a program that starts with this would be the same, started warm."""
        return (
            _adopts_orphans(False)
            and _script(command) is not None
            and _read_early(environment) == _read_early(self._environment)
            and not _shadows(environment, cwd)
            and _limits() == self._limits
        )

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], cwd: Path, log: Path
    ) -> "WarmProcess":
        """Starts the program; what it prints goes to `log`. Call it from the main thread."""
        request = {
            "name": Path(command[0]).name,
            "argv": _script(command),
            "environment": dict(environment),
            "cwd": str(cwd),
            "log": str(log),
        }
        if self._connection is None:
            self._connection = self._begin()
        return WarmProcess(list(command), self._connection, request)

    def end(self) -> None:
        """Ends the warm parent; programs go on."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.wait(10)

    def _begin(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.settimeout(60)
        parent = Path(__file__).with_name("parent.py")
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(parent), str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={k: v for k, v in self._environment.items() if k != "PYTHONPATH"},
                pass_fds=[theirs.fileno()],
                preexec_fn=children.tie_to_parent(signal.SIGKILL),
            )
        assert _line(ours) == b"ready", "the warm parent could not start"
        return ours


class WarmProcess(subprocess.Popen[bytes]):
    """A process as subprocess gives it: only its start is the warm parent's work."""

    def __init__(self, command: list[str], connection: socket.socket, request: Any) -> None:
        self._ask = connection, request
        super().__init__(command)

    def _execute_child(self, *_: Any, **__: Any) -> None:
        connection, request = self._ask
        _adopts_orphans(True)
        try:
            connection.sendall(json.dumps(request).encode() + b"\n")
            self.pid = int(_line(connection))
        finally:
            _adopts_orphans(False)
        self._child_created = True


def _adopts_orphans(yes: bool) -> bool:
    """Sets whether orphans among our descendants become our children; False if that cannot be."""
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(yes), 0, 0, 0) == 0)


def _script(command: Sequence[str]) -> list[str] | None:
    """The arguments of a Python script, its own path first; None when it is not one of ours."""
    program, *arguments = command
    if Path(program).parent != Path(sys.executable).parent:
        return None
    if Path(program).name == "python":
        return arguments if arguments and arguments[0].endswith(".py") else None
    return list(command) if Path(program).name.startswith("impala-") else None


def _read_early(environment: Mapping[str, str]) -> dict[str, str]:
    """What a warm program could not take from its environment; it can take a PYTHONPATH."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_READ_EARLY) and name != "PYTHONPATH"
    }


def _shadows(environment: Mapping[str, str], cwd: Path) -> bool:
    """Whether a file of PYTHONPATH or `cwd` is called as a module that is imported already.

    Or as one that an interpreter runs as it starts.
    """
    folders = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    names = {path.stem for folder in (cwd, *map(Path, folders)) for path in folder.glob("*")}
    taken = names & (_imported_names() | {"sitecustomize", "usercustomize", "common", "workers"})
    return bool(taken)


@cache
def _imported_names() -> frozenset[str]:
    """The standard library's modules, and the modules of every package that is installed."""
    installed = importlib.metadata.packages_distributions()
    return frozenset(sys.stdlib_module_names) | frozenset(installed)


def _limits() -> list[tuple[int, int]]:
    """This process's limits, which a cold program would inherit."""
    names = (name for name in dir(resource) if name.startswith("RLIMIT_"))
    return [resource.getrlimit(getattr(resource, name)) for name in sorted(names)]


def _line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        received = connection.recv(1)
        assert received, "the warm parent has ended"
        line += received
    return line.rstrip()
