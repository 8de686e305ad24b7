"""Reads a run again and again, through losses of the server and of the run."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from impala_redis.common.errors import RedisUnreachable, RunMissing
from impala_redis.common.transport.monitor import MonitorLink, Reading
from impala_redis.common.transport.situation import RunStatus, are_comparable, summary
from impala_redis.workers import stopping

# Rates are the difference of two readings this far apart.
SAMPLE_S = 1.0
# A watcher's rates are those over this many readings.
WATCHED_READINGS = 3
LOOK_S = 0.1
# Figures that are older than this are the last ones, not those of now.
SILENT_S = 2.5


class Trouble(NamedTuple):
    """Why a status is not an up-to-date one."""

    what: str
    lasts_s: int | None = None

    def __str__(self) -> str:
        return self.what if self.lasts_s is None else f"{self.what} for {self.lasts_s} s"


# Called with the newest status, and with what is the matter with it.
Show = Callable[[RunStatus, Trouble | None], None]


class Watcher:
    """Reads a run again and again, on a thread: a server that hangs must not hold up a screen."""

    def __init__(self, link: MonitorLink, first: Reading) -> None:
        self.run, self._link = link.run, link
        self._readings = deque([first], maxlen=WATCHED_READINGS)
        self._read_at: float = first["at"]
        self.status = summary(self._readings)
        self._missing = False
        self._failure: Exception | None = None

    def watch(self, show: Show, stop: stopping.StopFlag) -> None:
        """Shows what is new, until `stop`. Raises errors that do not pass, such as RedisDenied."""
        threading.Thread(target=self._read_on, name="watcher", daemon=True).start()
        shown: tuple[RunStatus, Trouble | None] | None = None
        while not stop.wait(LOOK_S):
            if self._failure is not None:
                raise self._failure
            status, trouble = self.status, self._trouble()
            if shown is None or status is not shown[0] or trouble != shown[1]:
                show(status, trouble)
                shown = status, trouble

    def _trouble(self) -> Trouble | None:
        if self._missing:
            return Trouble(f"there is no run {self.run} any more, waiting for a learner to open it")
        silent_s = time.monotonic() - self._read_at
        return Trouble("no answer from Redis", round(silent_s)) if silent_s > SILENT_S else None

    # What follows runs on the watcher's thread.

    def _read_on(self) -> None:
        while self._failure is None:
            time.sleep(SAMPLE_S)
            try:
                self._take(self._link.read())
            except RedisUnreachable:
                self._missing = False  # nothing is known about that now
            except RunMissing:
                self._missing = True
            except Exception as error:
                self._failure = error

    def _take(self, reading: Reading) -> None:
        if not are_comparable(self._readings[-1], reading):
            self._readings.clear()  # the server has lost the books, or another learner has the run
        self._readings.append(reading)
        self.status, self._missing = summary(self._readings), False
        self._read_at = reading["at"]
