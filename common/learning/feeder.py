"""The learner's intake, on a thread of its own: claim, check, copy into a batch, settle.

With a replay memory, a batch's first columns are drawn from it before fresh ones are waited for.

The main thread computes meanwhile. Two batches go round between the two threads: one is trained on
while the other is filled.
"""

import logging
import queue
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple

import torch

from impala_redis.common.blocks import wire
from impala_redis.common.blocks.trajectory import Block, Origin
from impala_redis.common.errors import MessageRefused, OutOfStep, RedisUnreachable, RunMissing
from impala_redis.common.learning.batch import Batch, UnrollTiming, make_batch
from impala_redis.common.learning.replay import Replay
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.server.backoff import Backoff
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.ledger import Claimed, Dead, Ledger, Settled

log = logging.getLogger(__name__)

BATCHES = 2
# An empty list is asked again after half the time that blocks took to come before, then ever later.
FIRST_PAUSE_S, LAST_PAUSE_S = 0.0005, 0.008
REFUSED_LINE_INTERVAL_S = 10.0
# So many producers' last sequence numbers are remembered.
PRODUCERS = 100_000


class Part(NamedTuple):
    """A checked block of which some columns are not in a batch yet."""

    block: Block
    claimed: Claimed
    start: int


class Sequences:
    """The last sequence number of each producer: a block that a plain push repeated is refused.

    The push functions refuse them already; this is for blocks that came around it, and for a
    server that forgot what it had stored.
    """

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[str, int], int] = OrderedDict()

    def follow(self, origin: Origin) -> None:
        """Notes a block. Raises MessageRefused, "duplicate": one as new has been seen."""
        producer = (origin.actor, origin.incarnation)
        if origin.sequence <= self._last.get(producer, 0):
            raise MessageRefused(
                "duplicate",
                f"{origin.actor}#{origin.incarnation} sent its block {origin.sequence} again",
            )
        self._last[producer] = origin.sequence
        self._last.move_to_end(producer)
        if len(self._last) > PRODUCERS:
            self._last.popitem(last=False)


class Feeder:
    """Fills batches from the trajectory list until `close`."""

    def __init__(
        self,
        link: LearnerLink,
        spec: RunSpec,
        batch_size: int,
        device: torch.device,
        max_policy_lag: int | None,
        learner_version: Callable[[], int],
        reopen: Callable[[], None],
        replay: Replay | None = None,
    ) -> None:
        self._link, self._spec, self._device = link, spec, device
        self._max_policy_lag, self._learner_version = max_policy_lag, learner_version
        self._reopen, self._replay = reopen, replay
        self._ledger = Ledger()
        self._settled = Settled()  # taken from the ledger, not known to be committed
        self._frames: deque[tuple[bytes, Claimed]] = deque()
        self._part: Part | None = None
        # By batch: the blocks that end in it.
        self._finished: dict[int, list[tuple[Claimed, Origin]]] = {}
        self._sequences = Sequences()
        self._closing = threading.Event()
        self._free: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        for _ in range(BATCHES):
            self._free.put(make_batch(spec, batch_size, pinned=device.type == "cuda"))
        self._backoff = Backoff("waiting for Redis", wait=self._closing.wait)
        self.refused: Counter[str] = Counter()
        self._say_refused_at = 0.0
        self.reopened = 0  # times the server had lost the run, or a part of it
        self.bytes_received = 0
        self.rows_received = 0  # steps of environments in the blocks that were fit to be read
        self.row_bytes = 0  # what those blocks took
        self.queued = 0  # blocks that were found in the list, when it was last asked
        self.asked = self.queued_in_all = 0  # times, and the sum of what was found
        self.claimed = 0  # blocks
        self.busy_s = 0.0  # in commands to Redis
        self._waited_s = 0.0  # for blocks: in commands, and between them
        self._lately_waited_s = 0.0  # the same, a mean over the last waits
        self.batching_s = 0.0  # checking blocks, and copying them into batches
        self.cpu_s = 0.0  # of a processor: all that this thread does
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="feeder", daemon=True)

    def start(self) -> None:
        """Begins to fill."""
        self._thread.start()

    def next_batch(self, timeout_s: float) -> Batch | None:
        """A full batch, or None when there is none in time.

        Raises what ended the feeder: Fenced, RunHeld, RedisDenied.
        """
        try:
            batch = self._ready.get(timeout=timeout_s)
        except queue.Empty:
            batch = None
        if batch is None and self.failure is not None:
            raise self.failure
        return batch

    @property
    def away(self) -> bool:
        """Whether the server did not answer the last time."""
        return self._backoff.away

    def trained(self, batch: Batch) -> None:
        """Says that the batch was trained on: its blocks are consumed, its memory is free."""
        for claimed, origin in self._finished.pop(id(batch)):
            claimed.outcome = "consumed"
            log.debug("trained on %s#%d:%d", *origin[:3])
        batch.clear()
        self._free.put(batch)

    def close(self) -> bool:
        """Commits what was trained on and stops; the rest stays in flight, to be abandoned.

        Returns whether the server answered to the last.
        """
        self._closing.set()
        self._free.put(None)
        self._thread.join(timeout=10.0)
        return not self.away and self.failure is None

    # What follows runs on the feeder's thread.

    def _work(self) -> None:
        try:
            while (batch := self._free.get()) is not None and self._fill(batch):
                batch.stage(self._device)
                self._ready.put(batch)
            if not self.away:
                self._talk(0)
        except Exception as error:
            self.failure = error
        finally:
            self._ready.put(None)

    def _fill(self, batch: Batch) -> bool:
        """Fills the batch; False when the feeder closes meanwhile."""
        finished = self._finished.setdefault(id(batch), [])
        started, waited_s = time.perf_counter(), self._waited_s
        if self._replay:
            self._replay.draw_into(batch)
        while batch.filled < batch.size:
            part = self._part or self._next_part(batch.size - batch.filled)
            if part is None:
                return False
            rows, version = part.block.trajectory, part.block.origin.weights_version
            start = part.start + batch.take(rows, part.start, version)
            if start < rows.actions.shape[1]:
                self._part = part._replace(start=start)
            else:
                self._part = None
                batch.episodes += part.block.episodes
                actor, frames = part.block.origin.actor, rows.frames
                batch.played.append(UnrollTiming(actor, frames, part.block.unroll_s))
                finished.append((part.claimed, part.block.origin))
        batch.frames = int(batch.rows.mask[:, batch.replayed :].sum())
        if self._replay:
            self._replay.remember(batch)
        self.batching_s += time.perf_counter() - started - (self._waited_s - waited_s)
        self.cpu_s = time.thread_time()
        return True

    def _next_part(self, columns: int) -> Part | None:
        """The next block that is fit to train on; None when the feeder closes."""
        while not self._closing.is_set():
            if not self._frames:
                self._wait_for_blocks(most=-(-columns // self._spec.envs_per_actor))
                continue
            frame, claimed = self._frames.popleft()
            try:
                block = wire.unpack_block(frame, self._spec)
                self._sequences.follow(block.origin)
            except MessageRefused as error:
                claimed.outcome = Dead(error.reason, str(error), frame)
                self._say_refused(error)
                continue
            self.rows_received += block.trajectory.mask.size
            self.row_bytes += len(frame)
            lag = self._learner_version() - block.origin.weights_version
            if self._max_policy_lag is not None and lag > self._max_policy_lag:
                claimed.outcome = "stale"
                continue
            return Part(block, claimed, 0)
        return None

    def _say_refused(self, error: MessageRefused) -> None:
        """Logs a refusal, but not each one of a flood."""
        self.refused[error.reason] += 1
        if time.monotonic() >= self._say_refused_at:
            self._say_refused_at = time.monotonic() + REFUSED_LINE_INTERVAL_S
            count = self.refused[error.reason]
            told = ascii(str(error))[1:-1]  # it may quote the block
            log.warning("refused a block (%s, number %d): %s", error.reason, count, told)

    def _wait_for_blocks(self, most: int) -> None:
        """Claims blocks, and waits for some if there are none."""
        # Asking too early costs the main thread the interpreter.
        pause_s = min(max(FIRST_PAUSE_S, self._lately_waited_s / 2), LAST_PAUSE_S)
        began = time.perf_counter()
        while not self._frames and not self._closing.is_set():
            started = time.perf_counter()
            frames = self._talk(most)
            self.busy_s += time.perf_counter() - started
            self.asked += 1
            self.queued_in_all += self.queued
            self.claimed += len(frames)
            for frame in frames:
                self._frames.append((frame, self._ledger.claim()))
                self.bytes_received += len(frame)
            if not frames:
                self._closing.wait(pause_s)
                pause_s = min(pause_s * 2, LAST_PAUSE_S)
        waited_s = time.perf_counter() - began
        self._waited_s += waited_s
        self._lately_waited_s += (waited_s - self._lately_waited_s) / 8

    def _talk(self, most: int) -> list[bytes]:
        """Settles and claims, trying until the server answers or the feeder closes."""
        if not len(self._settled):
            self._settled = self._ledger.settle()
        lost = False
        while True:
            try:
                if lost:
                    self._reopen()
                    lost = False
                frames, left = self._link.settle_and_claim(self._settled, most)
            except RedisUnreachable as error:
                self._backoff.failed(error)
                if self._closing.is_set():
                    return []
                self._backoff.pause()
            except (RunMissing, OutOfStep) as error:
                log.error("OPENING THE RUN AGAIN, what was in flight is lost: %s", error)
                self.reopened += 1
                self._forget()
                lost = True
            else:
                self._backoff.succeeded()
                self._settled, self.queued = Settled(), left + len(frames)
                return frames

    def _forget(self) -> None:
        self._ledger.forget()
        self._settled = Settled()
        self._frames.clear()
