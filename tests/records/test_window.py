"""The mean return: right where the true one is known, however long or short episodes are."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pytest
from full import in_full
from numpy.typing import NDArray

from impala_redis.common.records import window as window_module
from impala_redis.common.records.window import EPISODE_WINDOW, EpisodeWindow, Played

T = 20  # steps of an unroll


class Ended(NamedTuple):
    episode_return: float
    column: int
    length: int = 1


Lengths, Returns = NDArray[np.int64], NDArray[np.float64]
# Draws that many episodes.
Task = Callable[[np.random.Generator, int], tuple[Lengths, Returns]]


def short_is_good(rng: np.random.Generator, count: int) -> tuple[Lengths, Returns]:
    """Each step costs 1, and one in a hundred is the last."""
    lengths = rng.geometric(0.01, count)
    return lengths, -lengths.astype(np.float64)


def short_is_bad(rng: np.random.Generator, count: int) -> tuple[Lengths, Returns]:
    lengths = rng.geometric(0.01, count)
    return lengths, lengths.astype(np.float64)


def maze(rng: np.random.Generator, count: int) -> tuple[Lengths, Returns]:
    """One in ten finds the way within 30 steps; the others are stopped after 500, all at once."""
    lucky = rng.random(count) < 0.1
    return np.where(lucky, rng.integers(1, 30, count), 500), lucky.astype(np.float64)


# Each with the true mean return, the standard deviation of a return, and the steps of an episode.
TASKS: dict[str, tuple[Task, float, float, float]] = {
    "short is good": (short_is_good, -100.0, 99.5, 100.0),
    "short is bad": (short_is_bad, 100.0, 99.5, 100.0),
    "maze": (maze, 0.1, 0.3, 451.5),
}


def play(
    task: Task, actors: int, num_envs: int, seed: int, name: str = "actor"
) -> Iterator[list[Played]]:
    """The blocks of one unroll after another, a fake row after each episode, without an end."""
    rng, total = np.random.default_rng(seed), actors * num_envs
    # By environment: the step of the run in which an episode ends, and its return.
    lengths, returns = task(rng, total)
    ends_at, returns = lengths - 1, returns
    unroll = 0
    while True:
        blocks: list[list[Ended]] = [[] for _ in range(actors)]
        while (ended := np.flatnonzero(ends_at < (unroll + 1) * T)).size:
            for env in ended[np.argsort(ends_at[ended], kind="stable")]:
                episode = Ended(float(returns[env]), int(env % num_envs), int(lengths[env]))
                blocks[env // num_envs].append(episode)
            lengths[ended], returns[ended] = task(rng, ended.size)
            ends_at[ended] += 1 + lengths[ended]
        yield [
            Played((f"{name}-{number}", 1), num_envs, unroll == 0, episodes)
            for number, episodes in enumerate(blocks)
        ]
        unroll += 1


class Seen(NamedTuple):
    """Mean returns of one run."""

    first: float
    later: list[float]  # after each of some unrolls after that
    last_100_to_end: float  # what the first 100 episodes to end would have given


def mean_returns(task: Task, actors: int, num_envs: int, seed: int, later: int) -> Seen:
    window, ended = EpisodeWindow(), deque[float]()
    seen: list[float] = []
    for number, blocks in enumerate(play(task, actors, num_envs, seed)):
        window.add(blocks, number * 0.05)
        ended.extend(e.episode_return for block in blocks for e in block.episodes)
        if window.mean_return is not None:
            seen.append(window.mean_return)
            if len(seen) > later:
                break
    return Seen(seen[0], seen[1:], float(np.mean(list(ended)[:100])))


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(
    ("actors", "num_envs"),
    [(1, 4), (2, 32), (130, 1), *in_full((1, 1), (1, 32), (1, 100), (13, 10), (4, 256))],
)
def test_the_first_mean_and_the_later_ones_are_the_true_one(
    name: str, actors: int, num_envs: int
) -> None:
    # given runs of a task whose true mean return is known
    task, true_mean, deviation, steps = TASKS[name]
    runs = 10 if actors * num_envs > 500 else 40
    share = max(1, EPISODE_WINDOW // (actors * num_envs))
    unrolls = int(min(2 + share, 8) * steps / T)

    # when
    seen = [mean_returns(task, actors, num_envs, seed, unrolls) for seed in range(runs)]

    # then the first mean is right, and so are those after it
    of_a_run = deviation / EPISODE_WINDOW**0.5
    of_all = of_a_run / runs**0.5
    firsts = [one.first for one in seen]
    assert np.mean(firsts) == pytest.approx(true_mean, abs=4 * of_all)
    later = np.mean([one.later for one in seen], axis=0)
    assert later == pytest.approx(np.full(unrolls, true_mean), abs=4 * of_all + 0.05 * deviation)

    # and no run is ever taken for one that has solved what nobody has learned
    highest = max(max(one.first, *one.later) for one in seen)
    assert highest < true_mean + 6 * of_a_run


def test_the_episodes_that_end_first_would_be_far_too_good() -> None:
    """What the window is for: a run that "solved" -20 at a true mean of -100."""
    seen = [mean_returns(short_is_good, 4, 256, seed, 0) for seed in range(3)]
    assert all(one.last_100_to_end > -20 for one in seen)
    assert all(one.first < -60 for one in seen)


def test_actors_that_come_and_go_do_not_bias_the_mean() -> None:
    means = []
    for seed in range(6):
        rng, window = np.random.default_rng(seed), EpisodeWindow()
        # given six actors at once, each for 100 unrolls in the mean, replaced by new ones
        plays: list[tuple[int, Iterator[list[Played]]]] = []
        for unroll in range(500):
            plays = [(until, one) for until, one in plays if until > unroll]
            while len(plays) < 6:
                until = unroll + int(rng.integers(1, 200))
                name = f"{unroll}-{len(plays)}-{until}"
                plays.append((until, play(short_is_good, 1, 8, int(rng.integers(2**31)), name)))
            # when an unroll takes a second
            window.add([next(one)[0] for _, one in plays], float(unroll))
            if window.mean_return is not None:
                means.append(window.mean_return)
        # then those that left are forgotten
        assert len(window._actors) <= 12

    # and the mean is known most of the time, and right
    assert len(means) > 6 * 400
    assert np.mean(means) == pytest.approx(-100, abs=7)


# One environment, and what ends in it.


def block(
    *returns: float, column: int = 0, actor: str = "a", num_envs: int = 1, first: bool = True
) -> Played:
    return Played((actor, 1), num_envs, first, [Ended(r, column) for r in returns])


def test_of_one_environment_the_mean_return_is_of_the_last_100_episodes() -> None:
    # given
    window = EpisodeWindow()

    # when / then
    window.add([block(*[2.0] * 99)], 0.0)
    assert window.mean_return is None
    window.add([block(102.0)], 0.0)
    assert window.mean_return == 3.0
    window.add([block(*map(float, range(250)))], 0.0)
    assert window.mean_return == sum(range(150, 250)) / 100
    window.add([block(1000.0)], 0.0)
    assert window.mean_return == (sum(range(151, 250)) + 1000) / 100
    assert window.episodes == 351


def test_a_window_of_zero_returns_has_a_mean_of_zero() -> None:
    assert EpisodeWindow([0.0] * 100, 100).mean_return == 0.0


def test_fewer_than_100_returns_of_an_earlier_run_are_no_window() -> None:
    assert EpisodeWindow([1.0] * 99, 99).mean_return is None


def test_a_restored_window_gives_the_mean_until_there_is_a_new_one() -> None:
    # given a window of an earlier run, as release 0.1 wrote it too
    window = EpisodeWindow([5.0] * 100, 2000)

    # when new actors play
    window.add([block(*[1.0] * 60, actor="new")], 0.0)
    assert (window.mean_return, window.episodes) == (5.0, 2060)
    window.add([block(*[1.0] * 40, actor="new")], 0.0)

    # then
    assert window.mean_return == 1.0


def test_each_environment_has_the_same_number_of_episodes_and_the_first_ones_one_more() -> None:
    # given 64 environments, of which one plays ten times as often
    window = EpisodeWindow()
    window.add([Played(("a", 1), 64, True, [Ended(float(c), c) for c in range(64)])], 0.0)
    window.add([block(*[0.0] * 10, num_envs=64)], 0.0)
    assert window.mean_return is None

    # when each has finished two
    window.add([Played(("a", 1), 64, True, [Ended(float(c), c) for c in range(64)])], 0.0)

    # then all stand in the window once or twice
    found = [window.returns.count(float(c)) for c in range(1, 64)]
    assert sorted(set(found)) == [1, 2]
    assert window.returns.count(0.0) == 100 - sum(found) == 2


def test_the_first_mean_is_of_the_first_episodes_however_many_the_quick_ones_have_ended() -> None:
    # given 100 environments, of which all but one end five short episodes before the slow one ends
    window = EpisodeWindow()
    for number in range(5):
        quick = [Ended(float(number), column) for column in range(99)]
        window.add([Played(("a", 1), 100, number == 0, quick)], number)
        assert window.mean_return is None

    # when that has ended its first one
    window.add([Played(("a", 1), 100, False, [Ended(50.0, 99)])], 5.0)

    # then the first one of each counts
    assert sorted(window.returns) == [0.0] * 99 + [50.0]
    assert window.mean_return == 0.5


def test_an_environment_that_never_ends_an_episode_does_not_keep_the_mean_unknown() -> None:
    # given eight environments, one of them without an end
    window = EpisodeWindow()
    for number in range(60):
        episodes = [Ended(float(number), column, 100) for column in range(7)]
        window.add([Played(("a", 1), 8, True, episodes)], number * 0.1)

    # then the others make the window
    assert window.mean_return is not None
    assert window.mean_return > 40

    # and it comes in once its episodes do end
    for number in range(60):
        episodes = [Ended(100.0, column) for column in range(8)]
        window.add([Played(("a", 1), 8, True, episodes)], 6 + number * 0.1)
    assert window.mean_return == 100.0
    assert len(window._inside) == 8


def rarely_long(rng: np.random.Generator, count: int) -> tuple[Lengths, Returns]:
    """One step, which costs 1; one episode of a hundred takes 500."""
    lengths = np.where(rng.random(count) < 0.01, 500, 1)
    return lengths, -lengths.astype(np.float64)


@pytest.mark.parametrize(("actors", "num_envs"), [(1, 32), (13, 10)])
def test_an_episode_that_takes_a_hundred_times_as_long_as_others_counts(
    actors: int, num_envs: int
) -> None:
    # given a task in which those that wait for their end are the ones that matter
    true_mean, of_a_run = -5.99, 5.0

    # when
    seen = [mean_returns(rarely_long, actors, num_envs, seed, 60) for seed in range(20)]

    # then
    of_all = of_a_run / 20**0.5
    assert np.mean([one.first for one in seen]) == pytest.approx(true_mean, abs=3 * of_all)
    assert np.mean([one.later for one in seen]) == pytest.approx(true_mean, abs=3 * of_all)


def test_an_episode_that_outlasts_all_patience_counts_when_it_ends() -> None:
    # given an environment that has lost its place
    window = EpisodeWindow()
    for _ in range(60):
        window.add([Played(("a", 1), 2, True, [Ended(1.0, 0, 5000)])] * 10, 0.0)
    assert window.returns == [1.0] * 100

    # when its episode ends, and further ones
    window.add([Played(("a", 1), 2, True, [Ended(-9.0, 1, 250_000)])], 0.0)
    window.add([Played(("a", 1), 2, True, [Ended(1.0, 0), Ended(1.0, 1)])] * 49, 0.0)

    # then it is one of them
    assert window.returns.count(-9.0) == 1


def test_environments_of_which_nothing_is_fit_do_not_keep_the_mean_unknown() -> None:
    # given eight environments, half of them refused, whose episodes are short
    window = EpisodeWindow()
    for _ in range(30):
        episodes = [Ended(2.0, column) for column in range(4)]
        window.add([Played(("a", 1), 8, True, episodes, (4, 5, 6, 7))], 0.0)
    assert window.mean_return == 2.0

    # when they are fit after all
    for _ in range(30):
        window.add([Played(("a", 1), 8, False, [Ended(4.0, column) for column in range(8)])], 0.0)

    # then they are in the window
    assert len(window._inside) == 8


def test_the_returns_of_an_actor_that_is_gone_leave_the_window() -> None:
    # given two actors
    window = EpisodeWindow()
    for number in range(60):
        blocks = [block(0.0, actor="gone"), block(1.0, actor="stays")]
        window.add(blocks, number * 0.1)
    assert window.mean_return == 0.5

    # when one is silent for a moment
    for number in range(60):
        window.add([block(1.0, actor="stays")], 6 + number * 0.1)
    assert window.mean_return == 0.5

    # then for good
    for number in range(60):
        window.add([block(1.0, actor="stays")], 12 + number * 0.1)
    assert window.mean_return == 1.0


def test_a_slow_actor_is_not_gone_as_long_as_the_others_are_as_slow() -> None:
    # given two actors whose blocks take a minute
    window = EpisodeWindow()
    for number in range(60):
        blocks = [block(0.0, actor="one"), block(1.0, actor="other")]
        window.add(blocks, number * 60.0)
        if number > 50:
            assert window.mean_return == 0.5


def test_an_episode_whose_beginning_was_not_seen_does_not_count() -> None:
    # given an actor whose first blocks were dropped
    window = EpisodeWindow()
    window.add([block(1e6, *[1.0] * 100, first=False)], 0.0)
    assert window.mean_return == 1.0


def test_actors_without_number_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_module, "MOST_ACTORS", 50)
    window = EpisodeWindow()
    for number in range(500):
        window.add([block(1.0, actor=str(number), num_envs=1000)], number * 1e-3)
    assert len(window._actors) == 50
    assert window._taken <= 100
