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
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from impala_redis.common.errors import EXIT_INTERRUPTED, ImpalaError, OutOfStep, RunMissing
from impala_redis.common.feeding.delay import Delay, most_behind
from impala_redis.common.feeding.publisher import Publisher
from impala_redis.common.grouping.facts import Facts
from impala_redis.common.learning.engines import check_engine, make_engine, may_use_gpu
from impala_redis.common.learning.learner import Learner
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.workers import opening, pacing, populating, process, seating, stopping
from impala_redis.workers.beginning import Beginning
from impala_redis.workers.feeding import start_feeder
from impala_redis.workers.job import Job, Means
from impala_redis.workers.logbook import Logbook, ResultStatus
from impala_redis.workers.options import CONTEXT, shared
from impala_redis.workers.plan import make_plan
from impala_redis.workers.seating import Seating
from impala_redis.workers.setting_options import GroupedCommand, every_setting
from impala_redis.workers.terms import Terms, terms_options
from impala_redis.workers.training import Alone, Training, actor_command, goal_reached

if TYPE_CHECKING:
    from impala_redis.workers.gathering import Gathered

log = logging.getLogger(__name__)

Reply = TypeVar("Reply")

# Without data there is little to record, except that there was none.
IDLE_RECORD_S = 5.0


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
    stopping.set_up_logging(log_level, seating.name_here())
    process.share_the_interpreter()
    process.keep_memory()
    stop = stopping.StopFlag()
    # Where several threads are wanted, an engine starts them itself.
    with (
        stopping.exit_codes(stop),
        process.one_computing_thread(),
        seating.seated(stop) as seat,
    ):
        asked = {
            "run": run,
            "run_dir": run_dir,
            "preset_name": preset,
            "config_file": config_file,
            "resume": resume,
            "overrides": overrides,
            "init_from": init_from,
        }
        means = Means(redis_url, wait_redis_s, engine, device, threads)
        code = EXIT_INTERRUPTED if _trained(asked, terms, means, seat, stop) else 0
        if seat.rank == 0:
            seat.end(code)
        if code:
            raise SystemExit(code)


def _trained(
    asked: Mapping[str, Any], terms: Terms, means: Means, seat: Seating, stop: stopping.StopFlag
) -> bool:
    """Trains what is `asked` of a plan, as the run's learner or a further one; whether stopped."""
    if seat.place is None or seat.rank == 0:
        if seat.place and (directory := seat.directory_begun()):
            attempt = seat.place.rendezvous.attempt
            log.warning("torchrun has begun anew, attempt %d; going on in %s", attempt, directory)
            asked = {**asked, "resume": True, "run_dir": directory}
        job = Job(make_plan(**asked), asked["resume"], terms, means, seat)
        return LearnerProgram(job, stop).run() == "interrupted"
    from impala_redis.workers.member import Member

    Member(asked, means, seat.place, stop).run()
    # With a code of its own torchrun would end the first learner, which may still save.
    return False


class LearnerProgram:
    """One learner's life: open the run, train, close it."""

    def __init__(self, job: Job, stop: stopping.StopFlag) -> None:
        self._job, self._stop = job, stop
        self._config = job.plan.config
        self._population = populating.member_of(job)
        names = (job.means.redis_url, job.plan.run, process.holder_name())
        self._link = LearnerLink(*names, self._config.transport.lease_s, ranks=job.ranks)

    def run(self) -> ResultStatus:
        """Trains until solved, finished or stopped; the run directory then holds the result."""
        # After an error, `begun` ends what was begun, the last first.
        with contextlib.closing(self._link), contextlib.ExitStack() as begun:
            job, means = self._job, self._job.means
            if self._population is not None:
                self._with_retries(self._population.require)
            batch_size = job.part.training.batch_size
            beginning = opening.prepare(job.plan, job.resume, self._stop)
            spec = beginning.spec
            check_engine(means.engine, means.device, spec, self._config, job.ranks)
            batches = 3 if may_use_gpu(means.device, spec) else 2
            in_flight = job.ranks * opening.most_in_flight(spec, batch_size, batches)
            take = (self._link, spec, in_flight, job.terms, self._with_retries, self._stop)
            opening.take(*take, job.seating.noted("holder"))
            job.seating.note("holder", self._link.holder)
            begun.callback(self._release)
            training = self._start_learning(beginning, begun)
            # Inside of it: the result is written before a thread is waited for.
            with training.logbook.noting_failure():
                status = self._train(training)
                self._close(training, status)
            begun.pop_all()  # `_close` has ended it
        log.info("%s: %s; the run is in %s", status, training.summary(), job.plan.directory.path)
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
        saved = learner.updates
        while True:
            saving = learner.updates > saved and checkpoint_due()
            batch = training.next_batch(self._stop(), saving)
            ended = training.update(batch)
            training.compare()
            training.offer_weights()
            if record_due() if batch else idle_record_due():
                training.record()
            if saving:
                logbook.save_checkpoint(self._link.epoch)
                saved = learner.updates
            if training.company.leaving:
                return "interrupted"
            if ended and (status := goal_reached(settings, learner)):
                training.company.leave(status)
                return status

    # Before the loop.

    def _start_learning(self, beginning: Beginning, begun: contextlib.ExitStack) -> Training:
        """Builds or restores the state of training, announces the run, starts the threads."""
        job, spec = self._job, beginning.spec
        publisher = self._start_publishing(spec, begun)

        # Late: torch, if it is needed, takes a second to import. All but a GPU that is missing was
        # refused before.
        with process.keeping_all():
            learner, gathered = self._make_learner(spec)
        if gathered is not None:
            begun.callback(gathered.group.close)
        beginning.begin(learner)
        learner.version = max(learner.version, self._with_retries(self._link.weights_version)) + 1
        spec = dataclasses.replace(spec, start_frames=learner.frames, resumes=beginning.resumes)
        self._with_retries(lambda: self._introduce(publisher, spec, learner))
        logbook = Logbook(job.plan, spec, learner)
        with logbook.noting_failure():
            logbook.save_checkpoint(self._link.epoch)
            job.seating.note("directory", str(job.plan.directory.path.absolute()))
            company = Alone() if gathered is None else gathered.begin()
            reopen = partial(self._reopen, publisher)
            feeder = start_feeder(self._link, spec, job.part, learner, reopen, logbook.refusals)
        begun.callback(feeder.close)  # or the interpreter might end while it copies to a GPU
        log.info("ready on %s; waiting for the first batch", learner.engine.where)
        delay = Delay(self._config.transport.force_lag)
        to_join = actor_command(spec.run, self._config, self._link.url)
        parts = (learner, feeder, publisher, logbook, delay, company, self._population)
        return Training(spec, to_join, *parts)

    def _make_learner(self, spec: RunSpec) -> "tuple[Learner, Gathered | None]":
        """A fresh state of training, and the others that make its updates, if there are any."""
        means, place = self._job.means, self._job.seating.place
        if place is None:
            how = (means.engine, means.device, means.threads)
            engine = make_engine(*how, spec, self._config)
            return Learner(self._config, engine), None
        from impala_redis.workers import gathering

        facts = Facts(self._config, spec, self._link.holder)
        gathered = gathering.lead(place, facts, means)
        return gathered.learner, gathered

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
        self._link.reopen()
        publisher.reintroduce()

    def _with_retries(self, ask: Callable[[], Reply]) -> Reply:
        """Asks until the server answers, for as long as the user said. Raises RedisUnreachable."""
        url, wait_s, *_ = self._job.means
        return pacing.wait_for_redis(ask, url, wait_s, self._stop)

    # After the loop.

    def _close(self, training: Training, status: ResultStatus) -> None:
        """Leaves the result on disk and the last weights in Redis, and ends the threads."""
        logbook, publisher, link = training.logbook, training.publisher, self._link
        training.update(None)
        training.part()
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


if __name__ == "__main__":
    main()
