"""MiniGrid and BabyAI: views are categories, missions are words, and a missing package is named."""

import sys
from typing import Any

import gymnasium
import numpy as np
import pytest

from impala_redis.common.blocks.features import features
from impala_redis.common.encoding.actions import ActionDecoder, action_spec
from impala_redis.common.encoding.observations import Encoder, encoded_text, observation_spec
from impala_redis.common.errors import UnsupportedEnvironment
from impala_redis.common.games import gridworld

NUM_ENVS = 4


def test_only_their_ids_are_gridworlds() -> None:
    assert gridworld.is_gridworld("MiniGrid-DoorKey-5x5-v0")
    assert gridworld.is_gridworld("minigrid:BabyAI-GoToRedBall-v0")
    assert not gridworld.is_gridworld("CartPole-v1")
    assert not gridworld.is_gridworld("MiniGrid-games:Tetris-v0")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minigrid", None)  # as if not installed
    with pytest.raises(UnsupportedEnvironment, match=r"MiniGrid-Empty-5x5-v0 needs.*\[minigrid\]'"):
        gridworld.register("MiniGrid-Empty-5x5-v0")


@pytest.fixture
def make() -> Any:
    pytest.importorskip("minigrid")

    def make_vec(env_id: str) -> Any:
        gridworld.register(env_id)
        return gymnasium.make_vec(
            env_id,
            num_envs=NUM_ENVS,
            vectorization_mode="sync",
            wrappers=[gridworld.CategoryView],
            disable_env_checker=True,
        )

    return make_vec


@pytest.mark.parametrize("env_id", ["MiniGrid-DoorKey-5x5-v0", "BabyAI-GoToLocal-v0"])
def test_a_gridworld_is_played_as_rows_of_categories(make: Any, env_id: str) -> None:
    # given
    env = make(env_id)
    space = env.single_observation_space
    spec, actions = observation_spec(env_id, space), action_spec(env_id, env.single_action_space)
    encoder, decoder = Encoder(space, spec, NUM_ENVS), ActionDecoder(env.single_action_space)
    rng = np.random.default_rng(0)
    direction, view, mission = spec.parts
    assert [part.name for part in spec.parts] == ["direction", "image", "mission"]

    # when it is played at random
    observed = env.reset(seed=0)[0]
    for _ in range(200):
        encoded = encoder.encode(observed)

        # then its row holds what was observed
        row = encoded[1]
        assert row[direction.start] == observed["direction"][1]
        cells = row[view.start : view.start + view.num_bytes]
        assert np.array_equal(cells, observed["image"][1].ravel())
        words = row[mission.start : mission.start + mission.num_bytes]
        assert np.array_equal(words, encoded_text(observed["mission"][1]))
        # and the network sees one value of each category
        one_hot = 1 + 7 * 7 * 3 + len(words)
        assert (features(spec, encoded).sum(axis=1) == one_hot).all()
        observed = env.step(decoder.decode(rng.integers(0, actions.sizes[0], NUM_ENVS)))[0]
    env.close()


class Talking(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Prints as BabyAI does."""

    def reset(self, **options: Any) -> Any:
        print("Sampling rejected: unreachable object")  # noqa: T201
        return super().reset(**options)


def test_what_a_world_prints_is_not_our_output(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("minigrid")
    env = gridworld.CategoryView(Talking(gymnasium.make("MiniGrid-Empty-5x5-v0")))
    env.reset(seed=0)
    assert capsys.readouterr().out == ""
    env.close()
