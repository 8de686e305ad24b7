"""Fills batches on a thread of its own, from the intake's blocks and the replay memory.

The main thread computes meanwhile. Two batches go round between the two threads: one is trained on
while the other is filled. For a GPU, which works one update ahead, there are three. With a replay
memory, a batch's first columns are drawn from it before the feeder waits for fresh ones.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from impala_redis.common.blocks.trajectory import Block, Origin, Trajectory
from impala_redis.common.feeding.batch import Batch, UnrollTiming
from impala_redis.common.feeding.intake import Intake, PendingBlock
from impala_redis.common.feeding.replay import Replay
from impala_redis.common.records.window import Played
from impala_redis.common.transport.ledger import Claimed

log = logging.getLogger(__name__)


class Feeder:
    """Fills batches until `close`."""

    def __init__(
        self,
        intake: Intake,
        empty_rows: Callable[[], Trajectory],
        stage: Callable[[Trajectory], Any],
        replay: Replay | None = None,
        batches: int = 2,
    ) -> None:
        """Prepares; `start` begins.

        Args:
          intake: gives the blocks.
          empty_rows: makes the memory of a batch.
          stage: begins to bring a full batch to where it is computed; on the feeder's thread.
          replay: gives the first columns of each batch, if there is such a memory.
          batches: how many go round, at least 2.
        """
        self._intake, self._stage, self._replay = intake, stage, replay
        self._pending: PendingBlock | None = None
        # By batch: the blocks that end in it.
        self._finished: dict[int, list[tuple[Claimed, Origin]]] = {}
        # No SimpleQueue: up to Python 3.12 a signal can make its wait with a time-out endless.
        self._free: queue.Queue[Batch | None] = queue.Queue()
        self._ready: queue.Queue[Batch | None] = queue.Queue()
        for _ in range(batches):
            self._free.put(Batch(empty_rows()))
        self._batching_s = 0.0  # checking blocks, and copying them into batches
        self._cpu_s = 0.0  # processor time of this thread, whatever it does
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
        return self._intake.away

    def figures(self) -> dict[str, float]:
        """The figures of a record that are counters or states of the intake."""
        return self._intake.figures()

    def totals(self) -> dict[str, float]:
        """Sums since the start, from whose growth figures are made."""
        return {
            **self._intake.totals(),
            "batch_s": self._batching_s,
            "feeder_cpu_s": self._cpu_s,
        }

    def trained(self, batch: Batch) -> None:
        """Notes that the batch was trained on: its blocks are consumed, its memory is free."""
        for claimed, origin in self._finished.pop(id(batch)):
            claimed.outcome = "consumed"
            log.debug("trained on %s#%d:%d", *origin[:3])
        batch.clear()
        self._free.put(batch)

    def close(self) -> bool:
        """Commits what was trained on and stops; the rest stays in flight, to be abandoned.

        Returns whether the server answered to the last.
        """
        self._intake.close()
        self._free.put(None)
        self._thread.join(timeout=10.0)
        return not self.away and self.failure is None

    # What follows runs on the feeder's thread.

    def _work(self) -> None:
        try:
            while (batch := self._free.get()) is not None and self._fill(batch):
                batch.staged = self._stage(batch.rows)
                self._ready.put(batch)
            self._intake.settle()
        except Exception as error:
            self.failure = error
        finally:
            self._ready.put(None)

    def _fill(self, batch: Batch) -> bool:
        """Fills the batch; False when the feeder closes meanwhile."""
        finished = self._finished.setdefault(id(batch), [])
        started, waited_s = time.perf_counter(), self._intake.waited_s
        if self._replay:
            self._replay.draw_into(batch)
        while batch.filled < batch.size:
            missing = batch.size - batch.filled
            pending = self._pending or self._intake.next_block(missing, batch.room)
            if pending is None:
                return False
            block, start = pending.block, pending.start
            trajectory, origin = block.trajectory, block.origin
            version, actor = origin.weights_version, origin[:2]
            start += batch.take(trajectory, start, version, actor, block.environments)
            if start < trajectory.actions.shape[1]:
                self._pending = pending._replace(start=start)
            else:
                self._pending = None
                batch.episodes += block.episodes
                batch.blocks.append(_as_played(block))
                batch.played.append(UnrollTiming(origin.actor, trajectory.frames, block.unroll_s))
                finished.append((pending.claimed, origin))
        batch.frames = int(batch.rows.mask[:, batch.replayed :].sum())
        if self._replay:
            self._replay.remember(batch)
        waited_s = self._intake.waited_s - waited_s
        self._batching_s += time.perf_counter() - started - waited_s
        self._cpu_s = time.thread_time()
        return True


def _as_played(block: Block) -> Played:
    origin = block.origin
    actor = (origin.actor, origin.incarnation)
    first = origin.sequence == 1
    return Played(actor, block.num_envs, first, block.episodes, block.left_out, block.tasks)
