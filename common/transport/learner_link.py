"""The learner's link: it takes a run, claims blocks and commits how they ended, and publishes.

It has two connections, because several threads use it: with one, either kind of work could starve
the other.

    client             what comes before a run is taken, open, settle_and_claim: the program at its
                       start, then its feeder's thread
    _publisher_client  announce, publish, renew, read_flow, release: the publisher's thread, at both
                       ends the program, and the feeder's thread when it has opened the run again
"""

import contextlib
import hashlib
import logging
import re
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from impala_redis.common.errors import Fenced, ImpalaError, OutOfStep, RunMissing, printable
from impala_redis.common.server.connection import connect
from impala_redis.common.server.resp import round_trip
from impala_redis.common.server.suitability import (
    Eviction,
    ServerLimits,
    check_server,
    eviction_in,
)
from impala_redis.common.transport import functions
from impala_redis.common.transport.functions import fcall
from impala_redis.common.transport.ledger import REASONS, Settled
from impala_redis.common.transport.link import Link
from impala_redis.common.transport.replies import (
    MOST_VERSION,
    RunState,
    of_kinds,
    what_was_mended,
    whole_number,
    without_errors,
)

log = logging.getLogger(__name__)


class Cursor(NamedTuple):
    """How far a learner has come since it opened the run, in blocks; the server has one, too.

    It moves when a reply arrives: a repeated request with the same cursor gets the same reply.
    """

    received: int = 0
    committed: int = 0


class EvictionWatch:
    """What a server evicts after the first look at it."""

    def __init__(self, first: Eviction | None) -> None:
        self._first = first or Eviction("noeviction", 0)
        self._said = ""

    def words(self, now: Eviction | None) -> str:
        """What has become of it, without a full stop; empty for nothing, or if it is not known."""
        if now is None:
            return ""
        # A server that has started again counts from 0.
        started_again = now.evicted_keys < self._first.evicted_keys
        more = now.evicted_keys - (0 if started_again else self._first.evicted_keys)
        policy = f"(maxmemory-policy {now.policy or 'not told'})"
        if more > 0:
            return f"the server has evicted {more:,} keys since this learner began {policy}"
        if now.endangers_runs and now.policy != self._first.policy:
            return f"the server may evict the run's keys now {policy}"
        return ""

    def news(self, now: Eviction | None) -> str:
        """The same, unless it only counts more keys than the last time."""
        words = self.words(now)
        kind = re.sub(r"[\d,]+ keys", "keys", words)
        if now is None or kind == self._said:
            return ""
        self._said = kind
        return words


class LearnerLink(Link):
    """What the one learner of a run may do, between `open` and `release`.

    Its methods raise Fenced once another learner has taken the run over, and RunMissing or
    OutOfStep when the server has lost the run or a part of it: then `open` again.
    """

    def __init__(self, url: str, run: str, holder: str, lease_s: float) -> None:
        super().__init__(url, run, "learner")
        self._publisher_client: Any = connect(url, "impala-publisher")
        self.holder = holder
        self.epoch = 0
        self._lease_ms = round(lease_s * 1000)
        # Known to the server by the last opening. While one thread opens the run again, the other
        # waits: with the token before it, it would be fenced by its own learner.
        self._token = ""
        self._opening = threading.Lock()
        self._cursor = Cursor()
        self._newest = -1  # the newest version of the weights that was sent
        self._evictions = EvictionWatch(None)
        self._books = (self.keys.stats, self.keys.trajectories, self.keys.inflight)

    def close(self) -> None:
        """Ends both connections."""
        self._publisher_client.close()
        super().close()

    def check_server(self, allow_eviction: bool = False) -> ServerLimits:
        """How much the server takes. Raises UnsuitableServer, or RedisDenied: a command is lacking.

        One that may evict the run's keys is unsuitable unless `allow_eviction`.
        """
        self.require("impala-learner")
        limits = check_server(self.client, self.url, allow_eviction)
        self._evictions = EvictionWatch(self._look_at_evictions(self.client))
        return limits

    def evictions(self) -> str:
        """What the server evicted, or may evict now, since `check_server`; empty for nothing."""
        return self._evictions.words(self._look_at_evictions(self.client))

    def news_of_evictions(self) -> str:
        """The same on the publisher's connection, and only when it has not been said."""
        return self._evictions.news(self._look_at_evictions(self._publisher_client))

    def _look_at_evictions(self, client: Any) -> Eviction | None:
        with contextlib.suppress(ImpalaError), self._asking(client):
            return eviction_in(client.info())
        return None

    def current_holder(self) -> str | None:
        """The holder of the run's lease now; None if there is none."""
        with contextlib.suppress(RunMissing), self._asking():  # it is no lease: `open` mends it
            holder = self.client.get(self.keys.lock)
            return None if holder is None else holder.decode(errors="replace")
        return None

    def weights_version(self) -> int:
        """The version that is published now; -1 for none, and for one that no learner gets to."""
        with self._asking():
            version = whole_number(self.client.hget(self.keys.weights, "version"), -1)
        return version if version <= MOST_VERSION else -1

    def forget_joins(self) -> None:
        """Lets the next join of each actor's name count as its first."""
        with self._asking():
            self.client.unlink(self.keys.joins)

    def open(self, take_over: bool = False) -> int:
        """Takes the run: a new epoch, the lease, and the books if there are none.

        What somebody has broken is mended, and said in an error of the log.
        Returns how many blocks of an earlier learner were abandoned. Raises RunHeld.
        """
        keys = self.keys
        first = [keys.lock, keys.epoch, keys.inflight, keys.claimed, keys.stats]
        others = [keys.trajectories, keys.pushing, keys.dead, keys.seq, keys.weights, keys.spec]
        with self._opening:
            self.current_holder()  # leads to the node that needs the functions
            with self._asking():
                functions.provide(self.client, self.url, *self._books)
                opened = self._call(
                    self.client,
                    "open",
                    [*first, *others, keys.joins],
                    self.holder,
                    self._lease_ms,
                    int(take_over),
                    self.epoch,
                    secrets.token_hex(8),
                    *(f"dead_lettered:{reason}" for reason in REASONS),
                )
                epoch, abandoned, unexplained, *mended = of_kinds(opened, int, int, int, rest=bytes)
            # It is one server: an answer on one connection says as much about the other.
            self._publisher_client.has_answered = True
            self.epoch, self._cursor = epoch, Cursor()
            self._token = f"{self.epoch}:{self.holder}"
        if mended:
            log.error("%s", what_was_mended(mended, unexplained))
        return int(abandoned)

    def settle_and_claim(
        self, settled: Settled, most: int, most_bytes: int = 0
    ) -> tuple[list[bytes], int]:
        """Commits how blocks in flight ended and claims up to `most` more.

        With `most_bytes` the server looks how large they are, which costs it a copy of each, and
        gives no more than fit, but one at least.
        Returns the blocks' messages and how many blocks are left in the list. One round trip, and
        exact however often it must be repeated: the server and this learner each hold a cursor.
        """
        commands = self._claim_commands(most, most_bytes)
        if len(settled):
            commands.insert(0, self._commit_command(settled))
        with self._fenced_by_another(), self._asking():
            *_, claimed, messages, queued = without_errors(round_trip(self.client, commands))
            of_kinds([claimed, queued], int, int)
        if len(messages) != claimed:
            raise OutOfStep(f"of {claimed} claimed blocks {len(messages)} were there")
        received, committed = self._cursor
        self._cursor = Cursor(received + claimed, committed + len(settled))
        return messages, queued

    def announce(self, spec_json: str, fingerprint: str, state: RunState) -> None:
        """Writes the run's spec."""
        digest = hashlib.sha256(spec_json.encode()).hexdigest()
        self._call_fenced("announce", [self.keys.spec], spec_json, digest, fingerprint, state)

    def publish(self, version: int, message: bytes) -> str | None:
        """Publishes weights, unless newer ones of this learner's are there already.

        Returns the version that was there if it was somebody else's; that one is written over.
        """
        digest = hashlib.sha256(message).hexdigest()
        self._newest = max(self._newest, version)
        weights = (version, message, digest, self._newest)
        reply = self._call_fenced("publish", [self.keys.weights], *weights)
        return printable(reply.decode(errors="replace")) if isinstance(reply, bytes) else None

    def renew(self, figures: Mapping[str, float]) -> None:
        """Keeps the lease for another `lease_s`, and leaves the learner's figures for status."""
        # By the epoch a reader knows them from those that an earlier learner has left, and by the
        # length of a lease how long ago it was renewed.
        stamped = {**figures, "epoch": self.epoch} if figures else dict(figures)
        stamped |= {"lease_s": self._lease_ms / 1000, "lease_epoch": self.epoch}
        pairs = [part for pair in stamped.items() for part in pair]
        keys = [self.keys.lock, self.keys.spec]
        self._call_fenced("renew", keys, self.holder, self._lease_ms, *pairs)

    def read_flow(self) -> tuple[int, int]:
        """From the books: blocks produced, and blocks dropped because the list was full."""
        with self._asking(self._publisher_client):
            counters = self._publisher_client.hmget(self.keys.stats, ["produced", "dropped_oldest"])
        produced, dropped = (whole_number(counter, 0) for counter in counters)
        return produced, dropped

    def release(self) -> None:
        """Gives the lease back."""
        self._call_fenced("release", [self.keys.lock])

    def _commit_command(self, settled: Settled) -> tuple[Any, ...]:
        keys = self.keys
        refused = settled.refused()
        return fcall(
            "commit",
            [keys.inflight, keys.stats, keys.epoch, keys.dead],
            self._token,
            self._cursor.committed,
            settled.consumed,
            settled.stale,
            len(refused),
            *(part for pair in refused.items() for part in pair),
            *(dead.record() for dead in settled.dead),
        )

    def _claim_commands(self, most: int, most_bytes: int) -> list[tuple[Any, ...]]:
        """The commands of a claim; their last three replies: claimed blocks, messages, queued."""
        keys = self.keys
        lists = [keys.trajectories, keys.inflight, keys.claimed, keys.epoch, keys.stats]
        sound = [keys.pushing, keys.seq]
        return [
            fcall("claim", [*lists, *sound], self._token, self._cursor.received, most, most_bytes),
            ("LRANGE", keys.claimed, *((0, most - 1) if most else (1, 0))),
            fcall("confirm", [keys.trajectories, keys.epoch], self._token),
        ]

    def _call(self, client: Any, function: str, keys: Sequence[str], *arguments: Any) -> Any:
        return client.execute_command(*fcall(function, keys, *arguments))

    def _call_fenced(self, function: str, keys: list[str], *arguments: Any) -> Any:
        """Calls a function that refuses every token but the present one."""
        client = self._publisher_client
        with self._opening, self._fenced_by_another(), self._asking(client):
            keys = [*keys, self.keys.epoch]
            return self._call(client, function, keys, self._token, *arguments)

    @contextlib.contextmanager
    def _fenced_by_another(self) -> Iterator[None]:
        """Lets Fenced pass if another learner is the reason.

        Raises OutOfStep for it when the reply to an opening of this learner's own was lost.
        """
        try:
            yield
        except Fenced as error:
            if error.token.partition(":")[2] == self.holder:
                raise OutOfStep("the reply to an opening of the run was lost") from error
            raise
