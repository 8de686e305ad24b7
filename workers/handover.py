"""What impala-train hands to learners that it does not start itself: torchrun starts them.

A program inherits open pipes from impala-train, and finds their descriptors by its environment
variables. But torchrun passes none on, and starts learners again and again. So impala-train listens
on a Unix socket in a folder that only this user can enter. Each learner asks there once, before
anything else (`handed.take`), with its rank, and gets the descriptors. A kill leaves no more than
that folder behind, which a later impala-train removes.

Environments are code of the same user, and may find the socket. So only children of torchrun are
answered, and each of them once (where the system shows whose child a process is, as Linux does).
"""

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from impala_redis.common.errors import ConfigError
from impala_redis.common.local.private_folder import folder_for_socket

SOCKET_NAME = "handover.sock"
# A rank is told in no more than so many digits.
MOST_BYTES = 9
# How macOS says who asks: SOL_LOCAL and LOCAL_PEERPID of its sys/un.h.
_MACOS_PEER = (0, 2)


class Rank(NamedTuple):
    """A learner that torchrun has started."""

    number: int
    pid: int
    began: int | None  # in ticks since boot; None where the system does not show it

    @property
    def is_running(self) -> bool:
        """Whether it lives, and not another process that was given its number later."""
        if self.began is not None:
            found = _shown(self.pid)
            return found is not None and found[1] == self.began
        try:
            os.kill(self.pid, 0)
        except OSError:
            return False
        return True


class Handover:
    """The side of impala-train: it answers when it is asked to `serve`, and never waits."""

    def __init__(self) -> None:
        """Listens. Raises ConfigError: there is no room for the socket."""
        try:
            self._folder = folder_for_socket(SOCKET_NAME, "the learners'")
        except ValueError as error:
            raise ConfigError(str(error)) from error
        self.path: Path = self._folder.path / SOCKET_NAME
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(self.path))
        self._socket.listen(128)
        self._socket.setblocking(False)
        self._asking: list[socket.socket] = []
        self._answered: set[tuple[int, int | None]] = set()

    def serve(self, parent: int, hand_to: Callable[[Rank], Mapping[str, int]]) -> None:
        """Answers all who have asked by now.

        Args:
          parent: torchrun's process number.
          hand_to: gives the descriptors for a learner, each by the variable that will name it; they
            are closed here.
        """
        with contextlib.suppress(OSError):  # nobody else has come
            while True:
                connection, _ = self._socket.accept()
                connection.setblocking(False)
                self._asking.append(connection)
        for connection in list(self._asking):
            try:
                said = connection.recv(MOST_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                said = b""
            self._asking.remove(connection)
            with connection:
                rank = self._who(connection, said, parent)
                if rank is None:
                    continue
                self._answered.add((rank.pid, rank.began))
                _send(connection, hand_to(rank))

    def close(self) -> None:
        """Answers nobody any more."""
        for connection in (*self._asking, self._socket):
            connection.close()
        self._asking.clear()
        self.remove_folder()

    def remove_folder(self) -> None:
        """Lets nobody find the socket any more (on any thread)."""
        self._folder.remove()

    def _who(self, connection: socket.socket, said: bytes, parent: int) -> Rank | None:
        """The learner that asks; None if it is anybody else, or was answered before."""
        if not said.isdigit():
            return None
        with contextlib.suppress(OSError):
            pid = _peer(connection)
            found = _shown(pid)
            if found is None and sys.platform == "linux" and _shown(os.getpid()) is not None:
                return None  # it has ended
            began = found[1] if found else None
            if (pid, began) in self._answered or (found and found[0] != parent):
                return None
            return Rank(int(said), pid, began)
        return None


def _send(connection: socket.socket, handed: Mapping[str, int]) -> None:
    with contextlib.suppress(OSError):  # it has ended meanwhile
        socket.send_fds(connection, [" ".join(handed).encode()], list(handed.values()))
    for descriptor in handed.values():
        os.close(descriptor)


def _peer(connection: socket.socket) -> int:
    """The number of the process at the other end. Raises OSError."""
    if sys.platform == "darwin":
        return connection.getsockopt(*_MACOS_PEER)
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", found)[0])


def _shown(pid: int) -> tuple[int, int] | None:
    """A process's parent and its beginning, in ticks since boot; None if it is gone, or unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if stat[0] in ("Z", "X") else (int(stat[1]), int(stat[19]))
    except (OSError, ValueError, IndexError):
        return None
