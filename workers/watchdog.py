"""Ends a process whose main thread is stuck in code that is not ours."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator

import click

from impala_redis.common.errors import EXIT_HUNG


class Watchdog:
    """A thread that ends the process if the watched code does not come back in time.

    It works only while the stuck code lets other threads run. Code that hangs in C and keeps the
    interpreter's lock also stops the heartbeats: impala-status then no longer lists the actor.
    """

    def __init__(self, timeout_s: float, complaint: str) -> None:
        """Starts the thread. `complaint` is the error's text, up to the seconds at its end."""
        self._timeout_s, self._complaint = timeout_s, complaint
        self._since: float | None = None
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watches while the `with` lasts."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def _watch(self) -> None:
        """Counts its own rounds: a process that was stopped for a while is not stuck."""
        pause_s, stuck_s, watched = min(1.0, self._timeout_s / 4), 0.0, None
        while True:
            time.sleep(pause_s)
            stuck_s = stuck_s + pause_s if watched == self._since else 0.0
            watched = self._since
            if watched is not None and stuck_s > self._timeout_s:
                click.echo(f"error: {self._complaint} {self._timeout_s:g} s", err=True)
                os._exit(EXIT_HUNG)
