"""Single environments in a vector: their infos harm nobody, and what is wanted of them is kept."""

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from impala_redis.common.envs.single import numbers_in_vector, numbers_of
from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.errors import EnvironmentFailed, UnsupportedEnvironment


class Telling(gymnasium.Env[Any, Any]):
    """Episodes of `length` steps; `info` and `reward` make what it gives, from the steps so far."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)
    numbers = itertools.count()

    def __init__(
        self,
        info: Callable[[int], Any] = lambda steps: {},
        reward: Callable[[], Any] = lambda: 1.0,
        length: int = 3,
    ) -> None:
        self.info, self.reward, self.length = info, reward, length

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        self.steps = 0
        return np.zeros(2, np.float32), self.info(0)

    def step(self, action: Any) -> Any:
        self.steps += 1
        observation = np.zeros(2, np.float32)
        return observation, self.reward(), self.steps >= self.length, False, self.info(self.steps)


Make = Callable[..., VectorEnvironment]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes three environments of a class in a vector, for one test."""
    names: list[str] = []

    def add(
        entry_point: Any = Telling, info_keys: tuple[str, ...] = (), **arguments: Any
    ) -> VectorEnvironment:
        names.append(f"Single{len(names)}-v0")
        gymnasium.register(names[-1], entry_point, kwargs=arguments)
        environment = VectorEnvironment(names[-1], 3, info_keys=info_keys)
        environment.reset(0)
        return environment

    yield add
    for name in names:
        del gymnasium.registry[name]


def play(environment: VectorEnvironment, steps: int) -> list[dict[int, dict[str, float]]]:
    """The infos of each step."""
    actions = np.zeros(3, np.int64)
    return [
        {i: dict(info) for i, info in environment.step(actions).infos.items()} for _ in range(steps)
    ]


# Calls count up through the environments of a vector, so that neighbours differ.
_turn = itertools.count()


def by_turns(*values: Any) -> Callable[[int], Any]:
    return lambda steps: values[next(_turn) % len(values)]


ODD_INFOS = {
    "None beside a number": by_turns({"x": 3}, {"x": None}),
    "an array whose length changes": by_turns({"x": np.zeros(1)}, {"x": np.zeros(4)}),
    "a word beside a number": by_turns({"x": 1.0}, {"x": "nobody"}),
    "an integer of 70 bits": by_turns({"x": 2**70}),
    "a float beside a larger integer": by_turns({"x": 1}, {"x": 0.5}, {"x": 2**64}),
    "nested arrays": by_turns({"u": {"hp": np.ones(2)}}, {"u": {"hp": np.ones(3)}}),
    "a dict beside a number": by_turns({"x": {"y": 1}}, {"x": 1}),
    "no dict": by_turns(None),
    "a list": by_turns([1, 2], (3,)),
    "text": by_turns("info"),
    "keys that are no text": by_turns({0: "a", None: 1, (1, 2): 3}),
    "a lock": by_turns({"lock": threading.Lock(), "f": print}),
    "arrays of two kinds": by_turns({"x": np.zeros(2, bool)}, {"x": np.array(["a", "b"])}),
    "odd under episode_info": by_turns({"episode_info": None}, {"episode_info": [1]}),
}


@pytest.mark.parametrize("info", ODD_INFOS.values(), ids=ODD_INFOS)
def test_odd_infos_do_no_harm(make: Make, info: Callable[[int], Any]) -> None:
    environment = make(info=info, info_keys=("x", "u.hp"))
    rewards = [environment.step(np.zeros(3, np.int64)).rewards.tolist() for _ in range(9)]
    assert rewards == [[reward] * 3 for reward in (1, 1, 1, 0, 1, 1, 1, 0, 1)]


def test_numbers_of_an_episodes_last_info_are_kept(make: Make) -> None:
    # given
    environment = make(
        info=lambda steps: {
            "episode_info": {"success": steps == 3, "score": np.float32(steps / 2)},
            "distance": np.array([4.0 - steps]),
            "goal": {"reached": np.array(steps)},
            "not_asked_for": 1.0,
        },
        info_keys=("distance", "goal.reached", "missing", "goal.missing"),
    )

    # when
    infos = play(environment, 8)

    # then they are those of the terminal step, not of the reset that follows
    last = {"success": 1.0, "score": 1.5, "distance": 1.0, "goal.reached": 3.0}
    every = {0: last, 1: last, 2: last}
    assert infos == [{}, {}, every, {}, {}, {}, every, {}]


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (True, 1.0),
        (np.bool_(False), 0.0),
        (7, 7.0),
        (-0.5, -0.5),
        (np.int8(-3), -3.0),
        (np.float16(0.5), 0.5),
        (np.array(2), 2.0),
        (np.array([[2.5]]), 2.5),
        (2**70, float(2**70)),
    ],
)
def test_whatever_is_one_number_is_taken(value: Any, number: float) -> None:
    assert numbers_of({"episode_info": {"x": value}}, ()) == {"x": number}


class Hostile(dict[str, Any]):
    """A dict that raises when it is read."""

    def items(self) -> Any:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "info",
    [
        *({"x": value} for value in (None, "1", b"1", [1, 2], {}, {1}, 1j, object(), np.zeros(2))),
        *({"x": value} for value in (np.nan, np.inf, -np.inf, 1e39, 10**400, np.array("1"))),
        {"episode_info": Hostile(x=1)},
        {"": 1.0},
        None,
        [("x", 1.0)],
        3,
    ],
    ids=lambda info: type(info).__name__,
)
def test_what_is_no_finite_number_is_left(info: Any) -> None:
    assert numbers_of(info, ("x", "episode_info.x")) == {}
    assert numbers_of({"episode_info": info}, ()) == {}


def test_names_of_infos_are_made_fit_for_a_message() -> None:
    names = ["\x1b[2Jx", "line\nbreak", " spaced ", "y" * 100, 5]
    found = numbers_of({"episode_info": dict.fromkeys(names, 1.0)}, ())
    assert sorted(found) == sorted(["?[2Jx", "line?break", "spaced", "y" * 64, "5"])


def test_no_more_numbers_are_kept_than_travel_and_asked_ones_come_first() -> None:
    many = {f"n{i:03}": float(i) for i in range(100)}
    found = numbers_of({"episode_info": many, "z": 1.0}, ("z",))
    assert list(found) == ["z", *(f"n{i:03}" for i in range(31))]


class Native(VectorEnv[Any, Any, Any]):
    """A native vector form; environment i ends at its step i + 2 and tells of it."""

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012
    infos: Any = None

    def __init__(self, num_envs: int = 1) -> None:
        self.num_envs = num_envs
        self.single_observation_space = spaces.Box(-1, 1, (2,), np.float32)
        self.single_action_space = spaces.Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.steps = 0
        return np.zeros((self.num_envs, 2), np.float32), {}

    def step(self, actions: Any) -> Any:
        self.steps += 1
        ended = np.arange(self.num_envs) + 2 == self.steps
        observations = np.zeros((self.num_envs, 2), np.float32)
        rewards, cut = np.ones((self.num_envs, 1)), np.zeros(self.num_envs, bool)
        return observations, rewards, ended, cut, self.infos


def test_numbers_of_a_native_vector_form_are_kept_where_its_masks_say_so() -> None:
    # given
    class WithInfos(Native):
        infos = {  # noqa: RUF012
            "distance": np.array([5.0, 6.0, 7.0]),
            "episode_info": {"success": np.array([1, 1, 0]), "_success": np.array([1, 0, 1], bool)},
            "lives": np.array([3, 3, 3]),
            "odd": "text",
        }

    gymnasium.register("WithInfos-v0", vector_entry_point=WithInfos)
    environment = VectorEnvironment("WithInfos-v0", 3, info_keys=("distance", "odd"))

    # when
    environment.reset(0)
    infos = play(environment, 4)
    del gymnasium.registry["WithInfos-v0"]

    # then
    assert infos == [
        {},
        {0: {"distance": 5.0, "success": 1.0}},
        {1: {"distance": 6.0}},
        {2: {"distance": 7.0, "success": 0.0}},
    ]


@pytest.mark.parametrize(
    "infos",
    [
        [{}, {}, {"x": 3}],
        ({}, None, {"x": np.array([3.0])}),
        {"x": torch.tensor([1, 2, 3])},
        {"x": [1, 2, 3], "_x": torch.tensor([False, False, True])},
    ],
)
def test_infos_of_a_vector_form_may_be_a_list_or_tensors(infos: Any) -> None:
    assert numbers_in_vector(infos, 2, ("x",)) == {"x": 3.0}


@pytest.mark.parametrize("infos", [None, [], "text", {"x": None}, {"x": np.ones(1)}, {1: 2}])
def test_odd_infos_of_a_native_vector_form_do_no_harm(infos: Any) -> None:
    assert numbers_in_vector(infos, 2, ("x",)) == {}


# Rewards.


@pytest.mark.parametrize(
    "reward", [np.array([1.0]), np.array(1.0), np.array([[1]]), np.float32(1), 1, True, [1.0]]
)
def test_a_reward_may_be_an_array_of_one_number(make: Make, reward: Any) -> None:
    step = make(reward=lambda: reward).step(np.zeros(3, np.int64))
    assert step.rewards.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("reward", "what"),
    [
        (None, "None"),
        (np.array([1.0, -1.0]), r"an array of shape \[2\]"),
        ([1.0, 2.0, 3.0], r"\[1.0, 2.0, 3.0\]"),
        ("1.0", "'1.0'"),
        ({"win": 1.0}, r"\{'win': 1.0\}"),
    ],
)
def test_a_reward_that_is_no_number_is_named(make: Make, reward: Any, what: str) -> None:
    environment = make(reward=lambda: reward)
    with pytest.raises(UnsupportedEnvironment, match=rf"^Single0-v0 gives {what} as a reward; it"):
        environment.step(np.zeros(3, np.int64))


@pytest.mark.parametrize("rewards", [np.ones((3, 2)), None, 1.0])
def test_rewards_of_a_vector_form_are_one_for_each_environment(rewards: Any) -> None:
    # given
    class Several(Native):
        def step(self, actions: Any) -> Any:
            observations, _, *rest = super().step(actions)
            return observations, rewards, *rest

    gymnasium.register("Several-v0", vector_entry_point=Several)
    environment = VectorEnvironment("Several-v0", 3)
    del gymnasium.registry["Several-v0"]
    environment.reset(0)

    # when / then
    with pytest.raises(UnsupportedEnvironment, match=r"^Several-v0 gives .* as a reward"):
        environment.step(np.zeros(3, np.int64))


# The old Gym API.


class OldReset(Telling):
    """Its reset takes no seed and returns an observation alone."""

    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()[0]


class SeedAlone(Telling):
    """Its reset takes no options."""

    def reset(self, seed: int | None = None) -> Any:  # type: ignore[override]
        return super().reset()


class ObservationAlone(Telling):
    """Its reset returns an observation alone."""

    def reset(self, **_: Any) -> Any:
        return super().reset()[0]


class OldStep(Telling):
    """Its step returns four values."""

    def step(self, action: Any) -> Any:
        observation, reward, done, _, info = super().step(action)
        return observation, reward, done, info


@pytest.mark.parametrize("limit", [None, 5])
@pytest.mark.parametrize(
    ("old", "why"),
    [
        (OldReset, "its reset takes no seed"),
        (SeedAlone, "its reset takes no options"),
        (ObservationAlone, "its reset returns an observation alone"),
        (OldStep, "its step returns 4 values"),
    ],
)
def test_the_old_gym_api_is_named_with_the_remedy(old: Any, why: str, limit: int | None) -> None:
    # given
    gymnasium.register("Old-v0", old, max_episode_steps=limit)
    environment = VectorEnvironment("Old-v0", 2)
    del gymnasium.registry["Old-v0"]

    # when / then
    sentence = rf"^Old-v0 is written for the old Gym API: {why}; wrap it for Gymnasium.*shimmy"
    with pytest.raises(UnsupportedEnvironment, match=sentence):
        environment.reset(0)
        environment.step(np.zeros(2, np.int64))


# Errors of the environment's own code.


class Broken(Telling):
    """Fails deep inside, by way of a wrapper."""

    def step(self, action: Any) -> Any:
        return self.think()

    def think(self) -> Any:
        try:
            return {}["plan"]
        except KeyError as error:
            raise RuntimeError("no plan\nin two lines") from error


class OfUsers(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A wrapper of the user's."""


def test_an_error_is_named_with_the_users_file_line_and_function(make: Make) -> None:
    # given
    environment = make(lambda **arguments: OfUsers(Broken(**arguments)))

    # when
    with pytest.raises(EnvironmentFailed) as failed:
        environment.step(np.zeros(3, np.int64))

    # then
    begin, _, place = str(failed.value).partition(" (")
    assert begin == "Single0-v0 failed in step: RuntimeError: no plan"
    line = Broken.think.__code__.co_firstlineno + 4
    assert place == f"tests/envs/test_single.py, line {line}, in think)"

    # and its frames are those of the user's files and no others, its cause's as well
    frames = failed.value.frames
    assert 'return {}["plan"]' in frames
    assert "KeyError: 'plan'" in frames
    assert frames.endswith("RuntimeError: no plan\nin two lines")
    assert "Traceback" not in frames
    assert ", in step" in frames
    assert "gymnasium" not in frames
    assert "impala_redis" not in frames


class NoException(BaseException):
    """As PyO3 makes it of a panic in Rust."""


class Unreadable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (SystemExit(0), r"it calls sys.exit\(0\)"),
        (SystemExit("bye"), r"it calls sys.exit\('bye'\)"),
        (KeyboardInterrupt(), "KeyboardInterrupt: no reason"),
        (NoException("index out of bounds"), "NoException: index out of bounds"),
        (Unreadable(), "Unreadable: its text cannot be read"),
        (RuntimeError("x" * 9999), f"RuntimeError: {'x' * 300}[.]{{3}}"),
    ],
)
@pytest.mark.parametrize("doing", ["step", "reset"])
def test_an_exit_that_the_environments_code_asks_for_is_its_failure(
    make: Make, monkeypatch: pytest.MonkeyPatch, raised: BaseException, said: str, doing: str
) -> None:
    # given
    environment = make()

    def leave(*_: Any, **__: Any) -> Any:
        raise raised

    monkeypatch.setattr(Telling, doing, leave)

    # when / then
    with pytest.raises(EnvironmentFailed, match=f"failed in {doing}: {said} .*in leave"):
        if doing == "step":
            environment.step(np.zeros(3, np.int64))
        else:
            environment.reset(0)


@pytest.mark.parametrize(
    ("raised", "code"), [(SystemExit(0), 0), (SystemExit(7), 7), (Unreadable(), 1)]
)
@pytest.mark.parametrize("doing", ["__init__", "step"])
def test_a_process_that_an_environment_forks_ends_by_its_error_and_plays_no_further(
    make: Make, monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, doing: str
) -> None:
    # given
    here, codes = os.getpid(), []

    def fork() -> None:
        child = os.fork()
        if not child:
            raise raised
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    class Forks(Telling):
        def __init__(self) -> None:
            super().__init__()
            if doing == "__init__":
                fork()

        def step(self, action: Any) -> Any:
            if doing == "step":
                fork()
            return super().step(action)

    # when
    try:
        make(Forks).step(np.zeros(3, np.int64))
    finally:
        if os.getpid() != here:
            os._exit(99)  # it was taken for ours

    # then
    assert codes == [code] * 3


def test_arguments_that_a_constructor_lacks_are_named_with_the_remedy() -> None:
    # given
    class Needs(Telling):
        def __init__(self, level: int) -> None:
            super().__init__()

    gymnasium.register("Needs-v0", Needs)

    # when / then
    why = r"missing 1 .* 'level'; give its arguments by --env-kwargs, or register it with kwargs="
    with pytest.raises(UnsupportedEnvironment, match=why):
        VectorEnvironment("Needs-v0", 1)
    del gymnasium.registry["Needs-v0"]


def test_an_error_of_the_constructor_is_named_with_its_place() -> None:
    # given
    def refuse(**_: Any) -> Any:
        raise SystemExit("no licence")

    gymnasium.register("Refuses-v0", refuse)

    # when / then
    with pytest.raises(UnsupportedEnvironment) as refused:
        VectorEnvironment("Refuses-v0", 1)
    del gymnasium.registry["Refuses-v0"]
    assert str(refused.value).startswith(
        "Refuses-v0 cannot be made: it calls sys.exit('no licence') (tests/envs/test_single.py, "
    )
    assert 'raise SystemExit("no licence")' in refused.value.frames


def test_an_environment_goes_on_whose_infos_are_of_no_known_form() -> None:
    # given infos that have no truth value
    class WithArray(Native):
        infos = np.array([{}, {}, {}], object)

    gymnasium.register("WithArray-v0", vector_entry_point=WithArray)
    environment = VectorEnvironment("WithArray-v0", 3, info_keys=("distance",))
    environment.reset(0)
    del gymnasium.registry["WithArray-v0"]

    # when it is played, then nobody hears of them
    assert play(environment, 4) == [{}] * 4
