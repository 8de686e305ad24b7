"""impala-learner: owns a run. Takes trajectories, updates, publishes weights, checkpoints, records.

The loop is `LearnerProgram._train`. Three threads share the work:

    main thread              feeder thread                publisher thread
    LearnerProgram           Feeder, Intake, Replay       Publisher
      next_batch()  <------    fills one batch while
      Learner.update           others are trained on
      trained()     ------>    settles, claims, checks
      offer()       ------------------------------------>   packs and publishes the newest
      record() reads the totals of both                     renews the lease, writes figures

The main thread alone changes the Learner (network, optimizer, counters) and the Logbook (files of
the run directory). When the server has lost the run, the feeder thread opens it again and publishes
the last weights. Batches have one owner at a time: they go round between main and feeder thread.
Weights that were offered are never changed. All threads talk to Redis through one LearnerLink; an
error that ends a thread is kept in its `failure` and raised by the main thread's next step.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from impala_redis.common.errors import (
    EXIT_INTERRUPTED,
    ImpalaError,
    NotFinite,
    OutOfStep,
    RunMissing,
)
from impala_redis.common.feeding.delay import Delay, most_behind
from impala_redis.common.feeding.feeder import Feeder
from impala_redis.common.feeding.intake import Intake
from impala_redis.common.feeding.publisher import Publisher
from impala_redis.common.feeding.replay import make_replay
from impala_redis.common.learning.engines import check_engine, make_engine, may_use_gpu
from impala_redis.common.learning.learner import Learner
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.workers import opening, pacing, process, stopping
from impala_redis.workers.beginning import Beginning
from impala_redis.workers.logbook import Logbook, ResultStatus
from impala_redis.workers.options import CONTEXT, shared
from impala_redis.workers.plan import Plan, make_plan
from impala_redis.workers.setting_options import GroupedCommand, every_setting
from impala_redis.workers.terms import Terms, terms_options
from impala_redis.workers.training import Training, actor_command

log = logging.getLogger(__name__)

Reply = TypeVar("Reply")

# Without data there is little to record, except that there was none.
IDLE_RECORD_S = 5.0
# Updates in a row without finite gradients for which the network is at fault, after which the
# run stops.
NOT_FINITE_LIMIT = 20


@dataclass(frozen=True)
class Job:
    """The plan and options that a learner is started with."""

    plan: Plan
    redis_url: str
    engine: str
    device: str
    threads: int
    resume: bool
    terms: Terms
    wait_redis_s: float


@click.command(cls=GroupedCommand, context_settings=CONTEXT)
@shared("redis-url", "run", "run-dir", "preset", "config", "engine", "device", "threads", "resume")
@shared("init-from")
@terms_options
@shared("wait-redis-s", "log-level")
@every_setting
def main(
    redis_url: str,
    run: str | None,
    run_dir: Path | None,
    preset: str | None,
    config_file: Path | None,
    engine: str,
    device: str,
    threads: int,
    resume: bool,
    init_from: str | None,
    terms: Terms,
    wait_redis_s: float,
    log_level: str,
    overrides: dict[str, Any],
) -> None:
    """Learns from the trajectories that actors push to Redis, and publishes the weights."""
    stopping.set_up_logging(log_level, "learner")
    process.share_the_interpreter()
    process.keep_memory()
    stop = stopping.StopFlag()
    # Where several threads are wanted, an engine starts them itself.
    with stopping.exit_codes(stop), process.one_computing_thread():
        plan = make_plan(
            run=run,
            run_dir=run_dir,
            preset_name=preset,
            config_file=config_file,
            resume=resume,
            overrides=overrides,
            init_from=init_from,
        )
        job = Job(plan, redis_url, engine, device, threads, resume, terms, wait_redis_s)
        if LearnerProgram(job, stop).run() == "interrupted":
            raise SystemExit(EXIT_INTERRUPTED)


class LearnerProgram:
    """One learner's life: open the run, train, close it."""

    def __init__(self, job: Job, stop: stopping.StopFlag) -> None:
        self._job, self._stop = job, stop
        self._config = job.plan.config
        lease_s = self._config.transport.lease_s
        self._link = LearnerLink(job.redis_url, job.plan.run, process.holder_name(), lease_s)

    def run(self) -> ResultStatus:
        """Trains until solved, finished or stopped; the run directory then holds the result."""
        # After an error, `begun` ends what was begun, the last first.
        with contextlib.closing(self._link), contextlib.ExitStack() as begun:
            beginning = opening.prepare(self._job.plan, self._job.resume, self._stop)
            spec = beginning.spec
            check_engine(self._job.engine, self._job.device, spec, self._config)
            batches = 3 if may_use_gpu(self._job.device, spec) else 2
            take = (self._link, spec, self._config, batches, self._job.terms, self._with_retries)
            opening.take(*take, self._stop)
            begun.callback(self._release)
            training = self._start_learning(beginning, begun)
            # Inside of it: the result is written before a thread is waited for.
            with training.logbook.noting_failure():
                status = self._train(training)
                self._close(training, status)
            begun.pop_all()  # `_close` has ended it
        directory = self._job.plan.directory.path
        log.info("%s: %s; the run is in %s", status, training.summary(), directory)
        training.logbook.check_written(status)
        return status

    # The loop.

    def _train(self, training: Training) -> ResultStatus:
        """Take a batch, update, settle, publish, record: until a goal is reached or `stop`."""
        learner, logbook = training.learner, training.logbook
        settings = self._config.training
        record_due = pacing.every(settings.log_interval_s)
        idle_record_due = pacing.every(IDLE_RECORD_S)
        checkpoint_due = pacing.every(settings.checkpoint_interval_s)
        while not self._stop():
            batch = training.next_batch()
            ended = learner.update(batch) if batch else learner.settle()
            training.note(ended)
            _stop_if_not_finite(learner)
            training.offer_weights()
            if record_due() if batch else idle_record_due():
                training.record()
            if batch and checkpoint_due():
                training.note(learner.settle())
                logbook.save_checkpoint(self._link.epoch)
            if ended and (status := self._goal_reached(learner)):
                return status
        return "interrupted"

    def _goal_reached(self, learner: Learner) -> ResultStatus | None:
        settings, mean_return = self._config.training, learner.window.mean_return
        goal = settings.stop_at_return
        if goal is not None and mean_return is not None and mean_return >= goal:
            return "solved"
        return "finished" if learner.frames >= settings.total_frames else None

    # Before the loop.

    def _start_learning(self, beginning: Beginning, begun: contextlib.ExitStack) -> Training:
        """Builds or restores the state of training, announces the run, starts the threads."""
        job, transport, spec = self._job, self._config.transport, beginning.spec
        publisher = self._start_publishing(spec, begun)

        # Late: torch, if it is needed, takes a second to import. All but a GPU that is missing was
        # refused before.
        with process.keeping_all():
            engine = make_engine(job.engine, job.device, job.threads, spec, self._config)
        learner = Learner(self._config, engine)
        beginning.begin(learner)
        learner.version = max(learner.version, self._with_retries(self._link.weights_version)) + 1
        spec = dataclasses.replace(spec, start_frames=learner.frames, resumes=beginning.resumes)
        self._with_retries(lambda: self._introduce(publisher, spec, learner))
        logbook = Logbook(job.plan, spec, learner)
        with logbook.noting_failure():
            logbook.save_checkpoint(self._link.epoch)
            intake = Intake(
                self._link,
                spec,
                transport.max_policy_lag,
                learner_version=lambda: learner.version,
                reopen=lambda: self._reopen(publisher),
                refusals=logbook.refusals,
            )
            batch_size = self._config.training.batch_size
            feeder = Feeder(
                intake,
                lambda: engine.empty_rows(batch_size),
                engine.stage,
                make_replay(spec, self._config),
                batches=2 + engine.ahead,
            )
            feeder.start()
        begun.callback(feeder.close)  # or the interpreter might end while it copies to a GPU
        log.info("ready on %s; waiting for the first batch", engine.where)
        delay = Delay(transport.force_lag)
        to_join = actor_command(spec.run, self._config, self._link.url)
        return Training(spec, to_join, learner, feeder, publisher, logbook, delay)

    def _start_publishing(self, spec: RunSpec, begun: contextlib.ExitStack) -> Publisher:
        """Keeps the lease from here on."""
        transport = self._config.transport
        behind = most_behind(transport.max_policy_lag, transport.force_lag)
        pace = (transport.publish_interval_s, transport.lease_s, behind)
        publisher = Publisher(self._link, spec, *pace)
        publisher.start()
        begun.callback(publisher.close)  # or it would renew the lease that is given back
        return publisher

    def _introduce(self, publisher: Publisher, spec: RunSpec, learner: Learner) -> None:
        """Lets actors join; opens the run again if the server lost it while torch was imported."""
        self._link.forget_joins()
        try:
            publisher.introduce(spec, learner.versioned_weights())
        except (RunMissing, OutOfStep):
            self._link.open()
            publisher.introduce(spec, learner.versioned_weights())

    def _reopen(self, publisher: Publisher) -> None:
        """Opens the run again after the server lost it (on the feeder's thread)."""
        self._link.open()
        publisher.reintroduce()

    def _with_retries(self, ask: Callable[[], Reply]) -> Reply:
        """Asks until the server answers, for as long as the user said. Raises RedisUnreachable."""
        job = self._job
        return pacing.wait_for_redis(ask, job.redis_url, job.wait_redis_s, self._stop)

    # After the loop.

    def _close(self, training: Training, status: ResultStatus) -> None:
        """Leaves the result on disk and the last weights in Redis, and ends the threads."""
        logbook, publisher, link = training.logbook, training.publisher, self._link
        training.note(training.learner.settle())
        logbook.save_checkpoint(link.epoch)
        logbook.write_result(status)
        # Both threads at once: with a server that does not answer, each takes its time-out.
        publisher.offer(training.learner.versioned_weights())
        publisher.finish()
        reachable = training.feeder.close()
        publisher.close()
        if logbook.behind:
            training.record()
        logbook.close()
        try:
            if reachable:
                link.renew(publisher.status_figures)  # what impala-status shows from now on
            if reachable and status != "interrupted":
                link.announce(training.spec.to_json(), training.spec.fingerprint, "finished")
            if reachable:
                link.release()
        except ImpalaError as error:
            log.warning("left without giving the lease back: %s", error)

    def _release(self) -> None:
        """Gives the lease back, if the server lets us."""
        with contextlib.suppress(ImpalaError):
            self._link.release()


def _stop_if_not_finite(learner: Learner) -> None:
    if learner.faults_in_a_row >= NOT_FINITE_LIMIT:
        raise NotFinite(
            f"{NOT_FINITE_LIMIT} updates in a row had no finite gradients; lower "
            "--learning-rate or look at the environment's rewards, then --resume"
        )


if __name__ == "__main__":
    main()
