"""What a block tells of its episodes fits its rows: all that is honest does, and no lie."""

import time
from typing import Any

import gymnasium
import numpy as np
import pytest
from full import in_full
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from impala_redis.common.acting.unroll import Actor
from impala_redis.common.blocks.checks import MOST_NUMBER
from impala_redis.common.blocks.trajectory import Block, Episode, Origin, empty_trajectory
from impala_redis.common.blocks.wire import pack_block, unpack_block
from impala_redis.common.envs.vector import StepResult, VectorEnvironment
from impala_redis.common.errors import MessageRefused
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.settings.declaring import MAX_ENVS

T = 8


def make_spec(environment: Any, env: str = "Rows-v0", **changes: Any) -> RunSpec:
    fields: dict[str, Any] = {
        "run": "rows",
        "env": env,
        "observation": environment.observation,
        "action": environment.action,
        "hidden_sizes": (4,),
        "activation": "tanh",
        "unroll_length": T,
        "envs_per_actor": environment.num_envs,
        "queue_blocks": 1,
        "max_policy_age_s": 600.0,
        "seed": 1,
    }
    return RunSpec(**(fields | changes))


class _Plain:
    observation, action, num_envs = ObservationSpec((1,), "float32"), discrete(2), 2


SPEC = make_spec(_Plain())


# What is honest.


class Extremes(gymnasium.Env[Any, Any]):
    """Episodes of 1 to 5 steps whose rewards are tiny, huge, or of both signs and cancel out."""

    scales: tuple[float, ...] = (1e-30, 1e-3, 1.0, 1e5, MOST_NUMBER)

    def __init__(self) -> None:
        self.observation_space, self.action_space = spaces.Box(0, 1, (1,)), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, 6))
        self.scale = float(self.np_random.choice(self.scales))
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        reward = self.scale * float(self.np_random.uniform(-1, 1))
        cut = self.left == 0 and self.scale < 1
        return np.zeros(1, np.float32), reward, self.left == 0 and not cut, cut, {}


gymnasium.register("Extremes-v0", entry_point=lambda **_: Extremes(), max_episode_steps=4)


class Outliers(Extremes):
    """The same, where one episode in ten begins with a reward that no learner takes."""

    scales = (*[1.0] * 9, 1e30)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, *over = super().step(action)
        self.scale = 1.0
        return observation, reward, *over


gymnasium.register("Outliers-v0", entry_point=lambda **_: Outliers())

KINDS: dict[str, dict[str, Any]] = {
    "CartPole-v1": {},
    "impala/MaskedCartPole-v1": {"lstm_size": 4, "extra_inputs": "last_action_reward"},
    "impala/ShortCorridor-v0": {},
    "Acrobot-v1": {"frame_stack": 4},
    "Pendulum-v1": {"lstm_size": 4, "extra_inputs": "last_action_reward"},
    "MountainCarContinuous-v0": {},
    "Blackjack-v1": {},
    "CliffWalking-v1": {},
    "FrozenLake-v1": {},
    "LunarLander-v3": {},
    "MiniGrid-Empty-5x5-v0": {},
    "ALE/Breakout-v5": {"frame_stack": 4},
    "ALE/Pong-v5": {},
    "Extremes-v0": {},
}


@pytest.mark.parametrize(
    "env", [*in_full("ALE/Pong-v5"), *(env for env in KINDS if env != "ALE/Pong-v5")]
)
def test_no_block_of_an_honest_actor_is_refused(env: str) -> None:
    # given an actor that plays almost at random
    options = dict(KINDS[env])
    environment = VectorEnvironment(env, 6, frame_stack=options.pop("frame_stack", 1))
    spec = make_spec(environment, env, **options)
    rng = np.random.default_rng(0)
    weights = {
        name: rng.normal(0.0, 0.01, shape).astype(np.float32)
        for name, shape in spec.parameter_shapes().items()
    }
    actor = Actor(spec, environment, "a", 1)
    actor.policy.load(1, weights)

    # when it plays some thousand steps, and begins anew in between
    for number in range(60):
        if number == 40:
            actor.begin(environment)
        block = actor.unroll()
        found = unpack_block(pack_block(_sent(block, number), spec), spec)

        # then each block is read with all of its episodes
        assert found.unfit == ()
        assert found.episodes_left_out == 0
        assert len(found.episodes) == len(block.episodes)
    actor.close()


class Rows:
    """Environments whose rewards and ends are drawn, and whose scores may go on over ends."""

    observation, action = ObservationSpec((1,), "float32"), discrete(2)

    def __init__(self, num_envs: int, rewards: list[float], ends: float, lives: int) -> None:
        self.num_envs, self.rewards, self.ends, self.lives = num_envs, rewards, ends, lives
        self.rng = np.random.default_rng(7)

    def set_progress(self, share: float) -> None:
        """Hears nothing."""

    def reset(self, seed: int) -> Any:
        self.ended = np.zeros(self.num_envs, np.bool_)
        return np.zeros((self.num_envs, 1), np.float32)

    def step(self, actions: Any) -> StepResult:
        n, rng, fake = self.num_envs, self.rng, self.ended
        rewards = np.where(fake, 0, rng.choice(self.rewards, n)).astype(np.float32)
        self.ended = (rng.random(n) < self.ends) & ~fake
        over = self.ended & (rng.random(n) * self.lives < 1)
        cut = over & (rng.random(n) < 0.3)
        observations = np.zeros((n, 1), np.float32)
        return StepResult(observations, rewards, self.ended & ~cut, cut, over, infos={})


@pytest.mark.parametrize("lives", [1, 3])
@pytest.mark.parametrize("ends", [1.0, 0.3, 0.003])
@pytest.mark.parametrize(
    "rewards",
    [[1e9], [1e7 / 3], [1 / 3], [-1e9, 1e9, 0.1], [1e-38, -1e-3, 1.0, 1e9]],
    ids=["huge", "large", "rounded", "cancelling", "of all sizes"],
)
def test_no_block_is_refused_for_its_size_or_for_long_sums(
    rewards: list[float], ends: float, lives: int
) -> None:
    for unroll_length, num_envs in ((1, 1), (1, 40), (2, 3), (3, 14), (20, 1), (400, 30)):
        environment: Any = Rows(num_envs, rewards, ends, lives)
        spec = make_spec(environment, unroll_length=unroll_length)
        actor = Actor(spec, environment, "a", 1)
        shapes = spec.parameter_shapes().items()
        actor.policy.load(1, {name: np.zeros(shape, np.float32) for name, shape in shapes})
        for number in range(1 + 100 // unroll_length):
            block = actor.unroll()
            found = unpack_block(pack_block(_sent(block, number), spec), spec)
            assert len(found.episodes) == len(block.episodes)


def _sent(block: Block, number: int) -> Block:
    return block._replace(origin=block.origin._replace(sequence=number + 1))


@pytest.mark.fault(61)
def test_an_absurd_reward_costs_its_columns_and_no_later_return() -> None:
    # given an actor whose environments give some
    environment = VectorEnvironment("Outliers-v0", 6)
    spec = make_spec(environment, "Outliers-v0")
    actor = Actor(spec, environment, "a", 1)
    shapes = spec.parameter_shapes().items()
    actor.policy.load(1, {name: np.zeros(shape, np.float32) for name, shape in shapes})

    # when
    found = [
        unpack_block(pack_block(_sent(actor.unroll(), number), spec), spec) for number in range(60)
    ]

    # then whole blocks are never refused for it, and what is left is without its traces
    assert {unfit.kind for block in found for unfit in block.unfit} == {"rewards"}
    told = {unfit.explanation for block in found for unfit in block.unfit}
    assert all("divide them in the environment" in explanation for explanation in told)
    assert sum(unfit.columns for block in found for unfit in block.unfit) < 6 * 60 / 2
    episodes = [episode for block in found for episode in block.episodes]
    assert len(episodes) > 300
    assert all(abs(e.episode_return) <= e.length for e in episodes)
    actor.close()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_ends_with_any_scores_among_them_are_honest(data: st.DataObject) -> None:
    # given rows of two environments whose episodes end anywhere, and scores that go on over some
    rewards = data.draw(st.sampled_from([1.0, 1e-3, 1e9])) * data.draw(
        st.lists(st.integers(-3, 3), min_size=2 * T, max_size=2 * T).map(
            lambda values: np.array(values, np.float64) / 3
        )
    )
    rows = empty_trajectory(SPEC, 2)
    for array in rows:
        array[:] = 0
    rows.rewards[:] = rewards.reshape(T, 2)
    rows.mask[:] = True
    steps, total = data.draw(st.integers(0, 9)), np.float64(data.draw(st.floats(-5, 5)))
    totals, lengths, episodes = np.full(2, total), [steps, steps], []
    if steps == 0:
        totals[:] = 0
    for t in range(T):
        for i in range(2):
            totals[i] += rows.rewards[t, i]
            if not rows.mask[t, i]:
                continue
            lengths[i] += 1
            ends = data.draw(st.booleans())
            if ends and t + 1 < T:
                rows.mask[t + 1, i] = False
            if ends and data.draw(st.booleans()):
                episodes.append(Episode(float(np.float32(totals[i])), lengths[i], i))
                totals[i], lengths[i] = 0.0, 0

    # when / then
    block = Block(Origin("a", 1, 1, 0), rows, tuple(episodes), 0.1)
    assert unpack_block(pack_block(block, SPEC), SPEC).episodes == block.episodes


# What is not.


def make_block(ends: list[int], episodes: list[tuple[float, int]], num_envs: int = 2) -> Block:
    """A point a step; in column 1 episodes end at those rows, and these are told of."""
    rows = empty_trajectory(SPEC, num_envs)
    for array in rows:
        array[:] = 0
    rows.rewards[:] = rows.mask[:] = 1
    for row in ends:
        if row + 1 < T:
            rows.mask[row + 1, 1] = rows.rewards[row + 1, 1] = 0
    told = tuple(Episode(score, length, 1) for score, length in episodes)
    return Block(Origin("liar", 1, 1, 0), rows, told, 0.1)


def refusal(block: Block) -> MessageRefused:
    with pytest.raises(MessageRefused) as caught:
        unpack_block(pack_block(block, SPEC), SPEC)
    assert (caught.value.reason, caught.value.kind) == ("range", "episodes")
    return caught.value


@pytest.mark.parametrize(
    ("ends", "episodes"),
    [
        ([2], [(3.0, 3)]),
        ([2], [(9.0, 9)]),  # it began before the block
        ([2], [(-4e9, 8)]),  # and brought what five steps can bring
        ([2, 5], [(3.0, 3), (2.0, 2)]),
        ([2, 5], [(5.0, 5)]),  # a score over two lives
        ([2, 5], [(9.0, 8)]),
        ([2, 5, 7], [(5.0, 5), (1.0, 1)]),  # a score ends with the second life, another behind it
        ([], [(8.0, 8)]),  # cut at the last row, which the block does not show
        ([2], [(3.0, 3), (4.0, 4)]),
        ([2], [(np.inf, 3), (4.0, 4)]),
        ([2], [(np.nan, 3), (np.nan, 4)]),  # as after a reward that is not finite
    ],
)
def test_episodes_that_the_rows_allow_are_taken(
    ends: list[int], episodes: list[tuple[float, int]]
) -> None:
    block = make_block(ends, episodes)
    kept = [e for e in block.episodes if np.isfinite(e.episode_return)]
    assert list(unpack_block(pack_block(block, SPEC), SPEC).episodes) == kept


@pytest.mark.fault(61)
@pytest.mark.parametrize(
    ("ends", "episodes"),
    [
        ([2], [(1e9, 3)]),  # a return that its rewards do not make
        ([2], [(3.001, 3)]),
        ([2], [(5e9 + 1000.0, 7)]),  # more than the steps before the block can bring
        ([2], [(-4.1e9, 7)]),
        ([], [(1e9, 8)]),
        ([2, 5], [(3.0, 3), (2.001, 2)]),
        ([2, 5], [(3.0, 3), (1e9, 2)]),
        ([2, 5, 7], [(5.0, 5), (1e9, 1)]),
        ([2], [(2.0, 2)]),  # shorter than its rows
        ([2, 5], [(3.0, 3), (2.0, 3)]),  # longer than its rows, and began in the block
        ([2, 5], [(3.0, 3), (1.0, 1)]),
        ([2], [(3.0, 3), (4.0, 4), (1.0, 1)]),  # more than ended
        ([], [(8.0, 8), (8.0, 8)]),
        ([7], [(8.0, 8), (8.0, 8)]),
        ([2, 5], [(2.0, 2), (3.0, 3)]),  # in another order
    ],
)
def test_episodes_that_the_rows_rule_out_refuse_the_block(
    ends: list[int], episodes: list[tuple[float, int]]
) -> None:
    refusal(make_block(ends, episodes))


def test_no_episode_ends_in_a_column_of_fake_rows() -> None:
    block = make_block([], [(1.0, 1)])
    block.trajectory.mask[:, 1] = False
    assert "more episodes" in str(refusal(block))


def test_an_episode_does_not_end_where_one_of_the_next_column_does() -> None:
    # given an end of the next column after as many steps as a lie needs, and with its points
    block = make_block([2, 4], [(3.0, 3), (4.0, 4)], num_envs=3)
    block.trajectory.mask[7, 2] = block.trajectory.rewards[7, 2] = 0

    # when / then
    refusal(block._replace(episodes=(*block.episodes, Episode(7.0, 7, 2))))


def test_fake_rows_are_no_steps_of_an_episode() -> None:
    # given three fake rows where an honest actor sends one
    block = make_block([], [(8.0, 8)])
    block.trajectory.mask[:3, 1] = False

    # then its steps before the block are as many as its length is above the real rows
    assert unpack_block(pack_block(block, SPEC), SPEC).episodes == block.episodes
    refusal(make_block([], [(8.0, 4)]))


def test_many_episodes_are_held_against_their_rows_as_few_are() -> None:
    # given forty columns with an episode each, of which one is a lie or none
    block = make_block([], [], num_envs=40)
    episodes = tuple(Episode(8.0, 8, column) for column in range(40))
    block = block._replace(episodes=episodes)

    # when / then
    assert unpack_block(pack_block(block, SPEC), SPEC).episodes == episodes
    for lie in (Episode(1e9, 8, 39), Episode(4.0, 4, 39), Episode(9.0, 8, 0)):
        told = [lie if lie.column == episode.column else episode for episode in episodes]
        refusal(block._replace(episodes=tuple(told)))


def test_an_episode_of_a_column_that_was_left_out_is_not_held_against_its_rows() -> None:
    # given a column whose reward is not finite, and so is what is told of it
    block = make_block([2], [(1e30, 1), (1.0, 5), (1.0, 1)], num_envs=3)
    block.trajectory.rewards[0, 1] = np.inf
    block = block._replace(episodes=(*block.episodes, Episode(8.0, 8, 2)))

    # when
    found = unpack_block(pack_block(block, SPEC), SPEC)

    # then
    assert found.episodes == (Episode(8.0, 8, 2),)
    assert found.episodes_left_out == 3


def test_the_columns_of_a_block_with_gaps_are_held_against_their_own_rows() -> None:
    # given a lie in the last column, behind one that is left out
    block = make_block([2], [(3.0, 3)], num_envs=3)
    block.trajectory.rewards[0, 0] = np.nan

    # when / then
    assert unpack_block(pack_block(block, SPEC), SPEC).episodes == block.episodes
    refusal(block._replace(episodes=(*block.episodes, Episode(9.5, 8, 2))))


def made_of_lives(unroll_length: int, num_envs: int, lengths: list[int]) -> tuple[Block, RunSpec]:
    """A point in each other row, behind which a life ends; scores end after so many points."""
    spec = make_spec(_Plain(), unroll_length=unroll_length)
    rows = empty_trajectory(spec, num_envs)
    for array in rows:
        array[:] = 0
    rows.rewards[::2] = rows.mask[::2] = 1
    told = tuple(Episode(float(n), n, i) for i in range(num_envs) for n in lengths)
    return Block(Origin("a", 1, 1, 0), rows, told, 0.1), spec


@pytest.mark.parametrize(
    ("unroll_length", "num_envs", "lengths"),
    [
        (T, MAX_ENVS, [1, 3]),  # other ends than the first ones, in the most columns
        (2000, 64, [150] + [3] * 250),  # and in the longest blocks that there are
        (2000, 64, [3] * 333),
        (10_000, 8, [4000] + [200] * 5),
    ],
)
def test_many_lives_in_large_blocks_are_honest(
    unroll_length: int, num_envs: int, lengths: list[int]
) -> None:
    # given
    block, spec = made_of_lives(unroll_length, num_envs, lengths)
    message = pack_block(block, spec)

    # when
    times = []
    for _ in range(3):
        began = time.process_time()
        assert unpack_block(message, spec).episodes == block.episodes
        times.append(time.process_time() - began)

    # then
    assert min(times) < 0.5


def test_a_block_made_to_take_the_readers_time_takes_little() -> None:
    # given scores that fit wherever the first one ends, but for the last one of the last column
    block, spec = made_of_lives(2000, 64, [1] * 500)
    lie = Episode(2.0, 1, 63)
    message = pack_block(block._replace(episodes=(*block.episodes[:-1], lie)), spec)
    many, spec_of_many = made_of_lives(2000, 64, [1] * 500)
    many.trajectory.rewards[:] = 2

    # when
    for one, its_spec in ((message, spec), (pack_block(many, spec_of_many), spec_of_many)):
        times = []
        for _ in range(3):
            began = time.process_time()
            with pytest.raises(MessageRefused):
                unpack_block(one, its_spec)
            times.append(time.process_time() - began)

        # then
        assert min(times) < 0.5
