"""A seeded fuzzer of what a server replies, to every command that a program sends.

It plays the server inside of the process: a socket that answers each command with a good reply, a
damaged one, one of another command, or bytes that are none. `PYTHONPATH=.. python fuzz_replies.py
SEED COUNT` makes so many calls of the links and of the sentinels' questions and prints a report as
JSON: how they ended, what went wrong, the most CPU time that one took, and how far the process
grew.
"""

import json
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import redis
from redis.connection import Connection

from chaos.fuzz import SPECS, peak_mb, resident_mb
from impala_redis.common.errors import ImpalaError
from impala_redis.common.server import sentinel
from impala_redis.common.server.address import parse
from impala_redis.common.server.suitability import check_server
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.ledger import Settled
from impala_redis.common.transport.link import Link
from impala_redis.common.transport.monitor import OperatorLink
from impala_redis.common.transport.plain_push import PlainActorLink

URL, SENTINELS = "redis://127.0.0.1:6379/0", "redis+sentinel://127.0.0.1:26379/name"
MOST_FAILURES = 10
# The parts that bytes are made of which are no reply, or a strange one.
LINES = [
    *(b"$-1", b"$0", b"$1", b"$5", b"$-2", b"$536870911", b"$99999999999", b"$x", b"$"),
    *(b"*-1", b"*0", b"*1", b"*2", b"*3", b"*7", b"*2000000000", b"*-3", b"*"),
    *(b":0", b":1", b":-1", b":9223372036854775807", b":9223372036854775808", b":x", b":", b":1e3"),
    *(b"+OK", b"+QUEUED", b"+", b"", b"hello", b"%1", b"~1", b">2", b"_", b"#t", b",1.5", b"(99"),
    *(b"-ERR no", b"-", b"-MOVED 1 127.0.0.1:7", b"-MOVED 1 x", b"-MOVED 1 :7", b"-MOVED 1 a b:9"),
    *(b"-MOVED 1 ?:70000", b"-ASK 1 127.0.0.1:7", b"-ASK", b"-TRYAGAIN x", b"-CLUSTERDOWN x"),
    *(b"-LOADING x", b"-OOM x", b"-NOAUTH x", b"-WRONGPASS x", b"-NOPERM x", b"-READONLY x"),
    *(
        b"-NORUN x",
        b"-HELD 5 a",
        b"-HELD x",
        b"-HELD",
        b"-FENCED 1:a 2:b",
        b"-CURSOR 1",
        b"-BUSY x",
    ),
    *(b"-ERR unknown command 'x'", b"-EXECABORT x", b"-NOSCRIPT x", b"-ERR max number of clients"),
    *(b"-ERR user_function:139: nil", b"-\xff\xfe\x1b]0;x", b"\x15\x03\x01", b"HTTP/1.1 400 Bad"),
]
VALUES = [
    *(b"", b"0", b"1", b"-1", b"7", b"1.5", b"nan", b"inf", b"1e999", b"9" * 30, b"9" * 5000),
    *(b"running", b"finished", b"x", b"\xff\xfe", b"\x1b[2J", b"a:b", b"1:holder", b"\r\n", b"{}"),
    b"# Server\r\nredis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\nused_memory:5\r\n",
    *(b"redis_version:\r\n:\r\nx\r\n\r\nx:1,2=3,=\r\n", b"a:" * 50, b"redis_version:" + b"9" * 50),
    SPECS[0].to_json().encode(),
]


class _Server:
    """The other end of a connection: it replies to each command that is sent."""

    def __init__(self, draw: random.Random) -> None:
        self._draw, self._unread = draw, bytearray()
        self._queued: list[list[bytes]] | None = None  # the commands since MULTI

    def sendall(self, sent: bytes) -> None:
        """Answers the commands in what is sent; a part of one is not among them."""
        for command in _commands(bytes(sent)):
            self._unread += self._reply(command)

    def recv(self, size: int) -> bytes:
        """Some of the replies; then it hangs up, or is silent."""
        if not self._unread:
            if self._draw.random() < 0.5:
                raise TimeoutError
            return b""
        size = min(size, self._draw.choice((1, 7, 100, 65_536)))
        piece = bytes(self._unread[:size])
        del self._unread[:size]
        return piece

    def recv_into(self, memory: memoryview) -> int:
        """The same, into memory."""
        piece = self.recv(len(memory))
        memory[: len(piece)] = piece
        return len(piece)

    def settimeout(self, timeout: float | None) -> None:
        """There is nothing to wait for."""

    def shutdown(self, how: int) -> None:
        """Forgets what was not read."""
        self._unread.clear()

    close = fileno = getpeername = lambda self, *how: None

    def _reply(self, command: list[bytes]) -> bytes:
        draw = self._draw
        kind = draw.random()
        queued = self._queued is not None and command[0] != b"EXEC"
        # Those that are queued are many: with others' odds no transaction would come to its end.
        if command[:1] == [b"CLIENT"] or kind < (0.95 if queued else 0.8):
            return self._good(command)
        kind = draw.random()
        if kind < 0.25:
            return draw.choice(LINES) + b"\r\n"
        if kind < 0.5:
            return b"".join(draw.choice(LINES) + b"\r\n" for _ in range(draw.randint(1, 6)))
        if kind < 0.75:
            return _nested(draw, 0)
        damaged = bytearray(self._good(command))
        for _ in range(draw.randint(1, 3)):
            if damaged:
                place = draw.randrange(len(damaged))
                match draw.randrange(3):
                    case 0:
                        damaged[place] ^= 1 << draw.randrange(8)
                    case 1:
                        del damaged[place : place + draw.choice((1, 2, 1000))]
                    case _:
                        damaged[place:place] = draw.choice(LINES) + b"\r\n" * draw.randrange(2)
        return bytes(damaged)

    def _good(self, command: list[bytes]) -> bytes:
        match command[0], self._queued:
            case b"MULTI", _:
                self._queued = []
            case b"EXEC", list(queued):
                self._queued = None
                if self._draw.random() < 0.3:
                    return b"*-1\r\n"
                return _list(*(good(self._draw, one) for one in queued))
            case _, list(queued):
                queued.append(command)
                return b"+QUEUED\r\n"
        return good(self._draw, command)


def _commands(sent: bytes) -> list[list[bytes]]:
    found, place = [], 0
    while sent[place : place + 1] == b"*":
        line, place = _line(sent, place)
        words = []
        for _ in range(int(line[1:])):
            line, place = _line(sent, place)
            words.append(sent[place : place + int(line[1:])])
            place += int(line[1:]) + 2
        found.append(words)
    return found


def _line(sent: bytes, place: int) -> tuple[bytes, int]:
    end = sent.index(b"\r\n", place)
    return sent[place:end], end + 2


def bulk(text: bytes | None) -> bytes:
    """A text as a server sends it."""
    return b"$-1\r\n" if text is None else b"$%d\r\n%s\r\n" % (len(text), text)


def _list(*items: bytes) -> bytes:
    return b"*%d\r\n" % len(items) + b"".join(items)


def _nested(draw: random.Random, depth: int) -> bytes:
    match draw.randrange(6 if depth < 20 else 4):
        case 0:
            return b":%d\r\n" % draw.choice((0, 1, -1, 3, 2**62))
        case 1 | 2:
            return bulk(draw.choice((None, *VALUES)))
        case 3:
            return draw.choice(LINES) + b"\r\n"
        case _:
            return _list(*(_nested(draw, depth + 1) for _ in range(draw.choice((1, 2, 3)))))


def good(draw: random.Random, command: list[bytes]) -> bytes:
    """A reply of the right form, with values that may be strange."""
    number = b":%d\r\n" % draw.choice((0, 0, 1, 1, 2, -1, 5000, 2**62))
    text = bulk(draw.choice(VALUES))
    match command[0]:
        case b"CLIENT" | b"AUTH" | b"SELECT" | b"MULTI" | b"WATCH" | b"UNWATCH":
            return b"+OK\r\n"
        case b"HMGET":
            return _list(*(bulk(draw.choice((None, *VALUES))) for _ in command[2:]))
        case b"HGETALL" | b"CONFIG":
            pairs = range(2 * draw.randrange(4))
            return _list(*(bulk(draw.choice((b"learner:x", b"number", *VALUES))) for _ in pairs))
        case b"LRANGE":
            return _list(*(text for _ in range(draw.randrange(3))))
        case b"SCAN":
            keys = [bulk(b"impala:{r}:actor:%d" % n) for n in range(draw.randrange(3))]
            return _list(bulk(b"0"), _list(*keys))
        case b"TIME":
            return _list(bulk(b"1700000000"), bulk(b"5"))
        case b"FCALL" if command[1].endswith(b"open"):
            mended = (bulk(draw.choice(VALUES)) for _ in range(draw.randrange(3)))
            return _list(b":1\r\n", number, number, *mended)
        case b"FCALL_RO":
            return _reading(draw, command)
        case b"SENTINEL" if command[1] == b"MASTER":
            return _list(bulk(b"config-epoch"), text)
        case b"SENTINEL":
            return _list(bulk(b"127.0.0.1"), bulk(draw.choice((b"6379", b"0", b"99999"))))
        case b"FUNCTION":
            return _list()
        case b"GET" | b"HGET" | b"INFO":
            return text
    return number


def _reading(draw: random.Random, command: list[bytes]) -> bytes:
    """What one of the functions replies that only read."""
    keys, arguments = int(command[2]), command[3 + int(command[2]) :]
    number = b":%d\r\n" % draw.choice((0, 1, 5, 2**62))

    def fields(names: int) -> bytes:
        texts = [bulk(draw.choice((None, *VALUES))) for _ in range(names)]
        return _list(*texts) if draw.random() < 0.9 else b"$-1\r\n"

    match command[1].partition(b"_")[2]:
        case b"read_books":
            return _list(fields(len(arguments) - 1), number, number)
        case b"read_learner":
            texts = [bulk(draw.choice((b"learner:x", b"lease_s", *VALUES))) for _ in range(6)]
            pairs = _list(*texts[: draw.choice((0, 2, 6))])
            lease = _list(bulk(draw.choice(VALUES)), number)
            return _list(lease, fields(1), pairs, _list(bulk(b"1700000000"), bulk(b"5")))
        case b"read_fields":
            return _list(*(fields(len(arguments) - 1) for _ in range(keys)))
    names = (bulk(b"impala:{r}:actor:%d" % n) for n in range(draw.randrange(4)))
    return _list(bulk(b"0"), number, *names)


def _calls() -> dict[str, Callable[[Any], object]]:
    """What each kind of link may be asked, by name."""
    settled = Settled(consumed=1)
    return {
        "Link.read_spec": lambda link: link.read_spec(),
        "Link.read_weights": lambda link: link.read_weights(),
        "Link.require": lambda link: link.require("impala-actor", "impala-learner"),
        "ActorLink.push": lambda link: link.push("a#1", 1, b"block", 4),
        "ActorLink.push_together": lambda link: link.push_together("a#1", 1, [b"x", b"y"], 4),
        "ActorLink.push_together, with weights": lambda link: link.push_together(
            "a#1", 1, [b"x", b"y"], 4, with_weights=True
        ),
        "ActorLink.has_room": lambda link: link.has_room(4),
        "ActorLink.read_news": lambda link: link.read_news(),
        "ActorLink.beat": lambda link: link.beat("a", {"frames": 1}, 10.0),
        "ActorLink.is_listed": lambda link: link.is_listed("a"),
        "ActorLink.count_join": lambda link: link.count_join("a"),
        "ActorLink.deal": lambda link: link.deal(3),
        "ActorLink.leave": lambda link: link.leave("a"),
        "PlainActorLink.push": lambda link: link.push("a#1", 1, b"block", 4),
        "LearnerLink.check_server": lambda link: check_server(link.client, link.url),
        "LearnerLink.evictions": lambda link: link.evictions(),
        "LearnerLink.current_holder": lambda link: link.current_holder(),
        "LearnerLink.weights_version": lambda link: link.weights_version(),
        "LearnerLink.open": lambda link: link.open(),
        "LearnerLink.settle_and_claim": lambda link: link.settle_and_claim(settled, 2),
        "LearnerLink.announce": lambda link: link.announce("{}", "f", "running"),
        "LearnerLink.publish": lambda link: link.publish(1, b"weights"),
        "LearnerLink.join": lambda link: link.join(),
        "LearnerLink.renew": lambda link: link.renew({"x": 1.0}),
        "LearnerLink.read_flow": lambda link: link.read_flow(),
        "LearnerLink.release": lambda link: link.release(),
        "OperatorLink.read": lambda link: link.read(),
        "OperatorLink.read_books": lambda link: link.read_books(),
        "OperatorLink.read_learner": lambda link: link.read_learner(),
        "OperatorLink.read_actors": lambda link: link.read_actors(),
        "OperatorLink.read_memory": lambda link: link.read_memory(),
        "OperatorLink.delete_run": lambda link: link.delete_run(),
    }


def _make_links() -> dict[str, Link]:
    return {
        "Link": Link(URL, "r", "fuzz"),
        "ActorLink": ActorLink(URL, "r", "fuzz"),
        "PlainActorLink": PlainActorLink(URL, "r", "fuzz"),
        "LearnerLink": LearnerLink(URL, "r", "holder", 10.0),
        "OperatorLink": OperatorLink(URL, "r", "fuzz"),
    }


def _end(call: Callable[[Any], object], link: Any) -> str:
    """How a call ends: "taken" or the error's name. Raises whatever else it raises."""
    try:
        call(link)
    except ImpalaError as error:
        sentence = str(error)
        assert sentence.isprintable() and len(sentence) < 70_000, sentence[:200]
        return type(error).__name__
    return "taken"


def _ask_sentinels(link: Any) -> None:
    try:
        sentinel.Sentinels(parse(SENTINELS)).discover_master("name")
    except redis.RedisError as error:  # `translated` knows them
        raise ImpalaError(type(error).__name__) from error


def run(seed: int, count: int) -> dict[str, Any]:
    """Makes `count` calls and reports."""
    draw = random.Random(seed)
    connection: Any = Connection
    connection._connect = lambda self: _Server(draw)
    connection.can_read = lambda self, timeout=0: False
    calls: dict[str, Callable[[Any], object]] = _calls()
    calls["Sentinels.discover_master"] = _ask_sentinels
    links = _make_links()
    outcomes: Counter[str] = Counter()
    never_taken = set(calls)
    failures: list[dict[str, Any]] = []
    slowest_s, before_mb = 0.0, resident_mb()
    for number in range(count):
        if number % 50 == 0:
            links = _make_links()
        name = draw.choice(list(calls))
        link: Any = links.get(name.partition(".")[0])
        for client in (c for c in (vars(link) if link else {}).values() if hasattr(c, "follow")):
            client.has_answered = True  # or it opens connections to ask for TLS
        started = time.thread_time()
        try:
            outcome = _end(calls[name], link)
            outcomes[outcome] += 1
            if outcome == "taken":
                never_taken.discard(name)
        except Exception as error:
            failures.append({"number": number, "call": name, "error": repr(error)[:300]})
            if len(failures) >= MOST_FAILURES:
                break
        slowest_s = max(slowest_s, time.thread_time() - started)
    return {
        "seed": seed,
        "count": count,
        "outcomes": dict(sorted(outcomes.items())),
        "never_taken": sorted(never_taken),
        "failures": failures,
        "slowest_s": slowest_s,
        "growth_mb": peak_mb() - before_mb,
    }


def main() -> None:
    """SEED COUNT runs the fuzzer and prints its report as JSON."""
    seed, count = map(int, sys.argv[1:])
    logging.disable()
    sys.stdout.write(json.dumps(run(seed, count)) + "\n")


if __name__ == "__main__":
    main()
