"""The learner's intake: claims blocks from Redis, checks them, and settles how they ended.

All of it runs on one thread, the feeder's; only `close` is called from another.
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

from impala_redis.common.blocks import wire
from impala_redis.common.blocks.trajectory import Block, Origin
from impala_redis.common.errors import (
    ImpalaError,
    MessageRefused,
    OutOfStep,
    RedisUnreachable,
    RunMissing,
    printable,
)
from impala_redis.common.feeding.rhythm import Rhythm
from impala_redis.common.feeding.sequences import Sequences
from impala_redis.common.feeding.tally import Refusals
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.server.backoff import Backoff
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.ledger import Claimed, Dead, Ledger, Settled

log = logging.getLogger(__name__)

REFUSED_LINE_INTERVAL_S = 10.0
# Where nearly all that was claimed was refused, the next claim is twice as large, up to this many
# blocks and bytes: a round trip for two of them would let a flood of junk stand for an hour.
FLOOD_BLOCKS, FLOOD_BYTES = 512, 4 * 2**20


class PendingBlock(NamedTuple):
    """A checked block whose columns from `start` on are not in a batch yet."""

    block: Block
    claimed: Claimed
    start: int


class Intake:
    """Takes blocks from the trajectory list, one after the other, until `close`."""

    def __init__(
        self,
        link: LearnerLink,
        spec: RunSpec,
        max_policy_lag: int | None,
        learner_version: Callable[[], int],
        reopen: Callable[[], None],
        refusals: Refusals | None = None,
        ahead: int = 0,
    ) -> None:
        """Blocks more than `max_policy_lag` versions behind `learner_version` count as stale.

        `reopen` opens the run again after the server has lost it; that of a group's further
        learners joins it, and raises RunMissing until rank 0 has opened it. `refusals` counts what
        is not trained on. So many versions `ahead` of this learner's the one that publishes may be.
        """
        self._link, self._spec, self._reopen = link, spec, reopen
        self._max_policy_lag, self._learner_version = max_policy_lag, learner_version
        self._ahead = ahead
        self._ledger = Ledger()
        self._settled = Settled()  # taken from the ledger, not known to be committed
        self._messages: deque[bytes] = deque()  # claimed, not looked at yet
        self._flood = 0  # blocks to claim while nearly all are refused; 0: as many as are needed
        self._last_claim = (0, 0)  # blocks claimed by it, and how many had been refused before it
        self._sequences = Sequences()
        self._closing = threading.Event()
        self._backoff = Backoff("waiting for Redis", wait=self._closing.wait)
        self._reopening = Backoff(wait=self._closing.wait)
        self._refusal_logged_from = 0.0
        self._rhythm = Rhythm()
        self.waited_s = 0.0  # for blocks: in commands, and between them
        self.refused: Counter[str] = Counter()  # blocks, by reason
        self._refusals = refusals or Refusals(spec.envs_per_actor)
        self._reopened = 0  # times the server had lost the run, or a part of it
        self._queued = 0  # blocks that were found in the list, when it was last asked
        self._asked = self._queued_in_all = 0  # times, and the sum of the blocks found
        self._claimed = 0  # blocks
        self._busy_s = 0.0  # in commands to Redis
        self._bytes_received = 0
        # Steps of environments in the blocks that were fit to be read, and the bytes of those.
        self._steps_opened = self._bytes_opened = 0

    @property
    def away(self) -> bool:
        """Whether the server did not answer the last time."""
        return self._backoff.away

    def close(self) -> None:
        """Ends every wait of the intake's thread, now and later."""
        self._closing.set()

    def figures(self) -> dict[str, float]:
        """The figures of a record that are counters or states of the intake."""
        return {
            "queue_blocks": self._queued,
            "blocks_refused": self.refused.total(),
            "runs_lost": self._reopened,
        }

    def totals(self) -> dict[str, float]:
        """Sums since the start, from whose growth figures are made."""
        return {
            "claim_s": self._busy_s,
            "bytes_received": self._bytes_received,
            "bytes_opened": self._bytes_opened,
            "steps_opened": self._steps_opened,
            "asked": self._asked,
            "queued": self._queued_in_all,
            "claimed": self._claimed,
        }

    def next_block(self, columns: int, room: wire.Room | None = None) -> PendingBlock | None:
        """The next block that is fit to train on; None when the intake closes.

        `columns` more are needed for the batch: no more blocks are claimed than fill them, but in a
        flood of what is refused. The block's observations may be unpacked to the `room` for them.
        """
        while not self._closing.is_set():
            if not self._messages:
                needed = -(-columns // self._spec.envs_per_actor)
                self._wait_for_blocks(self._most_to_claim(needed))
                continue
            message = self._messages.popleft()
            try:
                block = wire.unpack_block(message, self._spec, room)
                self._refuse_the_future(block.origin)
                self._sequences.follow(block.origin)
            except MessageRefused as error:
                self._ledger.refuse(Dead(error.reason, str(error), message))
                self._count_refusal(error)
                continue
            self._steps_opened += block.num_envs * self._spec.unroll_length
            self._bytes_opened += len(message)
            stale = self.is_stale(block.origin.weights_version)
            self._count_columns(block, stale)
            if stale:
                self._ledger.note_stale()
                continue
            return PendingBlock(block, self._ledger.claim(), 0)
        return None

    def is_stale(self, version: int) -> bool:
        """Whether what was played with that version of the weights is too old to train on now."""
        lag = self._learner_version() - version
        return self._max_policy_lag is not None and lag > self._max_policy_lag

    def _refuse_the_future(self, origin: Origin) -> None:
        """Raises MessageRefused, "range": no learner has made the weights that played it.

        Or one has, whose last versions both its checkpoints and the server have lost.
        """
        newest = self._learner_version() + self._ahead
        if origin.weights_version > newest:
            said = f"version {origin.weights_version} of the weights, but {newest} is the newest"
            error = MessageRefused("range", f"it is said to be played with {said}", "weights")
            error.actor = origin.actor
            raise error

    def settle(self) -> None:
        """Commits how blocks ended, and claims none; does nothing while the server is away."""
        if not self.away:
            self._settle_and_claim(0)

    def _count_refusal(self, error: MessageRefused) -> None:
        self.refused[error.reason] += 1
        self._refusals.note_refusal(error)
        if self._is_line_due():
            log.warning(
                "refused a block%s (%s, number %d): %s",
                f" of {error.actor}" if error.actor else "",
                *(error.reason, self.refused[error.reason]),
                printable(error),  # it may quote the block
            )

    def _count_columns(self, block: Block, stale: bool) -> None:
        self._refusals.note_block(block, stale)
        for unfit in block.unfit:
            if self._is_line_due():
                log.warning(
                    "left out %d of %d columns of a block of %s "
                    "(%s, %d columns refused up to now): %s",
                    *(unfit.columns, block.num_envs, block.origin.actor, unfit.reason),
                    *(self._refusals.arrivals.refused, unfit.explanation),
                )

    def _is_line_due(self) -> bool:
        """Whether a refusal is to be logged: not each one of a flood."""
        if time.monotonic() < self._refusal_logged_from:
            return False
        self._refusal_logged_from = time.monotonic() + REFUSED_LINE_INTERVAL_S
        return True

    def _most_to_claim(self, needed: int) -> int:
        """The blocks that the next claim may bring: more than are needed in a flood of junk."""
        claimed, refused_before = self._last_claim
        refused = self.refused.total() - refused_before
        is_flood = claimed > 0 and 4 * refused > 3 * claimed
        self._flood = min(2 * max(self._flood, needed), FLOOD_BLOCKS) if is_flood else 0
        return max(self._flood, needed)

    def _wait_for_blocks(self, most: int) -> None:
        """Claims blocks, and waits for some if there are none."""
        began = time.perf_counter()
        while not self._messages and not self._closing.is_set():
            started = time.perf_counter()
            messages = self._settle_and_claim(most)
            self._last_claim = (len(messages), self.refused.total())
            self._busy_s += time.perf_counter() - started
            self._asked += 1
            self._queued_in_all += self._queued
            self._claimed += len(messages)
            for message in messages:
                self._messages.append(message)
                self._bytes_received += len(message)
            if not messages:
                self._closing.wait(self._rhythm.pause_s(time.perf_counter() - began))
        waited_s = time.perf_counter() - began
        self.waited_s += waited_s
        self._rhythm.note(waited_s)

    def _settle_and_claim(self, most: int) -> list[bytes]:
        """Tries until the server answers or the intake closes; the messages claimed."""
        if not len(self._settled):
            self._settled = self._ledger.settle()
        lost = False
        while True:
            try:
                if lost:
                    self._reopen()
                    lost = False
                asked = (self._settled, most, FLOOD_BYTES if self._flood else 0)
                messages, left = self._link.settle_and_claim(*asked)
            except RedisUnreachable as error:
                self._backoff.failed(error)
                if self._closing.is_set():
                    return []
                self._backoff.pause()
            except (RunMissing, OutOfStep) as error:
                if not (lost and self._link.rank):  # else it waits for rank 0, as it has said
                    self._note_loss(error)
                self._forget()
                lost = True
                if self._closing.is_set():
                    return []
                self._reopening.pause()
            else:
                self._backoff.succeeded()
                self._reopening.succeeded()
                self._settled, self._queued = Settled(), left + len(messages)
                return messages

    def _note_loss(self, error: ImpalaError) -> None:
        """Counts that the server has lost the run, or a part of it, and says what is done now."""
        self._reopened += 1
        if self._link.opened_elsewhere:  # which has told why
            log.warning("what was in flight is lost: %s", error)
            return
        if self._link.rank:
            log.error("JOINING THE RUN AGAIN, what was in flight is lost: %s", error)
            return
        cause = "; ".join(filter(None, [str(error), self._link.evictions()]))
        log.error("OPENING THE RUN AGAIN, what was in flight is lost: %s", cause)

    def _forget(self) -> None:
        """Drops what was claimed: the server does not know of it any more."""
        self._ledger.forget()
        self._settled = Settled()
        self._messages.clear()
