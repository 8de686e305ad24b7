"""Carries between an actor and Redis on a thread of its own: blocks out, weights in, heartbeats.

The environment thread only puts a finished block into a small ring and takes the newest weights if
there are any: it never waits for the network. While Redis is away the ring sheds its oldest block
and counts it. In a run whose policy is to block, it also waits here until the list has room.

No block has more columns than the run's actors have environments. The unroll of a wider actor is
cut, and each part waits for room in the list, but no longer than its share of the unroll's time.
"""

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from impala_redis.common.acting.parcels import cut, put, taken_together
from impala_redis.common.acting.signs import LearnerSigns
from impala_redis.common.acting.weights import Newcomers
from impala_redis.common.blocks import wire
from impala_redis.common.blocks.trajectory import Block
from impala_redis.common.blocks.weights import VersionedWeights
from impala_redis.common.errors import ImpalaError, RedisUnreachable, RunMissing
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.server.backoff import Backoff
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.replies import News, PushReply, WeightsReply

log = logging.getLogger(__name__)

Reply = TypeVar("Reply")

# While the list is full, it is looked at again after pauses from the first to the last.
FIRST_LOOK_S, LAST_LOOK_S = 0.005, 0.05
# Messages of weights up to this size come with each push's reply, which saves a round trip.
LIGHT_WEIGHTS_BYTES = 32 * 1024
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
        actor: str,
        figures: Callable[[], Mapping[str, Any]],
    ) -> None:
        """Prepares; `start` begins.

        Args:
          link: the connection, which from `start` on belongs to the courier's thread.
          spec: the run's spec.
          spec_digest: of the spec as it stands in Redis; another one means another run.
          actor: whose blocks these are, for its heartbeats.
          figures: gives a heartbeat's figures; called on the courier's thread.
        """
        self._link, self._spec, self._spec_digest = link, spec, spec_digest
        self._actor, self._figures = actor, figures
        self._ring: deque[Block] = deque()
        self._being_sent, self._cut_into = 0, 1  # blocks: those, and of an unroll
        self._blocks = spec.queue_policy == "block"  # rather than let a block be dropped
        self._most_together = 1 if self._blocks else link.most_together  # one finds room sooner
        self._weights_are_light = wire.weights_nbytes(spec) <= LIGHT_WEIGHTS_BYTES
        self._redis_away = False  # whether the last attempt had no answer
        self._changed = threading.Condition()
        self._closing, self._flush_until = False, 0.0  # by time.monotonic, once it closes
        self.weights = Newcomers(spec)
        self._sequences = Counter[str]()  # the last one of each producer, actor#incarnation
        self._next_beat = 0.0
        self.generated = self.accepted = self.shed_local = 0
        self.push_unknown = 0  # blocks whose push was given up at the end, without an answer
        self.left_over = 0  # blocks that the end of the run or of the actor kept out of the list
        self.waited_s = 0.0  # that the environments stood still for room in the list
        self.published_version = -1  # the newest version that Redis was seen to hold
        self.over = False  # whether the thread has ended, or the run has
        self.run_finished = False  # whether the run is over for good
        self._learner = LearnerSigns(time.monotonic())
        self.failure: Exception | None = None  # what ended the thread, if nothing can repair it
        self._thread = threading.Thread(target=self._work, name="courier", daemon=True)

    def start(self, first: VersionedWeights) -> None:
        """Begins to carry for an actor that acts on the weights `first`."""
        self.weights.version = self.published_version = first.version
        self._thread.start()

    def hand_over(self, block: Block) -> None:
        """Takes an unroll to push; sheds the oldest blocks when the ring is full. Never waits.

        Under the policy to block none is shed if `wait_for_room` was asked before.
        """
        blocks = cut(block, self._spec.envs_per_actor)
        with self._changed:
            self._cut_into = len(blocks)
            self.generated += len(blocks)
            self.shed_local += put(self._ring, blocks, self._being_sent)
            self._changed.notify()

    def wait_for_room(self, timeout_s: float) -> bool:
        """Whether a block is wanted; under the policy to block, waits for that as long as allowed.

        It is wanted once the blocks before are on their way, and while Redis does not answer.
        """
        if not self._blocks:
            return True
        began = time.monotonic()
        with self._changed:
            wanted = self._changed.wait_for(self._wants_a_block, timeout_s)
        self.waited_s += time.monotonic() - began
        return wanted

    def _wants_a_block(self) -> bool:
        return not self._ring or self._redis_away or self.over

    @property
    def silent_s(self) -> float:
        """Seconds since Redis last answered."""
        return time.monotonic() - self._learner.looked_at_s

    @property
    def learner_away_s(self) -> float:
        """Seconds for which no learner has renewed the run's lease, as long as Redis answered."""
        return self._learner.away_s

    def books(self) -> dict[str, int]:
        """The fates of all blocks handed over, at one instant.

        generated = accepted + shed_local + pending_local + push_unknown + left_over.
        """
        with self._changed:
            return {
                "generated": self.generated,
                "accepted": self.accepted,
                "shed_local": self.shed_local,
                "pending_local": len(self._ring) + self._being_sent,
                "push_unknown": self.push_unknown,
                "left_over": self.left_over,
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
                blocks = self._next_blocks()
                if blocks:
                    self._deliver(blocks)
                elif self._closing:
                    break
                self._repeat(self._beat_if_due)
            self._leave()
        except Exception as error:
            self.failure = error
        finally:
            self.over = True
            with self._changed:
                self._changed.notify_all()

    def _next_blocks(self) -> list[Block]:
        """The oldest blocks of the ring; none when a heartbeat is due or the ring stays empty."""
        with self._changed:
            if not self._ring and not self._closing:
                self._changed.wait(max(0.0, self._next_beat - time.monotonic()))
            blocks = taken_together(self._ring, self._most_together)
            self._being_sent = len(blocks)
            self._changed.notify_all()  # the ring has room
            return blocks

    def _deliver(self, blocks: Sequence[Block]) -> None:
        """Pushes blocks until their fate is known, which is the same, then acts on the reply."""
        # A block is numbered once, so that no other gets the number of one whose fate is unknown.
        producer = "{}#{}".format(*blocks[0].origin[:2])
        first = self._sequences[producer] + 1
        self._sequences[producer] += len(blocks)
        messages = [
            wire.pack_block(block.numbered(sequence), self._spec)
            for sequence, block in enumerate(blocks, first)
        ]
        queue = (self._spec.queue_blocks, self._spec.queue_policy)

        def push() -> PushReply:
            self._beat_if_due()  # what is repeated may take long
            with_weights = self._weights_are_light and not self.weights.last_refused
            return self._link.push_together(producer, first, messages, *queue, with_weights)

        if self._cut_into > 1 and not (self._blocks or self._closing or self._has_room()):
            self._room_comes(within_s=blocks[0].unroll_s)
        reply = self._repeat(push)
        while reply is not None and reply.fate == "full" and self._room_comes():
            reply = self._repeat(push)
        with self._changed:
            self._being_sent = 0
            if reply is None:
                self.push_unknown += len(blocks)
            elif reply.fate in ("full", "over"):
                self.left_over += len(blocks)
            else:
                self.accepted += len(blocks)
        if reply is not None and reply.fate != "full":
            self._repeat(partial(self._follow, reply.news, reply.weights))

    def _room_comes(self, within_s: float = math.inf) -> bool:
        """Waits until the list has room; False when the time, the run or the actor ends first."""
        pauses = Backoff(first_s=FIRST_LOOK_S, longest_s=LAST_LOOK_S)
        until_s = time.monotonic() + within_s
        while not (self.over or self._gives_up or time.monotonic() >= until_s):
            pauses.pause()
            self._repeat(self._beat_if_due)
            if self._has_room():
                return True
            if self._closing and within_s < math.inf:  # then all that is left is pushed at once
                break
        return False

    def _has_room(self) -> bool:
        return bool(self._repeat(partial(self._link.has_room, self._spec.queue_blocks)))

    @property
    def _gives_up(self) -> bool:
        """Whether the actor closes, and the time to push what is left is over."""
        return self._closing and time.monotonic() > self._flush_until

    def _beat_if_due(self) -> None:
        if time.monotonic() < self._next_beat:
            return
        self._next_beat = time.monotonic() + BEAT_INTERVAL_S
        self._link.beat(self._actor, self._figures(), BEAT_EXPIRES_S)
        news = self._link.read_news()
        if news is None:
            raise RunMissing("the run has no spec any more")
        self._follow(news)

    def _follow(self, news: News, weights: WeightsReply | None = None) -> None:
        """Acts on the news of the run: its end, its replacement, its newer weights, its learner.

        `weights` are those that came with the news.
        """
        self.published_version = news.weights_version
        self._learner.note(news.renewed_at, time.monotonic())
        if news.state != "running":
            self.over = self.run_finished = True
        elif news.spec_digest != self._spec_digest:
            self.over = True
        elif news.weights_version not in (-1, self.weights.version):
            # Lower ones too: after a wipe a learner may go on from an older checkpoint.
            self._take(weights or self._link.read_weights())

    def _take(self, weights: WeightsReply | None) -> None:
        if weights is not None:
            self.weights.put(weights)
            self.published_version = weights.version

    def _repeat(self, attempt: Callable[[], Reply]) -> Reply | None:
        """What `attempt` returns once Redis answers; None only if the actor closes before that."""
        backoff = Backoff("acting on without Redis")
        while True:
            try:
                reply = attempt()
            except (RedisUnreachable, RunMissing) as error:
                self._note_redis(away=isinstance(error, RedisUnreachable))
                if isinstance(error, RunMissing):
                    self._learner.note(None, time.monotonic())
                if self._gives_up:
                    return None
                backoff.failed(error)
                backoff.pause()
            else:
                self._note_redis(away=False)
                backoff.succeeded()
                return reply

    def _note_redis(self, away: bool) -> None:
        """Lets an actor that waits for room go on when Redis is away."""
        if away != self._redis_away:
            with self._changed:
                self._redis_away = away
                self._changed.notify_all()

    def _leave(self) -> None:
        """Takes the heartbeat away, so that status no longer lists the actor."""
        try:
            self._link.leave(self._actor)
        except ImpalaError as error:
            log.debug("left without a word: %s", error)
