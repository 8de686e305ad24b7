"""What the updates between two records say: means, lag, actors and episodes."""

import math

import numpy as np
import pytest

from impala_redis.common.blocks.trajectory import (
    Block,
    Episode,
    Origin,
    Unfit,
    empty_trajectory,
)
from impala_redis.common.errors import MessageRefused
from impala_redis.common.feeding.batch import Batch, UnrollTiming
from impala_redis.common.feeding.tally import (
    MOST_NAMES,
    MOST_RETURNS,
    OTHERS,
    UNREADABLE,
    VERSIONS,
    Means,
    Refusals,
    Tally,
)
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import make_spec

SPEC = make_spec(
    "test", Config().replace({"unroll_length": 2}), ObservationSpec((), "float32"), discrete(2)
)


def batch_of(versions: list[int], replayed: int = 0) -> Batch:
    batch = Batch(empty_trajectory(SPEC, len(versions)))
    batch.versions, batch.replayed = versions, replayed
    return batch


def test_the_lag_is_the_learners_version_minus_the_trajectorys() -> None:
    # given
    tally = Tally()

    # when
    tally.note(batch_of([10, 7, 4]), 10, 0.0)
    tally.note(batch_of([11, 11, 11]), 11, 0.0)

    # then
    figures = tally.take()
    assert figures["policy_lag_mean"] == pytest.approx(9 / 6)
    assert figures["policy_lag_max"] == 6
    assert figures["policy_lag_p95"] == pytest.approx(np.percentile([0, 3, 6, 0, 0, 0], 95))


def test_the_lag_in_seconds_is_the_age_of_the_version() -> None:
    # given versions that were made at 100.0, 100.5 and 101.5
    tally = Tally()
    for version, made_s in ((1, 100.0), (2, 100.5), (3, 101.5)):
        tally.made(version, made_s)

    # when
    tally.note(batch_of([1, 2, 3]), 3, 102.0)

    # then
    figures = tally.take()
    assert figures["policy_lag_s_mean"] == pytest.approx((2.0 + 1.5 + 0.5) / 3)
    assert figures["policy_lag_s_p95"] == pytest.approx(1.95)
    assert figures["policy_lag_s_max"] == pytest.approx(2.0)


def test_a_version_of_an_earlier_learner_has_a_lag_and_no_age() -> None:
    # given a learner that went on at version 500
    tally = Tally()
    tally.made(500, 10.0)

    # when
    tally.note(batch_of([480]), 500, 11.0)

    # then
    figures = tally.take()
    assert figures["policy_lag_mean"] == 20
    assert "policy_lag_s_mean" not in figures


def test_a_version_too_old_to_be_known_is_not_taken_for_a_newer_one() -> None:
    tally = Tally()
    tally.made(VERSIONS + 3, 10.0)  # it has the place of version 3
    tally.note(batch_of([3]), VERSIONS + 3, 11.0)
    assert "policy_lag_s_mean" not in tally.take()


def test_a_version_newer_than_the_learners_has_no_age() -> None:
    # given a learner that went back to version 5 after it had made version 7
    tally = Tally()
    for version in (5, 6, 7):
        tally.made(version, float(version))

    # when
    tally.note(batch_of([7]), 5, 10.0)

    # then
    assert "policy_lag_s_mean" not in tally.take()


def test_replayed_trajectories_have_a_lag_of_their_own() -> None:
    # given a batch whose first two columns were replayed
    tally = Tally()
    tally.made(9, 5.0)

    # when
    tally.note(batch_of([1, 3, 9, 9], replayed=2), 10, 6.0)

    # then
    figures = tally.take()
    assert figures["policy_lag_max"] == 1
    assert figures["replay_lag_mean"] == 8.0
    assert figures["replay_share"] == 0.5
    assert figures["policy_lag_s_max"] == pytest.approx(1.0)


def test_actors_are_told_apart_and_their_rates_are_while_they_play() -> None:
    # given
    batch = batch_of([0])
    batch.played = [
        UnrollTiming("a", 100, 0.5),
        UnrollTiming("b", 100, 0.25),
        UnrollTiming("a", 100, 1.0),
    ]

    # when
    tally = Tally()
    tally.note(batch, 0, 0.0)

    # then
    figures = tally.take()
    assert figures["actors"] == 2
    assert figures["actor_frames_per_s_min"] == 100
    assert figures["actor_frames_per_s_max"] == 400
    assert figures["unroll_s"] == pytest.approx(1.75 / 3)


def test_a_block_that_took_no_time_has_no_rate() -> None:
    # given
    batch = batch_of([0])
    batch.played = [UnrollTiming("a", 100, 0.0)]

    # when
    tally = Tally()
    tally.note(batch, 0, 0.0)

    # then
    figures = tally.take()
    assert (figures["actors"], figures["unroll_s"]) == (1, 0.0)
    assert "actor_frames_per_s_mean" not in figures


def test_of_many_episodes_some_returns_are_told_and_the_figures_are_of_all() -> None:
    # given
    batch = batch_of([0])
    batch.episodes = [Episode(float(i), 2 * i + 1, 0) for i in range(95)]

    # when
    tally = Tally()
    tally.note(batch, 0, 0.0)

    # then
    figures = tally.take()
    assert figures["episode_return_mean"] == 47.0
    assert (figures["episode_return_min"], figures["episode_return_max"]) == (0.0, 94.0)
    assert figures["episode_length_mean"] == 95.0
    assert len(figures["episode_returns"]) <= MOST_RETURNS
    assert figures["episode_returns"][:3] == [0.0, 5.0, 10.0]


def test_an_info_is_a_mean_over_the_episodes_that_have_it() -> None:
    # given
    tally = Tally()
    for infos in ({"success": 1.0}, {}, {"success": 0.0, "a b": -2.5}, {"success": 0.5}):
        batch = batch_of([0])
        batch.episodes = [Episode(1.0, 5, 0, infos)]
        tally.note(batch, 0, 0.0)

    # then
    figures = tally.take()
    assert {name: value for name, value in figures.items() if "info" in name} == {
        "episode_info:success": 0.5,
        "episode_info:a b": -2.5,
    }
    assert tally.take() == {}


def test_infos_of_ever_other_names_do_not_fill_the_records() -> None:
    # given an environment that names its infos by a number that grows
    tally, names = Tally(), set()
    for n in range(10):
        batch = batch_of([0])
        batch.episodes = [Episode(1.0, 5, 0, {f"{n}-{i:02}": 1.0 for i in range(32)})]
        tally.note(batch, 0, 0.0)
        names |= {name for name in tally.take() if name.startswith("episode_info:")}

    # then the first ones have figures
    assert names == {f"episode_info:{n}-{i:02}" for n in range(2) for i in range(32)}


def test_what_was_taken_is_not_told_again() -> None:
    # given a batch that brings something of everything
    batch = batch_of([0, 1], replayed=1)
    batch.episodes, batch.played = [Episode(1.0, 5, 0)], [UnrollTiming("a", 100, 0.5)]
    tally = Tally()
    tally.made(1, 0.0)
    tally.note(batch, 1, 1.0)
    assert {"policy_lag_s_max", "replay_share", "actors", "episode_returns"} <= set(tally.take())

    # then of nothing since, nothing is told
    assert tally.take() == {}

    # and of something else, only that
    other = batch_of([1])
    other.episodes, other.played = [Episode(9.0, 3, 0)], [UnrollTiming("b", 100, 0.25)]
    tally.note(other, 1, 1.0)
    figures = tally.take()
    assert (figures["actors"], figures["actor_frames_per_s_min"]) == (1, 400)
    assert (figures["unroll_s"], figures["episode_returns"]) == (0.25, [9.0])


# Figures of updates.


def test_means_are_over_what_was_added_of_each_figure() -> None:
    # given
    means = Means()

    # when
    means.add({"loss": 1.0, "entropy": 5.0})
    means.add({"loss": 2.0})
    means.add({"loss": 6.0, "lag": 3})

    # then
    assert means.take() == {"loss": 3.0, "entropy": 5.0, "lag": 3.0}


def test_an_extreme_stays_the_extreme() -> None:
    # given
    means = Means()

    # when
    for least, most in ((0.5, 1.5), (0.2, 9.0), (0.4, 2.0)):
        means.add({"rho_min": least, "rho_max": most})

    # then
    assert means.take() == {"rho_min": 0.2, "rho_max": 9.0}


def test_taking_the_means_starts_anew() -> None:
    # given
    means = Means()
    means.add({"loss": 1.0, "entropy": 5.0})
    means.take()

    # when
    means.add({"loss": 7.0})

    # then
    assert means.take() == {"loss": 7.0}
    assert means.take() == {}


def test_a_figure_that_is_not_finite_is_left_out_of_the_mean() -> None:
    means = Means()
    means.add({"loss": 1.0, "entropy": math.inf})
    means.add({"loss": math.nan, "entropy": math.nan})
    means.add({"loss": 3.0})
    assert means.take() == {"loss": 2.0}


# Whose blocks were refused.


def refused(actor: str, columns: int = 1) -> Block:
    """A block of that actor, of which so many columns were left out."""
    unfit = Unfit("nonfinite", "rewards", "rewards are not finite", columns)
    rows = empty_trajectory(SPEC, 2)
    return Block(Origin(actor, 1, 1, 0), rows, (), 0.1, (unfit,))


def test_what_is_refused_is_counted_against_its_actor() -> None:
    # given
    refusals = Refusals(envs_per_actor=8)
    assert refusals.most_of == ""

    # when columns of two actors are left out, and blocks of one and of nobody refused
    refusals.note_block(refused("a", 2), stale=False)
    refusals.note_block(refused("b", 3), stale=False)
    error = MessageRefused("schema", "no")
    refusals.note_refusal(error)
    error.actor = "b"
    refusals.note_refusal(error)

    # then
    summary = refusals.summary()
    assert summary is not None
    assert summary["by_actor"] == {"b": 11, UNREADABLE: 8, "a": 2}
    assert refusals.most_of == "b"


def test_however_many_names_a_stranger_invents_few_are_remembered() -> None:
    # given
    refusals = Refusals(envs_per_actor=8)

    # when
    for number in range(10 * MOST_NAMES):
        refusals.note_block(refused(f"stranger-{number}"), stale=False)
    refusals.note_block(refused("stranger-0"), stale=False)

    # then
    summary = refusals.summary()
    assert summary is not None
    counts = summary["by_actor"]
    assert len(counts) == MOST_NAMES + 1
    assert counts[OTHERS] == 9 * MOST_NAMES
    assert counts["stranger-0"] == 2
    assert sum(counts.values()) == 10 * MOST_NAMES + 1
