"""Carries between an actor and Redis on a thread of its own: blocks out, weights in, heartbeats.

The environment thread only puts a finished block into a small ring and takes the newest weights if
there are any: it never waits for the network. While Redis is away the ring sheds its oldest block
and counts it.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from impala_redis.common.acting.weights import unpack_reply
from impala_redis.common.blocks import wire
from impala_redis.common.blocks.trajectory import Block
from impala_redis.common.blocks.weights import VersionedWeights
from impala_redis.common.errors import ImpalaError, MessageRefused, RedisUnreachable, RunMissing
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.server.backoff import Backoff
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.replies import PushReply

log = logging.getLogger(__name__)

Reply = TypeVar("Reply")

# At most this many blocks wait in the actor while Redis is away.
RING_BLOCKS = 8
BEAT_INTERVAL_S = 1.0
# An actor silent for this long is no longer listed.
BEAT_EXPIRES_S = 10.0


class Courier:
    """Carries blocks and weights between one actor and one run, until its end or `close`."""

    def __init__(
        self,
        link: ActorLink,
        spec: RunSpec,
        spec_digest: str,
        producer: str,
        figures: Callable[[], Mapping[str, Any]],
    ) -> None:
        """Prepares; `start` begins.

        Args:
          link: the connection, which from `start` on belongs to the courier's thread.
          spec: the run's spec.
          spec_digest: of the spec as it stands in Redis; another one means another run.
          producer: whose blocks these are, as actor#incarnation.
          figures: gives a heartbeat's figures; called on the courier's thread.
        """
        self._link, self._spec, self._spec_digest = link, spec, spec_digest
        self._producer = producer
        self._actor = producer.rpartition("#")[0]
        self._figures = figures
        self._ring: deque[Block] = deque()
        self._being_sent = 0  # blocks: 0 or 1
        self._changed = threading.Condition()
        self._closing = False
        self._flush_until = 0.0  # by time.monotonic, once it closes
        self._newest: VersionedWeights | None = None  # not taken yet
        self._version = -1  # the last version that was read, refused ones included
        self._sequence = 0
        self._last_contact = time.monotonic()
        self._next_beat = 0.0
        self.generated = self.accepted = self.shed_local = self.weights_refused = 0
        self.push_unknown = 0  # pushes given up at the end, without an answer
        self.over = False  # whether the thread has ended, or the run has
        self.failure: Exception | None = None  # what ended the thread, if nothing can repair it
        self._thread = threading.Thread(target=self._work, name="courier", daemon=True)

    def start(self, first: VersionedWeights) -> None:
        """Begins to carry for an actor that acts on the weights `first`."""
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
            newest, self._newest = self._newest, None
        return newest

    @property
    def silent_s(self) -> float:
        """Seconds since Redis last answered."""
        return time.monotonic() - self._last_contact

    def books(self) -> dict[str, int]:
        """The fates of all blocks handed over, at one instant.

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
                    # A block is numbered once, so that no other gets the number of one whose fate
                    # is unknown.
                    self._sequence += 1
                    self._deliver(block, self._sequence)
                elif self._closing:
                    break
                if time.monotonic() >= self._next_beat:
                    self._repeat(self._beat)
            self._leave()
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
        """Pushes a block until its fate is known, then acts on the reply."""
        origin = block.origin._replace(sequence=sequence)
        message = wire.pack_block(block._replace(origin=origin), self._spec)

        def push() -> PushReply:
            if time.monotonic() >= self._next_beat:  # a plain push may wait long for room
                self._beat()
            return self._link.push(self._producer, sequence, message, self._spec.queue_blocks)

        reply = self._repeat(push)
        with self._changed:
            self._being_sent = 0
            if reply is not None:
                self.accepted += 1
            else:
                self.push_unknown += 1
        if reply is not None:
            self._repeat(partial(self._follow, reply))

    def _beat(self) -> None:
        self._next_beat = time.monotonic() + BEAT_INTERVAL_S
        self._link.beat(self._actor, self._figures(), BEAT_EXPIRES_S)
        reply = self._link.read_news()
        if reply is None:
            raise RunMissing("the run has no spec any more")
        self._follow(reply)

    def _follow(self, reply: PushReply) -> None:
        """Acts on what a reply says of the run: its end, its replacement, its newer weights."""
        self._last_contact = time.monotonic()
        if reply.spec_digest != self._spec_digest or reply.state != "running":
            self.over = True
        elif reply.weights_version not in (-1, self._version):
            # Lower ones too: after a wipe a learner may go on from an older checkpoint.
            self._fetch_weights()

    def _fetch_weights(self) -> None:
        reply = self._link.read_weights()
        if reply is None:
            return
        try:
            newest = unpack_reply(reply, self._spec)
        except MessageRefused as error:
            self.weights_refused += 1
            log.warning("kept the old weights: %s", error)
        else:
            with self._changed:
                self._newest = newest
        self._version = reply.version  # also of refused weights, which are not read again

    def _repeat(self, attempt: Callable[[], Reply]) -> Reply | None:
        """What `attempt` returns once Redis answers; None only if the actor closes before that."""
        backoff = Backoff("acting on without Redis")
        while True:
            try:
                reply = attempt()
            except (RedisUnreachable, RunMissing) as error:
                if self._closing and time.monotonic() > self._flush_until:
                    return None
                backoff.failed(error)
                backoff.pause()
            else:
                backoff.succeeded()
                return reply

    def _leave(self) -> None:
        """Takes the heartbeat away, so that status no longer lists the actor."""
        try:
            self._link.leave(self._actor)
        except ImpalaError as error:
            log.debug("left without a word: %s", error)
