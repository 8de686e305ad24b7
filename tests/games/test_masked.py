"""CartPole without velocities: CartPole-v1 but for two columns, in both forms."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.utils.env_checker import check_env

from impala_redis.common.games.masked_cartpole import (
    ENV_ID,
    MAX_EPISODE_STEPS,
    SEEN,
    MaskedCartPoleVector,
)

CARTPOLE = "CartPole-v1"


def test_gymnasiums_checker_has_nothing_to_say() -> None:
    check_env(gymnasium.make(ENV_ID, render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize("mode", ["sync", None])
def test_it_is_cartpole_but_for_the_velocities(mode: Any) -> None:
    # given both games, with the same seed
    masked, whole = (
        gymnasium.make_vec(env_id, num_envs=4, vectorization_mode=mode)
        for env_id in (ENV_ID, CARTPOLE)
    )
    rng = np.random.default_rng(0)
    seen, everything = masked.reset(seed=5)[0], whole.reset(seed=5)[0]
    assert np.array_equal(seen, everything[:, SEEN])
    assert isinstance(masked.unwrapped, CartPoleVectorEnv) == (mode is None)

    # when both take the same actions
    ends = 0
    for _ in range(200):
        actions = rng.integers(0, 2, 4)
        expected, found = whole.step(actions), masked.step(actions)

        # then position and angle are seen, and all else is alike
        assert found[0].dtype == np.float32
        assert masked.single_observation_space.contains(found[0][0])
        assert masked.observation_space.contains(found[0])
        assert np.array_equal(found[0], expected[0][:, [0, 2]])
        for one, other in zip(found[1:4], expected[1:4], strict=True):
            assert np.array_equal(one, other)
        ends += int(expected[2].sum())
    assert ends > 10


def test_a_vector_takes_the_steps_of_a_single_one() -> None:
    # given one of each form in the same state
    single: Any = gymnasium.make(ENV_ID)
    vector = MaskedCartPoleVector(num_envs=1)
    first, _ = single.reset(seed=1)
    vector.reset(seed=1)
    vector.state = np.array(single.unwrapped.state)[:, None]

    # when both go to and fro until the pole falls
    for step in range(MAX_EPISODE_STEPS):
        observation, reward, terminated, _, _ = single.step(step % 2)
        observations, rewards, ends, _, _ = vector.step(np.array([step % 2]))

        # then they observe, pay and end alike
        np.testing.assert_allclose(observations[0], observation, rtol=1e-5, atol=1e-6)
        assert (rewards[0], ends[0]) == (reward, terminated)
        if terminated:
            break
    assert terminated
    assert first.shape == (2,)


def test_both_forms_have_cartpoles_time_limit_and_picture() -> None:
    assert gymnasium.spec(ENV_ID).max_episode_steps == gymnasium.spec(CARTPOLE).max_episode_steps
    vector: Any = gymnasium.make_vec(ENV_ID, num_envs=2)
    assert vector.unwrapped.max_episode_steps == MAX_EPISODE_STEPS
    pictures = []
    for env_id in (ENV_ID, CARTPOLE):
        env = gymnasium.make(env_id, render_mode="rgb_array")
        env.reset(seed=3)
        pictures.append(env.render())
        env.close()
    assert np.array_equal(*pictures)
