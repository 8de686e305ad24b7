"""When a program does something again: once an interval, within a budget, until Redis answers."""

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


def every(interval_s: float, at_once: bool = False) -> Callable[[], bool]:
    """A function that is true once per interval; the first time after one, or at once."""
    due_at = time.monotonic() + (0.0 if at_once else interval_s)

    def due() -> bool:
        nonlocal due_at
        if time.monotonic() < due_at:
            return False
        due_at = time.monotonic() + interval_s
        return True

    return due


class Budget:
    """So many times within so long, and no more."""

    def __init__(self, times: int, within_s: float) -> None:
        self._within_s = within_s
        self._spent: deque[float] = deque(maxlen=times)

    def spend(self) -> bool:
        """Whether once more is within the budget; if so it is spent."""
        now, spent = time.monotonic(), self._spent
        if len(spent) == spent.maxlen and now - spent[0] < self._within_s:
            return False
        spent.append(now)
        return True


def wait_for_redis(
    ask: Callable[[], Reply], url: str, give_up_after_s: float, stop: StopFlag
) -> Reply:
    """The first answer of `ask`; says what it waits for. Raises RedisUnreachable in the end."""
    say_so = every(5.0, at_once=True)

    def waiting(error: RedisUnreachable) -> None:
        if say_so():
            log.warning("%s; trying for %.0f s", error, give_up_after_s)

    return keep_trying(ask, give_up_after_s=give_up_after_s, stopped=stop, waiting=waiting)
