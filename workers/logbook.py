"""What a learner leaves behind: records, checkpoints, the result, and lines in its log."""

import importlib.metadata
import logging
import platform
import time
from typing import TYPE_CHECKING, Any, Literal

from impala_redis import __version__
from impala_redis.common.envs.atari import action_repeat
from impala_redis.common.errors import RunDirectoryError
from impala_redis.common.learning.publisher import Publisher
from impala_redis.common.learning.tally import Tally
from impala_redis.common.records import checkpoint
from impala_redis.common.records.recorder import Means, Recorder
from impala_redis.common.run.spec import RunSpec
from impala_redis.workers import pacing, process
from impala_redis.workers.plan import Plan

if TYPE_CHECKING:
    from impala_redis.common.learning.batch import Batch
    from impala_redis.common.learning.feeder import Feeder
    from impala_redis.common.learning.learner import Learner

log = logging.getLogger(__name__)

ResultStatus = Literal["solved", "finished", "interrupted", "failed"]

LOG_LINE_INTERVAL_S = 5.0
# Of a record, what the learner also leaves in Redis for impala-status.
STATUS_FIGURES = (
    "frames",
    "game_frames",
    "total_frames",
    "updates",
    "episodes",
    "mean_return_100",
    "frames_per_s",
    "wait_share",
    "device_busy_share",
    "claim_share",
    "bytes_per_step",
    "policy_lag_mean",
    "policy_lag_p95",
    "policy_lag_max",
    "policy_lag_s_mean",
    "policy_lag_s_p95",
    "policy_lag_s_max",
    "updates_skipped",
    "runs_lost",
)


class Logbook:
    """Writes of one learner's run into its directory."""

    def __init__(self, plan: Plan, spec: RunSpec, learner: "Learner") -> None:
        self._plan, self._spec, self._learner = plan, spec, learner
        self._directory = plan.directory
        try:
            self._directory.write_config(plan.run, plan.preset, plan.config)
            self._directory.result.unlink(missing_ok=True)  # of the part that is continued
            checkpoint.discard_after(self._directory.checkpoints, learner.updates)
            self._recorder = Recorder(plan.directory.path, learner.updates)
        except OSError as error:
            raise RunDirectoryError(
                f"the run directory {plan.directory.path} cannot be written ({error.strerror}); "
                "make room, or give another with --run-dir"
            ) from error
        self._means, self._tally = Means(), Tally()
        self._tally.made(learner.version, time.monotonic())
        self._line_due = pacing.every(LOG_LINE_INTERVAL_S)
        self._last_record = time.monotonic()
        self._opened = self._last_record - self._recorder.time_s
        self._last_frames = self._first_frames = learner.frames
        self._last_updates = learner.updates
        self._waited_s = 0.0  # since the last record
        self._first_batch: float | None = None
        self._totals: dict[str, float] = {}
        self._action_repeat = action_repeat(spec.env)

    def note_wait(self, waited_s: float, batch_came: bool) -> None:
        """Counts time without a batch; `learner_s` begins when the first one has come."""
        self._waited_s += waited_s
        if batch_came and self._first_batch is None:
            self._first_batch = time.monotonic()
            log.info("the first batch is here")

    def note_update(self, batch: "Batch", figures: dict[str, float]) -> None:
        """Counts an update that was just made, and its figures, in the next record."""
        now, version = time.monotonic(), self._learner.version
        self._means.add(figures)
        self._tally.note(batch, version - 1, now)
        self._tally.made(version, now)

    def note_copy(self, copied_s: float) -> None:
        """Counts the time that an update's weights took until they were offered."""
        self._means.add({"weights_s": copied_s})

    @property
    def behind(self) -> bool:
        """Whether there were updates since the last record."""
        return self._learner.updates > self._last_updates

    def record(self, feeder: "Feeder", publisher: Publisher) -> dict[str, float]:
        """Writes one record, sometimes a line in the log; returns the figures for status."""
        learner, now = self._learner, time.monotonic()
        elapsed_s = max(now - self._last_record, 1e-9)
        updates = learner.updates - self._last_updates
        record: dict[str, Any] = {
            "unix_s": round(time.time(), 3),
            "time_s": round(now - self._opened, 3),
            "frames": learner.frames,
            "game_frames": learner.frames * self._action_repeat,
            "updates": learner.updates,
            "episodes": learner.window.episodes,
            "weights_version": learner.version,
            "mean_return_100": learner.window.mean_return,
            "frames_per_s": (learner.frames - self._last_frames) / elapsed_s,
            "updates_per_s": updates / elapsed_s,
            "wait_share": min(self._waited_s / elapsed_s, 1.0),
            "wait_s": self._waited_s / updates if updates else None,
            "updates_skipped": learner.skipped,
            **feeder.figures(),
            **self._beside(feeder, publisher, elapsed_s, updates),
            **self._means.take(),
            **self._tally.take(),
        }
        self._last_record, self._last_frames, self._waited_s = now, learner.frames, 0.0
        self._last_updates = learner.updates
        self._recorder.record(record)
        if self._line_due():
            log.info(_line(record))
        record["total_frames"] = self._plan.config.training.total_frames
        return {k: record[k] for k in STATUS_FIGURES if record.get(k) is not None}

    def _beside(
        self, feeder: "Feeder", publisher: Publisher, elapsed_s: float, updates: int
    ) -> dict[str, Any]:
        """What the device and the threads beside the loop did since the last record."""
        totals = {
            **feeder.totals(),
            "publish_s": publisher.busy_s,
            "publisher_cpu_s": publisher.cpu_s,
            "published": publisher.published,
            "device_s": self._learner.device_s,
        }
        did = {name: total - self._totals.get(name, 0.0) for name, total in totals.items()}
        self._totals = totals
        claimed_per_s = did["claimed"] / elapsed_s
        mean_queue = _ratio(did["queued"], did["asked"])
        return {
            **publisher.flow,
            "device_busy_share": min(did["device_s"] / elapsed_s, 1.0),
            "claim_share": did["claim_s"] / elapsed_s,  # of the feeder's time
            "publish_share": did["publish_s"] / elapsed_s,
            "received_bytes_per_s": did["bytes_received"] / elapsed_s,
            "bytes_per_step": _ratio(did["bytes_opened"], did["steps_opened"]),
            "published_per_s": did["published"] / elapsed_s,
            "claim_s": _ratio(did["claim_s"], updates),
            "batch_s": _ratio(did["batch_s"], updates),
            "publish_s": _ratio(did["publish_s"], did["published"]),
            "feeder_cpu_s": _ratio(did["feeder_cpu_s"], updates),
            "publisher_cpu_s": _ratio(did["publisher_cpu_s"], updates),
            # Little's law: how long a block lies in the list.
            "queue_wait_s": None if mean_queue is None else _ratio(mean_queue, claimed_per_s),
        }

    def save_checkpoint(self, epoch: int) -> None:
        """Saves; a full disk is said loudly and training goes on."""
        tensors, facts = self._learner.state()
        facts |= {"spec": self._spec.to_json(), "epoch": epoch}
        keep = self._plan.config.training.keep_checkpoints
        try:
            checkpoint.save(
                self._directory.checkpoints, self._learner.updates, tensors, facts, keep
            )
        except OSError as error:
            log.error("NO CHECKPOINT was written (%s); the earlier ones are intact", error)

    def write_result(self, status: ResultStatus, error: str | None = None) -> None:
        """Writes result.json as of now."""
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
        if self._action_repeat > 1:
            result["game_frames"] = learner.frames * self._action_repeat
        try:
            self._directory.write_result(result | ({"error": error} if error else {}))
        except OSError as failure:
            log.error("no result.json was written: %s", failure)

    def close(self) -> None:
        """Writes what the recorder still holds."""
        self._recorder.close()


def _ratio(total: float, count: float) -> float | None:
    return total / count if count else None


def _line(record: dict[str, Any]) -> str:
    mean, frames, game_frames = (
        record[name] for name in ("mean_return_100", "frames", "game_frames")
    )
    repeated = f" ({game_frames:,} of the game)" if game_frames != frames else ""
    return (
        f"{frames:,} frames{repeated}, {record['frames_per_s']:,.0f}/s, "
        f"return {'-' if mean is None else f'{mean:.1f}'}, "
        f"policy lag {record.get('policy_lag_mean', 0.0):.1f}, queue {record['queue_blocks']}"
    )


def _versions() -> dict[str, str]:
    packages = ("torch", "gymnasium", "numpy", "redis")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"impala-redis": __version__, "python": platform.python_version()} | found
