"""The embedded server: a private Redis or Valkey for a run on one machine.

It listens on a Unix socket in a folder that only this user can enter, and on no port, or on one of
this machine that wants a password. It loads nothing, keeps nothing on disk, has a memory limit,
evicts nothing, and dies with us.
"""

import os
import signal
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from impala_redis.common.errors import ImpalaError, ServerNotStarted
from impala_redis.common.local import children
from impala_redis.common.local.private_folder import (
    PrivateFolder,
    folder_for_socket,
    remove_those_left_behind,
)
from impala_redis.common.local.server_program import environment, find_server
from impala_redis.common.server.connection import connect, translated

MAXMEMORY_BYTES = 1_000_000_000
START_TIMEOUT_S = 10.0
SOCKET_NAME = "redis.sock"


class EmbeddedServer:
    """A running server; `close` (or leaving the `with`) ends it."""

    def __init__(
        self,
        directory: Path,
        port: int | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Starts a server.

        Args:
          directory: where its log is written.
          port: where it also listens, on the loopback interface, and wants the password that is in
            `password_file` then; 1 to 65535, None for no port.
          meanwhile: what is done while the server starts, which takes it tens of milliseconds.

        Raises ServerNotStarted, also when the port is taken.
        """
        self.binary = find_server()
        self.log = directory / "server.log"
        self.port = port
        self._folder = _private_folder()
        self.socket = self._folder.path / SOCKET_NAME
        self.password_file: Path | None = None
        self._password = ""
        try:
            if port is not None:
                self._set_password()
            self._process = self._spawn()
        except BaseException:
            self._folder.remove()
            raise
        try:
            meanwhile()
            remove_those_left_behind()
            ready = self._is_ready()
        except BaseException:
            self.close()
            raise
        if not ready:
            self.close()
            if port is not None and (why := _objection_to(port)):
                raise ServerNotStarted(
                    f"the embedded server cannot have the port {port} ({why}); give another one "
                    "with --embedded-port, or none: the server's socket needs no port"
                )
            raise ServerNotStarted(f"{self.binary} did not start; its words are in {self.log}")

    def _set_password(self) -> None:
        import secrets

        self._password = secrets.token_hex(32)
        self.password_file = self._folder.path / "password"
        try:
            descriptor = os.open(self.password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(self._password + "\n")
        except OSError as error:
            raise ServerNotStarted(
                f"the server's password cannot be written to {self.password_file} "
                f"({error.strerror}); make room there, or set TMPDIR to another folder"
            ) from error

    def _spawn(self) -> subprocess.Popen[bytes]:
        # A server loads what it finds in its folder, so that is the private one.
        command: list[str | Path] = [
            *(self.binary, "-", "--port", str(self.port or 0), "--bind", "127.0.0.1"),
            *("--unixsocket", self.socket, "--unixsocketperm", "700"),
            *("--save", "", "--appendonly", "no", "--dir", self._folder.path),
            *("--maxmemory", str(MAXMEMORY_BYTES), "--maxmemory-policy", "noeviction"),
        ]
        # By standard input: everyone can read the arguments of a process.
        settings, writing = os.pipe()
        with os.fdopen(writing, "w") as file:
            file.write(f"requirepass {self._password}\n" if self._password else "")
        try:
            return children.spawn(
                command,
                log_file=self.log,
                death_signal=signal.SIGKILL,
                environment=environment(),
                stdin=settings,
            )
        except OSError as error:
            raise ServerNotStarted(f"{self.binary} cannot be run: {error.strerror}") from error
        finally:
            os.close(settings)

    @property
    def url(self) -> str:
        """Its address for our own programs, with the password if there is one."""
        login = f":{self._password}@" if self._password else ""
        return f"unix://{login}{urllib.parse.quote(str(self.socket))}?db=0"

    @property
    def public_url(self) -> str:
        """Its address for programs that a user starts, without the password."""
        if self.port is not None:
            return f"redis://127.0.0.1:{self.port}/0"
        return f"unix://{urllib.parse.quote(str(self.socket))}"

    @property
    def alive(self) -> bool:
        """Whether the server still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """Ends the server and removes its folder."""
        # It has nothing to save, and looks only ten times a second whether it is asked to end.
        self.kill()
        self._process.wait()

    def kill(self) -> None:
        """Ends the server at once, and removes its folder (on any thread)."""
        self._process.kill()
        self._folder.remove()

    def __enter__(self) -> "EmbeddedServer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

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


def _objection_to(port: int) -> str:
    """Why nobody can listen on the port now; empty if somebody could."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


def _private_folder() -> PrivateFolder:
    """A folder in which the server's socket has room. Raises ServerNotStarted with the remedy."""
    try:
        return folder_for_socket(SOCKET_NAME, "the embedded server's")
    except ValueError as error:
        raise ServerNotStarted(str(error)) from error
