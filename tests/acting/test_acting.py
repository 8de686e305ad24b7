"""The actor's rows, held against a plain replay of each environment by itself."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from impala_redis.common.acting.unroll import Actor
from impala_redis.common.blocks.checks import MOST_NUMBER
from impala_redis.common.blocks.trajectory import Block, Episode, Trajectory
from impala_redis.common.blocks.weights import Weights
from impala_redis.common.envs.vector import StepResult, VectorEnvironment
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec

T = 7


class Dice(gymnasium.Env[Any, Any]):
    """Episodes of 1 to `longest` steps, each terminated or cut by chance; chance is its seed's."""

    def __init__(self, longest: int = 5, kinds: tuple[bool, ...] = (True, False)) -> None:
        self.longest, self.kinds = longest, kinds
        self.observation_space = spaces.Box(0, 1e6, (2,), np.float32)
        self.action_space = spaces.Discrete(3)
        self.episode = 0

    def _observation(self) -> NDArray[np.float32]:
        return np.array([self.episode, self.steps], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode += 1
        self.steps = 0
        self.length = int(self.np_random.integers(1, self.longest + 1))
        self.terminates = bool(self.np_random.choice(self.kinds))
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        reward = 100.0 * self.episode + 10.0 * self.steps + float(action)
        over = self.steps == self.length
        terminated = over and self.terminates
        return self._observation(), reward, terminated, over and not terminated, {}


class OneBuffer(VectorEnv[Any, Any, Any]):
    """A native vector form that writes every observation into the same memory."""

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int = 1) -> None:
        self.num_envs = num_envs
        self.single_observation_space = spaces.Box(0, 1e6, (1,), np.float32)
        self.single_action_space = spaces.Discrete(2)
        self.observation_space = spaces.Box(0, 1e6, (num_envs, 1), np.float32)
        self.action_space = spaces.MultiDiscrete([2] * num_envs)
        self.buffer = np.zeros((num_envs, 1), np.float32)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.buffer[:] = 0
        return self.buffer, {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self.buffer += 1
        no = np.zeros(self.num_envs, np.bool_)
        return self.buffer, np.ones(self.num_envs), no, no.copy(), {}


class Scripted:
    """A policy that follows a rule."""

    version = 3

    def __init__(self, rule: Callable[[NDArray[Any]], NDArray[np.bool_]]) -> None:
        self._rule = rule

    def load(self, version: int, weights: Weights) -> None:
        pass

    def begin(self, num_envs: int) -> None:
        self.memory = np.empty((num_envs, 0), np.float32)
        self.history = np.empty((0, num_envs, 4), np.float32)

    def sample(
        self, observations: NDArray[Any], is_first: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        actions = self._rule(observations).astype(np.int64)
        return actions, np.zeros(len(actions), np.float32)

    def remember(self, actions: NDArray[Any], rewards: NDArray[np.float32]) -> None:
        pass


@pytest.fixture(scope="module", autouse=True)
def _environments() -> Iterator[None]:
    """The small environments of this file."""
    entries: dict[str, dict[str, Any]] = {
        "Dice-v0": {"entry_point": Dice},
        "OneStepCut-v0": {"entry_point": Dice, "kwargs": {"longest": 1, "kinds": (False,)}},
        "OneStepEnd-v0": {"entry_point": Dice, "kwargs": {"longest": 1, "kinds": (True,)}},
        "OneBuffer-v0": {"entry_point": Dice, "vector_entry_point": OneBuffer},
    }
    for name, arguments in entries.items():
        gymnasium.register(name, **arguments)
    yield
    for name in entries:
        del gymnasium.registry[name]


def make_spec(environment: VectorEnvironment, env_id: str, seed: int) -> RunSpec:
    return RunSpec(
        run="test",
        env=env_id,
        observation=environment.observation,
        action=environment.action,
        hidden_sizes=(8,),
        activation="tanh",
        unroll_length=T,
        envs_per_actor=environment.num_envs,
        queue_blocks=4,
        max_policy_age_s=600.0,
        seed=seed,
    )


def random_weights(spec: RunSpec, scale: float = 1.0) -> Weights:
    rng = np.random.default_rng(7)
    return {
        name: (scale * rng.normal(size=shape)).astype(np.float32)
        for name, shape in spec.parameter_shapes().items()
    }


class Acting:
    """An actor in an environment, and all it has played."""

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        name: str = "host-7",
        seed: int = 5,
        join: int = 0,
        **spec: Any,
    ) -> None:
        self.env_id = env_id
        self.environment = VectorEnvironment(env_id, num_envs)
        self.spec = replace(make_spec(self.environment, env_id, seed), **spec)
        self.actor = Actor(self.spec, self.environment, name, 99, join)
        self.actor.policy.load(1, random_weights(self.spec))
        self.blocks: list[Block] = []

    def play(self, unrolls: int) -> Trajectory:
        """Plays unrolls; all rows since the beginning, end to end."""
        self.blocks += [self.actor.unroll() for _ in range(unrolls)]
        rows = [block.trajectory for block in self.blocks]
        both_ends = {"observations", "is_first"}  # their last row is the next unroll's first
        return Trajectory(
            **{
                name: np.concatenate(
                    [getattr(r, name)[:T] for r in rows]
                    + ([getattr(rows[-1], name)[T:]] if name in both_ends else [])
                )
                for name in Trajectory._fields
            }
        )


@pytest.fixture
def acting() -> Iterator[Callable[..., Acting]]:
    """Makes actors, and closes their environments."""
    made: list[Acting] = []

    def make(env_id: str, num_envs: int, **arguments: Any) -> Acting:
        made.append(Acting(env_id, num_envs, **arguments))
        return made[-1]

    yield make
    for one in made:
        one.environment.close()


Make = Callable[..., Acting]


def replay(
    env_id: str, seed: int, actions: NDArray[np.integer[Any]]
) -> tuple[Trajectory, dict[int, Episode]]:
    """One environment by itself: its rows as the rule wants them, and its episodes by last row."""
    env = gymnasium.make(env_id)
    observations, is_first = [env.reset(seed=seed)[0]], [True]
    rewards, discounts, mask = [], [], []
    episodes: dict[int, Episode] = {}
    episode_return, length, over = 0.0, 0, False
    for t, action in enumerate(actions):
        if over:  # the fake row: nothing happens but a reset
            observation, reward, terminated, real = env.reset()[0], 0.0, False, False
            over = False
        else:
            observation, step_reward, terminated, truncated, _ = env.step(int(action))
            reward, real = float(step_reward), True
            over = terminated or truncated
            episode_return, length = episode_return + reward, length + 1
        if real and over:
            episodes[t] = Episode(episode_return, length, 0)
            episode_return, length = 0.0, 0
        observations.append(observation)
        is_first.append(not real)
        rewards.append(reward)
        discounts.append(0.0 if terminated else 1.0)
        mask.append(real)
    env.close()
    rows = Trajectory(
        observations=np.array(observations),
        is_first=np.array(is_first),
        actions=np.array(actions),
        rewards=np.array(rewards, np.float32),
        discounts=np.array(discounts, np.float32),
        behaviour_log_probs=np.zeros(len(actions), np.float32),
        mask=np.array(mask),
        memory=np.empty((1, 0), np.float32),
        tasks=np.empty((1, 0), np.int16),
    )
    return rows, episodes


# The rule of the rows.


@pytest.mark.parametrize(
    ("env_id", "num_envs", "unrolls"),
    [
        ("Dice-v0", 3, 30),
        ("Dice-v0", 1, 30),
        ("OneStepCut-v0", 2, 4),
        ("OneStepEnd-v0", 2, 4),
        ("Acrobot-v1", 2, 160),
        ("FrozenLake-v1", 4, 20),
    ],
)
def test_rows_and_episodes_are_those_of_a_plain_replay(
    acting: Make, env_id: str, num_envs: int, unrolls: int
) -> None:
    # given what an actor played
    one = acting(env_id, num_envs)
    rows = one.play(unrolls)
    assert not rows.mask.all()  # an episode has ended in it

    expected_episodes: list[tuple[int, int, Episode]] = []
    for i in range(num_envs):
        # when the same actions are taken in one environment by itself
        expected, episodes = replay(env_id, one.environment.seed + i, rows.actions[:, i])
        expected_episodes += [(t, i, episode._replace(column=i)) for t, episode in episodes.items()]

        # then the rows are the same: final observations where they belong, fake rows masked,
        # the new episode's first observation marked, discount 0 only at a termination
        for name in ("observations", "is_first", "rewards", "discounts", "mask"):
            assert np.array_equal(getattr(rows, name)[:, i], getattr(expected, name)), name

    # and each unroll has the episodes that ended inside it
    for number, block in enumerate(one.blocks):
        inside = [e for t, _, e in sorted(expected_episodes) if t // T == number]
        assert [episode.length for episode in block.episodes] == [e.length for e in inside]
        assert [episode.column for episode in block.episodes] == [e.column for e in inside]
        assert [episode.episode_return for episode in block.episodes] == pytest.approx(
            [e.episode_return for e in inside]
        )
    assert one.actor.episodes == len(expected_episodes)
    assert one.actor.frames == np.count_nonzero(rows.mask)


def test_the_rows_of_two_episodes_written_out(acting: Make) -> None:
    # given episodes of one step that are cut, and that end
    cut, end = acting("OneStepCut-v0", 1).play(1), acting("OneStepEnd-v0", 1).play(1)
    for rows in (cut, end):
        # then every other row is fake: it leads from the final observation to a first one
        assert rows.observations[:, 0].tolist() == [
            [1, 0],
            [1, 1],
            [2, 0],
            [2, 1],
            [3, 0],
            [3, 1],
            [4, 0],
            [4, 1],
        ]
        assert rows.is_first[:, 0].tolist() == [True, False] * 4
        assert rows.mask[:, 0].tolist() == [True, False] * 3 + [True]
        assert (rows.rewards[1::2] == 0).all()
        first_actions = rows.actions[0::2, 0]
        assert rows.rewards[0::2, 0].tolist() == [
            100 * episode + 10 + action for episode, action in enumerate(first_actions, 1)
        ]
    # and the discount distinguishes a cut from an end
    assert cut.discounts[:, 0].tolist() == [1] * 7
    assert end.discounts[:, 0].tolist() == [0, 1] * 3 + [0]


def test_cartpoles_rows_follow_its_physics(acting: Make) -> None:
    # given CartPole in its native vector form
    one = acting("CartPole-v1", 16)
    rows = one.play(15)
    pole = gymnasium.make("CartPole-v1").unwrapped
    pole.reset(seed=0)
    real_steps = 0
    for t, i in np.argwhere(rows.mask):
        # when the single environment is put where a row begins, and the same action is taken
        pole.state = rows.observations[t, i].astype(np.float64)  # type: ignore[attr-defined]
        pole.steps_beyond_terminated = None  # type: ignore[attr-defined]
        after, reward, terminated, _, _ = pole.step(int(rows.actions[t, i]))

        # then it comes out where the row ends, also where an episode does
        assert rows.observations[t + 1, i] == pytest.approx(after, abs=1e-5)
        assert rows.rewards[t, i] == reward
        assert rows.discounts[t, i] == (0 if terminated else 1)
        assert not rows.is_first[t + 1, i]
        real_steps += 1

    # and the other rows follow an end, and lead to a start
    for t, i in np.argwhere(~rows.mask):
        assert rows.discounts[t - 1, i] == 0
        assert rows.rewards[t, i] == 0
        assert rows.discounts[t, i] == 1
        assert rows.is_first[t + 1, i]
        assert (np.abs(rows.observations[t + 1, i]) <= 0.05).all()
    episodes = [episode for block in one.blocks for episode in block.episodes]
    assert len(episodes) == np.count_nonzero(rows.discounts == 0) > 16
    assert all(episode.episode_return == episode.length for episode in episodes)
    assert one.actor.frames == real_steps


def test_cartpoles_time_limit_keeps_its_bootstrap(acting: Make) -> None:
    # given a policy that balances the pole
    one = acting("CartPole-v1", 2)
    balancing = Scripted(lambda seen: seen @ np.array([0.1, 0.5, 5.0, 1.0]) > 0)
    balancing.begin(one.environment.num_envs)
    one.actor.policy = balancing  # type: ignore[assignment]

    # when it reaches the limit of 500 steps
    rows = one.play(72)

    # then nothing terminated: row 499 leads to the true final observation, row 500 is the fake one
    assert (rows.discounts == 1).all()
    assert np.argwhere(~rows.mask).tolist() == [[500, 0], [500, 1]]
    assert np.argwhere(rows.is_first).tolist() == [[0, 0], [0, 1], [501, 0], [501, 1]]
    assert (rows.rewards[499], rows.rewards[500]) == (pytest.approx([1, 1]), pytest.approx([0, 0]))
    moved = np.abs(rows.observations[500] - rows.observations[499])
    assert (moved < 0.5).all()  # it is where the pole went on to
    assert not np.array_equal(rows.observations[500], rows.observations[501])
    episodes = [episode for block in one.blocks for episode in block.episodes]
    assert episodes == [Episode(500.0, 500, i) for i in range(2)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("at", range(5))
def test_a_reward_that_is_no_number_spoils_its_own_episode_only(
    acting: Make, bad: float, at: int
) -> None:
    # given environments with such rewards in a step, of which one may be a NaN and another large
    one = acting("Dice-v0", 3)
    step, steps = one.environment.step, count()

    def step_once_bad(actions: NDArray[np.int64]) -> StepResult:
        result = step(actions)
        if next(steps) == T - 3 + at:
            result.rewards[:2] = np.nan, bad
        return result

    one.environment.step = step_once_bad  # type: ignore[method-assign]

    # when they are played
    rows = one.play(12)

    # then all other episodes have their own returns, in that unroll and in those after it
    returns = [e.episode_return for block in one.blocks for e in block.episodes]
    over = np.vstack([rows.mask[:-1] > rows.mask[1:], np.zeros((1, 3), np.bool_)])
    starts, own = np.zeros(3, np.int64), list[float]()
    for t, i in np.argwhere(over):
        rewards = rows.rewards[starts[i] : t + 1, i]
        own.append(float(rewards.sum()) if (np.abs(rewards) <= MOST_NUMBER).all() else np.nan)
        starts[i] = t + 1
    assert 1 <= np.isnan(own).sum() <= 2
    assert returns[: len(own)] == pytest.approx(own, nan_ok=True)


def test_an_unroll_goes_on_where_the_last_one_ended(acting: Make) -> None:
    one = acting("Dice-v0", 4)
    one.play(20)
    for before, after in zip(one.blocks, one.blocks[1:], strict=False):
        assert np.array_equal(before.trajectory.observations[T], after.trajectory.observations[0])
        assert np.array_equal(before.trajectory.is_first[T], after.trajectory.is_first[0])


def test_an_unroll_is_not_changed_by_the_next(acting: Make) -> None:
    one = acting("Dice-v0", 4)
    first = one.actor.unroll()
    copies = [array.copy() for array in first.trajectory]
    one.actor.unroll()
    assert all(np.array_equal(a, b) for a, b in zip(first.trajectory, copies, strict=True))


def test_an_environment_may_reuse_its_memory_for_observations(acting: Make) -> None:
    # given a vector environment that counts its steps, always in the same array
    rows = acting("OneBuffer-v0", 2).play(2)

    # then each row holds what was seen before its action
    assert rows.observations[:, 0, 0].tolist() == list(range(2 * T + 1))


class Lives:
    """A game of three lives of two steps each, a point a step; a fake row after each life."""

    num_envs = 1
    observation = ObservationSpec((1,), "float32")
    action = discrete(2)

    def set_progress(self, share: float) -> None:
        """Hears nothing."""

    def reset(self, seed: int) -> NDArray[np.generic]:
        self.steps = 0
        return np.zeros((1, 1), np.float32)

    def step(self, actions: NDArray[Any]) -> StepResult:
        self.steps += 1
        fake, ends = self.steps % 3 == 0, self.steps % 3 == 2
        one = np.array([ends])
        return StepResult(
            np.full((1, 1), self.steps, np.float32),
            np.array([0.0 if fake else 1.0], np.float32),
            terminated=one,
            truncated=np.array([False]),
            over=one & (self.steps % 9 == 8),
            infos={0: {"lives": 3.0 - self.steps % 9 // 3}} if ends else {},
        )

    def close(self) -> None:
        pass


def test_a_lost_life_ends_an_episode_and_a_score_goes_on_to_the_games_end() -> None:
    # given an actor in a game of three lives
    environment: Any = Lives()
    spec = make_spec(environment, "Lives-v0", seed=1)
    actor = Actor(spec, environment, "a", 1)
    actor.policy.load(1, random_weights(spec))

    # when it plays across two games
    blocks = [actor.unroll() for _ in range(4)]  # 28 rows, a game takes 9

    # then each life ends without a bootstrap, and each game is one episode of six steps
    discounts = np.concatenate([block.trajectory.discounts[:, 0] for block in blocks])
    assert np.flatnonzero(discounts == 0).tolist() == list(range(1, 28, 3))
    mask = np.concatenate([block.trajectory.mask[:, 0] for block in blocks])
    assert np.flatnonzero(~mask).tolist() == list(range(2, 28, 3))
    episodes = [episode for block in blocks for episode in block.episodes]
    assert episodes == [Episode(6.0, 6, 0, {"lives": 1.0})] * 3  # as it was at the game's end


# The policy's part.


def test_log_probabilities_are_the_policys_of_the_actions_taken(acting: Make) -> None:
    # given what an actor played
    one = acting("CartPole-v1", 8)
    rows = one.play(3)

    # when the logits of the same observations are put through log-softmax, the slow way
    before_actions = rows.observations[:-1].reshape(-1, 4)
    none_first = np.zeros(len(before_actions), np.bool_)
    logits = one.actor.policy.outputs(before_actions, none_first).astype(np.float64)
    log_softmax = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))

    # then those of the actions taken are in the rows
    actions = rows.actions.reshape(-1)
    expected = log_softmax[np.arange(len(actions)), actions]
    assert rows.behaviour_log_probs.reshape(-1) == pytest.approx(expected, abs=1e-5)
    assert rows.behaviour_log_probs.max() <= 0
    assert set(actions.tolist()) == {0, 1}


def test_actions_come_as_often_as_their_probability(acting: Make) -> None:
    # given a policy that prefers actions regardless of what it sees
    one = acting("Dice-v0", 64)
    weights = random_weights(one.spec, scale=0.0)
    probabilities = np.array([0.6, 0.3, 0.1])
    weights["policy.bias"] = np.log(probabilities).astype(np.float32)
    one.actor.policy.load(2, weights)

    # when it plays
    actions = one.play(40).actions

    # then they come so (five standard deviations of 17,920 draws)
    shares = np.bincount(actions.reshape(-1), minlength=3) / actions.size
    assert shares == pytest.approx(probabilities, abs=0.02)


def test_new_weights_are_used_from_the_next_unroll_and_named_in_it(acting: Make) -> None:
    # given an actor that prefers action 0 strongly, then action 2
    one = acting("Dice-v0", 4)
    weights = random_weights(one.spec, scale=0.0)
    for version, liked in ((4, 0), (5, 2)):
        weights["policy.bias"] = np.where(np.arange(3) == liked, 50.0, 0.0).astype(np.float32)
        one.actor.policy.load(version, dict(weights))
        block = one.actor.unroll()

        # then the block says by which version it was played
        assert block.origin.weights_version == version
        assert (block.trajectory.actions == liked).all()


def test_a_block_says_where_it_comes_from(acting: Make) -> None:
    block = acting("Dice-v0", 2, name="joe").actor.unroll()
    assert block.origin.actor == "joe"
    assert block.origin.incarnation == 99
    assert block.unroll_s > 0
    assert block.trajectory.observations.dtype == np.float32
    assert block.trajectory.actions.dtype == np.int32
    assert [rows.shape[:2] for rows in block.trajectory] == [
        (T + 1, 2),
        (T + 1, 2),
        (T, 2),
        (T, 2),
        (T, 2),
        (T, 2),
        (T, 2),
        (1, 2),
        (1, 2),
    ]


# Seeds.


def same(one: Trajectory, other: Trajectory) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_same_actor_plays_the_same_and_others_play_something_else(acting: Make) -> None:
    # given actors of a run
    rows = acting("CartPole-v1", 4, name="a").play(3)

    # then one of the same name repeats it, one of another name or another run's seed does not
    assert same(rows, acting("CartPole-v1", 4, name="a").play(3))
    for other in (acting("CartPole-v1", 4, name="b"), acting("CartPole-v1", 4, name="a", seed=6)):
        found = other.play(3)
        assert not np.array_equal(rows.observations[0], found.observations[0])
        assert not np.array_equal(rows.actions, found.actions)


def test_each_join_of_a_name_and_each_resumed_part_plays_other_episodes(acting: Make) -> None:
    # given an actor that joins again, also after its run was resumed twice from one checkpoint
    parts = [
        {"join": join, "start_frames": frames, "resumes": resumes}
        for frames, resumes in ((0, 0), (640, 1), (640, 2))
        for join in (0, 1, 2)
    ]

    # then it never begins as it did before, and the same part always begins the same
    begins = [acting("CartPole-v1", 4, **part).play(1) for part in parts]
    assert len({begin.observations[0].tobytes() for begin in begins}) == len(parts)
    assert len({begin.actions.tobytes() for begin in begins}) == len(parts)
    assert all(
        same(begin, acting("CartPole-v1", 4, **part).play(1))
        for begin, part in zip(begins, parts, strict=True)
    )


@pytest.mark.parametrize(
    ("name", "seed_of_0_1"),
    [("actor-0", 521_296_915), ("actor-1", 2_417_925_512), ("actor-2", 4_083_200_440)],
)
def test_an_actors_seeds_fit_an_int_of_c_and_are_those_of_0_1_where_they_fitted(
    acting: Make, name: str, seed_of_0_1: int
) -> None:
    for num_envs in (1, 7):
        seed = acting("CartPole-v1", num_envs, name=name, seed=0).environment.seed
        largest = 2**31 - 1 - num_envs
        assert 0 <= seed < largest
        assert seed % largest == seed_of_0_1 % largest
        assert seed == seed_of_0_1 or seed_of_0_1 >= largest


def test_the_environments_of_one_actor_play_differently(acting: Make) -> None:
    first = acting("Acrobot-v1", 8).play(1).observations[0]
    assert len(np.unique(first, axis=0)) == 8


def test_environments_are_told_of_the_trainings_progress_where_it_is_news() -> None:
    # given environments that note what they are told, and when they begin
    notes: list[Any] = []

    class Noting(Lives):
        def set_progress(self, share: float) -> None:
            notes.append(share)

        def reset(self, seed: int) -> NDArray[np.generic]:
            notes.append("reset")
            return super().reset(seed)

    environment: Any = Noting()
    spec = make_spec(environment, "Lives-v0", seed=1)

    # when an actor joins in the middle, hears the same twice, and gets new environments
    actor = Actor(spec, environment, "a", 1, share=0.5)
    for share in (0.5, 0.6, 0.6):
        actor.set_progress(share)
    actor.begin(environment)

    # then
    assert notes == [0.5, "reset", 0.6, 0.6, "reset"]
