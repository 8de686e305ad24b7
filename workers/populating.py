"""A learner as a member of a population: at each interval it tells, compares, and perhaps copies.

    main thread        makes a copy of its state, and goes on; later it adopts a better one
    population thread  writes record and state to Redis, chooses one other at random, and brings
                       that one's state if it is better; it ends with the interval's exchange

Nothing of an exchange holds up training but the copies. A server that does not answer costs the
population an interval, and the run nothing.
"""

import hashlib
import logging
import math
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from impala_redis.common.errors import (
    CheckpointError,
    ConfigError,
    ImpalaError,
    MessageRefused,
    printable,
)
from impala_redis.common.learning.learner import Learner
from impala_redis.common.population.choosing import exploit, explore, rivals
from impala_redis.common.population.link import Census, PopulationLink
from impala_redis.common.population.member import Measure, Member, fresh_s
from impala_redis.common.population.state import MOST_BYTES_MORE
from impala_redis.common.records.checkpoint import Checkpoint, Tensors, packed
from impala_redis.common.run.config import Config
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.settings.evolving import Copied
from impala_redis.common.tasks.listing import as_text
from impala_redis.workers.job import Job

log = logging.getLogger(__name__)

# A member copies nobody before it has trained for so many intervals, nor in its last one: what it
# then has would not be known.
BURN_IN_INTERVALS = 2
# So many updates in a row that were the copied network's fault: the member goes back to its own.
MOST_FAULTS = 5
# At the end, an exchange under way gets this long.
LAST_WORD_S = 5.0


class Better(NamedTuple):
    """A member that is better than this one, and the state that it offers."""

    member: Member
    state: Checkpoint
    mine: Member  # this one, when they were compared
    before: Checkpoint  # its own state at that moment
    now_unix_s: float


class Populating:
    """What one learner does for its population, and what it takes from it."""

    def __init__(self, url: str, population: str, interval: int, run: str, config: Config) -> None:
        """`interval` is in frames of the run. Nothing is sent before `require`."""
        self._config = config
        self._link = PopulationLink(url, population, "impala-learner --population")
        self._interval, self._run = interval, run
        # Members with the same seed must not draw the same.
        self._rng = np.random.default_rng([config.training.seed, zlib.crc32(run.encode())])
        self._fingerprint = ""
        self._due_frames = 0
        self._told_s = time.monotonic()
        self._interval_s = 0.0  # what the last one took
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._better: Better | None = None
        # The state before the last copy, and its settings, until the copy has proven itself.
        self._before: tuple[Checkpoint, Copied] | None = None
        self._is_away = False
        self._unreadable: set[str] = set()  # names of members whose records are none
        self.refused = 0  # states and records that were none

    def require(self) -> None:
        """Asks for what is needed of the server. Raises RedisDenied and UnsuitableServer."""
        self._link.require()

    def begin(self, spec: RunSpec, learner: Learner) -> None:
        """Takes part from now on."""
        # Scores are compared, so they must be of the same returns.
        fitting = f"{spec.fingerprint} {self._config.optimizer.optimizer} {as_text(spec.tasks)}"
        self._fingerprint = hashlib.sha256(fitting.encode()).hexdigest()[:16]
        self._told_s = time.monotonic()
        self._wait_for_next(learner)
        log.info("a member of the population %s", self._link.population)

    def step(self, learner: Learner, settle: Callable[[], object]) -> None:
        """Begins an exchange if one is due, or ends one; between two updates.

        `settle` waits for the updates under way.
        """
        if self._failure is not None:
            raise self._failure
        if self._thread is not None and self._thread.is_alive():
            return
        if self._before is not None and learner.faults_in_a_row >= MOST_FAULTS:
            settle()
            self._go_back(learner, *self._before)
        if (better := self._better) is not None:
            self._better = None
            settle()
            self._adopt(learner, better)
        if learner.frames >= self._due_frames and fitness_of(learner)[0] is not None:
            settle()
            self._wait_for_next(learner)
            self._before = None
            before, self._told_s = self._told_s, time.monotonic()
            self._interval_s = self._told_s - before
            mine = self._member(learner)
            first, last = (
                BURN_IN_INTERVALS * self._interval,
                self._config.training.total_frames - self._interval,
            )
            may_copy = first <= learner.frames <= last
            self._start(self._exchange, mine, *learner.state(), may_copy)

    def figures(self, learner: Learner) -> dict[str, float]:
        """The figures of a record: settings before their schedules, and how they came to be."""
        evolving = learner.evolving
        found = {"generation": evolving.generation, "refused": self.refused, **evolving.now}
        return {f"population:{name}": value for name, value in found.items()}

    def close(self) -> None:
        """Ends it, after an exchange under way."""
        if self._thread is not None:
            self._thread.join(LAST_WORD_S)
        self._link.close()

    def _wait_for_next(self, learner: Learner) -> None:
        self._due_frames = (learner.frames // self._interval + 1) * self._interval

    def _member(self, learner: Learner) -> Member:
        """This learner's record, without the time and what it offers."""
        fitness, measure = fitness_of(learner)
        evolving = learner.evolving
        last = evolving.last or Copied({}, 0, "", 0.0)
        return Member(
            name=self._run,
            unix_s=0.0,
            fresh_s=fresh_s(self._interval_s),
            fitness=fitness,
            measure=measure,
            frames=learner.frames,
            updates=learner.updates,
            fingerprint=self._fingerprint,
            values=evolving.now,
            generation=last.generation,
            copied_from=last.copied_from,
            copied_unix_s=last.copied_unix_s,
            refused=self.refused,
        )

    def _adopt(self, learner: Learner, better: Better) -> None:
        """Goes on with the other's state, and lets everybody know."""
        member = better.member
        values = explore(member.values, self._rng)
        own = learner.evolving.last or Copied(learner.evolving.now, 0, "", 0.0)
        copied = Copied(values, member.generation + 1, member.name, better.now_unix_s)
        try:
            learner.adopt(better.state, copied)
        except CheckpointError as error:
            self._refuse(error)
            return
        self._before = better.before, own
        self._wait_for_next(learner)
        shown = ", ".join(f"{key} {value:.3g}" for key, value in values.items())
        log.info(
            "copied %s (%s %.4g, mine %.4g); goes on with %s",
            *(member.name, member.measure, member.fitness, better.mine.fitness, shown),
        )
        line = {
            "unix_s": round(better.now_unix_s, 3),
            "member": self._run,
            "copied_from": member.name,
            "fitness": better.mine.fitness,
            "their_fitness": member.fitness,
            "frames": learner.frames,
            "generation": copied.generation,
            "values": values,
        }
        mine = replace(self._member(learner), unix_s=better.now_unix_s)
        self._start(self._link.tell_copy, mine, line)

    def _go_back(self, learner: Learner, before: Checkpoint, own: Copied) -> None:
        """Goes on from the state before a copy with which no update can be made."""
        self._before = None
        learner.adopt(before, own)
        learner.faults_in_a_row = 0
        self._refuse(CheckpointError("no finite update can be made of it; back to the own state"))

    def _refuse(self, error: ImpalaError) -> None:
        self.refused += 1
        log.warning("REFUSED what a member of the population offers: %s", printable(error))

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        """Lets the population's thread do something, and keeps what ends it."""
        self._thread = threading.Thread(
            target=self._work, args=(work, *arguments), name="population", daemon=True
        )
        self._thread.start()

    # What follows runs on the population's thread.

    def _work(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
            self._is_away = False
        except (CheckpointError, MessageRefused) as error:
            self._refuse(error)
        except ImpalaError as error:
            if not self._is_away:
                log.warning("the population is left out until its server answers: %s", error)
            self._is_away = True
        except Exception as error:
            self._failure = error

    def _exchange(
        self, mine: Member, tensors: Tensors, facts: dict[str, Any], may_copy: bool
    ) -> None:
        """Writes this member's record and state, and looks whether another one is better."""
        # Alone of the facts, this is gone on with; returns of many tasks would take much room.
        data = packed(tensors, {"optimizer_steps": facts["optimizer_steps"]})
        census = self._link.census()
        mine = replace(mine, unix_s=census.now_unix_s, digest=hashlib.sha256(data).hexdigest())
        self._link.tell(mine, data)
        self._link.forget_the_silent(census)
        self._note_unreadable(census)
        others = rivals(mine, census.members, census.now_unix_s)
        chosen = exploit(mine, others, self._rng) if may_copy else None
        if chosen is None:
            return
        found = self._link.state_of(chosen.name, len(data) + MOST_BYTES_MORE)
        if found is not None and rivals(mine, [found[0]], census.now_unix_s):
            before = Checkpoint(tensors, facts, Path("its own state"))
            self._better = Better(*found, mine, before, census.now_unix_s)

    def _note_unreadable(self, census: Census) -> None:
        """Counts records that are none, and says so once of each member."""
        for name, why in census.refused.items():
            if name not in self._unreadable:
                self._unreadable.add(name)
                self._refuse(MessageRefused("malformed", why))


def fitness_of(learner: Learner) -> tuple[float | None, Measure]:
    """What members are compared by, and what it is; None while it is not known.

    A run that gives its tasks has scores, and then their mean counts.
    """
    measure: Measure = "score" if learner.engine.spec.tasks else "return"
    found = learner.score if measure == "score" else learner.window.mean_return
    return (found if found is not None and math.isfinite(found) else None), measure


def member_of(job: Job) -> Populating | None:
    """The learner's part in a population, if it was asked for one. Raises ConfigError."""
    terms, plan = job.terms, job.plan
    if terms.population is None:
        return None
    if job.ranks > 1:
        raise ConfigError(
            "a member of a population is one learner, and this run has a group of "
            f"{job.ranks}; leave out --population, or begin without torchrun and --learners"
        )
    where = (job.means.redis_url, terms.population, terms.population_interval)
    return Populating(*where, plan.run, plan.config)
