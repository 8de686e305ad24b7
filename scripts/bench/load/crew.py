"""A server of a benchmark's own, and the processes that put load on it."""

import contextlib
import json
import multiprocessing
import os
import random
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import redis

from impala_redis.common.local import children
from impala_redis.common.local.server_program import environment, find_server

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
# No role runs longer than this, even if nothing stops it.
LIMIT_S = 900.0
Figures = dict[str, Any]


class Server:
    """A Redis on a free loopback port and on a Unix socket.

    It may be frozen, killed, and started again where it was.
    """

    def __init__(self, folder: Path, maxmemory: str = "2gb") -> None:
        self._folder, self._maxmemory = folder, maxmemory
        self.port = _free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.socket = folder / "redis.sock"
        self.start()

    def start(self) -> None:
        """Starts it, empty; returns when it answers."""
        command: list[str | Path] = [
            *(find_server(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
            *("--unixsocket", self.socket, "--unixsocketperm", "700"),
            *("--maxmemory", self._maxmemory, "--dir", self._folder),
        ]
        self._process = children.spawn(
            command,
            log_file=self._folder / "server.log",
            death_signal=signal.SIGKILL,
            environment=environment(),
        )
        deadline = time.monotonic() + 20
        with redis.Redis.from_url(self.url, socket_timeout=5) as client:
            while not self._answers(client):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self._folder / "server.log").read_text())
                time.sleep(0.002)

    @staticmethod
    def _answers(client: redis.Redis) -> bool:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False

    @property
    def socket_url(self) -> str:
        """The address of its Unix socket."""
        return f"unix://{self.socket}?db=0"

    def kill(self) -> None:
        """Ends it at once, with all that it holds."""
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Stops it: it keeps its connections and answers nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on where it was."""
        self._process.send_signal(signal.SIGCONT)

    def info(self, section: str) -> Figures:
        """A section of what INFO says."""
        with redis.Redis.from_url(self.url, socket_timeout=10) as client:
            return dict(client.info(section))

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            self.kill()


class Signals(NamedTuple):
    """A barrier at which all parties of a load begin, and an event that ends it."""

    begin: Any
    end: Any


class Crew:
    """Roles in processes of their own; whatever still runs at the end of the `with` is ended."""

    def __init__(self, credits: int | None = None) -> None:
        """With `credits`, at most so many blocks are between actors and learner at any time."""
        self._fork = multiprocessing.get_context("fork")
        self._processes: list[Any] = []
        self.ready, self.stop = self._fork.Event(), self._fork.Event()
        self.restarted_at = self._fork.Value("d", 0.0)
        self.learner_cpu_s = self._fork.Value("d", 0.0)
        self.credits = None if credits is None else self._fork.Semaphore(credits)

    def start(self, role: Callable[..., Figures], *args: Any, **kwargs: Any) -> Callable[[], Any]:
        """Starts a role; returns a function that waits for what the role returns."""
        mine, theirs = self._fork.Pipe(duplex=False)
        tie_to_us = children.tie_to_parent(signal.SIGKILL)

        def work() -> None:
            if tie_to_us:
                tie_to_us()
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            theirs.send_bytes(json.dumps(role(*args, **kwargs)).encode())

        process = self._fork.Process(target=work, daemon=True)
        self._processes.append(process)
        with ending_held_back():
            process.start()
        theirs.close()

        def result() -> Figures:
            with contextlib.suppress(EOFError):
                if mine.poll(LIMIT_S):
                    return dict(json.loads(mine.recv_bytes()))
            raise RuntimeError(f"{role.__name__} ended without a result")

        return result

    def signals(self, parties: int) -> "Signals":
        """The signals of a load that `parties` processes start together."""
        return Signals(self._fork.Barrier(parties), self._fork.Event())

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        started = [process for process in self._processes if process.pid is not None]
        for process in started:
            process.terminate()
        for process in started:
            process.join(2)
            process.kill()


@contextlib.contextmanager
def ending_held_back() -> Iterator[None]:
    """Delays Ctrl-C and SIGTERM until after the `with`: what they raise in a fork is lost."""
    came: list[int] = []
    usual = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def _free_port() -> int:
    """A port that the kernel gives to no connection: it stays free while the server is down."""
    for port in random.sample(range(10_000, 32_768), 1000):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")


def raise_open_files() -> None:
    """Lets this process and a server that it starts hold as many connections as possible."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def cpu_s() -> tuple[float, float]:
    """CPU seconds used on this machine (Linux), and by this process and its ended children."""
    ours = sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
    try:
        user, nice, system, _, _, irq, soft, *_ = map(
            int, Path("/proc/stat").read_text().split(maxsplit=11)[1:9]
        )
    except OSError:
        return ours, ours
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK"), ours
