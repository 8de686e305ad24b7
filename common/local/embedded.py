"""The embedded server: a private Redis or Valkey for a run on one machine.

It listens on a Unix socket and on a free loopback port, keeps nothing on disk, has a memory limit,
evicts nothing, and dies with us.
"""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse
from pathlib import Path
from types import TracebackType

from impala_redis.common.errors import ImpalaError, ServerNotStarted
from impala_redis.common.local import children
from impala_redis.common.local.server_program import find_server
from impala_redis.common.server.connection import connect, translated

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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
