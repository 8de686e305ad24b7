"""Environments by their Gymnasium ids: one rule of resets, all counted from 0, clear refusals."""

import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from impala_redis.common.envs.vector import StepResult, VectorEnvironment
from impala_redis.common.envs.video import Recording
from impala_redis.common.errors import UnsupportedEnvironment
from impala_redis.common.games import corridor
from impala_redis.common.run.spaces import ObservationSpec, discrete


class Counting(gymnasium.Env[Any, Any]):
    """An episode of `length` steps, then `terminated` or not; observes and rewards the step."""

    def __init__(
        self,
        length: int = 3,
        terminates: bool = True,
        observation_space: spaces.Space[Any] | None = None,
        action_space: spaces.Space[Any] | None = None,
        fails: str = "",
    ) -> None:
        if fails == "init":
            raise RuntimeError("no display\nand more lines")
        self.length, self.terminates, self.fails = length, terminates, fails
        self.observation_space = observation_space or spaces.Discrete(length + 1)
        self.action_space = action_space or spaces.Discrete(2)
        self.actions: list[int] = []
        self.steps = 0

    def _observation(self) -> Any:
        space = self.observation_space
        if isinstance(space, spaces.Discrete):
            return np.int64(space.start + self.steps)
        return np.full(space.shape or (), self.steps, space.dtype)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if self.fails == "reset":
            raise OSError("no disk")
        self.steps = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.fails == "step":
            raise ValueError("no luck\nat all")
        assert self.action_space.contains(action)
        self.actions.append(int(action))
        self.steps += 1
        over = self.steps >= self.length
        done = over and self.terminates
        return self._observation(), float(self.steps), done, over and not done, {}


Register = Callable[..., str]


@pytest.fixture
def register() -> Iterator[Register]:
    """Registers an environment for one test; returns its id."""
    names: list[str] = []

    def add(entry_point: Any = Counting, **arguments: Any) -> str:
        names.append(f"ForThisTest{len(names)}-v0")
        vector = arguments.pop("vector_entry_point", None)
        gymnasium.register(names[-1], entry_point, vector_entry_point=vector, kwargs=arguments)
        return names[-1]

    yield add
    for name in names:
        del gymnasium.registry[name]


@pytest.fixture
def make() -> Iterator[Callable[[str, int], VectorEnvironment]]:
    """Makes environments, and closes them."""
    made: list[VectorEnvironment] = []

    def open_one(env_id: str, num_envs: int = 2) -> VectorEnvironment:
        made.append(VectorEnvironment(env_id, num_envs))
        return made[-1]

    yield open_one
    for environment in made:
        environment.close()


Make = Callable[..., VectorEnvironment]


def play(environment: VectorEnvironment, steps: int, seed: int = 0) -> list[StepResult]:
    """Random actions, the same ones for the same seed."""
    rng = np.random.default_rng(seed)
    return [
        environment.step(rng.integers(0, environment.action.sizes[0], environment.num_envs))
        for _ in range(steps)
    ]


# What is made.


def test_cartpole_is_stepped_in_its_native_vector_form(make: Make) -> None:
    environment = make("CartPole-v1", 5)
    assert isinstance(environment._env.unwrapped, CartPoleVectorEnv)
    assert environment.observation == ObservationSpec((4,), "float32")
    assert (environment.num_envs, environment.action) == (5, discrete(2))


def test_acrobot_is_stepped_one_by_one(make: Make) -> None:
    environment = make("Acrobot-v1", 3)
    assert isinstance(environment._env.unwrapped, SyncVectorEnv)
    assert environment.observation == ObservationSpec((6,), "float32")
    assert (environment.num_envs, environment.action) == (3, discrete(3))


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Acrobot-v1", "FrozenLake-v1"])
@pytest.mark.parametrize("num_envs", [1, 4])
def test_reset_and_step_have_the_shapes_and_types_of_the_spec(
    make: Make, env_id: str, num_envs: int
) -> None:
    environment = make(env_id, num_envs)
    spec = environment.observation
    observations = environment.reset(seed=3)
    assert observations.shape == (num_envs, *spec.shape)
    assert observations.dtype == spec.dtype
    for step in play(environment, 3):
        assert step.observations.shape == (num_envs, *spec.shape)
        assert step.observations.dtype == spec.dtype
        assert (step.rewards.shape, step.rewards.dtype) == ((num_envs,), np.float32)
        assert (step.terminated.shape, step.terminated.dtype) == ((num_envs,), np.bool_)
        assert (step.truncated.shape, step.truncated.dtype) == ((num_envs,), np.bool_)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Acrobot-v1", "FrozenLake-v1"])
def test_the_same_seed_gives_the_same_play_and_another_seed_another(
    make: Make, env_id: str
) -> None:
    def observe(seed: int) -> np.ndarray[Any, Any]:
        environment = make(env_id, 4)
        first = environment.reset(seed=seed)
        return np.stack([first, *(step.observations for step in play(environment, 60))])

    assert np.array_equal(observe(1), observe(1))
    assert not np.array_equal(observe(1), observe(2))
    # and the environments of one vector differ
    if env_id != "FrozenLake-v1":
        one = observe(1)[0]
        assert len(np.unique(one, axis=0)) == 4


class TakesAnInt(Counting):
    """Hands its seed to code that takes an int of C."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            struct.pack("i", seed)
            np.random.RandomState(np.int32(seed))
        return super().reset(seed=seed)


class TakesInts(VectorEnv[Any, Any, Any]):
    """The same in a vector form of its own, which hands each environment's seed on as 32 bits."""

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.single_observation_space = spaces.Box(0, 1, (1,), np.float32)
        self.single_action_space = spaces.Discrete(2)
        self.action_space = spaces.MultiDiscrete([2] * num_envs)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        np.array([seed + i for i in range(self.num_envs)], np.int32)
        return np.zeros((self.num_envs, 1), np.float32), {}


@pytest.mark.parametrize("num_envs", [1, 3, 256])
@pytest.mark.parametrize("kind", [TakesAnInt, TakesInts])
def test_every_seed_of_an_environment_fits_an_int_of_c(
    kind: Any, num_envs: int, register: Register
) -> None:
    # given seeds around the limit, those that actors had in 0.1, and what may be typed to eval
    form = "vector_entry_point" if issubclass(kind, VectorEnv) else "entry_point"
    environment = VectorEnvironment(register(**{form: kind}), num_envs)
    largest = 2**31 - 1 - num_envs
    for seed in (0, 7, largest - 1, largest, 2**31 - 1, 2**31, 2_417_925_512, 2**32 - 1, 2**63):
        # when
        environment.reset(seed)

        # then it was taken, as it is where it fits
        assert environment.seed == (seed if seed < largest else seed % largest)
    environment.close()


class Drawn(Counting):
    """Draws the number of the step."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.render_mode = render_mode

    def render(self) -> Any:
        assert self.render_mode == "rgb_array"
        return np.full((2, 2, 3), self.steps, np.uint8)


class Watched(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Does what a recorder does: looks after each step."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.seen: list[int] = []

    def step(self, action: Any) -> Any:
        result = super().step(action)
        self.seen.append(int(np.asarray(self.env.render())[0, 0, 0]))
        return result


def test_a_recorder_wraps_each_environment_and_sees_its_pictures(register: Register) -> None:
    # given
    watched: list[Watched] = []

    def recorder(env: gymnasium.Env[Any, Any]) -> Watched:
        watched.append(Watched(env))
        return watched[-1]

    environment = VectorEnvironment(register(Drawn, length=3), 2, recorder)

    # when
    environment.reset(seed=0)
    steps = play(environment, 4)
    environment.close()

    # then the pictures are those of the steps, and of the reset after the end
    assert [one.seen for one in watched] == [[1, 2, 3], [1, 2, 3]]
    assert [step.terminated.all() for step in steps] == [False, False, True, False]


@pytest.mark.parametrize("env_id", [corridor.ENV_ID, "without a render mode"])
def test_an_environment_that_draws_no_pictures_cannot_be_recorded(
    register: Register, env_id: str
) -> None:
    env_id = register() if env_id != corridor.ENV_ID else env_id
    recording = Recording(Path(), Path())
    with pytest.raises(UnsupportedEnvironment, match=f"{env_id} cannot be recorded: it draws no"):
        VectorEnvironment(env_id, 1, recording.wrap)


# The rule of resets.


@pytest.mark.parametrize("env_id", ["CartPole-v1", "FrozenLake-v1"])
def test_after_an_end_comes_one_step_without_reward_or_end(make: Make, env_id: str) -> None:
    # given random play, in which episodes end at different times
    environment = make(env_id, 8)
    environment.reset(seed=0)
    ends = 0
    ended = np.zeros(8, np.bool_)
    for step in play(environment, 300):
        # then the step after an end only resets
        assert not step.rewards[ended].any()
        assert not step.terminated[ended].any()
        assert not step.truncated[ended].any()
        if env_id == "CartPole-v1":  # which begins near the middle
            assert (np.abs(step.observations[ended]) <= 0.05).all()
        else:
            assert not step.observations[ended].any()
        ended = step.terminated | step.truncated
        ends += int(ended.sum())
    assert ends > 20


def test_a_time_limit_truncates_and_the_next_step_resets(make: Make) -> None:
    # given Acrobot, which lasts 500 steps when nothing is done
    environment = make("Acrobot-v1", 2)
    environment.reset(seed=0)
    still = np.ones(2, np.int64)
    for _ in range(499):
        step = environment.step(still)
        assert not (step.terminated | step.truncated).any()

    # when the time is over
    last, reset = environment.step(still), environment.step(still)

    # then it was no termination, and the next step begins another episode
    assert last.truncated.all()
    assert not last.terminated.any()
    assert (last.rewards == -1).all()
    assert not (reset.truncated | reset.terminated).any()
    assert (reset.rewards == 0).all()
    assert (np.abs(reset.observations[:, 4:]) <= 0.1).all()  # speeds at the start


@pytest.mark.parametrize(("env_id", "limit"), [("CartPole-v0", 200), ("CartPole-v1", 500)])
def test_cartpoles_native_form_keeps_the_time_limit(make: Make, env_id: str, limit: int) -> None:
    # given a pole that is balanced by a simple rule
    environment = make(env_id, 4)
    assert isinstance(environment._env.unwrapped, CartPoleVectorEnv)
    observations = environment.reset(seed=0)
    for t in range(1, limit + 2):
        push_right = observations @ np.array([0.1, 0.5, 5.0, 1.0]) > 0
        step = environment.step(push_right.astype(np.int64))
        observations = step.observations

        # then every episode is cut at the limit, and not before
        assert step.truncated.all() == (t == limit)
        assert not step.terminated.any()
        assert (step.rewards == (0.0 if t == limit + 1 else 1.0)).all()


@pytest.mark.parametrize("terminates", [True, False], ids=["terminates", "is cut"])
def test_an_episode_of_one_step_alternates_with_resets(
    make: Make, register: Register, terminates: bool
) -> None:
    environment = make(register(length=1, terminates=terminates), 2)
    assert environment.reset(seed=0).tolist() == [0, 0]
    for step in play(environment, 6)[0::2]:
        assert step.observations.tolist() == [1, 1]
        assert step.rewards.tolist() == [1.0, 1.0]
        assert step.terminated.tolist() == [terminates] * 2
        assert step.truncated.tolist() == [not terminates] * 2
    environment.reset(seed=0)
    for step in play(environment, 6)[1::2]:
        assert step.observations.tolist() == [0, 0]
        assert step.rewards.tolist() == [0.0, 0.0]
        assert not (step.terminated | step.truncated).any()


# Spaces.


def test_discrete_observations_are_indices(make: Make) -> None:
    environment = make("FrozenLake-v1", 3)
    assert environment.observation == ObservationSpec((), "int64", 16)
    assert environment.reset(seed=0).tolist() == [0, 0, 0]


def test_discrete_spaces_are_counted_from_0_wherever_they_start(
    make: Make, register: Register
) -> None:
    # given an environment that observes 7 .. 10 and takes actions -1 .. 1
    environment = make(
        register(
            observation_space=spaces.Discrete(4, start=7),
            action_space=spaces.Discrete(3, start=-1),
        ),
        2,
    )

    # then we see 0 .. 3, and take 0 .. 2
    assert environment.observation == ObservationSpec((), "int64", 4)
    assert environment.action == discrete(3)
    assert environment.reset(seed=0).tolist() == [0, 0]
    given = np.array([[0, 2], [1, 1], [2, 0]], np.int64)
    seen = [environment.step(actions).observations.tolist() for actions in given]
    assert seen == [[1, 1], [2, 2], [3, 3]]

    # and the environments got their own numbers
    assert isinstance(environment._env, SyncVectorEnv)
    got = [env.unwrapped.actions for env in environment._env.envs]
    assert got == [[-1, 0, 1], [1, 0, -1]]
    assert given.tolist() == [[0, 2], [1, 1], [2, 0]]  # what we gave is untouched


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (
            spaces.Box(0, 255, (4, 4, 3), np.uint8),
            ObservationSpec((4, 4, 3), "uint8", scale=(255,)),
        ),
        (spaces.Box(-9, 9, (2,), np.float64), ObservationSpec((2,), "float64")),
        (spaces.Box(-9, 9, (), np.float32), ObservationSpec((), "float32")),
        (spaces.Box(-9, 8, (3,), np.int32), ObservationSpec((3,), "int32", scale=(9,))),
        (spaces.Discrete(1), ObservationSpec((), "int64", 1)),
    ],
    ids=str,
)
def test_observations_of_these_spaces_are_taken(
    make: Make, register: Register, space: spaces.Space[Any], expected: ObservationSpec
) -> None:
    environment = make(register(length=1, observation_space=space), 2)
    assert environment.observation == expected
    observations = environment.reset(seed=0)
    assert (observations.shape, observations.dtype) == ((2, *expected.shape), expected.dtype)


# Where an environment comes from.


def test_a_module_is_imported_for_the_environments_it_registers(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a module that registers an environment when it is imported
    (tmp_path / "my_games.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('MyGame-v3', 'gymnasium.envs.classic_control:CartPoleEnv')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    # when it is named before the id, then it is found
    environment = make("my_games:MyGame-v3", 2)
    assert environment.observation == ObservationSpec((4,), "float32")
    assert isinstance(environment._env.unwrapped, SyncVectorEnv)
    del gymnasium.registry["MyGame-v3"], sys.modules["my_games"]


def test_a_module_that_cannot_be_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_games.py").write_text("raise RuntimeError('needs a licence')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnsupportedEnvironment, match=r"broken_games:Game-v0.*needs a licence"):
        VectorEnvironment("broken_games:Game-v0", 1)


# Refusals: one sentence each.


def refusal(env_id: str) -> str:
    with pytest.raises(UnsupportedEnvironment) as refused:
        VectorEnvironment(env_id, 2)
    message = str(refused.value)
    assert len(message.splitlines()) == 1, message
    assert env_id in message
    return message


@pytest.mark.parametrize(
    "env_id",
    ["NoSuchGame-v0", "CartPole-v99", "no_such_module:Game-v0", "NoSuchGame", "", "a b", "x:"],
)
def test_an_unknown_environment_is_refused_with_what_can_be_given(env_id: str) -> None:
    what = (
        "or name the file: --env PATH/" if ":" in env_id else "a Gymnasium id such as CartPole-v1"
    )
    assert what in refusal(env_id)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(70_000),
        spaces.Box(-1, 1, (0,), np.float32),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Dict({"a": spaces.Tuple([spaces.OneOf([spaces.Discrete(2)])])}),
    ],
    ids=lambda space: type(space).__name__,
)
def test_an_observation_space_that_we_cannot_take_is_refused(
    register: Register, space: spaces.Space[Any]
) -> None:
    said = refusal(register(observation_space=space))
    assert (
        "supported are Box, Discrete, MultiDiscrete, MultiBinary, Text, and Dict or Tuple" in said
    )


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 10**9, (2,), np.int64),
        spaces.Tuple([spaces.Discrete(2), spaces.Discrete(3)]),
        spaces.Dict({"a": spaces.Discrete(2)}),
        spaces.Text(3),
    ],
    ids=["Box of whole numbers", "Tuple", "Dict", "Text"],
)
def test_an_action_space_that_we_cannot_take_is_refused(
    register: Register, space: spaces.Space[Any]
) -> None:
    said = refusal(register(action_space=space))
    assert "supported are Discrete, MultiDiscrete, MultiBinary, Box of floats, and Box of" in said


class Talkative(Counting):
    """Says in its infos what means something else to us."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return *super().step(action)[:4], {"game_over": False}


def test_what_an_environment_says_beside_does_not_decide_where_a_score_ends(
    register: Register, make: Make
) -> None:
    # given
    environment = make(register(Talkative, length=2), 1)
    environment.reset(0)

    # when / then
    steps = [environment.step(np.zeros(1, np.int64)) for _ in range(3)]
    assert [bool(step.over[0]) for step in steps] == [False, True, False]


def test_an_environment_whose_constructor_raises_is_refused_with_its_words(
    register: Register,
) -> None:
    message = refusal(register(fails="init"))
    assert "cannot be made: RuntimeError: no display" in message
    assert "more lines" not in message


@pytest.mark.parametrize("doing", ["reset", "step"])
def test_an_environment_that_fails_in_play_is_named(
    make: Make, register: Register, doing: str
) -> None:
    env_id = register(fails=doing)
    environment = make(env_id)
    with pytest.raises(UnsupportedEnvironment, match=f"{env_id} failed in {doing}: ") as failed:
        environment.reset(seed=0)
        play(environment, 1)
    assert len(str(failed.value).splitlines()) == 1


class SameStep(VectorEnv[Any, Any, Any]):
    """A native vector form that resets in the step of the end."""

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int = 1) -> None:
        self.num_envs = num_envs
        self.single_observation_space = spaces.Discrete(2)
        self.single_action_space = spaces.Discrete(2)
        self.observation_space = spaces.MultiDiscrete([2] * num_envs)
        self.action_space = spaces.MultiDiscrete([2] * num_envs)


class SaysNothing(SameStep):
    """A native vector form that does not say how it resets."""

    metadata: dict[str, Any] = {}  # noqa: RUF012


@pytest.mark.parametrize("vector", [SameStep, SaysNothing])
def test_a_vector_form_that_resets_otherwise_is_refused(
    register: Register, vector: type[SameStep]
) -> None:
    env_id = register(None, vector_entry_point=vector)
    said = refusal(env_id)
    assert "its vector form resets in mode" in said
    assert "register a single form" in said


@pytest.mark.parametrize("vector", [SameStep, SaysNothing])
def test_single_environments_take_the_place_of_a_vector_form_that_resets_otherwise(
    make: Make, register: Register, vector: type[SameStep], caplog: pytest.LogCaptureFixture
) -> None:
    # given an environment with both forms
    env_id = register(vector_entry_point=vector)

    # when
    environment = make(env_id, 2)
    environment.reset(0)
    steps = play(environment, 5)

    # then it is stepped by the rule of resets, and the log says so
    assert [step.rewards.tolist() for step in steps] == [[n, n] for n in (1, 2, 3, 0, 1)]
    assert [bool(step.terminated.all()) for step in steps] == [False, False, True, False, False]
    assert f"{env_id} is stepped one by one: its vector form resets in mode" in caplog.text


def test_single_environments_take_the_place_of_a_vector_form_that_lacks_an_argument(
    make: Make, register: Register
) -> None:
    environment = make(register(vector_entry_point=SameStep, length=2), 2)
    environment.reset(0)
    assert [bool(step.terminated.all()) for step in play(environment, 3)] == [False, True, False]


class Threaded(SameStep):
    """A native vector form of the right rule that notes how many threads it is given."""

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012
    given: list[int] = []  # noqa: RUF012

    def __init__(self, num_envs: int = 1, num_threads: int = 8) -> None:
        super().__init__(num_envs)
        self.given.append(num_threads)


class Unthreaded(SameStep):
    """A native vector form of the right rule that knows of no threads."""

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012


def test_a_vector_form_that_takes_a_number_of_threads_is_given_it(
    register: Register, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    env_id = register(None, vector_entry_point=Threaded)

    # when: without a number it keeps its own
    for num_threads in (3, 1, None):
        VectorEnvironment(env_id, 4, num_threads=num_threads).close()

    # then
    assert Threaded.given == [3, 1, 8]
    assert not caplog.messages


@pytest.mark.parametrize("vector", [None, Unthreaded])
def test_environments_that_only_one_thread_can_step_are_named(
    vector: type[Unthreaded] | None, register: Register, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    env_id = register(Counting, vector_entry_point=vector)

    # when
    for num_threads in (None, 1, 3):
        VectorEnvironment(env_id, 2, num_threads=num_threads).close()

    # then
    (message,) = caplog.messages
    assert message.startswith(f"{env_id} is stepped by one thread, not by 3")


class WithoutLimit(SameStep):
    """A native vector form of the right rule that takes no time limit."""

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012


@pytest.mark.parametrize("single", [Counting, None])
def test_a_time_limit_that_the_vector_form_does_not_take_holds_in_single_environments(
    make: Make, single: Any
) -> None:
    # given
    env_id = "Limited-v0"
    gymnasium.register(env_id, single, vector_entry_point=WithoutLimit, max_episode_steps=2)
    try:
        if single is None:
            assert "does not take the max_episode_steps that" in refusal(env_id)
            return

        # when
        environment = make(env_id, 2)
        environment.reset(0)

        # then
        assert [bool(step.truncated.all()) for step in play(environment, 3)] == [False, True, False]
    finally:
        del gymnasium.registry[env_id]


def test_a_working_directory_that_is_gone_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    # then an environment is made, and one with a module is looked for everywhere else
    VectorEnvironment("CartPole-v1", 1).close()
    with pytest.raises(UnsupportedEnvironment, match="No module named 'nowhere'"):
        VectorEnvironment("nowhere:Id-v0", 1)


def test_only_a_neighbour_that_is_found_elsewhere_first_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a module with neighbours: one that is its own, one with the name of an imported package
    (tmp_path / "beside_me.py").write_text("import helper_of_mine\nraise ValueError('no')\n")
    (tmp_path / "helper_of_mine.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UnsupportedEnvironment) as refused:
        VectorEnvironment("beside_me:Id-v0", 1)
    assert "hidden" not in str(refused.value)

    # when
    (tmp_path / "numpy.py").write_text("")

    # then
    with pytest.raises(UnsupportedEnvironment) as refused:
        VectorEnvironment("beside_me:Id-v0", 1)
    assert f"numpy.py beside it is hidden by {np.__file__}; rename it" in str(refused.value)
