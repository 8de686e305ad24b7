"""impala-learner: owns a run. Takes trajectories, updates, publishes weights, checkpoints, records.

The loop is `LearnerProgram._train`. Intake and publishing have threads of their own
(`common.learning.feeder`, `common.learning.publisher`); the mathematics is in
`common.learning.learner`.
"""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from impala_redis.common.errors import (
    EXIT_INTERRUPTED,
    Fenced,
    ImpalaError,
    NotFinite,
    OutOfStep,
    RunMissing,
)
from impala_redis.common.learning.delay import Delay
from impala_redis.common.learning.publisher import Publisher
from impala_redis.common.records import checkpoint
from impala_redis.common.run.spec import RunSpec, module_of
from impala_redis.common.server.address import without_password
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.workers import opening, pacing, process, stopping
from impala_redis.workers.logbook import Logbook, ResultStatus
from impala_redis.workers.options import CONTEXT, GroupedCommand, every_setting, shared
from impala_redis.workers.plan import Plan, make_plan

if TYPE_CHECKING:
    from impala_redis.common.learning.batch import Batch
    from impala_redis.common.learning.feeder import Feeder
    from impala_redis.common.learning.learner import Learner
    from impala_redis.common.learning.replay import Replay

log = logging.getLogger(__name__)

Reply = TypeVar("Reply")

BATCH_TIMEOUT_S = 0.2
NO_DATA_NOTICE_S = 10.0
# Without data there is little to record, but that there was none.
IDLE_RECORD_S = 5.0
# Updates in a row without finite gradients, after which the run stops.
NOT_FINITE_LIMIT = 20


@dataclass(frozen=True)
class Job:
    """What a learner is started with."""

    plan: Plan
    redis_url: str
    device: str
    threads: int
    resume: bool
    take_over: bool
    wait_redis_s: float


@click.command(cls=GroupedCommand, context_settings=CONTEXT)
@shared("redis-url", "run", "run-dir", "preset", "config", "device", "threads", "resume")
@shared("take-over", "wait-redis-s", "log-level")
@every_setting
def main(
    redis_url: str,
    run: str | None,
    run_dir: Path | None,
    preset: str | None,
    config_file: Path | None,
    device: str,
    threads: int,
    resume: bool,
    take_over: bool,
    wait_redis_s: float,
    log_level: str,
    overrides: dict[str, Any],
) -> None:
    """Learns from the trajectories that actors push to Redis, and publishes the weights."""
    stopping.set_up_logging(log_level, "learner")
    process.share_the_interpreter()
    process.keep_memory()
    stop = stopping.StopFlag()
    with stopping.exit_codes(stop):
        plan = make_plan(
            run=run,
            run_dir=run_dir,
            preset_name=preset,
            config_file=config_file,
            resume=resume,
            overrides=overrides,
        )
        job = Job(plan, redis_url, device, threads, resume, take_over, wait_redis_s)
        program = LearnerProgram(job, stop)
        status = program.run()
        log.info("%s: %s; the run is in %s", status, program.summary(), plan.directory.path)
        if status == "interrupted":
            raise SystemExit(EXIT_INTERRUPTED)


class LearnerProgram:
    """One learner's life: open the run, train, close it."""

    def __init__(self, job: Job, stop: stopping.StopFlag) -> None:
        self._job, self._stop = job, stop
        self._run, self._config = job.plan.run, job.plan.config
        lease_s = self._config.transport.lease_s
        self._link = LearnerLink(job.redis_url, self._run, process.holder_name(), lease_s)
        self._notice_due = pacing.every(NO_DATA_NOTICE_S)
        self._delay = Delay(self._config.transport.force_lag)
        # Made by `_open_run` and `_start_learning`.
        self._spec: RunSpec
        self._saved: checkpoint.Checkpoint | None
        self._publisher: Publisher
        self._learner: Learner
        self._feeder: Feeder
        self._logbook: Logbook | None = None

    def run(self) -> ResultStatus:
        """Trains until solved, finished or stopped; the run directory then holds the result."""
        self._open_run()
        try:
            logbook = self._start_learning()
            status = self._train(logbook)
            self._close(logbook, status)
        except Exception as error:
            self._fail(error)
            raise
        finally:
            self._link.close()
        return status

    def summary(self) -> str:
        """What was reached, in words."""
        mean = self._learner.window.mean_return
        reached = "" if mean is None else f"mean return {mean:.1f} over the last 100 episodes, "
        return f"{reached}{self._learner.frames:,} frames in all"

    # The loop.

    def _train(self, logbook: Logbook) -> ResultStatus:
        """Take a batch, update, settle, publish, record: until a goal is reached or `stop`."""
        training = self._config.training
        record_due = pacing.every(training.log_interval_s)
        idle_record_due = pacing.every(IDLE_RECORD_S)
        checkpoint_due = pacing.every(training.checkpoint_interval_s)
        while not self._stop():
            batch = self._next_batch(logbook)
            if batch is None:
                if idle_record_due():
                    self._publisher.figures = logbook.record(self._feeder, self._publisher)
                continue
            logbook.note_update(batch, self._learner.update(batch))
            self._feeder.trained(batch)
            self._refuse_nonsense()
            self._offer_weights(logbook)
            if record_due():
                self._publisher.figures = logbook.record(self._feeder, self._publisher)
            if checkpoint_due():
                logbook.save_checkpoint(self._link.epoch)
            if status := self._goal_reached():
                return status
        return "interrupted"

    def _next_batch(self, logbook: Logbook) -> "Batch | None":
        """A batch, or None after a short wait; says so when none comes for long."""
        before = time.monotonic()
        batch = self._feeder.next_batch(BATCH_TIMEOUT_S)
        logbook.note_wait(time.monotonic() - before, batch is not None)
        if self._publisher.failure:
            raise self._publisher.failure
        if batch is not None:
            self._last_batch = time.monotonic()
        elif self._feeder.away:
            pass  # the feeder has said so
        elif time.monotonic() - self._last_batch > NO_DATA_NOTICE_S and self._notice_due():
            log.info(
                "no trajectories for %.0f s; start actors with: impala-actor --run %s "
                "--redis-url %s%s",
                time.monotonic() - self._last_batch,
                self._run,
                without_password(self._link.url),
                f" --env-module {module}" if (module := module_of(self._spec.env)) else "",
            )
        return batch

    def _offer_weights(self, logbook: Logbook) -> None:
        """Gives the publisher what actors shall have: the newest, or under --force-lag older."""
        before, learner, publisher = time.monotonic(), self._learner, self._publisher
        if self._delay.updates:
            self._delay.hold(learner.version, learner.weights())
            if publisher.ready and (due := self._delay.due()):
                publisher.offer(*due)
        elif publisher.ready:
            publisher.offer(learner.version, learner.weights())
        logbook.note_copy(time.monotonic() - before)

    def _goal_reached(self) -> ResultStatus | None:
        training, mean_return = self._config.training, self._learner.window.mean_return
        goal = training.stop_at_return
        if goal is not None and mean_return is not None and mean_return >= goal:
            return "solved"
        return "finished" if self._learner.frames >= training.total_frames else None

    def _refuse_nonsense(self) -> None:
        if self._learner.skipped_in_a_row >= NOT_FINITE_LIMIT:
            raise NotFinite(
                f"{NOT_FINITE_LIMIT} updates in a row had no finite gradients; lower "
                "--learning-rate or look at the environment's rewards, then --resume"
            )

    # Before it.

    def _open_run(self) -> None:
        """Takes the run's lease, when nothing speaks against learning."""
        job = self._job
        self._spec, self._saved = opening.prepare(job.plan, job.resume)
        opening.take(self._link, self._spec, job.plan.config, job.take_over, self._patiently)

    def _start_learning(self) -> Logbook:
        """Builds or restores the state of training, announces the run, starts the threads."""
        job, transport = self._job, self._config.transport
        self._publisher = Publisher(
            self._link, self._spec, transport.publish_interval_s, transport.lease_s
        )
        self._publisher.start()  # keeps the lease from here on

        # Late: torch takes a second to import, and all that can be refused was refused above.
        with process.keeping_all():
            import torch

            from impala_redis.common.learning.device import choose_device
            from impala_redis.common.learning.feeder import Feeder
            from impala_redis.common.learning.intake import Intake
            from impala_redis.common.learning.learner import Learner

        torch.set_num_threads(job.threads)
        device = choose_device(job.device)
        learner = self._learner = Learner(self._spec, self._config, device)
        if self._saved:
            learner.restore(self._saved)
            log.info("resumed from %s: %d updates", self._saved.path.name, learner.updates)
        published = self._patiently(self._link.weights_version)
        learner.version = max(learner.version, published) + 1
        self._spec = dataclasses.replace(self._spec, start_frames=learner.frames)
        self._patiently(self._introduce)
        logbook = self._logbook = Logbook(job.plan, self._spec, learner)
        logbook.save_checkpoint(self._link.epoch)
        intake = Intake(
            self._link,
            self._spec,
            transport.max_policy_lag,
            learner_version=lambda: learner.version,
            reopen=self._reopen,
        )
        batch_size = self._config.training.batch_size
        self._feeder = Feeder(intake, self._spec, batch_size, device, self._make_replay())
        self._feeder.start()
        self._last_batch = time.monotonic()
        log.info("ready on %s; waiting for the first batch", device)
        return logbook

    def _make_replay(self) -> "Replay | None":
        """The memory of past trajectories, if the settings ask for one."""
        training, columns = self._config.training, self._config.replayed_columns
        if not columns:
            return None
        from impala_redis.common.learning.replay import Replay

        return Replay(self._spec, training.replay_capacity, columns, training.seed)

    def _introduce(self) -> None:
        """Lets actors join; opens the run again if the server lost it while torch was imported."""
        learner = self._learner
        try:
            self._publisher.introduce(self._spec, learner.version, learner.weights())
        except (RunMissing, OutOfStep):
            self._link.open()
            self._publisher.introduce(self._spec, learner.version, learner.weights())

    def _patiently(self, ask: Callable[[], Reply]) -> Reply:
        """Asks until the server answers, for as long as the user said. Raises RedisUnreachable."""
        job = self._job
        return pacing.wait_for_redis(ask, job.redis_url, job.wait_redis_s, self._stop)

    def _reopen(self) -> None:
        """Opens the run again after the server lost it (on the feeder's thread)."""
        self._link.open()
        self._publisher.reintroduce()

    # After it.

    def _close(self, logbook: Logbook, status: ResultStatus) -> None:
        """Leaves the result on disk and the last weights in Redis, and ends the threads."""
        logbook.save_checkpoint(self._link.epoch)
        logbook.write_result(status)
        # Both threads at once: with a server that does not answer, each takes its time-out.
        self._publisher.offer(self._learner.version, self._learner.weights())
        self._publisher.finish()
        reachable = self._feeder.close()
        self._publisher.close()
        if logbook.behind:
            self._publisher.figures = logbook.record(self._feeder, self._publisher)
        logbook.close()
        try:
            if reachable:
                self._link.renew(self._publisher.figures)  # what impala-status shows from now on
            if reachable and status != "interrupted":
                self._link.announce(self._spec.to_json(), self._spec.fingerprint, "finished")
            if reachable:
                self._link.release()
        except ImpalaError as error:
            log.warning("left without giving the lease back: %s", error)

    def _fail(self, error: Exception) -> None:
        """Writes the result of a run that ends by an error, unless the run is another's now."""
        if self._logbook and not isinstance(error, Fenced):
            self._logbook.write_result("failed", str(error))
        if hasattr(self, "_feeder"):
            self._feeder.close()  # or the interpreter might end while it copies to a GPU
        self._publisher.close()  # or it would renew the lease that is given back
        with contextlib.suppress(ImpalaError):
            self._link.release()


if __name__ == "__main__":
    main()
