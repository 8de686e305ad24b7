"""A learner's link: it takes a run, claims blocks and commits how they ended, and publishes.

It has two connections, because several threads use it: with one, either kind of work could starve
the other.

    client             what comes before a run is taken, open, join, reopen, settle_and_claim: the
                       program at its start, then its feeder's thread
    _publisher_client  announce, publish, renew, read_flow, release, reopen_since: the publisher's
                       thread, at both ends the program, and the feeder's thread when it has opened
                       the run again
"""

import contextlib
import hashlib
import logging
import secrets
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from impala_redis.common.errors import Fenced, ImpalaError, OutOfStep, RunMissing, printable
from impala_redis.common.server.connection import connect
from impala_redis.common.server.resp import round_trip
from impala_redis.common.server.suitability import (
    Eviction,
    EvictionWatch,
    ServerLimits,
    check_server,
    eviction_in,
)
from impala_redis.common.transport import functions
from impala_redis.common.transport.functions import fcall
from impala_redis.common.transport.ledger import REASONS, Settled
from impala_redis.common.transport.link import Link
from impala_redis.common.transport.replies import (
    RunState,
    of_kinds,
    what_was_mended,
    whole_number,
    without_errors,
)

log = logging.getLogger(__name__)


class Cursor(NamedTuple):
    """How far a learner has come since it opened or joined the run, in blocks.

    The server has one, too. It moves when a reply arrives: a repeated request with the same cursor
    gets the same reply.
    """

    received: int = 0
    committed: int = 0


class LearnerLink(Link):
    """What a learner of a run may do, between `open` and `release`.

    Several can share a run: they are the ranks of a group, 0 and up, of one `holder`. Rank 0 opens
    the run, keeps the lease, and publishes. The others `join`, settle and claim, and do no more.
    The methods raise Fenced once another learner, or group, has taken the run over, and RunMissing
    or OutOfStep when the server has lost the run or a part of it: then `reopen`, or `join` again.
    """

    def __init__(
        self, url: str, run: str, holder: str, lease_s: float, rank: int = 0, ranks: int = 1
    ) -> None:
        super().__init__(url, run, "learner")
        self.rank, self.ranks = rank, ranks
        self._publisher_client: Any = connect(url, "impala-publisher")
        self.holder = holder
        self.epoch = 0
        self._lease_ms = round(lease_s * 1000)
        # Known to the server by the last opening. While one thread opens the run again, the other
        # waits: with the token before it, it would be fenced by its own learner.
        self._token = ""
        self._opening = threading.Lock()
        # What is claimed belongs to the opening of this token; the cursor counts from there.
        self._claims_under = ""
        self._cursor = Cursor()
        self._broken = ""  # the last token under which the server lacked the run or a part of it
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

    def forget_joins(self) -> None:
        """Lets the next join of each actor's name count as its first."""
        with self._asking():
            self.client.unlink(self.keys.joins)

    def open(self, take_over: bool = False) -> int:
        """Takes the run: a new epoch, the lease, and the books if there are none.

        What somebody has broken is mended, and said in an error of the log.
        Returns how many blocks of an earlier learner were abandoned. Raises RunHeld.
        """
        with self._opening:
            abandoned = self._open(self.client, take_over)
            self._begin_claims()
        return abandoned

    def reopen(self) -> None:
        """Opens the run again, on the thread that claims; what it had in flight is lost.

        Where the publisher's thread has opened it since, that opening is the one to go on with.
        Raises RunHeld.
        """
        with self._opening:
            if not self.opened_elsewhere:
                self._open(self.client)
            self._begin_claims()

    def reopen_since(self, epoch: int) -> None:
        """Opens the run again, on the publisher's thread, if nobody has since that epoch.

        The next claim raises OutOfStep then. Raises RunHeld.
        """
        with self._opening:
            if self.epoch == epoch:
                self._open(self._publisher_client)

    @property
    def opened_elsewhere(self) -> bool:
        """Whether the publisher's thread has opened the run since the thread that claims has."""
        return self._claims_under != self._token

    def join(self) -> None:
        """Takes part in the run as a further rank of the group; what it had in flight is abandoned.

        Raises RunMissing until rank 0 has opened the run.
        """
        keys = self.keys
        lists = [keys.epoch, keys.inflight, keys.claimed_by(self.rank), keys.stats]
        with self._opening:
            with self._asking():
                group = (self.holder, self.rank, self.ranks, self._broken)
                (token,) = of_kinds([self._call_on(self.client, "join", lists, *group)], bytes)
            self._token = token.decode(errors="replace")
            self.epoch = whole_number(token.partition(b":")[0], 0)
            self._begin_claims()

    def _open(self, client: Any, take_over: bool = False) -> int:
        """Opens the run on that connection; returns how many blocks were abandoned."""
        keys = self.keys
        first = [keys.lock, keys.epoch, keys.inflight, keys.claimed, keys.stats]
        others = [keys.trajectories, keys.pushing, keys.dead, keys.seq, keys.weights, keys.spec]
        group = (self.holder, self._lease_ms, int(take_over), self.epoch)
        counters = [f"dead_lettered:{reason}" for reason in REASONS]
        self._holder(client)  # leads to the node that needs the functions
        with self._asking(client):
            functions.provide(client, self.url, *self._books)
            opened = self._call_on(
                *(client, "open", [*first, *others, keys.joins]),
                *(*group, secrets.token_hex(8), self.ranks, *counters),
            )
            epoch, abandoned, unexplained, *mended = of_kinds(opened, int, int, int, rest=bytes)
        # It is one server: an answer on one connection says as much about the other.
        self.client.has_answered = self._publisher_client.has_answered = True
        self.epoch, self._token = epoch, f"{epoch}:{self.holder}"
        if mended:
            log.error("%s", what_was_mended(mended, unexplained))
        return int(abandoned)

    def _begin_claims(self) -> None:
        self._claims_under, self._cursor = self._token, Cursor()

    def settle_and_claim(
        self, settled: Settled, most: int, most_bytes: int = 0
    ) -> tuple[list[bytes], int]:
        """Commits how blocks in flight ended and claims up to `most` more.

        With `most_bytes` the server looks how large they are, which costs it a copy of each, and
        gives no more than fit, but one at least.
        Returns the blocks' messages and how many blocks are left in the list. One round trip, and
        exact however often it must be repeated: the server and this learner each hold a cursor.
        """
        if self.opened_elsewhere:
            raise OutOfStep("the publisher's thread has opened the run again")
        commands = self._claim_commands(most, most_bytes)
        if len(settled):
            commands.insert(0, self._commit_command(settled))
        try:
            with self._fenced_by_another(), self._asking():
                *_, claimed, messages, queued = without_errors(round_trip(self.client, commands))
                of_kinds([claimed, queued], int, int)
        except RunMissing:
            self._broken = self._claims_under
            raise
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
        keys = [self.keys.inflight, self.keys.stats, self.keys.epoch, self.keys.dead]
        who = (self._claims_under, self.rank, self._cursor.committed)
        return fcall("commit", keys, *who, *settled.as_arguments())

    def _claim_commands(self, most: int, most_bytes: int) -> list[tuple[Any, ...]]:
        """The commands of a claim; their last three replies: claimed blocks, messages, queued."""
        keys = self.keys
        token, claimed = self._claims_under, keys.claimed_by(self.rank)
        lists = [keys.trajectories, keys.inflight, claimed, keys.epoch, keys.stats]
        who = (token, self.rank, self._cursor.received)
        return [
            fcall("claim", [*lists, keys.pushing, keys.seq], *who, most, most_bytes),
            ("LRANGE", claimed, *((0, most - 1) if most else (1, 0))),
            fcall("confirm", [keys.trajectories, keys.epoch], token),
        ]

    def _call_fenced(self, function: str, keys: list[str], *arguments: Any) -> Any:
        """Calls a function that refuses every token but the present one."""
        client = self._publisher_client
        with self._opening, self._fenced_by_another(), self._asking(client):
            keys = [*keys, self.keys.epoch]
            return self._call_on(client, function, keys, self._token, *arguments)

    @contextlib.contextmanager
    def _fenced_by_another(self) -> Iterator[None]:
        """Lets Fenced pass if another learner is the reason.

        Raises OutOfStep for it when the run was opened again by this group's rank 0, or by this
        learner, and the reply was lost.
        """
        try:
            yield
        except Fenced as error:
            if error.token.partition(":")[2] == self.holder:
                by = "rank 0 has opened the run again"
                lost = "the reply to an opening of the run was lost"
                raise OutOfStep(by if self.rank else lost) from error
            raise
