"""What a learner leaves behind: records, checkpoints, the result, and lines in its log."""

import importlib.metadata
import logging
import platform
import time
from typing import TYPE_CHECKING, Any, Literal

from common import __version__, checkpoint
from common.errors import RunDirectoryError
from common.metrics import Means, Recorder
from common.publisher import Publisher
from common.spec import RunSpec
from workers import runtime
from workers.plan import Plan

if TYPE_CHECKING:
    from common.feeder import Feeder
    from common.learning import Learner

log = logging.getLogger(__name__)

Status = Literal["solved", "finished", "interrupted", "failed"]

LOG_LINE_INTERVAL_S = 5.0
# Of a record, what the learner also leaves in Redis for impala-status.
STATUS_FIGURES = (
    "frames",
    "updates",
    "episodes",
    "mean_return_100",
    "frames_per_s",
    "wait_share",
    "policy_lag_mean",
    "policy_lag_max",
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
        self._means = Means()
        self._line_due = runtime.every(LOG_LINE_INTERVAL_S)
        self._last_record = time.monotonic()
        self._opened = self._last_record - self._recorder.time_s
        self._last_frames = self._first_frames = learner.frames
        self._waited_s = 0.0  # since the last record
        self._first_batch: float | None = None
        self._totals: dict[str, float] = {}

    def note_wait(self, waited_s: float, batch_came: bool) -> None:
        """Counts time without a batch; `learner_s` begins when the first one has come."""
        self._waited_s += waited_s
        if batch_came and self._first_batch is None:
            self._first_batch = time.monotonic()
            log.info("the first batch is here")

    def note_update(self, figures: dict[str, float]) -> None:
        """Counts an update's figures in the next record's means."""
        self._means.add(figures)

    def record(self, feeder: "Feeder", publisher: Publisher) -> dict[str, float]:
        """Writes one record, sometimes a line in the log; returns the figures for status."""
        learner, now = self._learner, time.monotonic()
        elapsed_s = max(now - self._last_record, 1e-9)
        record: dict[str, Any] = {
            "unix_s": round(time.time(), 3),
            "time_s": round(now - self._opened, 3),
            "frames": learner.frames,
            "updates": learner.updates,
            "episodes": learner.window.episodes,
            "weights_version": learner.version,
            "mean_return_100": learner.window.mean_return,
            "frames_per_s": (learner.frames - self._last_frames) / elapsed_s,
            "wait_share": min(self._waited_s / elapsed_s, 1.0),
            "queue_blocks": feeder.queued,
            "updates_skipped": learner.skipped,
            "blocks_refused": feeder.refused.total(),
            "runs_lost": feeder.reopened,
            **self._rates(feeder, publisher, elapsed_s),
            **self._means.take(),
        }
        self._last_record, self._last_frames, self._waited_s = now, learner.frames, 0.0
        self._recorder.record(record)
        if self._line_due():
            log.info(_line(record))
        return {k: record[k] for k in STATUS_FIGURES if record.get(k) is not None}

    def _rates(self, feeder: "Feeder", publisher: Publisher, elapsed_s: float) -> dict[str, float]:
        """What the threads beside the loop did since the last record, per second."""
        totals = {
            "claim_share": feeder.busy_s,  # of the feeder's time: waiting for Redis's replies
            "received_bytes_per_s": feeder.bytes_received,
            "publish_share": publisher.busy_s,
            "published_per_s": publisher.published,
        }
        rates = {
            name: (total - self._totals.get(name, 0.0)) / elapsed_s
            for name, total in totals.items()
        }
        self._totals = totals
        return rates

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

    def write_result(self, status: Status, error: str | None = None) -> None:
        """Writes result.json as of now."""
        learner = self._learner
        learner_s = time.monotonic() - self._first_batch if self._first_batch else 0.0
        frames = learner.frames - self._first_frames
        result = {
            "status": status,
            "frames": learner.frames,
            "updates": learner.updates,
            "episodes": learner.window.episodes,
            "mean_return_100": learner.window.mean_return,
            "wall_s": round(time.time() - runtime.started_at_unix_s(), 3),
            "learner_s": round(learner_s, 3),
            "frames_per_s": round(frames / learner_s) if learner_s else None,
            "seed": self._plan.config.training.seed,
            "preset": self._plan.preset,
            "versions": _versions(),
        }
        try:
            self._directory.write_result(result | ({"error": error} if error else {}))
        except OSError as failure:
            log.error("no result.json was written: %s", failure)

    def close(self) -> None:
        """Writes what the recorder still holds."""
        self._recorder.close()


def _line(record: dict[str, Any]) -> str:
    mean = record["mean_return_100"]
    return (
        f"{record['frames']:,} frames, {record['frames_per_s']:,.0f}/s, "
        f"return {'-' if mean is None else f'{mean:.1f}'}, "
        f"policy lag {record.get('policy_lag_mean', 0.0):.1f}, queue {record['queue_blocks']}"
    )


def _versions() -> dict[str, str]:
    packages = ("torch", "gymnasium", "numpy", "redis")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"impala-redis": __version__, "python": platform.python_version()} | found
