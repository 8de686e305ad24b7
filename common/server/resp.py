"""Blocks and weights through a socket: large texts with fewer copies than redis-py makes alone.

Its reader collects what comes in pieces of 64 KiB and copies each byte four times; hiredis copies
less, but what is sent, too. Here a large text is read straight into its own memory.
"""

import io
from collections.abc import Sequence
from typing import Any, Final

from redis import ConnectionError, ResponseError
from redis._parsers import Encoder, _RESP2Parser
from redis._parsers.socket import SERVER_CLOSED_CONNECTION_ERROR, SocketBuffer
from redis.connection import PythonRespSerializer
from redis.utils import SENTINEL

# Shorter texts come in one piece with what is around them; Redis has none longer.
LEAST_LARGE_BYTES: Final = 32 * 1024
MOST_LARGE_BYTES: Final = 512 * 1024 * 1024
# A longer one is sent from where it lies; below, a copy costs less than two more writes.
LEAST_ALONE_BYTES: Final = 128 * 1024

# redis-py's own, also where hiredis is installed: a block is sent from where it lies.
_encoder: Any = Encoder("utf-8", "strict", False)  # type: ignore[no-untyped-call]
PACKER: Final = PythonRespSerializer(6000, _encoder.encode)


class _Buffer(SocketBuffer):
    """What has come of a reply and was not asked for yet."""

    def read(self, length: int, timeout: Any = SENTINEL) -> bytes:
        """The next `length` bytes; the end of line behind them goes, too."""
        if not LEAST_LARGE_BYTES <= length <= MOST_LARGE_BYTES or timeout is not SENTINEL:
            return super().read(length, timeout)
        text = io.BytesIO()
        text.seek(length - 1)
        text.write(b"\0")
        with text.getbuffer() as memory:
            filled = self._buffer.readinto(memory)
            while filled < length:
                received = self._sock.recv_into(memory[filled:])
                if not received:
                    raise ConnectionError(SERVER_CLOSED_CONNECTION_ERROR)
                filled += received
        super().read(0)
        return text.getvalue()  # no copy: the memory changes hands


class LargeReplies(_RESP2Parser):
    """redis-py's reader of replies with such a buffer."""

    def on_connect(self, connection: Any) -> None:
        """Begins to read from a new socket."""
        super().on_connect(connection)  # type: ignore[no-untyped-call]
        sock = connection._sock
        self._buffer = _Buffer(sock, self.socket_read_size, connection.socket_timeout)


def round_trip(client: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Sends the commands at once and returns their replies; an error among them as it came.

    As a pipeline of redis-py does, with less around it, which saves a quarter of a push of
    64 KiB.
    """
    pool = client.connection_pool
    connection = pool.get_connection()
    try:
        connection.send_packed_command(packed(commands))
        return [_next_reply(connection) for _ in commands]
    except BaseException:
        connection.disconnect()  # the other replies are still to come
        raise
    finally:
        pool.release(connection)


def packed(commands: Sequence[tuple[Any, ...]]) -> list[bytes]:
    """Commands of bytes, texts and whole numbers as Redis reads them, in few parts."""
    parts: list[bytes] = []
    words: list[bytes] = []
    for command in commands:
        words.append(b"*%d\r\n" % len(command))
        for word in command:
            text = word if isinstance(word, bytes) else str(word).encode()
            words.append(b"$%d\r\n" % len(text))
            if len(text) >= LEAST_ALONE_BYTES:
                parts += [b"".join(words), text]
                words = [b"\r\n"]
            else:
                words += [text, b"\r\n"]
    return [*parts, b"".join(words)]


def _next_reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error
