"""Large replies: what was sent is read, however it is cut, or there is an error in time."""

import random
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from impala_redis.common.server import connection
from impala_redis.common.server.connection import connect
from impala_redis.common.server.reading import LEAST_LARGE_BYTES
from impala_redis.common.server.resp import LEAST_ALONE_BYTES, packed, round_trip

LARGE = random.Random(7).randbytes(300_001)


def bulk(text: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text)


# Everything that Redis answers with, and large texts in all places.
REPLIES: list[tuple[bytes, Any]] = [
    (b"+OK\r\n", b"OK"),
    (bulk(LARGE), LARGE),
    (b":7\r\n", 7),
    (b"*3\r\n" + bulk(LARGE) + bulk(b"") + bulk(LARGE[:70_000]), [LARGE, b"", LARGE[:70_000]]),
    (b"*2\r\n*2\r\n" + bulk(LARGE) + b"$-1\r\n*0\r\n", [[LARGE, None], []]),
    (bulk(b"\r\n" * LEAST_LARGE_BYTES), b"\r\n" * LEAST_LARGE_BYTES),
    *[(bulk(LARGE[:n]), LARGE[:n]) for n in range(LEAST_LARGE_BYTES - 2, LEAST_LARGE_BYTES + 3)],
]


class Peer:
    """The other end of a connection at a time; sends what the test says, whatever it receives."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listening.getsockname()[1]}/0"
        self._said: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def will_say(self, parts: list[bytes], then_hang_up: bool = False) -> None:
        """To the next who connects, after its greeting was answered."""

        def say() -> None:
            connected, _ = self._listening.accept()
            self._said.append(connected)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.recv(10_000)
            connected.sendall(b"+OK\r\n")  # to CLIENT SETNAME
            connected.recv(10_000)
            for part in parts:
                connected.sendall(part)
            if then_hang_up:
                connected.close()

        self._threads.append(threading.Thread(target=say, daemon=True))
        self._threads[-1].start()

    def close(self) -> None:
        for thread in self._threads:
            thread.join(10)
        for connected in (*self._said, self._listening):
            connected.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    started = Peer()
    yield started
    started.close()


@pytest.mark.parametrize("length", [0, 70_000, LEAST_ALONE_BYTES - 1, LEAST_ALONE_BYTES, 10**6])
def test_what_is_packed_is_what_redis_reads_and_a_large_text_is_not_copied(length: int) -> None:
    # given commands of all kinds of words
    text = bytes(length)
    commands = [("SET", "a key", text), ("GET", "\u00e4", 7, -1, b"\r\n"), ("EXEC",)]

    # when they are packed
    parts = packed(commands)

    # then they are as in the protocol, however redis-py would cut them
    words = redis.Connection().pack_commands(commands)
    assert b"".join(parts) == b"".join(words)
    # and a large one goes out from where it lies
    assert any(part is text for part in parts) == (length >= LEAST_ALONE_BYTES)


@pytest.mark.parametrize("piece", [None, 1_000, 65_536], ids=["whole", "slices", "buffers"])
def test_what_was_sent_is_read_however_it_is_cut(peer: Peer, piece: int | None) -> None:
    # given every kind of reply, with an error among them, in pieces
    said = b"".join(reply for reply, _ in REPLIES) + b"-OOM no\r\n" + bulk(LARGE)
    step = piece or len(said)
    peer.will_say([said[start : start + step] for start in range(0, len(said), step)])

    # when as many commands are sent in one go
    client = connect(peer.url, "test")
    *read, error, last = round_trip(client, [("PING",)] * (len(REPLIES) + 2))
    client.close()

    # then each has its own
    assert read == [reply for _, reply in REPLIES]
    assert isinstance(error, redis.exceptions.OutOfMemoryError)
    assert last == LARGE and type(last) is bytes


@pytest.mark.parametrize("hangs_up", [True, False], ids=["hung-up", "silent"])
def test_a_reply_that_breaks_off_is_an_error_in_time_and_no_part_of_it_is_read_later(
    peer: Peer, monkeypatch: pytest.MonkeyPatch, hangs_up: bool
) -> None:
    # given somebody who stops in the middle of a large text, and later answers another
    monkeypatch.setattr(connection, "SOCKET_TIMEOUT_S", 0.3)
    whole = b":1\r\n" + bulk(LARGE)
    peer.will_say([whole[:200_000]], then_hang_up=hangs_up)
    client = connect(peer.url, "test")
    with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
        round_trip(client, [("PING",), ("PING",)])

    # when it is asked again
    peer.will_say([b":2\r\n" + bulk(LARGE)])

    # then only the new answer is read
    assert round_trip(client, [("PING",), ("PING",)]) == [2, LARGE]
    client.close()
