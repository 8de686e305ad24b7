"""Waiting for an answer: pauses that grow, differ at random, and are announced once."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from impala_redis.common.errors import RedisUnreachable

Reply = TypeVar("Reply")

log = logging.getLogger(__name__)


class Backoff:
    """The pauses between attempts of one thread, and whether the last attempt failed."""

    def __init__(
        self,
        announcement: str = "",
        *,
        wait: Callable[[float], object] = time.sleep,
        first_s: float = 0.05,
        longest_s: float = 1.0,
        factor: float = 2.0,
    ) -> None:
        """Pauses take `first_s` and then `factor` times longer each, up to `longest_s`.

        Args:
          announcement: begins the warning about the first of several failures; empty: no log line.
          wait: how a pause is spent; `threading.Event.wait` ends it early.
          first_s: seconds.
          longest_s: seconds.
          factor: at least 1.
        """
        self._announcement, self._wait = announcement, wait
        self._first_s, self._longest_s, self._factor = first_s, longest_s, factor
        self.pause_s = first_s  # the next pause, before jitter
        self.away = False  # whether the last attempt failed

    def failed(self, error: Exception) -> None:
        """Notes a failed attempt; the first one in a row is logged."""
        if self._announcement and not self.away:
            log.warning("%s: %s", self._announcement, error)
        self.away = True

    def pause(self) -> None:
        """Waits, each time longer."""
        self._wait(self.next_pause_s())

    def next_pause_s(self) -> float:
        """The next pause in seconds, after which it grows.

        It takes half to all of its length at random, so that many programs do not ask in step.
        """
        pause_s = self.pause_s * random.uniform(0.5, 1.0)
        self.pause_s = min(self.pause_s * self._factor, self._longest_s)
        return pause_s

    def succeeded(self) -> None:
        """Notes an answer; the next failure is a first one again."""
        if self._announcement and self.away:
            log.info("Redis is back")
        self.away = False
        self.pause_s = self._first_s


def keep_trying(
    attempt: Callable[[], Reply],
    *,
    give_up_after_s: float,
    stopped: Callable[[], bool],
    waiting: Callable[[RedisUnreachable], None],
) -> Reply:
    """Repeats what is safe to repeat until the server answers.

    `waiting` is called with each failure. Raises the last RedisUnreachable when the time is over or
    `stopped` returns true.
    """
    deadline, backoff = time.monotonic() + give_up_after_s, Backoff()
    while True:
        try:
            return attempt()
        except RedisUnreachable as error:
            if stopped() or time.monotonic() + backoff.pause_s > deadline:
                raise
            waiting(error)
            backoff.pause()
