"""Replies that no Redis sends: each is refused in one sentence, in time, and costs no memory."""

import contextlib
import re
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from impala_redis.common.errors import ImpalaError, RedisUnreachable, UnsuitableServer
from impala_redis.common.server import connection
from impala_redis.common.server.connection import connect, translated
from impala_redis.common.server.resp import round_trip

MB = 1024 * 1024
SLOW_S = 0.3  # the time-out of the tests that wait for one


class Fake:
    """A server that answers each command with the next bytes of a script, whatever was asked."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.connections = 0
        self.script: list[Callable[[socket.socket], object]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def says(self, *parts: bytes) -> None:
        """To one command: these bytes, and then it is silent."""
        self.script.append(lambda peer: [peer.sendall(part) for part in parts])

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listening.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError), peer:
            while asked := peer.recv(65_536):
                if b"SETNAME" in asked:
                    peer.sendall(b"+OK\r\n")
                elif self.script:
                    self.script.pop(0)(peer)

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def fake() -> Iterator[Fake]:
    made = Fake()
    yield made
    made.close()


@pytest.fixture
def client(fake: Fake) -> Iterator[Any]:
    made = connect(fake.url, "test")
    made.has_answered = True  # or it looks for TLS
    yield made
    made.close()


def answer(client: Any, *command: Any) -> Any:
    """What a program gets, with the errors that programs get."""
    with translated(client):
        return client.execute_command(*command)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


GET, SIX = ("GET", "x"), ("HMGET", "x", *"abcdef")
NO_REPLIES: list[tuple[str, tuple[Any, ...], bytes]] = [
    ("lists in lists without end", GET, b"*1\r\n" * 100_000),
    ("lists in lists", ("FCALL", "f", 0), b"*1\r\n" * 17 + b":1\r\n"),
    ("two thousand million items", ("HGETALL", "x"), b"*2000000000\r\n"),
    ("more items than were asked for", SIX, b"*7\r\n"),
    ("more blocks than were asked for", ("LRANGE", "x", 0, 1), b"*3\r\n"),
    ("fewer items than were asked for", SIX, b"*1\r\n:1\r\n"),
    ("more bytes than were asked for", GET, b"$16777217\r\n"),
    ("a message that is longer than any", SIX, b"*6\r\n$9999999999\r\n"),
    ("a text that is longer than it says", GET, b"$2\r\nabcd\r\n"),
    ("a large text that is longer than it says", GET, b"$40000\r\n" + b"x" * 40_002 + b"\r\n"),
    ("a negative length", GET, b"$-2\r\n"),
    ("a list of a negative length", GET, b"*-7\r\n"),
    ("a length that is no number", GET, b"$x\r\n"),
    ("no length", GET, b"$\r\n"),
    ("a length of Python's", GET, b"$1_0\r\n0123456789\r\n"),
    ("a number of 400 digits", ("LLEN", "x"), b":" + b"9" * 400 + b"\r\n"),
    ("a number beyond 64 bits", ("LLEN", "x"), b":9223372036854775808\r\n"),
    ("a number that is none", ("LLEN", "x"), b":seven\r\n"),
    ("a line without an end", GET, b"+" + b"x" * 70_000),
    ("an empty line", GET, b"\r\n"),
    ("a web server", GET, b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    ("a map of RESP3", ("HGETALL", "x"), b"%1\r\n$1\r\na\r\n$1\r\nb\r\n"),
    ("a push of RESP3", GET, b">1\r\n+invalidate\r\n"),
    ("nothing of RESP3", GET, b"_\r\n"),
    ("a number for a text", GET, b":1\r\n"),
    ("a list for a text", GET, b"*1\r\n$1\r\nx\r\n"),
    ("a text for a number", ("LLEN", "x"), b"$1\r\n7\r\n"),
    ("nothing for a number", ("EXISTS", "x"), b"$-1\r\n"),
    ("a text for a list", SIX, b"$6\r\nabcdef\r\n"),
    ("nothing for a list", SIX, b"*-1\r\n"),
    ("a number in a list of texts", ("LRANGE", "x", 0, 1), b"*1\r\n:1\r\n"),
    ("an error in a list of texts", ("LRANGE", "x", 0, 1), b"*1\r\n-ERR no\r\n"),
    ("an error in what a function replies", ("FCALL", "f", 0), b"*1\r\n-ERR no\r\n"),
    ("an odd number of pairs", ("HGETALL", "x"), b"*1\r\n$1\r\na\r\n"),
    ("nothing for INFO", ("INFO",), b"$-1\r\n"),
    ("a page without a cursor", ("SCAN", 0), b"*2\r\n$1\r\nx\r\n*0\r\n"),
    ("a page that is no pair", ("SCAN", 0), b"*1\r\n$1\r\n0\r\n"),
    ("a time of one part", ("TIME",), b"*1\r\n$1\r\n1\r\n"),
    ("a node that is none", GET, b"-MOVED 1 nowhere\r\n"),
    ("a node to ask that is none", GET, b"-ASK nowhere\r\n"),
]


@pytest.mark.parametrize(
    ("command", "said"), [pytest.param(c, said, id=name) for name, c, said in NO_REPLIES]
)
def test_what_is_no_reply_of_redis_is_one_sentence_and_ends_the_connection(
    fake: Fake, client: Any, command: tuple[Any, ...], said: bytes
) -> None:
    # given a server that answers so, and then well
    fake.says(said)

    # when it is asked
    began, before_mb = time.monotonic(), peak_mb()
    with pytest.raises(UnsuitableServer) as caught:
        answer(client, *command)

    # then it is said, at once, without memory, and without what a terminal acts on
    assert time.monotonic() - began < 2.0
    assert peak_mb() - before_mb < 20
    sentence = str(caught.value)
    assert sentence.startswith(
        f"the server at {fake.url} answered with what is no reply of Redis: "
    )
    assert "--redis-url" in sentence
    assert sentence.isprintable() and len(sentence) < 400

    # and the rest of it is never read as a reply
    fake.says(b"+PONG\r\n")
    assert answer(client, "ECHO", "x") == b"PONG"
    assert fake.connections == 2


def test_lines_in_a_list_count_among_its_bytes(fake: Fake, client: Any) -> None:
    fake.says(b"*999\r\n" + (b"+" + b"x" * 65_000 + b"\r\n") * 259)  # and that is 16.8 MB
    with pytest.raises(UnsuitableServer, match="more than was asked for"):
        answer(client, "FCALL", "f", 0)


# What honest servers of any kind may say, managed and odd ones included.
HONEST: list[tuple[str, tuple[Any, ...], bytes]] = [
    ("a cursor of 64 bits", ("SCAN", 0), b"*2\r\n$20\r\n18446744073709551615\r\n*0\r\n"),
    ("a page of many keys", ("SCAN", 0), b"*2\r\n$1\r\n0\r\n*5000\r\n" + b"$1\r\nk\r\n" * 5000),
    ("no settings", ("CONFIG GET", "save"), b"*0\r\n"),
    ("INFO without a word", ("INFO", "server"), b"$0\r\n\r\n"),
    ("INFO of odd lines", ("INFO",), b"$30\r\na:b=c,d\r\nplain\r\nx:=\r\n:\r\nd,e=\r\n\r\n"),
    ("no functions", ("FUNCTION LIST",), b"*0\r\n"),
    ("all fields missing", SIX, b"*6\r\n" + b"$-1\r\n" * 6),
    ("nil as a list", GET, b"*-1\r\n"),
    ("the least number", ("PTTL", "x"), b":-9223372036854775808\r\n"),
    ("a text in a line", GET, b"+\r\n"),
    ("fewer blocks than were asked for", ("LRANGE", "x", 0, 9), b"*1\r\n$1\r\nx\r\n"),
    ("a function without a reply", ("FCALL", "f", 0), b"*-1\r\n"),
]


@pytest.mark.parametrize(
    ("command", "said"), [pytest.param(c, said, id=name) for name, c, said in HONEST]
)
def test_what_honest_servers_say_is_taken(
    fake: Fake, client: Any, command: tuple[Any, ...], said: bytes
) -> None:
    fake.says(said)
    fake.says(b"$4\r\nnext\r\n")
    answer(client, *command)
    assert answer(client, "GET", "x") == b"next"
    assert fake.connections == 1


def test_many_replies_at_once_are_each_held_against_their_own_command(
    fake: Fake, client: Any
) -> None:
    # given replies of which the second belongs to another command
    fake.says(b"$1\r\nx\r\n" + b"$1\r\nx\r\n" + b":1\r\n")

    # then they are refused as a whole, sent by us or by a pipeline of redis-py
    with pytest.raises(UnsuitableServer, match="to LLEN"), translated(client):
        round_trip(client, [("GET", "x"), ("LLEN", "x"), ("GET", "x")])
    fake.says(b"$1\r\nx\r\n" + b"$1\r\nx\r\n")
    with pytest.raises(UnsuitableServer, match="to LLEN"), translated(client):
        client.pipeline(transaction=False).get("x").llen("x").execute()


@pytest.mark.parametrize(
    "executed", [b"*1\r\n:1\r\n", b"*2\r\n:1\r\n:1\r\n", b":1\r\n", b"*2\r\n$1\r\nx\r\n$1\r\nx\r\n"]
)
def test_a_transaction_is_held_against_what_was_queued(
    fake: Fake, client: Any, executed: bytes
) -> None:
    fake.says(b"+OK\r\n+QUEUED\r\n+QUEUED\r\n" + executed)
    with pytest.raises(UnsuitableServer, match="to EXEC"), translated(client):
        round_trip(client, [("MULTI",), ("GET", "x"), ("LLEN", "x"), ("EXEC",)])


def test_what_redis_py_cannot_read_is_no_traceback(
    fake: Fake, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a reader of redis-py's that stumbles, as they do over what no server sends
    monkeypatch.setitem(client.response_callbacks, "INFO", lambda reply: reply["x"])
    fake.says(b"$1\r\nx\r\n")

    # then
    with pytest.raises(UnsuitableServer, match="cannot be read"):
        answer(client, "INFO")


@pytest.mark.parametrize("length", [536_870_911, 100_000_000])
def test_memory_grows_with_what_comes_and_not_with_what_was_announced(
    fake: Fake, client: Any, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    # given twenty bytes that announce a message of hundreds of megabytes
    monkeypatch.setattr(connection, "SOCKET_TIMEOUT_S", SLOW_S)
    quick = connect(fake.url, "test")
    fake.says(b"*1\r\n$%d\r\n" % length)

    # when it is waited for
    before_mb = peak_mb()
    with pytest.raises((redis.TimeoutError, redis.ConnectionError)):
        round_trip(quick, [("LRANGE", "x", 0, 0)])
    quick.close()

    # then next to nothing was taken for it
    assert peak_mb() - before_mb < 20


@pytest.mark.parametrize("begun", [b"*1000\r\n", b"$1000000\r\n", b"+", b"$10000\r\n"])
def test_a_reply_that_never_ends_is_given_up_though_something_always_comes(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    # given a server that sends one more byte, or item, just before each time-out
    monkeypatch.setattr(connection, "SOCKET_TIMEOUT_S", 0.1)
    more = b":1\r\n" if begun[:1] == b"*" else b"x"
    stopped = threading.Event()

    def drip(peer: socket.socket) -> None:
        peer.sendall(begun)
        while not stopped.wait(0.05):
            peer.sendall(more)

    fake.script.append(drip)
    client = connect(fake.url, "test")
    client.has_answered = True

    # then it is as if none had come, after some of the time-outs
    began = time.monotonic()
    with pytest.raises(RedisUnreachable):
        answer(client, "FCALL", "f", 0)
    assert time.monotonic() - began < 5.0
    stopped.set()
    client.close()


@pytest.mark.parametrize(
    "node",
    ["127.0.0.1:70000", "127.0.0.1:0", "x@127.0.0.1/3?ssl=no:1", "\x1b[2J:1", "a b:1", "9:9:1"],
)
def test_nobody_is_led_to_a_node_that_can_be_none(fake: Fake, client: Any, node: str) -> None:
    fake.says(b"-MOVED 1 " + node.encode() + b"\r\n")
    with pytest.raises(UnsuitableServer, match="no reply of Redis"):
        answer(client, "GET", "x")


def test_a_server_that_names_ever_more_nodes_fills_nothing(client: Any) -> None:
    # when
    moves = [redis.exceptions.MovedError(f"1 127.0.0.1:{port}") for port in range(1, 1000)]
    for moved in moves:
        client.follow([moved])

    # then the last ones are known, and where the address leads
    assert len(client._known) <= 64
    assert client.address.startswith("redis://127.0.0.1:999/")
    assert None in client._known


def test_no_error_of_a_server_is_a_traceback(fake: Fake, client: Any) -> None:
    texts = ["", " ", "ERR", "MOVED", "MOVED 1", "ASK 1 x", "HELD", "HELD x y", "FENCED", "CURSOR"]
    for text in [*texts, "x" * 60_000, "\x1b]0;x\x07", "HELD 99999999999999999999999 x"]:
        fake.says(b"-" + text.encode() + b"\r\n")
        with pytest.raises(ImpalaError) as caught:
            answer(client, "FCALL", "f", 0)
        assert not re.search("Traceback|[\x00-\x1f]", str(caught.value))
