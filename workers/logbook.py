"""What a learner leaves behind: records, checkpoints, the result, and lines in its log."""

import contextlib
import importlib.metadata
import logging
import platform
import shlex
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from impala_redis import __version__
from impala_redis.common.errors import Fenced, GroupLost, RunDirectoryError
from impala_redis.common.feeding.feeder import Feeder
from impala_redis.common.feeding.publisher import Publisher
from impala_redis.common.feeding.tally import Means, Refusals, Tally
from impala_redis.common.games.atari_rules import action_repeat
from impala_redis.common.learning.learner import Learner
from impala_redis.common.learning.updates import Updated
from impala_redis.common.records import checkpoint
from impala_redis.common.records.figures import in_status
from impala_redis.common.records.recorder import Recorder
from impala_redis.common.records.refusals import in_words
from impala_redis.common.records.returns import shown_return
from impala_redis.common.records.rundir import written_to
from impala_redis.common.run.saved_spec import MADE_BY
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.transport.situation import slow_rank_in
from impala_redis.workers import pacing, process, scores, voice
from impala_redis.workers.plan import Plan
from impala_redis.workers.ranks import RankTimes

log = logging.getLogger(__name__)

ResultStatus = Literal["solved", "finished", "interrupted", "failed"]

LOG_LINE_INTERVAL_S, UNFIT_LINE_INTERVAL_S = 5.0, 10.0
# Figures that are quotients: by how much two totals rose since the last record.
QUOTIENTS = {
    "frames_per_s": ("frames", "elapsed_s"),
    "updates_per_s": ("updates", "elapsed_s"),
    "wait_share": ("waited_s", "elapsed_s"),
    "wait_s": ("waited_s", "updates"),
    "device_busy_share": ("device_s", "elapsed_s"),
    "claim_share": ("claim_s", "elapsed_s"),
    "publish_share": ("publish_s", "elapsed_s"),
    "received_bytes_per_s": ("bytes_received", "elapsed_s"),
    "bytes_per_step": ("bytes_opened", "steps_opened"),
    "refused_share": ("columns_refused", "columns_came"),
    "stale_share": ("columns_stale", "columns_came"),
    "published_per_s": ("published", "elapsed_s"),
    "claim_s": ("claim_s", "updates"),
    "batch_s": ("batch_s", "updates"),
    "publish_s": ("publish_s", "published"),
    "feeder_cpu_s": ("feeder_cpu_s", "updates"),
    "publisher_cpu_s": ("publisher_cpu_s", "updates"),
}
# What goes on when a record is made counts at its end: these shares could be a little above 1.
AT_MOST_ONE = ("wait_share", "device_busy_share", "claim_share", "publish_share")


class Logbook:
    """Writes what one learner does into its run directory."""

    def __init__(self, plan: Plan, spec: RunSpec, learner: Learner) -> None:
        self._plan, self._spec, self._learner = plan, spec, learner
        self._directory = plan.directory
        self._unwritten: dict[str, str] = {}  # what could not be written last time, and why
        with written_to(plan.directory.path):
            self._directory.write_config(plan.run, plan.preset, plan.config, plan.init_from)
            self._directory.result.unlink(missing_ok=True)  # left before the run was resumed
            self._directory.remove_leftovers()
            checkpoint.discard_after(self._directory.checkpoints, learner.updates)
            self._recorder = Recorder(plan.directory.path, learner.updates)
        self._means, self._tally, self._rank_times = Means(), Tally(), RankTimes()
        self.refusals = Refusals(spec.envs_per_actor)
        self.further: dict[str, float] = {}  # figures of a population's member, for each record
        self._tally.made(learner.version, time.monotonic())
        self._line_due = pacing.every(LOG_LINE_INTERVAL_S)
        self._unfit_line_due = pacing.every(UNFIT_LINE_INTERVAL_S, at_once=True)
        self._last_record = time.monotonic()
        self._opened = self._last_record - self._recorder.time_s
        self._first_frames, self._last_updates = learner.frames, learner.updates
        self._waited_s = 0.0  # without a batch, since the start
        self._first_batch: float | None = None
        self._totals = learner.totals()  # as of the last record
        repeats = {action_repeat(*world) for world in spec.worlds}
        self._action_repeat = repeats.pop() if len(repeats) == 1 else 1

    def note_wait(self, waited_s: float, batch_came: bool) -> None:
        """Counts time without a batch; `learner_s` begins when the first one has come."""
        self._waited_s += waited_s
        if batch_came and self._first_batch is None:
            self._first_batch = time.monotonic()
            log.info("the first batch is here")

    def note_update(self, update: Updated) -> None:
        """Counts an update that has ended, and its figures, in the next record."""
        now, (batch, version, figures) = time.monotonic(), update
        self._means.add(figures)
        if batch.unfit:
            self.refusals.note_update(batch)
            if self._unfit_line_due():
                log.warning(
                    "left out %d columns of %s: no finite update can be made of them",
                    sum(part.columns.stop - part.columns.start for part in batch.unfit),
                    ", ".join(sorted({part.actor[0] for part in batch.unfit})[:3]),
                )
        self._tally.note(batch, version - 1, now)
        self._tally.made(version, now)

    def note_copy(self, copied_s: float) -> None:
        """Counts the time from an update until its weights were offered."""
        self._means.add({"weights_s": copied_s})

    def note_ranks(self, waited_s: Sequence[float], stood_by_s: Sequence[float]) -> None:
        """Counts the waits of a group's learners, of which this one is the first, in the records.

        Args:
          waited_s: for each rank, how long it was without a batch since the start.
          stood_by_s: for each rank, how long it has waited for the others since the start.
        """
        self._rank_times.note(waited_s, stood_by_s)

    @property
    def behind(self) -> bool:
        """Whether there were updates since the last record."""
        return self._learner.updates > self._last_updates

    def record(self, feeder: Feeder, publisher: Publisher) -> dict[str, float]:
        """Writes one record, sometimes a line in the log; returns the figures for status."""
        learner, now = self._learner, time.monotonic()
        rises = self._rises(now, feeder, publisher)
        record: dict[str, Any] = {
            "unix_s": round(time.time(), 3),
            "time_s": round(now - self._opened, 3),
            "frames": learner.frames,
            "game_frames": learner.frames * self._action_repeat,
            "updates": learner.updates,
            "episodes": learner.window.episodes,
            "weights_version": learner.version,
            "mean_return_100": learner.window.mean_return,
            "updates_skipped": learner.skipped,
            "device_memory_bytes": learner.engine.memory_bytes(),
            **scores.figures_of(self._spec.tasks, learner),
            **_quotients(rises),
            **feeder.figures(),
            **self.refusals.figures(),
            **publisher.figures(),
            **self._means.take(),
            **self._tally.take(),
            **self._rank_times.take(rises["elapsed_s"]),
            **self.further,
        }
        self._last_record, self._last_updates = now, learner.updates
        self._recorder.record(record)
        if self._line_due():
            log.info(_line(record, self.refusals.most_of))
        record["total_frames"] = self._plan.config.training.total_frames
        return {
            name: record[name]
            for name in ("total_frames", *in_status(record))
            if record[name] is not None
        }

    def _rises(self, now: float, feeder: Feeder, publisher: Publisher) -> dict[str, float]:
        """By how much each total rose since the last record."""
        before, self._totals = (
            self._totals,
            {
                "waited_s": self._waited_s,
                **self._learner.totals(),
                **feeder.totals(),
                **self.refusals.totals(),
                **publisher.totals(),
            },
        )
        elapsed_s = max(now - self._last_record, 1e-9)
        rises = {name: total - before.get(name, 0.0) for name, total in self._totals.items()}
        return {"elapsed_s": elapsed_s} | rises

    def save_checkpoint(self, epoch: int) -> None:
        """Saves the state of training; a full disk is logged loudly and training goes on."""
        tensors, facts = self._learner.state()
        facts |= {"spec": self._spec.to_json(), "epoch": epoch, "made_by": MADE_BY}
        facts["resumes"] = self._spec.resumes
        keep = self._plan.config.training.keep_checkpoints
        try:
            checkpoint.save(
                self._directory.checkpoints, self._learner.updates, tensors, facts, keep
            )
            self._unwritten.pop("the last checkpoint", None)
        except OSError as error:
            self._unwritten["the last checkpoint"] = str(error.strerror)
            log.error("NO CHECKPOINT was written (%s); the earlier ones are intact", error)

    def write_result(self, status: ResultStatus, error: str | None = None) -> None:
        """Writes result.json with what was reached up to now."""
        learner = self._learner
        learner_s = time.monotonic() - self._first_batch if self._first_batch else 0.0
        frames = learner.frames - self._first_frames
        result: dict[str, Any] = {
            "status": status,
            "frames": learner.frames,
            "updates": learner.updates,
            "episodes": learner.window.episodes,
            "mean_return_100": learner.window.mean_return,
            "wall_s": round(time.time() - process.started_at_unix_s(), 3),
            "learner_s": round(learner_s, 3),
            "frames_per_s": round(frames / learner_s) if learner_s else None,
            "seed": self._plan.config.training.seed,
            "preset": self._plan.preset,
            "versions": _versions(),
        }
        if tasks := self._spec.tasks:
            result |= {"score": learner.score, "tasks": scores.result_of(tasks, learner)}
        if refused := self.refusals.summary():
            result["refused"] = refused
        if self._action_repeat > 1:
            result["game_frames"] = learner.frames * self._action_repeat
        if self._rank_times.ranks > 1:
            result["ranks"] = self._rank_times.ranks
        if lost := self._recorder.lost:
            result["records_lost"] = lost
        result |= {"error": error} if error else {}
        voice.tell(result={name: result[name] for name in voice.RESULT if name in result})
        try:
            self._directory.write_result(result)
        except OSError as failure:
            self._unwritten["result.json"] = str(failure.strerror)
            log.error("no result.json was written: %s", failure)

    def check_written(self, status: ResultStatus) -> None:
        """Raises RunDirectoryError: what the run leaves behind could not be written."""
        if self._unwritten:
            path, (why, *_) = self._directory.path, self._unwritten.values()
            raise RunDirectoryError(
                f"the run is {status}, but {' and '.join(self._unwritten)} could not be written to "
                f"{path} ({why}); make room, then go on with --resume --run-dir "
                f"{shlex.quote(str(path))}"
            )

    @contextlib.contextmanager
    def noting_failure(self) -> Iterator[None]:
        """Writes the result of a run that ends by an error, unless the run is another's now."""
        try:
            yield
        except (Fenced, GroupLost):  # the group begins anew
            raise
        except Exception as error:
            self.write_result("failed", str(error))
            raise

    def close(self) -> None:
        """Writes what the recorder still holds."""
        self._recorder.close()


def _quotients(rises: dict[str, float]) -> dict[str, float | None]:
    """The figures that are quotients; None where nothing rose to divide by."""
    found = {name: _ratio(rises[total], rises[per]) for name, (total, per) in QUOTIENTS.items()}
    for name in AT_MOST_ONE:
        share = found[name]
        found[name] = None if share is None else min(share, 1.0)
    # Little's law gives the time that a block lies in the list.
    mean_queue = _ratio(rises["queued"], rises["asked"])
    claimed_per_s = rises["claimed"] / rises["elapsed_s"]
    found["queue_wait_s"] = None if mean_queue is None else _ratio(mean_queue, claimed_per_s)
    return found


def _ratio(total: float, count: float) -> float | None:
    return total / count if count else None


def _line(record: dict[str, Any], refused_most: str = "") -> str:
    mean, frames, game_frames = (
        record[name] for name in ("mean_return_100", "frames", "game_frames")
    )
    repeated = f" ({game_frames:,} of the game)" if game_frames != frames else ""
    said = (in_words(record, refused_most), str(slow_rank_in(record) or ""))
    return (
        f"{frames:,} frames{repeated}, {record['frames_per_s']:,.0f}/s, "
        f"return {shown_return(mean)}, {_score(record)}"
        f"policy lag {record.get('policy_lag_mean', 0.0):.1f}, queue {record['queue_blocks']}"
        f"{''.join(f', {words}' for words in said if words)}"
    )


def _score(record: dict[str, Any]) -> str:
    """The mean score over the tasks, if there are tasks."""
    return f"score {scores.shown_score(record['score'])}, " if "score" in record else ""


def _versions() -> dict[str, str]:
    packages = ("torch", "gymnasium", "numpy", "redis")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"impala-redis": __version__, "python": platform.python_version()} | found
