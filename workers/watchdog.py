"""Ends a process whose main thread is stuck in code that is not ours."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator

from impala_redis.common.errors import EXIT_HUNG
from impala_redis.workers import stopping
from impala_redis.workers.pace import Pace

# The bound of one call of the environments, if none is given.
STEP_TIMEOUT_S = 300.0


class Watchdog:
    """A thread that ends the process if a call of the environments does not come back in time.

    It works only while the stuck code lets other threads run. Code that hangs in C and keeps the
    interpreter's lock also stops the heartbeats: impala-status then no longer lists the actor.
    """

    def __init__(self, timeout_s: float) -> None:
        """Starts the thread."""
        self._timeout_s = timeout_s
        self._watched: Pace | None = None
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextlib.contextmanager
    def watching(self, pace: Pace) -> Iterator[None]:
        """Watches one call, or the steps of one unroll, while the `with` lasts."""
        pace.begin()
        self._watched = pace
        try:
            yield
        finally:
            self._watched = None

    def _watch(self) -> None:
        """Counts its own rounds: a process that was stopped for a while is not stuck."""
        pause_s, stuck_s, seen = min(1.0, self._timeout_s / 4), 0.0, None
        while True:
            time.sleep(pause_s)
            watched = self._watched
            now = None if watched is None else watched.look()
            stuck_s = stuck_s + pause_s if now == seen else 0.0
            seen = now
            if watched is not None:
                watched.note_silence(stuck_s)
            if watched is not None and stuck_s > self._timeout_s:
                stopping.say_error(
                    f"an environment hangs: {watched.what} is not done after "
                    f"{self._timeout_s:g} s{watched.so_far}; if it is only slow, raise "
                    "--step-timeout-s, or lower --envs-per-actor or its own --envs"
                )
                os._exit(EXIT_HUNG)
