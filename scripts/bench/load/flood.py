"""As many pushes as a server takes, from a thousand connections on one thread.

It sends what an actor's courier sends, over plain sockets: with redis-py or asyncio, one thread
would be slower than the server. A push's commands are packed once; only its number changes.
"""

import contextlib
import heapq
import itertools
import random
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.load.crew import LIMIT_S, Figures, Signals
from bench.load.roles import RUN, message_of
from bench.load.swarm import PACKER, push_commands
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.server.connection import CONNECT_TIMEOUT_S
from impala_redis.common.transport.keys import Keys

# All sequence numbers have the same number of digits.
FIRST_SEQUENCE = 10**9
# Received bytes go into a buffer of this size, and are only scanned.
SCRATCH_NBYTES = 1 << 20
# How soon the end is noticed when nothing comes.
LONGEST_WAIT_S = 0.02
# How soon credits are looked for again when there was none.
CREDIT_PAUSE_S = 0.0005
# This much of an answer is kept: more than the answer to a push.
HEAD_NBYTES = 4096
# A push's answer ends with the version of the weights in two lines, and three fields of the spec.
SPEC_FIELDS = b"*3"


def flood(
    url: str,
    spec: RunSpec,
    signals: Signals,
    names: Sequence[str],
    every_s: float = 0.0,
    credits: Any = None,
    fetch: bool = False,
) -> Figures:
    """Actors that push, each once in `every_s` (0: again when the answer is there).

    With `credits`, a semaphore, each push takes one first. With `fetch`, an actor fetches the
    weights whenever the answer to a push names another version, as a courier does.
    """
    with contextlib.ExitStack() as stack:
        message, known = message_of(spec), dict[bytes, bytes]()
        actors = [FloodActor(url, spec, name, message, known, fetch) for name in names]
        for actor in actors:
            stack.callback(actor.close)
        selector = stack.enter_context(selectors.DefaultSelector())
        signals.begin.wait(60)
        before_cpu_s, before_s = time.process_time(), time.monotonic()
        Flood(selector, actors, every_s, credits).run(signals.end)
        cpu_s, seconds = time.process_time() - before_cpu_s, time.monotonic() - before_s
    return {
        "push_ms": [ms for actor in actors for ms in actor.push_ms],
        "fetch_ms": [ms for actor in actors for ms in actor.fetch_ms],
        "seconds": seconds,
        "cores": cpu_s / seconds,
    }


class Flood:
    """The actors of one thread; each waits for one answer at a time."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        actors: Sequence["FloodActor"],
        every_s: float,
        credits: Any,
    ) -> None:
        self._selector, self._every_s, self._credits = selector, every_s, credits
        self._scratch = bytearray(SCRATCH_NBYTES)
        self._asking = 0  # actors without an answer
        self._order = itertools.count()  # keeps those apart that are due at the same moment
        self._due: list[tuple[float, int, FloodActor]] = []
        for actor in actors:
            selector.register(actor.socket, selectors.EVENT_READ, actor)
            self._rest(actor, time.monotonic() + random.uniform(0, every_s))

    def run(self, end: Any) -> None:
        """Runs until the event `end`, and then until every question has its answer."""
        ended, until = False, time.monotonic() + LIMIT_S
        while self._asking or not ended:
            now = time.monotonic()
            ended = ended or end.is_set() or now > until
            wait_s = LONGEST_WAIT_S if ended else self._push_what_is_due(now)
            for key, events in self._selector.select(wait_s):
                if events & selectors.EVENT_WRITE:
                    self._send(key.data, key.data.send)
                elif key.data.receive(self._scratch):
                    self._go_on(key.data)

    def _push_what_is_due(self, now: float) -> float:
        """Sends every push that is due; returns the seconds until the next one is."""
        while self._due and self._due[0][0] <= now:
            if self._credits and not self._credits.acquire(block=False):
                return CREDIT_PAUSE_S
            due_s, _, actor = heapq.heappop(self._due)
            actor.next_s = max(due_s + self._every_s, now)
            self._asking += 1
            self._send(actor, actor.begin_push)
        return min(LONGEST_WAIT_S, self._due[0][0] - now) if self._due else LONGEST_WAIT_S

    def _go_on(self, actor: "FloodActor") -> None:
        """Begins what follows an answer: a fetch, or a rest until the next push."""
        if actor.is_behind:
            self._send(actor, actor.begin_fetch)
        else:
            self._asking -= 1
            self._rest(actor, actor.next_s)

    def _rest(self, actor: "FloodActor", until_s: float) -> None:
        heapq.heappush(self._due, (until_s, next(self._order), actor))

    def _send(self, actor: "FloodActor", step: Callable[[], bool]) -> None:
        """Takes a step that sends; the rest is sent when the socket takes it."""
        events = selectors.EVENT_READ | (0 if step() else selectors.EVENT_WRITE)
        if self._selector.get_key(actor.socket).events != events:
            self._selector.modify(actor.socket, events, actor)


class FloodActor:
    """One connection: a push, its answer, and perhaps the weights."""

    def __init__(
        self,
        url: str,
        spec: RunSpec,
        name: str,
        message: bytes,
        known: dict[bytes, bytes],
        fetch: bool,
    ) -> None:
        """`known`: whole answers to pushes that any actor has had, and the news in each."""
        self.socket = connected(url)
        self._message, self._known, self._fetches = message, known, fetch
        pushing = push_commands(spec, f"{name}#1", FIRST_SEQUENCE, message)
        self._push, self._push_replies = PACKER.pack_commands(pushing), len(pushing)
        self._fetch = PACKER.pack_commands([weights_command()])
        self._left: list[memoryview] = []
        self._answer = Answer()
        self._news: bytes | None = None  # the end of the last answer to a push
        self._fetching = False
        self.sequence, self.next_s, self._began = FIRST_SEQUENCE, 0.0, 0.0
        self.is_behind = False
        self.push_ms: list[float] = []
        self.fetch_ms: list[float] = []

    def close(self) -> None:
        """Ends the connection."""
        self.socket.close()

    def begin_push(self) -> bool:
        """Begins to send the next block; returns whether all of it is sent."""
        self.sequence += 1
        number = b"%d" % self.sequence
        pieces = [
            piece if piece is self._message else piece.replace(b"%d" % FIRST_SEQUENCE, number)
            for piece in self._push
        ]
        return self._ask(pieces, self._push_replies)

    def begin_fetch(self) -> bool:
        """Asks for the weights; returns whether all of it is sent."""
        self._fetching, self.is_behind = True, False
        return self._ask(self._fetch, 1)

    def _ask(self, pieces: list[bytes], replies: int) -> bool:
        self._left = [memoryview(piece) for piece in pieces]
        self._answer.begin(replies)
        self._began = time.perf_counter()
        return self.send()

    def send(self) -> bool:
        """Sends as much as the socket takes; returns whether all is sent."""
        while self._left:
            try:
                sent = self.socket.sendmsg(self._left)
            except BlockingIOError:
                return False
            while self._left and sent >= len(self._left[0]):
                sent -= len(self._left.pop(0))
            if sent:
                self._left[0] = self._left[0][sent:]
        return True

    def receive(self, scratch: bytearray) -> bool:
        """Takes what came; whether the answer is whole."""
        size = self.socket.recv_into(scratch)
        if not size:
            raise RuntimeError("the server closed a connection")
        # Replies tell their own end: an answer that was whole once is whole whenever it comes.
        fresh = not self._fetching and not self._answer.head
        news = self._known.get(bytes(scratch[:size])) if fresh else None
        if news is None and not self._answer.take(scratch, size):
            return False
        taken_ms = (time.perf_counter() - self._began) * 1000
        if self._fetching:
            self._fetching = False
            self.fetch_ms.append(taken_ms)
            return True
        self.push_ms.append(taken_ms)
        if news is None:
            answer = self._answer.head
            news = self._known[answer] = _news_in(answer)
        self.is_behind = self._fetches and self._news not in (None, news)
        self._news = news
        return True


def _news_in(answer: bytes) -> bytes:
    """The version of the weights, and the spec's digest and state, not the lease's renewal."""
    before, _, fields = answer.rpartition(SPEC_FIELDS)
    return b"".join([*before.splitlines()[-2:], *fields.split(b"\r\n")[1:5]])


class Answer:
    """Finds the end of some replies as they come, and keeps the beginning."""

    def __init__(self) -> None:
        self.begin(0)

    def begin(self, replies: int) -> None:
        """Awaits this number of replies from here on."""
        self._awaited, self._skip = replies, 0
        self._line = self.head = b""

    def take(self, data: bytearray, size: int) -> bool:
        """Takes the first `size` bytes; returns whether the last reply has ended.

        Raises RuntimeError for an error reply.
        """
        if len(self.head) < HEAD_NBYTES:
            self.head += data[: min(size, HEAD_NBYTES)]
        at = 0
        while at < size:
            if self._skip:
                step = min(self._skip, size - at)
                self._skip -= step
                at += step
                continue
            end = data.find(b"\n", at, size) + 1
            self._line += data[at : end or size]
            if not end:
                break
            at = end
            self._take_line(self._line[:1], self._line[1:-2])
            self._line = b""
        return self._awaited == 0 and self._skip == 0

    def _take_line(self, kind: bytes, rest: bytes) -> None:
        self._awaited -= 1
        if kind == b"-":
            raise RuntimeError(f"the server refused: {rest.decode(errors='replace')}")
        if kind == b"$" and rest != b"-1":
            self._skip = int(rest) + 2
        elif kind == b"*":
            self._awaited += max(0, int(rest))


def weights_command() -> tuple[Any, ...]:
    """What `Link.read_weights` sends."""
    return ("HMGET", Keys(RUN).weights, "version", "payload", "digest")


def connected(url: str) -> socket.socket:
    """A connection to the host and port of a redis:// address, in non-blocking mode."""
    host, _, port = url.split("/")[2].partition(":")
    connection = socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setblocking(False)
    return connection
