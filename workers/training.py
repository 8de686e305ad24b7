"""What a learner trains with once its run is open: its state, its threads, and its records."""

import logging
import operator
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from impala_redis.common.errors import NotFinite, printable
from impala_redis.common.feeding.batch import Batch
from impala_redis.common.feeding.delay import Delay
from impala_redis.common.feeding.feeder import Feeder
from impala_redis.common.feeding.publisher import Publisher
from impala_redis.common.feeding.tally import Arrivals
from impala_redis.common.learning.learner import Learner
from impala_redis.common.learning.updates import Share, Updated
from impala_redis.common.records.returns import of_episodes, shown_return
from impala_redis.common.run.config import Config
from impala_redis.common.run.groups import TrainingSettings
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.server.address import without_password
from impala_redis.workers import pacing
from impala_redis.workers.logbook import Logbook, ResultStatus
from impala_redis.workers.populating import Populating
from impala_redis.workers.scores import shown_score
from impala_redis.workers.trust import trust_options

if TYPE_CHECKING:
    from impala_redis.common.grouping.company import Company

log = logging.getLogger(__name__)

BATCH_TIMEOUT_S = 0.2
NO_DATA_NOTICE_S = 10.0
# Updates in a row without finite gradients for which the network is at fault, after which the
# run stops.
NOT_FINITE_LIMIT = 20


class Alone:
    """The company of a learner that makes its updates by itself."""

    leaving = ""  # why it ends, once it does
    shares: Sequence[Share] | None = None

    def next_batch(
        self, ask: Callable[[], Batch | None], leaving: str, saving: bool
    ) -> Batch | None:
        """What `ask` gives, unless the learner ends now, or saves its state."""
        self.leaving = leaving
        return None if leaving or saving else ask()

    def note(self, ended: Sequence[Updated]) -> None:
        """It has stood by for nobody in these updates."""

    def leave(self, why: str) -> None:
        """There is nobody to tell."""

    def close(self) -> None:
        """There is nothing to end."""

    def waits(self) -> tuple[list[float], list[float]]:
        """It stands by for nobody."""
        return [], []


@dataclass
class Training:
    """The parts of one training, and the steps in which they work together."""

    spec: RunSpec
    actor_command: str  # what starts an actor of the run
    learner: Learner
    feeder: Feeder
    publisher: Publisher
    logbook: Logbook
    delay: Delay
    company: "Alone | Company" = field(default_factory=Alone)
    population: Populating | None = None
    _last_batch_at: float = field(default_factory=time.monotonic)
    _arrivals: Arrivals = field(default_factory=Arrivals)  # when the last batch came
    _notice_due: Callable[[], bool] = field(default_factory=lambda: pacing.every(NO_DATA_NOTICE_S))

    def __post_init__(self) -> None:
        if self.population is not None:
            self.population.begin(self.spec, self.learner)

    def next_batch(self, stop: bool, saving: bool) -> Batch | None:
        """A batch to make an update of; None after a short wait, and where training ends or saves.

        With others it is a round of the group's. Says so when none comes for long. Raises what
        ended the feeder or the publisher.
        """
        if failure := self.publisher.failure or self.feeder.failure:
            raise failure
        leaving = "interrupted" if stop else ""
        batch, now = self.company.next_batch(self._ask, leaving, saving), time.monotonic()
        if batch is not None:
            self._last_batch_at, self._arrivals = now, self.logbook.refusals.arrivals
        elif not self.feeder.away:  # else the intake has said so
            self._say_that_none_comes(now - self._last_batch_at)
        return batch

    def update(self, batch: Batch | None) -> bool:
        """Makes an update, or ends those under way; returns whether any has ended."""
        learner = self.learner
        ended = learner.update(batch, self.company.shares) if batch else learner.settle()
        self.company.note(ended)
        for update in ended:
            self.logbook.note_update(update)
            self.feeder.trained(update.batch)  # its memory is free again
        if learner.faults_in_a_row >= NOT_FINITE_LIMIT:
            raise NotFinite(
                f"{NOT_FINITE_LIMIT} updates in a row had no finite gradients; lower "
                "--learning-rate or look at the environment's rewards, then --resume"
            )
        return bool(ended)

    def _ask(self) -> Batch | None:
        """A batch of this learner's own, or None after a short wait."""
        before = time.monotonic()
        batch = self.feeder.next_batch(BATCH_TIMEOUT_S)
        self.logbook.note_wait(time.monotonic() - before, batch is not None)
        return batch

    def offer_weights(self) -> None:
        """Gives the publisher newer weights if it wants some; under --force-lag, older ones.

        It is asked after each update, and without one, too: what the publisher did not want then is
        due later, and with --max-policy-lag there may be no update before actors have it.
        """
        before, learner = time.monotonic(), self.learner
        publisher, delay = self.publisher, self.delay
        if delay.updates:
            if delay.newest_version < learner.version:
                delay.hold(learner.versioned_weights())
            due = delay.due()
            if due is not None and publisher.wants(due.version):
                publisher.offer(due)
        elif publisher.wants(learner.version):
            publisher.offer(learner.versioned_weights())
        self.logbook.note_copy(time.monotonic() - before)

    def compare(self) -> None:
        """Lets a member of a population compare itself with others, when that is due."""
        if self.population is not None:
            self.population.step(self.learner, lambda: self.update(None))

    def part(self) -> None:
        """Ends what there is with other learners."""
        self.company.close()
        if self.population is not None:
            self.population.close()

    def record(self) -> None:
        """Writes a record; the publisher leaves its figures in Redis for impala-status."""
        if self.population is not None:
            self.logbook.further = self.population.figures(self.learner)
        self.logbook.note_ranks(*self.company.waits())
        self.publisher.status_figures = self.logbook.record(self.feeder, self.publisher)

    def summary(self) -> str:
        """What was reached, in words."""
        mean = self.learner.window.mean_return
        reached = (
            ""
            if mean is None
            else f"mean return {shown_return(mean)} {of_episodes(self.spec.num_tasks)}, "
        )
        if (score := self.learner.score) is not None:
            reached += f"mean score {shown_score(score)}, "
        return f"{reached}{self.learner.frames:,} frames in all"

    def _say_that_none_comes(self, silent_s: float) -> None:
        if silent_s > NO_DATA_NOTICE_S and self._notice_due():
            refusals = self.logbook.refusals
            came, refused, stale = map(operator.sub, refusals.arrivals, self._arrivals)
            if came:
                log.warning(
                    "no full batch for %.0f s, although %d columns came: %s",
                    *(silent_s, came, what_became_of(refused, stale, refusals.last)),
                )
                return
            command = self.actor_command
            log.info("no trajectories for %.0f s; start actors with: %s", silent_s, command)


def goal_reached(settings: TrainingSettings, learner: Learner) -> ResultStatus | None:
    """Whether the run has come to an end of its own, and to which."""
    goals = (
        (settings.stop_at_return, learner.window.mean_return),
        (settings.stop_at_score, learner.score),
    )
    for goal, reached in goals:
        if goal is not None and reached is not None and reached >= goal:
            return "solved"
    return "finished" if learner.frames >= settings.total_frames else None


def actor_command(run: str, config: Config, redis_url: str) -> str:
    """What starts an actor, as one types it in this folder."""
    address = shlex.quote(without_password(redis_url))
    return f"impala-actor --run {run} --redis-url {address}{trust_options(config)}"


def what_became_of(refused: int, stale: int, why: str) -> str:
    """Words for columns that came and filled no batch, with the remedy."""
    said = []
    if refused:
        said.append(
            f"{refused} were refused, the last because {printable(why)}; look at the environment "
            "and at which actors there are"
        )
    if stale:
        said.append(f"{stale} were too old; raise --max-policy-lag, or lower --queue-blocks")
    return ", and ".join(said) or "they are too few for a batch; add actors, or lower --batch-size"
