"""Figures of a run: means since the last record, the window of episodes, and where they are kept.

Records go to `metrics.jsonl`, one JSON object a line, and to TensorBoard under the same names, over
frames. A quantity that has no value yet is absent.
"""

import json
import logging
import math
import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impala_redis.common.blocks.trajectory import Episode
from impala_redis.common.records.files import write_atomically

if TYPE_CHECKING:
    from impala_redis.common.records.tensorboard_file import EventFile

log = logging.getLogger(__name__)

EPISODE_WINDOW = 100
# TensorBoard's import takes 0.2 s: short runs pay it once, after the training.
TENSORBOARD_AFTER_S = 5.0


class Means:
    """Means of named figures until `take`; of `*_min` the least, of `*_max` the greatest."""

    def __init__(self) -> None:
        self._values: dict[str, float] = {}  # sums, or extremes
        self._counts: dict[str, int] = {}

    def add(self, figures: Mapping[str, float]) -> None:
        """Counts one value of each figure that has a finite one."""
        for name, value in figures.items():
            if not math.isfinite(value):
                continue
            before = self._values.get(name)
            self._values[name] = value if before is None else _joined(name, before, value)
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The means and extremes, and starts anew."""
        means = {
            name: value if name.endswith(("_min", "_max")) else value / self._counts[name]
            for name, value in self._values.items()
        }
        self._values, self._counts = {}, {}
        return means


class EpisodeWindow:
    """The last 100 training episodes."""

    def __init__(self, returns: Iterable[float] = (), episodes: int = 0) -> None:
        self.returns: deque[float] = deque(returns, maxlen=EPISODE_WINDOW)
        self.episodes = episodes

    def add(self, episodes: Iterable[Episode]) -> None:
        """Counts episodes in the order in which they were trained on."""
        for episode in episodes:
            self.returns.append(episode.episode_return)
            self.episodes += 1

    @property
    def mean_return(self) -> float | None:
        """Over the window, once it is full; None before."""
        if len(self.returns) < EPISODE_WINDOW:
            return None
        return sum(self.returns) / EPISODE_WINDOW


class Recorder:
    """Appends records to a run directory."""

    def __init__(self, run_dir: Path, updates: int = 0) -> None:
        """Goes on after the record of that many updates: what a resumed run repeats is cut off."""
        self._run_dir = run_dir
        self.time_s = 0.0  # of the last record that is kept
        self._frames = 0
        if (run_dir / "metrics.jsonl").exists():
            self._keep_until(updates)
        self._file = (run_dir / "metrics.jsonl").open("ab")
        self._started = time.monotonic()
        self._waiting: list[dict[str, Any]] = []  # for TensorBoard
        self._events: EventFile | None = None
        self._events_failed = False

    def record(self, figures: Mapping[str, Any]) -> None:
        """Writes one record; figures that are None or not finite are left out."""
        record = {name: value for name, value in figures.items() if _has_value(value)}
        try:
            self._file.write(json.dumps(record).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            log.error("a record was not written: %s", error)
        if not self._events_failed:
            self._waiting.append(record)
        if time.monotonic() - self._started > TENSORBOARD_AFTER_S:
            self._write_events()

    def close(self) -> None:
        """Writes what is left."""
        self._write_events()
        try:
            if self._events is not None:
                self._events.close()
            self._file.close()
        except OSError as error:
            log.error("the last records were not written: %s", error)

    def _keep_until(self, updates: int) -> None:
        kept = []
        for line in (self._run_dir / "metrics.jsonl").read_bytes().splitlines():
            try:
                record = json.loads(line)
                keep = record["updates"] <= updates
            except (ValueError, KeyError, TypeError):
                continue  # a record that a killed learner left unfinished
            if keep:
                kept.append(line + b"\n")
                self.time_s = float(record.get("time_s", 0.0))
                self._frames = int(record.get("frames", 0))
        write_atomically(self._run_dir / "metrics.jsonl", b"".join(kept))

    def _write_events(self) -> None:
        if self._events_failed:
            return
        try:
            if self._events is None:
                from impala_redis.common.records.tensorboard_file import EventFile

                # Events beyond the resumed ones are hidden, as the records are cut off.
                self._events = EventFile(self._run_dir, self._frames + 1 if self._frames else None)
            for record in self._waiting:
                scalars = {name: value for name, value in record.items() if _is_scalar(name, value)}
                self._events.add(scalars, record["frames"], record["unix_s"])
        except OSError as error:
            self._events_failed = True
            log.error("no more TensorBoard events: %s", error)
        self._waiting.clear()


def _joined(name: str, before: float, value: float) -> float:
    if name.endswith("_min"):
        return min(before, value)
    return max(before, value) if name.endswith("_max") else before + value


def _is_scalar(name: str, value: Any) -> bool:
    return isinstance(value, int | float) and name not in ("frames", "unix_s")


def _has_value(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))
