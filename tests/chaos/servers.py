"""A server that may be killed, frozen, restarted and wiped, while its address stays the same."""

import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import redis

from impala_redis.common.local import children
from impala_redis.common.local.embedded import EmbeddedServer
from support import eventually, usable_servers

# What survives a kill -9 of the server: everything it has acknowledged.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
# The kernel serves connections from 32768 on (Linux) or from 49152 on (macOS).
PORTS = range(10_000, 32_768)
MOST_WORKERS = 8


class OwnServer:
    """A Redis on a loopback port of its own; `--option value` pairs override what is set here."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self._options = options
        self.port = free_port()
        self.log = directory / "own-server.log"
        self._data = directory / "data"
        self.start()

    @property
    def url(self) -> str:
        """Its address, as a program would be given it."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process number of the server as it runs now."""
        return self._process.pid

    def client(self) -> redis.Redis:
        """A plain client, as an operator's redis-cli would be."""
        return redis.Redis(port=self.port, socket_timeout=5)

    def start(self) -> None:
        """Starts it, with the data it had; returns when it answers."""
        self._data.mkdir(exist_ok=True)
        defaults = [
            *("--bind", "127.0.0.1", "--save", "", "--maxmemory", "500mb"),
            *("--enable-debug-command", "local", "--dir", str(self._data)),
        ]
        self._process = children.spawn(
            [usable_servers()[0], "--port", str(self.port), *defaults, *self._options],
            log_file=self.log,
            death_signal=signal.SIGKILL,
        )
        eventually(self._answers, what=f"the server to answer; its words are in {self.log}")

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends it: at once by default, in order with SIGTERM."""
        self.thaw()
        self._process.send_signal(number)
        self._process.wait(20)

    def restart(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends it and starts it again; what it had is kept if it was made DURABLE."""
        self.stop(number)
        self.start()

    def wipe(self) -> None:
        """Kills it, with all that it had on disk, and starts it again."""
        self.stop()
        shutil.rmtree(self._data)
        self.start()

    def freeze(self) -> None:
        """It keeps its connections and answers nothing."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on where it was."""
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Frozen as long as the `with` lasts."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def __enter__(self) -> "OwnServer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _answers(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.AuthenticationError:
            return True  # it wants a password: it is up
        except redis.RedisError:
            return False


class OpenServer(EmbeddedServer):
    """The embedded server, opened to this machine by TCP without a password, as tests need it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.port = free_port()
        with redis.Redis.from_url(self.url) as client:
            client.config_set("port", self.port)

    @property
    def tcp_url(self) -> str:
        """Its other address."""
        return f"redis://127.0.0.1:{self.port}/0"


def free_port() -> int:
    """A loopback port on which nothing listens, and which no connection is going to take.

    The ports from which the kernel serves connections are left out: one of them may be gone
    before the server has started, or while it is down and its clients try to come back.
    """
    for port in itertools.islice(_ports, len(PORTS)):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("every port is taken")


def _cycle_of_ports() -> Iterator[int]:
    """The ports of this process, from anywhere among them: processes of one suite share none."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = range(PORTS.start + worker % MOST_WORKERS, PORTS.stop, MOST_WORKERS)
    first = random.randrange(len(ports))
    return itertools.cycle([*ports[first:], *ports[:first]])


_ports = _cycle_of_ports()
