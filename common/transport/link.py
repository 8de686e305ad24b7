"""All that passes between the programs, and the only file that names a key.

Every key begins with `impala:{RUN}:`. The braces are literal: a Redis Cluster hash tag, so that one
run's keys share a slot.

    key           type           what
    trajectories  list           blocks waiting for the learner, oldest first, bounded
    pushing       list           what `trajectories` is called within a push, where nobody sees it
    inflight      list           a mark for each block taken by the learner, not yet committed
    claimed       list           of these the last ones, until the next claim says they arrived
    weights       hash           version, payload, digest, published_at
    spec          hash           json, digest, fingerprint, state: all an actor needs to join
    stats         hash           the books: produced, consumed, dropped_oldest, dead_lettered,
                                 stale_rejected, abandoned, dup_push, foreign (came around push),
                                 generation, and dead_lettered:<reason>
    seq           hash           last sequence number of each producer (actor#incarnation)
    epoch         hash           number, holder, token: fencing; committed: the learner's cursor;
                                 learner:<figure>: what the learner last said of itself
    lock          string, TTL    the holder of the learner's lease
    dead          list           at most 100 records of refused blocks, newest first
    actor:<id>    hash, TTL      a live actor's heartbeat and figures

Delivery is at most once and accounted exactly: a block is trained on once or stands in one counter
(`transport.lua`). Every method may raise RedisUnreachable (try again: all of them may be repeated)
and RedisDenied (final); the others are named.
"""

import contextlib
import hashlib
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from impala_redis.common.errors import Fenced, OutOfStep, RunMissing, ServerDemoted
from impala_redis.common.server.connection import connect, translated
from impala_redis.common.server.resp import round_trip
from impala_redis.common.server.suitability import ServerLimits, check_server
from impala_redis.common.transport import functions
from impala_redis.common.transport.functions import LIBRARY
from impala_redis.common.transport.ledger import Settled

RunState = Literal["running", "finished"]


class Keys:
    """The names of one run's keys."""

    def __init__(self, run: str) -> None:
        prefix = f"impala:{{{run}}}:"
        self.trajectories = prefix + "trajectories"
        self.pushing = prefix + "pushing"
        self.inflight = prefix + "inflight"
        self.claimed = prefix + "claimed"
        self.weights = prefix + "weights"
        self.spec = prefix + "spec"
        self.stats = prefix + "stats"
        self.seq = prefix + "seq"
        self.epoch = prefix + "epoch"
        self.lock = prefix + "lock"
        self.dead = prefix + "dead"
        self._actor = prefix + "actor:"

    def actor(self, actor: str) -> str:
        """The heartbeat of one actor."""
        return self._actor + actor


class SpecReply(NamedTuple):
    """The run's spec as it stands in Redis."""

    json: bytes
    digest: str  # of the JSON: another one means another run
    state: str


class WeightsReply(NamedTuple):
    """Weights as they stand in Redis; `digest` is the SHA-256 of `payload` in hex."""

    version: int
    payload: bytes
    digest: str

    @property
    def intact(self) -> bool:
        """Whether the payload is the one that was published."""
        return hashlib.sha256(self.payload).hexdigest() == self.digest


class PushReply(NamedTuple):
    """What an actor learns in the round trip of a push."""

    stored: bool  # False: it had been stored before
    weights_version: int  # -1: none published
    spec_digest: str
    state: str


class Link:
    """A connection and a run's keys; `common.transport.monitor` has the side that only reads."""

    def __init__(self, url: str, run: str, name: str) -> None:
        self.url, self.run, self.keys = url, run, Keys(run)
        # Any: redis-py's types allow text replies, ours are always bytes.
        self.client: Any = connect(url, f"impala-{name}")

    def close(self) -> None:
        """Ends the connection."""
        self.client.close()

    def ping(self) -> None:
        """Asks for an answer, no more."""
        with self._asking():
            self.client.ping()

    def read_spec(self) -> SpecReply | None:
        """The run's spec; None before a learner has written one."""
        with self._asking():
            text, digest, state = self.client.hmget(self.keys.spec, ["json", "digest", "state"])
        if text is None or digest is None or state is None:
            return None
        return SpecReply(text, digest.decode(errors="replace"), state.decode(errors="replace"))

    def read_weights(self) -> WeightsReply | None:
        """The published weights; None before there are any."""
        with self._asking():
            version, payload, digest = self.client.hmget(
                self.keys.weights, ["version", "payload", "digest"]
            )
        if version is None or payload is None or digest is None:
            return None
        return WeightsReply(number(version, -1), payload, digest.decode(errors="replace"))

    @contextlib.contextmanager
    def _asking(self, client: Any = None) -> Iterator[None]:
        """Turns redis-py's errors into ours, and lets go of a server that no longer leads."""
        client = client or self.client
        try:
            with translated(client):
                yield
        except ServerDemoted:
            client.connection_pool.disconnect(inuse_connections=False)
            raise

    def _call(self, client: Any, function: str, keys: Sequence[str], *arguments: Any) -> Any:
        return client.execute_command(*fcall(function, keys, *arguments))


class ActorLink(Link):
    """What an actor may do."""

    def push(self, producer: str, sequence: int, payload: bytes, queue_blocks: int) -> PushReply:
        """Pushes a block and reads what is new, in one round trip.

        A block of the same sequence is stored once however often it is pushed.
        Raises RunMissing when no learner has opened the run (or the server lost it).
        """
        commands = push_commands(self.keys, producer, sequence, payload, queue_blocks)
        with self._asking():
            *_, executed = without_errors(round_trip(self.client, commands))
            *_, stored, version, (digest, state) = without_errors(executed)
        if digest is None or state is None:
            raise RunMissing(f"the run {self.run!r} has no spec any more")
        return PushReply(bool(stored), number(version, -1), digest.decode(), state.decode())

    def read_news(self) -> PushReply | None:
        """What a push would tell, without one; None when there is no run."""
        with self._asking():
            pipe = self.client.pipeline(transaction=False)
            pipe.hget(self.keys.weights, "version")
            pipe.hmget(self.keys.spec, ["digest", "state"])
            version, (digest, state) = replies(pipe)
        if digest is None or state is None:
            return None
        return PushReply(False, number(version, -1), digest.decode(), state.decode())

    def beat(self, actor: str, figures: Mapping[str, Any], expires_s: float) -> None:
        """Says that the actor lives, with its figures; the record goes after `expires_s`."""
        key = self.keys.actor(actor)
        with self._asking():
            pipe = self.client.pipeline(transaction=False)
            pipe.hset(key, mapping=dict(figures))
            pipe.pexpire(key, round(expires_s * 1000))
            replies(pipe)

    def is_listed(self, actor: str) -> bool:
        """Whether an actor of that name lives, or did until some seconds ago."""
        with self._asking():
            return bool(self.client.exists(self.keys.actor(actor)))

    def leave(self, actor: str) -> None:
        """Takes the heartbeat away at a clean end."""
        with self._asking():
            self.client.unlink(self.keys.actor(actor))


class LearnerLink(Link):
    """What the one learner of a run may do, between `open` and `release`.

    Its methods raise Fenced once another learner has taken the run over, and RunMissing or
    OutOfStep when the server has lost the run or a part of it: then `open` again.
    """

    def __init__(self, url: str, run: str, holder: str, lease_s: float) -> None:
        super().__init__(url, run, "learner")
        # A connection for each of two threads: out of a common pool one could starve the other.
        self._publishing: Any = connect(url, "impala-publisher")
        self.holder = holder
        self.epoch = 0
        self._token = ""
        # One thread opens the run again while another publishes: neither may see half of it.
        self._opening = threading.Lock()
        self._lease_ms = round(lease_s * 1000)
        self._received = 0
        self._committed = 0

    def close(self) -> None:
        """Ends both connections."""
        self._publishing.close()
        super().close()

    def check_server(self) -> ServerLimits:
        """How much the server takes. Raises UnsuitableServer."""
        return check_server(self.client, self.url)

    def current_holder(self) -> str | None:
        """Who holds the run's lease now."""
        with self._asking():
            holder = self.client.get(self.keys.lock)
        return None if holder is None else holder.decode(errors="replace")

    def open(self, take_over: bool = False) -> int:
        """Takes the run: a new epoch, the lease, and the books if there are none.

        Returns how many blocks of an earlier learner were abandoned. Raises RunHeld.
        """
        keys = self.keys
        with self._opening, self._asking():
            functions.provide(self.client, self.url, keys.stats, keys.trajectories, keys.inflight)
            epoch, abandoned, _ = self._call(
                self.client,
                "open",
                [keys.lock, keys.epoch, keys.inflight, keys.claimed, keys.stats],
                self.holder,
                self._lease_ms,
                int(take_over),
                self.epoch,
                secrets.token_hex(8),
            )
            self.epoch, self._received, self._committed = int(epoch), 0, 0
            self._token = f"{self.epoch}:{self.holder}"
        return int(abandoned)

    def renew(self, figures: Mapping[str, float]) -> None:
        """Keeps the lease for another `lease_s`, and leaves the learner's figures for status."""
        # By the epoch a reader knows them from those that an earlier learner has left.
        told = {**figures, "epoch": self.epoch} if figures else figures
        pairs = [part for pair in told.items() for part in pair]
        self._fenced("renew", [self.keys.lock], self.holder, self._lease_ms, *pairs)

    def read_flow(self) -> tuple[int, int]:
        """Of the books: blocks produced, and those of them that the full list has dropped."""
        with self._asking(self._publishing):
            counters = self._publishing.hmget(self.keys.stats, ["produced", "dropped_oldest"])
        produced, dropped = (number(counter, 0) for counter in counters)
        return produced, dropped

    def release(self) -> None:
        """Gives the lease back."""
        self._fenced("release", [self.keys.lock])

    def announce(self, spec_json: str, fingerprint: str, state: RunState) -> None:
        """Writes the run's spec."""
        digest = hashlib.sha256(spec_json.encode()).hexdigest()
        self._fenced("announce", [self.keys.spec], spec_json, digest, fingerprint, state)

    def weights_version(self) -> int:
        """The version that is published now, -1 for none."""
        with self._asking():
            return number(self.client.hget(self.keys.weights, "version"), -1)

    def publish(self, version: int, payload: bytes) -> None:
        """Publishes weights, unless these or newer ones are there already."""
        digest = hashlib.sha256(payload).hexdigest()
        self._fenced("publish", [self.keys.weights], version, payload, digest)

    def settle_and_claim(self, settled: Settled, most: int) -> tuple[list[bytes], int]:
        """Commits how the oldest in-flight blocks ended and claims up to `most` more.

        Returns the blocks and how many are left in the list. One round trip, and exact however
        often it must be repeated: both sides hold a cursor.
        """
        keys = self.keys
        records = [part for dead in settled.dead for part in (dead.reason, dead.record())]
        commit = fcall(
            "commit",
            [keys.inflight, keys.stats, keys.epoch, keys.dead],
            self._token,
            self._committed,
            settled.consumed,
            settled.stale,
            *records,
        )
        lists = [keys.trajectories, keys.inflight, keys.claimed, keys.epoch, keys.stats]
        commands = [
            fcall("claim", lists, self._token, self._received, most),
            ("LRANGE", keys.claimed, *((0, most - 1) if most else (1, 0))),
            fcall("confirm", [keys.trajectories, keys.epoch], self._token),
        ]
        with self._known_token(), self._asking():
            told = round_trip(self.client, [commit, *commands] if len(settled) else commands)
            *_, claimed, blocks, queued = without_errors(told)
        if len(blocks) != claimed:
            raise OutOfStep(f"of {claimed} claimed blocks {len(blocks)} were there")
        self._committed += len(settled)
        self._received += claimed
        return blocks, queued

    def _fenced(self, function: str, keys: list[str], *arguments: Any) -> None:
        with self._opening, self._known_token(), self._asking(self._publishing):
            self._call(
                self._publishing, function, [*keys, self.keys.epoch], self._token, *arguments
            )

    @contextlib.contextmanager
    def _known_token(self) -> Iterator[None]:
        """Tells being fenced by another from an opening of our own whose reply was lost."""
        try:
            yield
        except Fenced as error:
            if error.token.partition(":")[2] == self.holder:
                raise OutOfStep("the reply to an opening of the run was lost") from error
            raise


def push_commands(
    keys: Keys, producer: str, sequence: int, payload: bytes, queue_blocks: int
) -> list[tuple[Any, ...]]:
    """The transaction of a push, which also reads what is new."""
    books = [keys.trajectories, keys.pushing, keys.stats, keys.seq]
    return [
        ("MULTI",),
        fcall("push_begin", books, producer, sequence),
        ("RPUSHX", keys.pushing, payload),
        fcall("push_end", books, producer, sequence, queue_blocks),
        ("HGET", keys.weights, "version"),
        ("HMGET", keys.spec, "digest", "state"),
        ("EXEC",),
    ]


def fcall(function: str, keys: Sequence[str], *arguments: Any) -> tuple[Any, ...]:
    """The command that calls one of the server's functions."""
    return ("FCALL", f"{LIBRARY}_{function}", len(keys), *keys, *arguments)


def replies(pipe: Any) -> list[Any]:
    """Sends a pipeline; the first error reply is raised as it came, without the command."""
    return without_errors(pipe.execute(raise_on_error=False))


def without_errors(replies: list[Any]) -> list[Any]:
    """The replies, if none is an error; else the first error is raised."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


# Digits: what is longer is no number of ours, and would be slow to read.
LONGEST_NUMBER = 30


def number(reply: bytes | str | None, default: int) -> int:
    """A reply that is a whole number, or the default when it is none."""
    try:
        return default if reply is None or len(reply) > LONGEST_NUMBER else int(reply)
    except ValueError:
        return default
