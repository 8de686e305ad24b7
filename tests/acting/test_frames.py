"""Stacks: the learner rebuilds bit for bit what the policy saw, and what ALE itself makes."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from impala_redis.common.acting.frames import FrameStack
from impala_redis.common.acting.policy import HostPolicy
from impala_redis.common.acting.unroll import Actor
from impala_redis.common.blocks.trajectory import Trajectory, empty_trajectory
from impala_redis.common.envs.vector import StepResult, VectorEnvironment
from impala_redis.common.feeding.batch import Batch
from impala_redis.common.learning.torch_inputs import inputs_of, moved, stacked
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec, make_spec
from impala_redis.common.settings.variant import Variant

N, T, S = 3, 5, 4


class Pictures:
    """Numbered frames; episodes of environment i last i + 2 steps, with next-step autoreset."""

    num_envs = N
    observation = ObservationSpec((2, 3), "uint8", frame_stack=S)
    action = discrete(2)

    def set_progress(self, share: float) -> None:
        """Hears nothing."""

    def reset(self, seed: int) -> NDArray[np.generic]:
        self.step_in_all = 0
        self.left = np.arange(N) + 2
        return self._frames()

    def step(self, actions: NDArray[Any]) -> StepResult:
        self.step_in_all += 1
        begins = self.left == 0
        self.left = np.where(begins, np.arange(N) + 2, self.left - 1)
        ended = self.left == 0
        no = np.zeros(N, np.bool_)
        return StepResult(self._frames(), np.zeros(N, np.float32), ended, no, ended)

    def close(self) -> None:
        pass

    def _frames(self) -> NDArray[np.uint8]:
        """[N, 2, 3], all different and none of them 0."""
        number = 1 + self.step_in_all * N + np.arange(N)
        return np.broadcast_to(number[:, None, None], (N, 2, 3)).astype(np.uint8).copy()


class Watching(HostPolicy):
    """Draws nothing, and keeps the stacks that it was shown."""

    def __init__(self, spec: RunSpec) -> None:
        super().__init__(spec, np.random.default_rng(0))
        self.saw: list[NDArray[Any]] = []

    def remember(self, actions: Any, rewards: Any) -> None:
        pass

    def _load(self, weights: Any) -> None:
        pass

    def _outputs(self, seen: NDArray[Any], is_first: NDArray[np.bool_]) -> NDArray[np.float32]:
        self.saw.append(seen.copy())
        return np.zeros((len(seen), 2), np.float32)

    def _values(self, seen: NDArray[Any], is_first: NDArray[np.bool_]) -> NDArray[np.float32]:
        self.saw.append(seen.copy())
        return np.zeros(len(seen), np.float32)


def spec_of(environment: Any) -> RunSpec:
    config = Config().replace({"unroll_length": T, "envs_per_actor": N, "frame_stack": S})
    return make_spec("frames", config, environment.observation, environment.action)


def rebuilt(rows: Trajectory) -> NDArray[Any]:
    """The learner's stacks [T+1, N, S, ...]."""
    found = stacked(torch.from_numpy(rows.observations), torch.from_numpy(rows.is_first))
    return found.numpy()


def test_the_learner_sees_what_the_policy_saw_across_episodes_and_blocks() -> None:
    # given an actor whose episodes are shorter and longer than a stack
    environment: Any = Pictures()
    spec = spec_of(environment)
    actor = Actor(spec, environment, "a", 1)
    actor.policy = watching = Watching(spec)
    watching.begin(N)

    # when it plays blocks, and the learner rebuilds the stacks of each by itself
    blocks = [actor.unroll().trajectory for _ in range(6)]
    learners = np.concatenate([rebuilt(rows)[:-1] for rows in blocks])

    # then they are the same, and a block's last row is the next one's first
    actors = np.stack(watching.saw)
    np.testing.assert_array_equal(learners, actors)
    for before, after in itertools.pairwise(blocks):
        np.testing.assert_array_equal(rebuilt(before)[-1], rebuilt(after)[0])
    # and zeros stand for what was before an episode
    first = np.concatenate([rows.is_first[:-1] for rows in blocks])
    assert first.sum() > 10
    assert not learners[first][:, :-1].any()
    assert learners[first][:, -1].all()


def test_a_batch_of_several_actors_columns_is_rebuilt_column_by_column() -> None:
    # given a batch whose columns come from two blocks
    environment: Any = Pictures()
    spec = spec_of(environment)
    actor = Actor(spec, environment, "a", 1)
    actor.policy = Watching(spec)
    actor.policy.begin(N)
    one, other = (actor.unroll().trajectory for _ in range(2))
    batch = Batch(empty_trajectory(spec, 4))
    batch.take(one, 1, 0)
    batch.take(other, 0, 0)

    # when
    seen, _ = inputs_of(moved(batch.rows, torch.device("cpu")))

    # then
    assert seen.observations.shape == (T + 1, 4, S, 2, 3)
    np.testing.assert_array_equal(seen.observations[:, :2].numpy(), rebuilt(one)[:, 1:])
    np.testing.assert_array_equal(seen.observations[:, 2:].numpy(), rebuilt(other)[:, :2])


def test_without_stacking_observations_stay_as_they_are() -> None:
    observations = torch.arange(12).reshape(3, 2, 2)
    is_first = torch.zeros(3, 2, dtype=torch.bool)
    assert stacked(observations, is_first) is observations


def test_new_environments_begin_with_empty_stacks() -> None:
    # given
    stack = FrameStack(ObservationSpec((1,), "float32", frame_stack=2), 1)
    stack.push(np.full((1, 1), 5.0), np.array([False]))

    # when
    seen = stack.push(np.full((1, 1), 7.0), np.array([True]))

    # then
    assert seen.tolist() == [[[0.0], [7.0]]]


@pytest.mark.parametrize("game", ["Breakout", "Pong"])
def test_the_stacks_are_those_that_ale_makes(game: str) -> None:
    # given ALE's own stacks of four, and our single frames, of the same games
    vector_env = pytest.importorskip("ale_py.vector_env")
    from impala_redis.common.games.atari import game_seeds

    own = vector_env.AtariVectorEnv(
        game.lower(),
        N,
        num_threads=1,
        noop_max=31,
        use_fire_reset=False,
        reward_clipping=False,
        max_num_frames_per_episode=240,  # so that games end within the test
    )
    frames: list[NDArray[Any]] = []
    limit = Variant(max_episode_steps=60)
    environment = VectorEnvironment(f"ALE/{game}-v5", N, frame_stack=4, variant=limit)
    stacks = [own.reset(seed=game_seeds(3, N))[0]]
    frames.append(environment.reset(3))
    is_first = [np.ones(N, np.bool_)]
    ended = np.zeros(N, np.bool_)
    rng = np.random.default_rng(0)
    cut = 0

    # when both play the same actions
    for _ in range(150):
        actions = rng.integers(0, environment.action.sizes[0], N)
        theirs = own.step(actions)
        ours = environment.step(actions)
        stacks.append(theirs[0])
        frames.append(ours.observations)
        is_first.append(ended)
        ended = ours.terminated | ours.truncated
        cut += int(ours.over.sum())
        if (ours.terminated & ~ours.over).any():  # a life: from here on ours does a no-op
            break
    own.close()
    environment.close()

    # then the stacks rebuilt from single frames are theirs, across games too
    history = np.zeros((3, N, 84, 84), np.uint8)
    found = stacked(
        torch.from_numpy(np.concatenate([history, np.stack(frames)])),
        torch.from_numpy(np.stack(is_first)),
    )
    np.testing.assert_array_equal(found.numpy(), np.stack(stacks))
    assert cut or game == "Breakout"
    assert len(frames) > 20
