"""A TCP proxy that does to a connection what networks do: delay, throttle, cut, slice, swallow.

It stands between programs and a server on this machine. Its toxics are plain attributes that may be
set at any time; they hold for open connections as for new ones:

    latency_s, jitter_s   added to whatever goes either way
    bytes_per_s           the rate either way, None for no bound
    slice_bytes           sent on in segments of this size, None for as they come
    blackhole             nothing goes either way, and no connection is closed (half-open)
    down                  new connections are refused at once, open ones reset
    drop_replies          the share of replies that are swallowed, whereupon the connection is
                          closed: the server has executed what was asked, and nobody knows

`Proxy` runs in a thread of its own. Sleeps of its tasks are not waits of a test.
"""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from types import TracebackType

CHUNK_BYTES = 65_536
# Closing with this option sends a reset instead of an orderly end.
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Listens on a loopback port of its own and forwards to `target_port`, until `close`."""

    def __init__(self, target_port: int, seed: int = 0) -> None:
        self.latency_s = self.jitter_s = self.drop_replies = 0.0
        self.bytes_per_s: float | None = None
        self.slice_bytes: int | None = None
        self.blackhole = False
        self._down = False
        self.dropped = 0  # replies swallowed so far
        self.accepted = 0  # connections so far
        self._target_port = target_port
        self._random = random.Random(seed)
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The server's address through the proxy."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def down(self) -> bool:
        """Whether connections are refused."""
        return self._down

    @down.setter
    def down(self, down: bool) -> None:
        self._down = down
        if down:
            self.reset()

    def heal(self) -> None:
        """Takes every toxic away."""
        self.latency_s = self.jitter_s = self.drop_replies = 0.0
        self.bytes_per_s = self.slice_bytes = None
        self.blackhole = self.down = False

    def reset(self) -> None:
        """Resets every open connection, in the middle of whatever it carries."""
        asyncio.run_coroutine_threadsafe(self._reset_all(), self._loop).result(5)

    def close(self) -> None:
        """Ends every connection and the proxy."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # What follows runs in the proxy's thread.

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, sock=self._listener)
        )
        self._loop.run_forever()
        server.close()
        for writer in list(self._open):
            _reset(writer)
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._open.add(client)
        server: asyncio.StreamWriter | None = None
        try:
            if self._down:
                return
            replies, server = await asyncio.open_connection("127.0.0.1", self._target_port)
            self._open.add(server)
            ways = [
                asyncio.ensure_future(self._forward(reader, server, is_reply=False)),
                asyncio.ensure_future(self._forward(replies, client, is_reply=True)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # the server is away, or the proxy ends: the client sees a closed connection
        finally:
            for writer in (client, server):
                if writer is not None:
                    self._open.discard(writer)
                    _reset(writer)

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_reply: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                while self.blackhole:
                    await asyncio.sleep(0.01)
                if is_reply and self._random.random() < self.drop_replies:
                    self.dropped += 1
                    return
                if self.latency_s or self.jitter_s:
                    await asyncio.sleep(self.latency_s + self.jitter_s * self._random.random())
                await self._send(chunk, writer)

    async def _send(self, chunk: bytes, writer: asyncio.StreamWriter) -> None:
        size = self.slice_bytes or len(chunk)
        for start in range(0, len(chunk), size):
            piece = chunk[start : start + size]
            writer.write(piece)
            await writer.drain()
            if self.slice_bytes:
                await asyncio.sleep(0)
            if self.bytes_per_s:
                await asyncio.sleep(len(piece) / self.bytes_per_s)

    async def _reset_all(self) -> None:
        for writer in list(self._open):
            _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
