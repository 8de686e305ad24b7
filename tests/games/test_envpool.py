"""EnvPool: levels as minigrid plays them, other environments by their names, and refusals."""

import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from impala_redis.common.envs.trust import check_environment
from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.errors import ConfigError, UnsupportedEnvironment
from impala_redis.common.games import envpool_vector
from impala_redis.common.run.config import Config
from impala_redis.common.run.spec import make_spec
from impala_redis.common.settings.variant import Variant

pytest.importorskip("envpool")
pytest.importorskip("minigrid")

# Nothing in these levels is drawn at random.
FIXED = (
    *("MiniGrid-Empty-5x5-v0", "MiniGrid-Empty-8x8-v0"),
    *("MiniGrid-DistShift1-v0", "MiniGrid-DistShift2-v0"),
)
TURN_LEFT, TURN_RIGHT, FORWARD, TOGGLE = 0, 1, 2, 5


@contextmanager
def made(env_id: str, num_envs: int, **arguments: Any) -> Iterator[VectorEnvironment]:
    environment = VectorEnvironment(env_id, num_envs, **arguments)
    try:
        yield environment
    finally:
        environment.close()


@pytest.mark.parametrize("level", FIXED)
def test_a_level_without_chance_is_the_same_in_both_packages(level: str) -> None:
    rng, ends = np.random.default_rng(0), Counter[str]()
    with made(level, 2) as pool, made(f"minigrid:{level}", 2) as reference:
        # given both at the beginning
        assert np.array_equal(pool.reset(1), reference.reset(1))

        # when both play the same actions
        for _ in range(300):
            moves = [TURN_LEFT, TURN_RIGHT, FORWARD, FORWARD, FORWARD, TOGGLE]
            actions = rng.choice(moves, 2).astype(np.int32)
            found, expected = pool.step(actions), reference.step(actions)

            # then all is alike, the last observations of episodes and the missions among it;
            # EnvPool computes rewards in float32, minigrid in float64
            assert np.array_equal(found.observations, expected.observations)
            assert np.abs(found.rewards - expected.rewards).max() <= np.finfo(np.float32).eps
            assert np.array_equal(found.terminated, expected.terminated)
            assert np.array_equal(found.truncated, expected.truncated)
            ends["reached"] += int((found.rewards > 0).sum())
            ends["over"] += int(found.over.sum())
    assert ends["over"] >= 2
    assert ends["reached"] or "8x8" in level


class Played(NamedTuple):
    """What random play in a level brought."""

    first: NDArray[np.bool_]  # the one-hot bytes of first observations [episodes, bytes * 128]
    outcomes: NDArray[np.float64]  # return and length [episodes, 2]


def played_at_random(level: str, num_envs: int, steps: int) -> Played:
    with made(level, num_envs) as environment:
        rng = np.random.default_rng(1)
        first, outcomes = [environment.reset(3)], []
        totals, ended = np.zeros((num_envs, 2)), np.zeros(num_envs, np.bool_)
        for _ in range(steps):
            result = environment.step(rng.integers(0, 7, num_envs).astype(np.int32))
            first.append(result.observations[ended])
            totals += np.stack([result.rewards, ~ended], axis=1)
            outcomes.append(totals[result.over])
            totals[result.over] = 0
            ended = result.over
    rows = np.concatenate(first)
    return Played((rows[:, :, None] == np.arange(128)).reshape(len(rows), -1), np.vstack(outcomes))


@pytest.mark.parametrize("level", ["BabyAI-GoToRedBallGrey-v0", "BabyAI-GoToLocalS5N2-v0"])
def test_a_level_of_chance_is_the_same_in_both_packages_on_average(level: str) -> None:
    # when
    pool = played_at_random(level, 256, 150)
    reference = played_at_random(f"minigrid:{level}", 24, 150)

    # then each direction, cell and word of the first observation is as frequent in both
    assert min(len(pool.outcomes), len(pool.first)) > 500
    assert min(len(reference.outcomes), len(reference.first)) > 50
    share = pool.first.mean(axis=0)
    likely = np.sqrt(np.maximum(share * (1 - share), 0.01) / len(reference.first))
    assert (np.abs(reference.first.mean(axis=0) - share) < 5 * likely).all()

    # and so is what random play earns, and how long it takes
    means = [one.outcomes.mean(axis=0) for one in (pool, reference)]
    error = reference.outcomes.std(axis=0) / np.sqrt(len(reference.outcomes))
    assert (np.abs(means[0] - means[1]) < 4 * error).all()
    assert means[0][0] > 0.1


@pytest.mark.parametrize(
    "level",
    [
        "MiniGrid-DoorKey-8x8-v0",
        "MiniGrid-Dynamic-Obstacles-5x5-v0",  # of three actions
        "MiniGrid-MemoryS7-v0",
        "BabyAI-GoToLocal-v0",
    ],
)
def test_a_run_is_the_same_run_whichever_package_plays(level: str) -> None:
    specs = []
    for env_id in (level, f"minigrid:{level}"):
        with made(env_id, 1) as one:
            config = Config().replace({"env": level})
            specs.append(make_spec("r", config, one.observation, one.action, one.spaces))
    assert specs[0].to_json() == specs[1].to_json()


@pytest.mark.parametrize(
    ("level", "variant", "why"),
    [
        ("MiniGrid-Empty-5x5-v0", Variant(env_kwargs='{"size": 6}'), "--env-kwargs gives"),
        ("MiniGrid-Empty-5x5-v0", Variant(max_episode_steps=7), "--max-episode-steps is"),
        (
            "envpool:MiniGrid-Empty-5x5-v0",
            Variant(wrapper=("gymnasium.wrappers:OrderEnforcing",)),
            "--wrapper takes single",
        ),
        ("minigrid:MiniGrid-Empty-5x5-v0", Variant(), "its id names the package"),
        ("MiniGrid-MultiRoom-N4-S5-v1", Variant(), "EnvPool has no such level"),
    ],
)
def test_minigrid_plays_what_envpool_cannot_and_the_log_says_why(
    level: str, variant: Variant, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with made(level, 2, variant=variant) as environment:
        environment.reset(0)
        environment.step(np.zeros(2, np.int32))
    said = [record.getMessage() for record in caplog.records]
    assert [line for line in said if "is played by" in line] == [
        line for line in said if f"is played by the package minigrid: {why}" in line
    ]
    assert len(said) == 1


def test_a_level_is_played_by_envpool_in_the_actors_process_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    level = "MiniGrid-Empty-5x5-v0"
    with made(level, 2, num_threads=2, num_processes=2) as environment:
        environment.reset(0)
        environment.reset(1)
        assert [record.getMessage() for record in caplog.records] == [
            f"{level} is played in the actor's own process: EnvPool has threads (--env-threads)",
            f"{level} is played by EnvPool; threads: 2",
        ]


@pytest.mark.parametrize(
    ("env_id", "sizes"), [("CartPole-v1", (2,)), ("HalfCheetah-v4", (6,)), ("FrozenLake-v1", (4,))]
)
def test_any_environment_of_envpools_is_played_by_its_name(
    env_id: str, sizes: tuple[int, ...]
) -> None:
    # given environments on one thread and on two
    with made(f"envpool:{env_id}", 3) as one, made(f"envpool:{env_id}", 3, num_threads=2) as two:
        assert one.action.sizes == sizes
        rng = np.random.default_rng(0)
        first = one.reset(7)

        # then an environment's seed is its own, and the same seed gives the same episode
        assert np.array_equal(first, two.reset(7))
        if env_id != "FrozenLake-v1":
            assert len(np.unique(first, axis=0)) == 3
        for _ in range(100):
            actions = rng.random((3, *one.action.shape), np.float32) * (sizes[0] - 0.01)
            actions = actions.astype(one.action.dtype)
            for mine, theirs in zip(one.step(actions)[:5], two.step(actions)[:5], strict=True):
                assert np.array_equal(mine, theirs)
        assert np.array_equal(first, one.reset(7))


def test_what_an_environment_takes_are_numbers_and_a_time_limit() -> None:
    variant = Variant(env_kwargs='{"stack_num": 1}', max_episode_steps=3)
    with made("envpool:Pong-v5", 2, variant=variant) as pong:
        assert pong.observation.shape == (1, 84, 84)
        pong.reset(0)
        ends = [pong.step(np.zeros(2, np.int32)).truncated.all() for _ in range(4)]
        assert ends == [False, False, True, False]


@pytest.mark.parametrize(
    ("env_id", "variant", "sentence"),
    [
        ("Pong-v0", Variant(), "EnvPool has no environment 'Pong-v0', and the nearest is envpool:"),
        ("Pong-v5", Variant('{"base_path": "/tmp"}'), "takes no number 'base_path', but .*noop"),
        ("Pong-v5", Variant('{"noop_max": "x"}'), "noop_max must be a number, or true or false"),
        ("Pong-v5", Variant('{"seed": 1}'), "seed is not to be given: give --seed"),
        (
            "Pong-v5",
            Variant(wrapper=("gymnasium.wrappers:OrderEnforcing",)),
            "--wrapper takes single ones: leave that out, or give --env Pong-v5",
        ),
    ],
)
def test_what_envpool_cannot_make_is_refused_in_words(
    env_id: str, variant: Variant, sentence: str
) -> None:
    with pytest.raises(UnsupportedEnvironment, match=sentence):
        VectorEnvironment(f"envpool:{env_id}", 1, variant=variant)


@pytest.fixture
def _without_envpool(monkeypatch: pytest.MonkeyPatch) -> None:
    """EnvPool is as if not installed."""
    monkeypatch.setattr(envpool_vector, "DISTRIBUTION", "no-such-package")


@pytest.mark.usefixtures("_without_envpool")
def test_without_envpool_minigrid_plays_and_the_log_names_the_extra(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with made("MiniGrid-Empty-5x5-v0", 1):
        assert "EnvPool, which is faster, is not installed (the extra envpool)" in caplog.text


@pytest.mark.usefixtures("_without_envpool")
def test_a_file_named_envpool_is_never_taken_for_the_package(
    monkeypatch: pytest.MonkeyPatch, own_folder: Path
) -> None:
    # given a run of EnvPool's on a machine without it, and a file of that name
    (own_folder / "envpool.py").write_text("raise SystemExit('imported')")
    monkeypatch.delitem(sys.modules, "envpool")

    # then
    with pytest.raises(UnsupportedEnvironment, match=r"needs the package envpool: run .*\[envpool"):
        VectorEnvironment("envpool:CartPole-v1", 1)


def test_a_run_may_name_envpool_but_no_other_module() -> None:
    with made("envpool:CartPole-v1", 1) as one:
        config = Config().replace({"env": "envpool:CartPole-v1"})
        spec = make_spec("r", config, one.observation, one.action)
    check_environment(spec, [])
    with pytest.raises(ConfigError, match="which nobody here has named"):
        check_environment(replace(spec, env="envpools:CartPole-v1"), [])
    with pytest.raises(ConfigError, match="'asset_path', which may choose a file"):
        check_environment(replace(spec, env_kwargs=json.dumps({"asset_path": "x"})), [])
