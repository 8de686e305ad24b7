"""Publishes weights and keeps the lease on its own thread: the learner waits for neither.

In a group of learners this thread also opens a run again that the server has lost. There rank 0's
feeder may sleep, with full batches, while the other ranks wait for the run, and rank 0 for them.
"""

import logging
import threading
import time

from impala_redis.common.blocks import wire
from impala_redis.common.blocks.weights import VersionedWeights
from impala_redis.common.errors import ImpalaError, OutOfStep, RedisUnreachable, RunMissing
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.server.backoff import Backoff
from impala_redis.common.transport.learner_link import LearnerLink

log = logging.getLogger(__name__)

RETRY_S = 0.2
# Without an update for this long, weights and spec are written again: someone may have lost them.
REPUBLISH_S = 5.0
# The server is asked this often whether it evicts keys.
EVICTIONS_S = 10.0
# That somebody else writes weights is said this often.
OTHERS_S = 10.0
# At the end, a server that does not answer gets this long for the last weights.
LAST_WORD_S = 2.0


class Publisher:
    """Publishes the newest weights it was offered."""

    def __init__(
        self,
        link: LearnerLink,
        spec: RunSpec,
        interval_s: float,
        lease_s: float,
        most_behind: int | None = None,
    ) -> None:
        """Wants weights once per `interval_s`, and sooner when it is over `most_behind` behind."""
        self._link, self._spec = link, spec
        self._interval_s, self._renew_every_s = interval_s, min(lease_s / 3, 1.0)
        self._most_behind = most_behind  # versions; None: the interval alone counts
        self._changed = threading.Condition()
        self._offered: VersionedWeights | None = None
        self._last: VersionedWeights | None = None
        self._introduced = False
        self._closing = False
        self._published_at = 0.0  # something new
        self._written_at = 0.0  # something new, or the last once more
        self._published = 0  # versions
        self._busy_s = 0.0  # from packing new weights until they are in Redis
        self._cpu_s = 0.0  # processor time of this thread, whatever it does
        self._evictions_due = self._others_due = 0.0
        # In a group: the epoch that the server has lost, or a part of it.
        self._lost_epoch: int | None = None
        self._flow: dict[str, float] = {}  # figures of the books, as last read by `_keep_lease`
        # The learner leaves these in Redis; the time tells how old they are.
        self._status_figures: tuple[dict[str, float], float] = ({}, time.monotonic())
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)

    def start(self) -> None:
        """Begins to publish, and to keep the lease."""
        self._thread.start()

    @property
    def status_figures(self) -> dict[str, float]:
        """The figures for impala-status with their age in seconds; empty before the first."""
        figures, made_at = self._status_figures
        return figures and {**figures, "figures_age_s": time.monotonic() - made_at}

    @status_figures.setter
    def status_figures(self, figures: dict[str, float]) -> None:
        self._status_figures = (figures, time.monotonic())

    def wants(self, version: int) -> bool:
        """Whether weights of that version would be published now, and are not yet.

        Otherwise making them would be wasted.
        """
        if self._offered is not None:
            return False
        behind = version - self._last.version if self._last is not None else 1
        if behind <= 0:
            return False
        too_far = self._most_behind is not None and behind > self._most_behind
        return too_far or time.monotonic() - self._published_at >= self._interval_s

    def figures(self) -> dict[str, float]:
        """The figures of a record that come from the run's books."""
        return self._flow

    def totals(self) -> dict[str, float]:
        """Sums since the start, from whose growth figures are made."""
        return {
            "published": self._published,
            "publish_s": self._busy_s,
            "publisher_cpu_s": self._cpu_s,
        }

    def introduce(self, spec: RunSpec, weights: VersionedWeights) -> None:
        """Publishes weights and spec at once, on the caller's thread: now actors may join."""
        self._spec, self._last = spec, weights
        self.reintroduce()
        self._published_at = self._written_at
        self._introduced = True

    def reintroduce(self) -> None:
        """Publishes the last weights and the spec once more: the server may have lost them."""
        if self._last is not None:
            # Weights first: an actor that sees the spec finds them.
            self._publish(self._last)
            self._link.announce(self._spec.to_json(), self._spec.fingerprint, "running")

    def offer(self, weights: VersionedWeights) -> None:
        """Takes weights to publish; they must not change afterwards."""
        with self._changed:
            self._offered = self._last = weights
            self._changed.notify()

    def finish(self) -> None:
        """Lets the thread publish what was offered last, and end; does not wait for it."""
        with self._changed:
            self._give_up_at = time.monotonic() + LAST_WORD_S
            self._closing = True
            self._changed.notify()

    def close(self) -> None:
        """Publishes what was offered last, and stops."""
        if not self._closing:
            self.finish()
        self._thread.join(timeout=10.0)

    # What follows runs on the publisher's thread.

    def _work(self) -> None:
        renew_at = time.monotonic() + self._renew_every_s
        backoff = Backoff(first_s=RETRY_S, longest_s=RETRY_S)
        try:
            while not self._closing or self._offered is not None:
                self._wait_until(renew_at)
                epoch = self._link.epoch
                try:
                    if self._lost_epoch is not None:
                        self._open_again(self._lost_epoch)
                    if self._offered is not None:
                        self._publish_offered(self._offered)
                    if time.monotonic() >= renew_at:
                        self._keep_lease()
                        renew_at = time.monotonic() + self._renew_every_s
                    if self._introduced and time.monotonic() - self._written_at >= REPUBLISH_S:
                        self.reintroduce()
                    backoff.succeeded()
                except (RedisUnreachable, RunMissing, OutOfStep) as error:
                    if self._closing and time.monotonic() > self._give_up_at:
                        break
                    log.debug("not published, trying again: %s", error)
                    self._note_loss(epoch, error)
                    backoff.pause()
        except Exception as error:
            self.failure = error

    def _note_loss(self, epoch: int, error: ImpalaError) -> None:
        """In a group, lets the run be opened again if the server has lost it or a part of it."""
        if self._link.ranks == 1 or isinstance(error, RedisUnreachable):
            return
        if self._lost_epoch is None:
            log.error("OPENING THE RUN AGAIN, what was in flight is lost: %s", error)
        self._lost_epoch = epoch

    def _open_again(self, epoch: int) -> None:
        """Opens the run, unless the feeder's thread has since that epoch, and lets actors go on."""
        self._link.reopen_since(epoch)
        self.reintroduce()
        self._lost_epoch = None

    def _publish_offered(self, offered: VersionedWeights) -> None:
        started = time.perf_counter()
        self._publish(offered)
        self._busy_s += time.perf_counter() - started
        self._published_at = self._written_at
        self._published += 1
        self._cpu_s = time.thread_time()
        with self._changed:
            if self._offered is offered:  # else newer ones have come
                self._offered = None

    def _keep_lease(self) -> None:
        """Renews it, leaves the learner's figures in Redis, and reads what became of the blocks."""
        self._link.renew(self.status_figures)
        if time.monotonic() >= self._evictions_due:
            self._evictions_due = time.monotonic() + EVICTIONS_S
            if news := self._link.news_of_evictions():
                log.warning("%s; set maxmemory-policy noeviction and raise its maxmemory", news)
        produced, dropped = self._link.read_flow()
        before, self._flow = self._flow, {"blocks_produced": produced, "blocks_dropped": dropped}
        if not before:
            return  # the first reading: what earlier learners have left does not count
        more = produced - before["blocks_produced"]
        more_dropped = dropped - before["blocks_dropped"]
        if more > 0 and more_dropped >= 0:  # else nothing was pushed, or the server lost the books
            self._flow["dropped_share"] = min(more_dropped / more, 1.0)

    def _wait_until(self, deadline: float) -> None:
        """Returns when something was offered, at the deadline, or when closing."""
        with self._changed:
            if self._offered is None and not self._closing:
                self._changed.wait(max(0.0, deadline - time.monotonic()))

    def _publish(self, new: VersionedWeights) -> None:
        message = wire.pack_weights(new.weights, new.version, self._spec, new.progress)
        others = self._link.publish(new.version, message)
        self._written_at = time.monotonic()
        if others is not None and self._written_at >= self._others_due:
            self._others_due = self._written_at + OTHERS_S
            log.error(
                "SOMEBODY ELSE WROTE THE WEIGHTS' VERSION %s, and version %d was written over it; "
                "look who else has a password of the user learner, or changes keys by hand",
                *(others, new.version),
            )
