"""impala-learner: owns a run. Takes trajectories, updates, publishes weights, checkpoints, records.

The loop is `LearnerProgram._train`. Intake and publishing have threads of their own
(`common.feeder`, `common.publisher`); the mathematics is in `common.learning`.
"""

import contextlib
import importlib.metadata
import logging
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from common import __version__, checkpoint, wire
from common.connection import without_password
from common.envs import VectorEnvironment
from common.errors import (
    EXIT_INTERRUPTED,
    Fenced,
    ImpalaError,
    NotFinite,
    SpecMismatch,
    UnsuitableServer,
)
from common.metrics import Means, Recorder
from common.publisher import Publisher
from common.spec import RunSpec, make_spec
from common.transport import LearnerSide
from workers import runtime
from workers.options import GroupedCommand, every_setting, shared
from workers.plan import Plan, make_plan

if TYPE_CHECKING:
    from common.feeder import Feeder
    from common.learning import Learner

log = logging.getLogger(__name__)

Status = Literal["solved", "finished", "interrupted", "failed"]

BATCH_TIMEOUT_S = 0.2
NO_DATA_NOTICE_S = 10.0
LOG_LINE_INTERVAL_S = 5.0
# Of a record, what the learner leaves in Redis for impala-status.
STATUS_FIGURES = (
    "frames",
    "updates",
    "episodes",
    "mean_return_100",
    "frames_per_s",
    "wait_share",
    "policy_lag_mean",
    "policy_lag_max",
)
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


@click.command(cls=GroupedCommand, context_settings=runtime.CONTEXT)
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
    runtime.set_up_logging(log_level, "learner")
    runtime.share_the_interpreter()
    stop = runtime.StopFlag()
    with runtime.exit_codes(stop):
        plan = make_plan(
            run=run,
            run_dir=run_dir,
            preset_name=preset,
            config_file=config_file,
            resume=resume,
            overrides=overrides,
        )
        job = Job(plan, redis_url, device, threads, resume, take_over, wait_redis_s)
        status = LearnerProgram(job, stop).run()
        log.info("%s; the run is in %s", status, plan.directory.path)
        if status == "interrupted":
            raise SystemExit(EXIT_INTERRUPTED)


class LearnerProgram:
    """One learner's life: open the run, train, close it."""

    def __init__(self, job: Job, stop: runtime.StopFlag) -> None:
        self.job, self.stop = job, stop
        self.run_name, self.config = job.plan.run, job.plan.config
        self.directory = job.plan.directory
        self.side = LearnerSide(
            job.redis_url, self.run_name, runtime.holder_name(), self.config.transport.lease_s
        )
        self.spec: RunSpec
        self.publisher: Publisher
        self.feeder: Feeder
        self.learner: Learner
        self.recorder: Recorder
        self.means = Means()
        self.started = time.monotonic()
        self.first_batch: float | None = None
        self.waited_s = 0.0
        self.last_batch = time.monotonic()
        self.notice_due = runtime.every(NO_DATA_NOTICE_S, at_once=True)

    def run(self) -> Status:
        """Trains until solved, finished or stopped; the run directory then holds the result."""
        self._open_run()
        try:
            self._start_learning()
            status = self._train()
            self._close(status)
        except ImpalaError as error:
            self._fail(error)
            raise
        finally:
            self.side.close()
        return status

    # The loop.

    def _train(self) -> Status:
        """Take a batch, update, settle, publish, record: until a goal is reached or `stop`."""
        record_due = runtime.every(self.config.training.log_interval_s)
        checkpoint_due = runtime.every(self.config.training.checkpoint_interval_s)
        while not self.stop():
            batch = self._next_batch()
            if batch is None:
                continue
            figures = self.learner.update(batch)
            self.feeder.trained(batch)
            self.means.add(figures)
            self._refuse_nonsense()
            if self.publisher.ready:
                self.publisher.offer(self.learner.version, self.learner.weights())
            if record_due():
                self._record()
            if checkpoint_due():
                self._save_checkpoint()
            reached = self._goal_reached()
            if reached:
                return reached
        return "interrupted"

    def _next_batch(self) -> Any:
        """A batch, or None after a short wait; says so when none comes for long."""
        before = time.monotonic()
        batch = self.feeder.next_batch(BATCH_TIMEOUT_S)
        now = time.monotonic()
        self.waited_s += now - before
        if self.publisher.failure:
            raise self.publisher.failure
        if batch is None:
            if now - self.last_batch > NO_DATA_NOTICE_S and self.notice_due():
                log.info(
                    "no trajectories for %.0f s; start actors with: impala-actor --run %s "
                    "--redis-url %s",
                    now - self.last_batch,
                    self.run_name,
                    without_password(self.job.redis_url),
                )
            return None
        self.last_batch = now
        if self.first_batch is None:
            self.first_batch = before
            log.info("the first batch is here")
        return batch

    def _goal_reached(self) -> Status | None:
        training, mean_return = self.config.training, self.learner.window.mean_return
        goal = training.stop_at_return
        if goal is not None and mean_return is not None and mean_return >= goal:
            return "solved"
        return "finished" if self.learner.frames >= training.total_frames else None

    def _refuse_nonsense(self) -> None:
        if self.learner.skipped_in_a_row >= NOT_FINITE_LIMIT:
            raise NotFinite(
                f"{NOT_FINITE_LIMIT} updates in a row had no finite gradients; lower "
                "--learning-rate or look at the environment's rewards, then --resume"
            )

    # Before it.

    def _open_run(self) -> None:
        """Checks the directory, the environment and the server, and takes the run's lease."""
        job = self.job
        self.directory.prepare(job.resume)
        environment = VectorEnvironment(self.config.environment.env, 1)
        self.spec = make_spec(
            self.run_name, self.config, environment.observation, environment.num_actions
        )
        environment.close()
        self.saved = self._find_checkpoint()
        memory_limit = runtime.wait_for_redis(
            self.side.check_server, job.redis_url, job.wait_redis_s, self.stop
        )
        self._check_memory(memory_limit)
        holder = self.side.current_holder()
        gone = holder is not None and runtime.is_dead_here(holder)
        if gone:
            log.warning("taking the run over from %s, which is gone", holder)
        abandoned = self.side.open(take_over=job.take_over or gone)
        log.info(
            "run %s, epoch %d; queue: %s", self.run_name, self.side.epoch, self.queue_command()
        )
        if abandoned:
            log.warning("%d blocks that the last learner had claimed are abandoned", abandoned)

    def queue_command(self) -> str:
        """The line that shows the queue's length."""
        return f"redis-cli LLEN '{self.side.keys.trajectories}'"

    def _find_checkpoint(self) -> checkpoint.Checkpoint | None:
        directory = self.directory
        if not self.job.resume:
            return None
        if not directory.holds_a_checkpoint:
            log.warning("NOTHING TO RESUME in %s: starting a new run", directory.path)
            return None
        saved = checkpoint.load(directory.checkpoints)
        there = RunSpec.from_json(str(saved.facts.get("spec")))
        if there.fingerprint != self.spec.fingerprint:
            raise SpecMismatch(
                f"{saved.path} is of another run: {self.spec.difference(there)}; resume with the "
                "settings it was made with, or give another --run-dir"
            )
        return saved

    def _check_memory(self, limit: int) -> None:
        """Refuses a server without room for the run, and warns of one without a limit."""
        block = wire.block_nbytes(self.spec, self.config.environment.envs_per_actor)
        blocks = self.config.transport.queue_blocks + 4  # and what is in flight
        need = blocks * block + 4 * wire.weights_nbytes(self.spec) + 8_000_000
        if limit == 0:
            log.warning(
                "the server has no memory limit; set one with: redis-cli CONFIG SET maxmemory %d",
                max(need, 256_000_000),
            )
        elif need > limit:
            raise UnsuitableServer(
                f"the run needs about {need / 1e6:.0f} MB of the server and its maxmemory is "
                f"{limit / 1e6:.0f} MB; raise it, or lower --queue-blocks or --envs-per-actor"
            )

    def _start_learning(self) -> None:
        """Builds or restores the state of training, announces the run, starts the threads."""
        job, transport = self.job, self.config.transport
        self.publisher = Publisher(
            self.side, self.spec, transport.publish_interval_s, transport.lease_s
        )
        self.publisher.start()  # keeps the lease from here on

        # Late: torch takes a second to import, and all that can be refused was refused above.
        import torch

        from common.feeder import Feeder
        from common.learning import Learner, choose_device

        torch.set_num_threads(job.threads)
        device = choose_device(job.device)
        self.learner = Learner(self.spec, self.config, device)
        if self.saved:
            self.learner.restore(self.saved)
            log.info("resumed from %s: %d updates", self.saved.path.name, self.learner.updates)
        self.learner.version = max(self.learner.version, self.side.weights_version()) + 1
        self._announce()
        self._save_checkpoint()
        self.directory.write_config(self.run_name, job.plan.preset, self.config)
        self.recorder = Recorder(self.directory.path)
        self.feeder = Feeder(
            self.side,
            self.spec,
            self.config.training.batch_size,
            device.type == "cuda",
            transport.max_policy_lag,
            lambda: self.learner.version,
            self._reopen,
        )
        self.feeder.start()
        self.frames_before = self.learner.frames
        self.recorded = (time.monotonic(), self.learner.frames, 0.0)
        self.last_batch = time.monotonic()
        self.line_due = runtime.every(LOG_LINE_INTERVAL_S)
        log.info("ready on %s; waiting for the first batch", device)

    def _announce(self) -> None:
        """Weights first: an actor that sees the spec finds them."""
        frame = wire.pack_weights(self.learner.weights(), self.learner.version, self.spec)
        self.side.publish(self.learner.version, frame)
        self.side.announce(self.spec.to_json(), self.spec.fingerprint, "running")

    def _reopen(self) -> None:
        """Opens the run again after the server lost it (on the feeder's thread)."""
        self.side.open()
        self.publisher.republish()
        self.side.announce(self.spec.to_json(), self.spec.fingerprint, "running")

    # After it, and in between.

    def _record(self) -> None:
        """One record in the run directory, and sometimes a line in the log."""
        now, frames = time.monotonic(), self.learner.frames
        last, last_frames, last_waited_s = self.recorded
        self.recorded = (now, frames, self.waited_s)
        record: dict[str, Any] = {
            "unix_s": round(time.time(), 3),
            "time_s": round(now - self.started, 3),
            "frames": frames,
            "updates": self.learner.updates,
            "episodes": self.learner.window.episodes,
            "weights_version": self.learner.version,
            "mean_return_100": self.learner.window.mean_return,
            "frames_per_s": (frames - last_frames) / max(now - last, 1e-9),
            "wait_share": (self.waited_s - last_waited_s) / max(now - last, 1e-9),
            "queue_blocks": self.feeder.queued,
            **self.means.take(),
        }
        self.recorder.record(record)
        self.publisher.figures = {
            name: value
            for name in STATUS_FIGURES
            if isinstance(value := record.get(name), int | float)
        }
        if self.line_due():
            log.info(
                "%s frames, %s/s, return %s, policy lag %.1f, queue %d of %d",
                f"{frames:,}",
                f"{record['frames_per_s']:,.0f}",
                "-" if record["mean_return_100"] is None else f"{record['mean_return_100']:.1f}",
                record.get("policy_lag_mean", 0.0),
                self.feeder.queued,
                self.config.transport.queue_blocks,
            )

    def _save_checkpoint(self) -> None:
        """Saves; a full disk is said loudly and training goes on."""
        tensors, facts = self.learner.state()
        facts |= {"spec": self.spec.to_json(), "epoch": self.side.epoch}
        directory, keep = self.directory.checkpoints, self.config.training.keep_checkpoints
        try:
            checkpoint.save(directory, self.learner.updates, tensors, facts, keep)
        except OSError as error:
            log.error("NO CHECKPOINT was written (%s); the earlier ones are intact", error)

    def _close(self, status: Status) -> None:
        """Ends the threads, leaves the last weights in Redis and the result on disk."""
        finished_at = time.monotonic()
        self.feeder.close()
        self.publisher.offer(self.learner.version, self.learner.weights())
        self.publisher.close()
        self._save_checkpoint()
        self._record()
        self._write_result(status, finished_at)
        self.recorder.close()
        try:
            if status != "interrupted":
                self.side.announce(self.spec.to_json(), self.spec.fingerprint, "finished")
            self.side.release()
        except ImpalaError as error:
            log.warning("left without giving the lease back: %s", error)

    def _fail(self, error: ImpalaError) -> None:
        """Writes the result of a run that ends by an error, unless the run is another's now."""
        if hasattr(self, "recorder") and not isinstance(error, Fenced):
            self._write_result("failed", time.monotonic(), str(error))
        with contextlib.suppress(ImpalaError):
            self.side.release()

    def _write_result(self, status: Status, at: float, error: str | None = None) -> None:
        learner, learner_s = self.learner, at - (self.first_batch or at)
        frames_here = learner.frames - self.frames_before
        self.directory.write_result(
            {
                "status": status,
                "frames": learner.frames,
                "updates": learner.updates,
                "episodes": learner.window.episodes,
                "mean_return_100": learner.window.mean_return,
                "wall_s": round(
                    time.time() - runtime.started_at_unix_s() - (time.monotonic() - at), 3
                ),
                "learner_s": round(learner_s, 3),
                "frames_per_s": round(frames_here / learner_s) if learner_s else None,
                "seed": self.config.training.seed,
                "preset": self.job.plan.preset,
                "versions": _versions(),
            }
            | ({"error": error} if error else {})
        )


def _versions() -> dict[str, str]:
    packages = ("torch", "gymnasium", "numpy", "redis")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"impala-redis": __version__, "python": platform.python_version()} | found


if __name__ == "__main__":
    main()
