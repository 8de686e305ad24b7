"""Environments as they are used: arguments, wrappers, time limits, and what is refused in words."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.errors import ConfigError, ImpalaError, UnsupportedEnvironment
from impala_redis.common.games.atari_rules import action_repeat
from impala_redis.common.settings.json_object import canonical
from impala_redis.common.settings.variant import Variant

MODULE = """
import gymnasium


class Twice(gymnasium.RewardWrapper):
    def reward(self, reward):
        return 2 * reward


class Plus(gymnasium.RewardWrapper):
    def __init__(self, env):
        super().__init__(env)
        self.shares = []

    def reward(self, reward):
        return reward + 1

    def set_progress(self, share):
        self.shares.append(share)


class HandsOn(gymnasium.Wrapper):
    def __getattr__(self, name):
        return getattr(self.env, name)


def nothing(env):
    pass


def breaks(env):
    raise ValueError("no luck")
"""


@pytest.fixture
def wraps(own_folder: Path) -> str:
    """A module of wrappers in the working directory."""
    (own_folder / "wraps_here.py").write_text(MODULE)
    return "wraps_here"


def made(env_id: str, num_envs: int = 2, **variant: Any) -> VectorEnvironment:
    """Environments of a variant; its arguments are given as an object."""
    kwargs = canonical(variant.pop("kwargs", {}))
    return VectorEnvironment(env_id, num_envs, variant=Variant(env_kwargs=kwargs, **variant))


def test_arguments_reach_the_vector_form_and_the_single_one(wraps: str) -> None:
    # given a CartPole that pays 0 until the pole falls, and then -1
    kwargs = {"sutton_barto_reward": True}
    vector = made("CartPole-v1", kwargs=kwargs)
    single = made("CartPole-v1", kwargs=kwargs, wrapper=(f"{wraps}:Twice",))
    assert isinstance(vector._env.unwrapped, CartPoleVectorEnv)

    # then
    for environment, least in ((vector, -1.0), (single, -2.0)):
        environment.reset(0)
        rewards = [environment.step(np.zeros(2, np.int64)).rewards for _ in range(15)]
        assert np.unique(rewards).tolist() == [least, 0.0]


def test_the_first_wrapper_is_the_innermost_and_each_is_told_of_progress(wraps: str) -> None:
    # given
    environment = made("CartPole-v1", wrapper=(f"{wraps}:Plus", f"./{wraps}.py:Twice"))
    environment.reset(0)

    # then a reward of 1 becomes 2, and that 4
    assert environment.step(np.zeros(2, np.int64)).rewards.tolist() == [4.0, 4.0]

    # and
    environment.set_progress(0.25)
    plus = [single.env.env for single in environment._singles]
    assert [one.shares for one in plus] == [[0.25], [0.25]]


def test_what_a_wrapper_hands_on_is_not_told_twice(wraps: str) -> None:
    # given wrappers that have the methods of what they wrap
    hands_on = f"{wraps}:HandsOn"
    environment = made("CartPole-v1", 1, wrapper=(f"{wraps}:Plus", hands_on, hands_on))
    (single,) = environment._singles

    # when
    environment.set_progress(0.25)

    # then
    assert single.env.shares == [0.25]


@pytest.mark.parametrize("env_id", ["CartPole-v1", "MountainCar-v0"])
def test_a_time_limit_cuts_episodes_in_either_form(env_id: str) -> None:
    environment = made(env_id, max_episode_steps=4)
    environment.reset(0)
    cut = [environment.step(np.arange(2)).truncated.all() for _ in range(9)]
    assert cut == [False, False, False, True, False, False, False, False, True]


@pytest.mark.parametrize(
    ("variant", "kind", "why"),
    [
        ({"kwargs": {"sise": 1}}, UnsupportedEnvironment, "takes no argument 'sise', but sutton_"),
        ({"kwargs": {"num_envs": 1}}, ConfigError, "num_envs.*: give --envs-per-actor"),
        ({"wrapper": ("wraps_here:Thrice",)}, ConfigError, "no class or function 'Thrice'"),
        ({"wrapper": ("nowhere_at_all:X",)}, ConfigError, "wrapper nowhere_at_all:X cannot be imp"),
        ({"wrapper": ("wraps_here:nothing",)}, UnsupportedEnvironment, "gives a NoneType, and mus"),
        (
            {"wrapper": ("wraps_here:breaks",)},
            UnsupportedEnvironment,
            r"no luck \(wraps_here.py, line \d+, in breaks\)",
        ),
    ],
)
@pytest.mark.usefixtures("wraps")
def test_what_does_not_fit_is_refused_with_the_remedy(
    variant: dict[str, Any], kind: type[ImpalaError], why: str
) -> None:
    with pytest.raises(kind, match=why):
        made("CartPole-v1", **variant)


# Atari.

PONG = "ALE/Pong-v5"


def test_a_game_takes_the_arguments_that_its_single_form_has() -> None:
    pytest.importorskip("ale_py")
    # given
    kwargs = {"full_action_space": True, "frameskip": 2, "repeat_action_probability": 0.25}
    sticky = made(PONG, kwargs=kwargs)

    # then
    assert sticky.action.sizes == (18,)
    assert made(PONG).action.sizes == (6,)
    assert action_repeat(PONG, Variant(env_kwargs=canonical(kwargs))) == 2
    assert (action_repeat(PONG), action_repeat("CartPole-v1")) == (4, 1)


def test_a_video_draws_the_game_that_is_played_with_sticky_actions(wraps: str) -> None:
    pytest.importorskip("ale_py")
    # given the game of a video, which is drawn by a second emulator, and a wrapped one
    variant = Variant(
        env_kwargs='{"repeat_action_probability": 0.5}',
        max_episode_steps=40,
        wrapper=(f"{wraps}:Plus",),
    )
    envs: list[gymnasium.Env[Any, Any]] = []

    def recorder(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
        envs.append(env)
        return env

    drawn = VectorEnvironment(PONG, 1, recorder, variant=variant)
    plain = VectorEnvironment(PONG, 1, variant=variant)

    # when
    frames = [(drawn.reset(3), plain.reset(3))]
    for action in np.random.default_rng(0).integers(0, 6, (50, 1)):
        one, other = drawn.step(action), plain.step(action)
        frames.append((one.observations, other.observations))
        assert one.rewards == other.rewards and one.truncated == other.truncated

    # then both are the same, and the picture is of the frame that the policy sees
    for one_frame, other_frame in frames:
        np.testing.assert_array_equal(one_frame, other_frame)
    picture = envs[0].render()
    assert isinstance(picture, np.ndarray) and picture.shape == (210, 160, 3)


@pytest.mark.parametrize(
    ("kwargs", "why"),
    [
        ({"mode": 1}, "no argument 'mode' .ale-py's vector form has none., but frameskip"),
        ({"continuous": True}, "a choice of buttons"),
        ({"sticky": 0.25}, "no argument 'sticky' .it is unknown."),
        ({"frameskip": [2, 5]}, "frameskip must be a whole number from 1 to 1,000, not"),
        ({"repeat_action_probability": 2}, "must be a number from 0 to 1, not 2"),
        ({"maxpool": 1}, "maxpool must be true or false"),
    ],
)
def test_what_a_game_does_not_take_is_refused(kwargs: dict[str, Any], why: str) -> None:
    pytest.importorskip("ale_py")
    with pytest.raises(UnsupportedEnvironment, match=why):
        made(PONG, kwargs=kwargs)
