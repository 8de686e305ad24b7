"""Replies of a server, which is not trusted: each is read within a bound, and must fit its command.

Memory grows with the bytes that have come, never with what was announced. redis-py's own reader
takes what it is told, collects pieces of 64 KiB and copies each byte four times; here a large
message is read straight into memory of its own.
"""

import contextlib
import io
import ipaddress
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import redis
from redis._parsers import _RESP2Parser
from redis._parsers.socket import SERVER_CLOSED_CONNECTION_ERROR, SocketBuffer
from redis.utils import SENTINEL

from impala_redis.common.server.address import Place
from impala_redis.common.server.shapes import (
    ASK_FOR_MESSAGES,
    MOST_BYTES,
    MOST_ITEMS,
    QUEUED,
    fits,
    most,
)

Command = Sequence[Any]

# A shorter message comes in one piece with what is around it.
LEAST_LARGE_BYTES: Final = 32 * 1024
# Memory for a message is taken in pieces: the first of this size, or of a message that has come
# before, and then as much as has come.
FIRST_PIECE_BYTES: Final = 4 * 1024 * 1024
# The most bytes of a line, and of lists within lists.
MOST_LINE_BYTES: Final = 65_536
MOST_DEPTH: Final = 16
# A reply that goes on and on ends after so many of the connection's time-outs, and one second more
# for each of these bytes that have come: no link that anyone trains over is slower.
MOST_TIMEOUTS: Final = 12
LEAST_BYTES_PER_S: Final = 16 * 1024


class NotRedis(redis.RedisError):
    """What came is no reply of Redis, or none to what was asked."""


class _Buffer(SocketBuffer):
    """Bytes of replies that have come and were not read yet."""

    _due_at = 0.0  # by the monotonic clock: then the reply must be complete
    _piece_bytes = FIRST_PIECE_BYTES  # or the longest message that has come

    def begin(self) -> None:
        """Begins the time that the next reply has."""
        self._due_at = time.monotonic() + MOST_TIMEOUTS * (self.socket_timeout or 5.0)

    def readline(self, timeout: Any = SENTINEL) -> bytes:
        """The next line without its end. Raises NotRedis: it has none."""
        line = self._buffer.readline()
        while not line.endswith(b"\r\n"):
            if len(line) > MOST_LINE_BYTES:
                raise NotRedis("a line without an end")
            self._receive()
            line += self._buffer.readline()
        return line[:-2]

    def read(self, length: int, timeout: Any = SENTINEL) -> bytes:
        """The next `length` bytes; the end of line behind them is dropped."""
        text = self._read_large(length) if length >= LEAST_LARGE_BYTES else b""
        rest = length - len(text) + 2
        end = self._buffer.read(rest)
        while len(end) < rest:
            self._receive()
            end += self._buffer.read(rest - len(end))
        if not end.endswith(b"\r\n"):
            raise NotRedis("a text that is longer than it says")
        return text or end[:-2]

    def _read_large(self, length: int) -> bytes:
        text, filled = io.BytesIO(), 0
        while filled < length:
            size = min(length, max(self._piece_bytes, 2 * filled))
            text.seek(size - 1)
            text.write(b"\0")
            with text.getbuffer() as memory:
                filled += self._buffer.readinto(memory[filled:])
                while filled < size:
                    filled += self._count(self._sock.recv_into(memory[filled:]))
        self._piece_bytes = max(self._piece_bytes, length)
        return text.getvalue()  # no copy: the memory changes hands

    def _receive(self) -> None:
        """Waits for more bytes and puts them behind those that were not read yet."""
        try:
            piece = self._sock.recv(self.socket_read_size)
        except TimeoutError as error:
            raise redis.TimeoutError("Timeout reading from socket") from error
        self._count(len(piece))
        position = self._buffer.tell()
        self._buffer.seek(0, io.SEEK_END)
        self._buffer.write(piece)
        self._buffer.seek(position)

    def _count(self, received: int) -> int:
        """The number of bytes, where the other end is still there and not too slow."""
        if not received:
            raise redis.ConnectionError(SERVER_CLOSED_CONNECTION_ERROR)
        self._due_at += received / LEAST_BYTES_PER_S
        if time.monotonic() > self._due_at:
            raise redis.TimeoutError("a reply that does not come to its end")
        return received


class BoundedReplies(_RESP2Parser):
    """The reader of one connection's replies."""

    # What the next reply answers, or the next ones; forgotten with the replies.
    asked: Command | None = None
    all_asked: Sequence[Command] | None = None
    _buffer: Any

    def on_connect(self, connection: Any) -> None:
        """Begins to read from a new socket."""
        super().on_connect(connection)  # type: ignore[no-untyped-call]
        sock = connection._sock
        self._buffer = _Buffer(sock, self.socket_read_size, connection.socket_timeout)
        self.asked = self.all_asked = None

    def read_response(self, disable_decoding: bool = False, timeout: Any = SENTINEL) -> Any:
        """The next reply, an error as the exception that redis-py has for it.

        If several commands were asked at once (`all_asked`), a list of their replies.
        Raises NotRedis, after which the connection is of no use.
        """
        asked, self.asked = self.asked, None
        all_asked, self.all_asked = self.all_asked, None
        replies = self._read(asked) if all_asked is None else self._read_all(all_asked)
        self._buffer.purge()
        return replies

    def _read_all(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to commands that were sent at once, with those within a transaction known."""
        replies: list[Any] = []
        queued: list[Command] | None = None
        for command in commands:
            if queued is None:
                replies.append(self._read(command))
                if command[0] == "MULTI" and not isinstance(replies[-1], Exception):
                    queued = []
            elif command[0] == "EXEC":
                replies.append(self._read(("EXEC", queued)))
                queued = None
            else:
                replies.append(self._read(QUEUED))
                if not isinstance(replies[-1], Exception):
                    queued.append(command)
        return replies

    def _read(self, asked: Command | None) -> Any:
        """The next reply, which must fit what was asked, if that is known."""
        self._left_bytes, self._left_items = MOST_BYTES, MOST_ITEMS
        if asked is not None and asked[0] in ASK_FOR_MESSAGES:
            self._left_bytes, self._left_items = most(asked)
        self._buffer.begin()
        reply = self._read_one(0)
        if asked is not None and not fits(asked, reply):
            raise NotRedis(f"{repr(reply)[:60]} to {asked[0]}")
        return reply

    def _read_one(self, depth: int) -> Any:
        line = self._buffer.readline()
        kind, text = line[:1], line[1:]
        if kind == b"$":
            length = _number(text)
            if length == -1:
                return None
            self._left_bytes -= length
            if length < 0 or self._left_bytes < 0:
                raise self._bad_length(length)
            return self._buffer.read(length)
        if kind == b":":
            return _number(text)
        if kind == b"*":
            count = _number(text)
            if count == -1:
                return None
            self._left_items -= count
            if count < 0 or self._left_items < 0:
                raise self._bad_length(count)
            if depth == MOST_DEPTH:
                raise NotRedis("lists in lists in lists")
            return [self._read_one(depth + 1) for _ in range(count)]
        if kind not in (b"+", b"-"):
            raise NotRedis(f"it begins with {line[:40]!r}")
        self._left_bytes -= len(text)
        if self._left_bytes < 0:
            raise self._bad_length(len(text))
        return text if kind == b"+" else self._error(text)

    def _bad_length(self, length: int) -> NotRedis:
        return NotRedis("a length below 0" if length < 0 else "more than was asked for")

    def _error(self, text: bytes) -> Exception:
        try:
            error: Exception = self.parse_error(text.decode(errors="replace"))  # type: ignore[no-untyped-call]
        except (ValueError, IndexError) as cause:  # the address of a node that is none
            raise NotRedis(f"an error of {text[:80]!r}") from cause
        if isinstance(error, redis.ConnectionError):
            raise error
        return error


def replies_to(connection: Any, commands: Sequence[Command]) -> list[Any]:
    """The replies to commands that were sent at once, in which errors stand as they came.

    Raises NotRedis.
    """
    connection._parser.all_asked = commands
    return list(connection.read_response())


@contextlib.contextmanager
def understood() -> Iterator[None]:
    """Turns what redis-py raises when it cannot read a reply into NotRedis."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise NotRedis(f"a text that cannot be read ({repr(error)[:80]})") from error


def place_of(host: str, port: int) -> Place:
    """Where a server says that another one is. Raises NotRedis: that is no place."""
    is_name = re.fullmatch(r"[0-9A-Za-z_][0-9A-Za-z._-]{0,254}", host)
    if not 0 < port < 65_536 or not (is_name or _is_ipv6(host)):
        raise NotRedis(f"a server at {host[:60]!r}, port {port}")
    return Place(host, port)


def _is_ipv6(host: str) -> bool:
    try:
        return "%" not in host and ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def _number(text: bytes) -> int:
    """A number in a line: 64 bits with a sign."""
    if text.isdigit() and len(text) < 19:
        return int(text)
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or len(digits) > 19 or not -(2**63) <= (number := int(text)) < 2**63:
        raise NotRedis(f"a number {text[:40]!r}")
    return number
