"""How long a block takes: said once, and only where it is long."""

import threading
import time
from collections.abc import Iterable

import pytest

from impala_redis.common.acting.unroll import Progress
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec, make_spec
from impala_redis.workers.pace import Pace, UnrollPace, making
from impala_redis.workers.watchdog import Watchdog


def spec(envs_per_actor: int, unroll_length: int) -> RunSpec:
    config = Config().replace({"envs_per_actor": envs_per_actor, "unroll_length": unroll_length})
    return make_spec("test", config, ObservationSpec((), "float32"), discrete(2))


def watched(of: RunSpec, *unrolls: Iterable[Progress]) -> UnrollPace:
    """A pace that was looked at when unrolls were as far as given: steps done, seconds taken."""
    seen: list[Progress] = []
    pace = UnrollPace(of, of.envs_per_actor, lambda: seen[-1])
    for unroll in unrolls:
        pace.begin()
        for progress in unroll:
            seen.append(progress)
            pace.look()
    return pace


@pytest.mark.parametrize(
    ("envs_per_actor", "unroll_length", "steps", "sentence"),
    [
        (
            32,
            20,
            [(0, 0.0), (1, 16.0)],
            "a step of 32 environments takes 16 s, so a block of 32 x 20 steps takes 320 s",
        ),
        (
            1,
            100,
            [(2, 1.0), (5, 1.9)],
            "a step of 1 environment takes 0.3 s, so a block of 1 x 100 steps takes 30 s",
        ),
        # the first step waited for something, 9 s: that is not a step's time
        (
            4,
            20,
            [(1, 9.0), (1, 9.0), (3, 11.4)],
            "a step of 4 environments takes 1.2 s, so a block of 4 x 20 steps takes 24 s",
        ),
    ],
)
def test_a_long_block_is_told_once_as_soon_as_it_is_known(
    envs_per_actor: int,
    unroll_length: int,
    steps: list[Progress],
    sentence: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # when the steps are seen, then the next ones, and another unroll's
    more = [(done + 9, took_s * 9) for done, took_s in steps]
    watched(spec(envs_per_actor, unroll_length), steps, more, steps)

    # then
    (told,) = caplog.messages
    assert told == (
        f"{sentence}; for sooner blocks lower --envs-per-actor (or an actor's own --envs) or "
        "--unroll-length, or start more actors"
    )


@pytest.mark.parametrize(
    "unrolls",
    [
        [[(1, 0.001), (15, 0.03)], [(3, 0.01)]],
        [[(1, 9.9), (2, 10.0), (3, 10.1)]],  # one slow step: the rest of the unroll is fast
        [[(1, 0.4), (9, 4.3)]],  # 20 steps take 9.8 s
        [[(0, 0.0), (0, 0.0)]],
        [[(19, 0.2)], [(0, 0.0), (1, 0.01)]],
    ],
)
def test_a_short_block_is_no_news(
    unrolls: list[list[Progress]], caplog: pytest.LogCaptureFixture
) -> None:
    watched(spec(32, 20), *unrolls)
    assert caplog.messages == []


@pytest.mark.parametrize("pace", [making(32), watched(spec(32, 20), [(0, 0.0)])])
def test_a_call_that_does_not_come_back_is_told_once(
    pace: Pace, caplog: pytest.LogCaptureFixture
) -> None:
    # when it is silent for ever longer
    pace.note_silence(5.0)
    assert caplog.messages == []
    for silent_s in (7.0, 8.0, 250.0):
        pace.note_silence(silent_s)

    # then
    assert caplog.messages == [
        f"{pace.what} has taken 7 s and is not done; they come one after another, so lower "
        "--envs-per-actor, or an actor's own --envs, to wait less"
    ]


def test_the_watchdog_tells_of_a_call_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setattr("impala_redis.workers.pace.LONG_CALL_S", 0.1)
    told = threading.Event()
    monkeypatch.setattr("impala_redis.workers.pace.say", lambda _: told.set())

    # when / then
    with Watchdog(0.2 * 10).watching(making(3)):
        assert told.wait(10)


def test_what_is_known_of_earlier_steps_stands_in_the_complaint() -> None:
    assert making(7).what == "the making and first reset of 7 environments"
    assert watched(spec(2, 5), [(0, 0.0)]).so_far == ""
    pace = watched(spec(2, 5), [(1, 0.5), (3, 1.5)], [(0, 0.0)])
    assert pace.what + pace.so_far == (
        "a step of 2 environments (those before took 0.5 s each, a block has 2 x 5)"
    )


def test_each_step_and_each_unroll_counts_as_progress() -> None:
    # given a pace as the watchdog sees it
    progress: list[Progress] = []
    pace = UnrollPace(spec(2, 5), 2, lambda: progress[-1])
    looks = []
    for unroll in range(2):
        pace.begin()
        for now in ((0, 0.0), (1, 0.1 + unroll), (2, 0.3)):
            progress.append(now)
            looks.append(pace.look())

    # then every look is another one, and the same step looks the same
    assert len(set(looks)) == len(looks)
    assert pace.look() == looks[-1]


def test_what_comes_back_in_time_is_left_alone() -> None:
    # given calls that together take far longer than one may
    watchdog = Watchdog(0.2)
    for _ in range(6):
        with watchdog.watching(Pace("a call")):
            time.sleep(0.08)
