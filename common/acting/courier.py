"""An actor's link to Redis, on a thread of its own: blocks out, weights in, heartbeats.

The environment thread only puts a finished block into a small ring and looks whether new weights
lie ready: it never waits for the network. While Redis is away the ring sheds its oldest block, and
counts it.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from impala_redis.common.blocks import wire
from impala_redis.common.blocks.trajectory import Block
from impala_redis.common.blocks.weights import VersionedWeights
from impala_redis.common.errors import ImpalaError, MessageRefused, RedisUnreachable, RunMissing
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.server.backoff import Backoff
from impala_redis.common.transport.link import ActorLink, PushReply

log = logging.getLogger(__name__)

# Blocks that wait in the actor while Redis is away.
RING_BLOCKS = 8
BEAT_INTERVAL_S = 1.0
# An actor silent for this long is no longer listed.
BEAT_EXPIRES_S = 10.0


class Courier:
    """Carries between one actor and one run, until the run is over or `close` is called."""

    def __init__(
        self,
        link: ActorLink,
        spec: RunSpec,
        spec_digest: str,
        producer: str,
        figures: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._link, self._spec, self._spec_digest = link, spec, spec_digest
        self._producer = producer  # actor#incarnation
        self._actor = producer.rpartition("#")[0]
        self._figures = figures
        self._ring: deque[Block] = deque()
        self._being_sent = 0  # blocks: 0 or 1
        self._changed = threading.Condition()
        self._closing = False
        self._fresh: VersionedWeights | None = None
        self._version = -1
        self._sequence = 0
        self._last_contact = time.monotonic()
        self._next_beat = 0.0
        self.generated = self.accepted = self.shed_local = self.weights_refused = 0
        self.push_unknown = 0  # given up at the end, without an answer
        # Why the courier stopped by itself: the run's end (True), or what cannot be repaired.
        self.over = False
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="courier", daemon=True)

    def start(self, first: VersionedWeights) -> None:
        """Begins to carry; the actor acts on `first`."""
        self._version = first.version
        self._thread.start()

    def hand_over(self, block: Block) -> None:
        """Takes a block to push; sheds the oldest when the ring is full. Never blocks on Redis."""
        with self._changed:
            self.generated += 1
            if len(self._ring) >= RING_BLOCKS:
                self._ring.popleft()
                self.shed_local += 1
            self._ring.append(block)
            self._changed.notify()

    def take_weights(self) -> VersionedWeights | None:
        """The newest weights if they have not been taken yet."""
        with self._changed:
            fresh, self._fresh = self._fresh, None
        return fresh

    @property
    def silent_s(self) -> float:
        """Seconds since Redis last answered."""
        return time.monotonic() - self._last_contact

    def books(self) -> dict[str, int]:
        """What became of the blocks that were handed over, of one instant.

        generated = accepted + shed_local + pending_local + push_unknown.
        """
        with self._changed:
            return {
                "generated": self.generated,
                "accepted": self.accepted,
                "shed_local": self.shed_local,
                "pending_local": len(self._ring) + self._being_sent,
                "push_unknown": self.push_unknown,
            }

    def close(self, flush_s: float) -> None:
        """Pushes what the ring holds, for at most `flush_s`, and stops."""
        with self._changed:
            self._flush_until = time.monotonic() + flush_s
            self._closing = True
            self._changed.notify()
        self._thread.join(flush_s + 1.0)

    # What follows runs on the courier's thread.

    def _work(self) -> None:
        try:
            while not self.over:
                block = self._next_block()
                if block is not None:
                    # Numbered once: a block whose fate stays unknown never lends its number.
                    self._sequence += 1
                    self._deliver(block, self._sequence)
                elif self._closing:
                    break
                if time.monotonic() >= self._next_beat:
                    self._repeat(self._beat)
            self._quietly(lambda: self._link.leave(self._actor))
        except Exception as error:
            self.failure = error
        finally:
            self.over = True

    def _next_block(self) -> Block | None:
        """The oldest block of the ring; None when a heartbeat is due or the ring stays empty."""
        with self._changed:
            if not self._ring and not self._closing:
                self._changed.wait(max(0.0, self._next_beat - time.monotonic()))
            if not self._ring:
                return None
            self._being_sent = 1
            return self._ring.popleft()

    def _deliver(self, block: Block, sequence: int) -> None:
        """Pushes a block until its fate is known, then follows what the reply tells."""
        frame = wire.pack_block(
            block._replace(origin=block.origin._replace(sequence=sequence)), self._spec
        )
        news: list[PushReply] = []

        def push() -> None:
            if time.monotonic() >= self._next_beat:  # a plain push may wait for room for long
                self._beat()
            queue_blocks = self._spec.queue_blocks
            news.append(self._link.push(self._producer, sequence, frame, queue_blocks))

        delivered = self._repeat(push)
        with self._changed:
            self._being_sent = 0
            if delivered:
                self.accepted += 1
            else:
                self.push_unknown += 1
        if delivered:
            self._repeat(lambda: self._heed(news[-1]))

    def _beat(self) -> None:
        self._next_beat = time.monotonic() + BEAT_INTERVAL_S
        self._link.beat(self._actor, self._figures(), BEAT_EXPIRES_S)
        news = self._link.read_news()
        if news is None:
            raise RunMissing("the run has no spec any more")
        self._heed(news)

    def _heed(self, news: PushReply) -> None:
        """Follows what Redis says of the run: its end, its replacement, its newer weights."""
        self._last_contact = time.monotonic()
        if news.spec_digest != self._spec_digest or news.state != "running":
            self.over = True
        elif news.weights_version not in (-1, self._version):
            # Lower ones too: after a wipe a learner may go on from an older checkpoint.
            self._fetch_weights()

    def _fetch_weights(self) -> None:
        reply = self._link.read_weights()
        if reply is None:
            return
        try:
            if not reply.intact:
                raise MessageRefused("malformed", "the weights' digest does not fit")
            version, weights = wire.unpack_weights(reply.payload, self._spec)
        except MessageRefused as error:
            self.weights_refused += 1
            log.warning("kept the old weights: %s", error)
        else:
            with self._changed:
                self._fresh = VersionedWeights(version, weights)
        self._version = reply.version

    def _repeat(self, attempt: Callable[[], None]) -> bool:
        """Tries until Redis answers; gives up, False, only when the actor closes."""
        backoff = Backoff("acting on without Redis")
        while True:
            try:
                attempt()
            except (RedisUnreachable, RunMissing) as error:
                if self._closing and time.monotonic() > self._flush_until:
                    return False
                backoff.failed(error)
                backoff.pause()
            else:
                backoff.succeeded()
                return True

    def _quietly(self, attempt: Callable[[], None]) -> None:
        try:
            attempt()
        except ImpalaError as error:
            log.debug("left without a word: %s", error)
