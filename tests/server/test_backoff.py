"""Pauses between attempts: they grow to a bound, are never alike, and are announced once."""

import logging
import threading
import time

import pytest

from impala_redis.common.errors import RedisUnreachable
from impala_redis.common.server.backoff import Backoff

AWAY = RedisUnreachable("no answer")


def test_pauses_grow_to_their_bound_and_vary_by_half() -> None:
    # given
    pauses: list[float] = []
    backoff = Backoff(wait=pauses.append, first_s=0.1, longest_s=0.5, factor=2.0)

    # when
    for _ in range(200):
        backoff.pause()

    # then
    for pause_s, whole_s in zip(pauses, [0.1, 0.2, 0.4, *[0.5] * 197], strict=True):
        assert 0.5 * whole_s <= pause_s <= whole_s
    assert max(pauses[3:]) - min(pauses[3:]) > 0.15


def test_an_answer_makes_the_next_pause_a_first_one_again() -> None:
    # given
    pauses: list[float] = []
    backoff = Backoff(wait=pauses.append, first_s=0.1, longest_s=9.0)
    for _ in range(5):
        backoff.pause()

    # when
    backoff.succeeded()
    backoff.pause()

    # then
    assert pauses[-1] <= 0.1


def test_several_failures_are_announced_once_and_so_is_their_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # given
    caplog.set_level(logging.INFO)
    backoff = Backoff("acting on without Redis", wait=lambda _: None)

    # when it fails twice, comes back, and fails again
    backoff.failed(AWAY)
    backoff.failed(AWAY)
    assert backoff.away
    backoff.succeeded()
    backoff.succeeded()
    assert not backoff.away
    backoff.failed(AWAY)

    # then
    away, back = "acting on without Redis: no answer", "Redis is back"
    assert caplog.messages == [away, back, away]


def test_without_an_announcement_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    backoff = Backoff()
    backoff.failed(AWAY)
    backoff.succeeded()
    assert caplog.messages == []


def test_what_ends_the_wait_ends_the_pause() -> None:
    # given pauses that are spent on an event
    closing = threading.Event()
    backoff = Backoff(wait=closing.wait, first_s=60.0, longest_s=60.0)

    # when
    threading.Timer(0.05, closing.set).start()
    started = time.monotonic()
    backoff.pause()

    # then
    assert time.monotonic() - started < 20.0
