"""A run's records, one after the other: into `metrics.jsonl` and into TensorBoard's event file.

Records go to `metrics.jsonl`, one JSON object a line, and to TensorBoard under the same names, over
frames. A figure that has no value yet is absent.
"""

import contextlib
import errno
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impala_redis.common.files import open_to_append, open_to_read, write_atomically
from impala_redis.common.records.figures import find
from impala_redis.common.records.lines import lines_of, number_or_nan, record_of

if TYPE_CHECKING:
    from impala_redis.common.records.tensorboard_file import EventFile

log = logging.getLogger(__name__)

# What is counted, and the seconds of a run, stay far below it.
MOST = 2.0**52
# TensorBoard's import takes time: a short run pays for it once, after the training.
TENSORBOARD_AFTER_S = 5.0


class Recorder:
    """Appends records to a run directory."""

    def __init__(self, run_dir: Path, updates: int = 0) -> None:
        """Goes on after the record of that many updates; cuts off what a resumed run repeats."""
        self._run_dir, self._path = run_dir, run_dir / "metrics.jsonl"
        self.time_s = 0.0  # of the last record that is kept
        self._frames = 0
        if os.path.lexists(self._path):
            write_atomically(self._path, self._until(updates))
        # Not buffered: a record is written whole or taken back.
        self._file = open_to_append(self._path, buffering=0)
        self.lost = 0  # records that could not be written
        self._losing = False
        self._started = time.monotonic()
        self._waiting: list[dict[str, Any]] = []  # for TensorBoard
        self._events: EventFile | None = None
        self._events_failed = False

    def record(self, figures: Mapping[str, Any]) -> None:
        """Writes one record; figures that are None or not finite are left out."""
        record = {name: value for name, value in figures.items() if _has_value(value)}
        try:
            self._append(json.dumps(record).encode() + b"\n")
        except OSError as error:
            self.lost += 1
            if not self._losing:
                log.error("RECORDS ARE LOST, metrics.jsonl cannot be written: %s", error)
            self._losing = True
        else:
            if self._losing:
                log.error("records are written again, %d were lost up to now", self.lost)
            self._losing = False
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

    def _append(self, line: bytes) -> None:
        """Writes a whole line or nothing. Raises OSError."""
        end = self._file.seek(0, os.SEEK_END)
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(end)
            raise

    def _until(self, updates: int) -> Iterator[bytes]:
        """The lines of the records up to that many updates; what is no record is left out."""
        with open_to_read(self._path) as file:
            for line in lines_of(file):
                record = record_of(line) or {}  # none: a killed learner left it unfinished
                if number_or_nan(record.get("updates")) <= updates:
                    yield line.rstrip(b"\r\n") + b"\n"
                    self.time_s = _number(record, "time_s")
                    self._frames = int(_number(record, "frames"))

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


def _is_scalar(name: str, value: Any) -> bool:
    """Whether TensorBoard gets it: all numbers but those that the table keeps from it."""
    figure = find(name)
    return isinstance(value, int | float) and (figure is None or figure.in_tensorboard)


def _number(record: Mapping[str, Any], name: str) -> float:
    """A figure that is never negative, 0 if the record garbles it."""
    value = number_or_nan(record.get(name))
    return value if 0 <= value <= MOST else 0.0


def _has_value(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))
