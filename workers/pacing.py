"""When a program repeats something: once an interval, within a budget, until Redis answers."""

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from impala_redis.common.errors import RedisUnreachable
from impala_redis.common.server.backoff import keep_trying
from impala_redis.workers.stopping import StopFlag

log = logging.getLogger(__name__)

Reply = TypeVar("Reply")

# A program that waits for Redis has nothing to save yet: asked to stop, it ends so soon, also where
# a reply comes byte by byte.
END_WITHIN_S = 10.0


def every(interval_s: float, at_once: bool = False) -> Callable[[], bool]:
    """A function that is true once per interval, for the first time after one or `at_once`."""
    due_at = time.monotonic() + (0.0 if at_once else interval_s)

    def due() -> bool:
        nonlocal due_at
        if time.monotonic() < due_at:
            return False
        due_at = time.monotonic() + interval_s
        return True

    return due


class Budget:
    """Allows something a number of times within a period."""

    def __init__(self, times: int, within_s: float) -> None:
        self._within_s = within_s
        self._spent: deque[float] = deque(maxlen=times)

    def spend(self) -> bool:
        """Spends one of the times; False if none is left."""
        now, spent = time.monotonic(), self._spent
        if len(spent) == spent.maxlen and now - spent[0] < self._within_s:
            return False
        spent.append(now)
        return True


def wait_for_redis(
    ask: Callable[[], Reply], url: str, give_up_after_s: float, stop: StopFlag
) -> Reply:
    """The first answer of `ask`; logs what it waits for.

    Raises RedisUnreachable: no answer in time, or none before the program is to stop.
    """
    say_so = every(5.0, at_once=True)

    def waiting(error: RedisUnreachable) -> None:
        if say_so():
            log.warning("%s; trying for %.0f s", error, give_up_after_s)

    before, stop.end_within_s = stop.end_within_s, END_WITHIN_S
    try:
        return keep_trying(ask, give_up_after_s=give_up_after_s, stopped=stop, waiting=waiting)
    finally:
        stop.end_within_s = before
