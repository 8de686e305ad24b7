"""The short corridor: the book's dynamics and values, in both forms, found without a module."""

import json
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.games.corridor import (
    BEST_RIGHT_PROBABILITY,
    ENV_ID,
    GOAL,
    LEFT,
    MAX_EPISODE_STEPS,
    NEXT_STATE,
    RIGHT,
    START,
    ShortCorridorVector,
    value,
)
from impala_redis.common.records import checkpoint
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import make_spec
from support import Programs

PROBABILITIES = (0.2, 0.5, BEST_RIGHT_PROBABILITY, 0.8)


def test_gymnasiums_checker_has_nothing_to_say() -> None:
    check_env(gymnasium.make(ENV_ID).unwrapped)  # warnings are errors here


def test_the_second_state_swaps_the_actions() -> None:
    # given a corridor that says where it is
    env = gymnasium.make(ENV_ID, render_mode="ansi")
    env.reset(seed=0)
    assert env.render() == "@ . . |"

    # when it goes left at the wall, right, "right" where it is swapped, and to the goal
    steps = [
        (LEFT, "@ . . |"),
        (RIGHT, ". @ . |"),
        (RIGHT, "@ . . |"),
        (RIGHT, ". @ . |"),
        (LEFT, ". . @ |"),
        (LEFT, ". @ . |"),
        (LEFT, ". . @ |"),
        (RIGHT, ". . . @"),
    ]
    for action, picture in steps:
        observation, reward, terminated, truncated, _ = env.step(action)

        # then it is where the book says, sees the same, and pays for each step
        assert env.render() == picture
        assert (observation.tolist(), observation.dtype) == ([1.0], np.float32)
        assert (reward, terminated, truncated) == (-1.0, picture == ". . . @", False)


def test_a_fixed_choice_never_ends_but_for_the_time_limit() -> None:
    for action in (LEFT, RIGHT):
        env = gymnasium.make(ENV_ID)
        env.reset(seed=0)
        ends = [env.step(action)[2:4] for _ in range(MAX_EPISODE_STEPS)]
        assert not any(terminated for terminated, _ in ends)
        assert [truncated for _, truncated in ends] == [False] * (MAX_EPISODE_STEPS - 1) + [True]


@pytest.mark.parametrize("p", PROBABILITIES)
def test_the_value_is_that_of_the_transition_matrix(p: float) -> None:
    # given the states' probabilities after a step: v = -1 + P v, and v = 0 at the goal
    transitions = np.zeros((GOAL, GOAL + 1))
    for state in range(GOAL):
        transitions[state, NEXT_STATE[state, RIGHT]] += p
        transitions[state, NEXT_STATE[state, LEFT]] += 1 - p

    # when / then
    values = np.linalg.solve(np.eye(GOAL) - transitions[:, :GOAL], np.full(GOAL, -1.0))
    assert value(p) == pytest.approx(values[START], rel=1e-9)


def test_the_best_policy_is_the_books() -> None:
    assert pytest.approx(0.586, abs=0.0005) == BEST_RIGHT_PROBABILITY
    assert value(BEST_RIGHT_PROBABILITY) == pytest.approx(-11.66, abs=0.005)
    others = [value(p) for p in np.linspace(0.01, 0.99, 99)]
    assert max(others) < value(BEST_RIGHT_PROBABILITY)


@pytest.mark.parametrize("limit", [MAX_EPISODE_STEPS, 7])
def test_the_vector_form_takes_the_very_steps_of_single_ones(limit: int) -> None:
    # given eight corridors in each form
    forms: list[Any] = [
        gymnasium.make_vec(
            ENV_ID, num_envs=8, vectorization_mode=mode, **{"max_episode_steps": limit}
        )
        for mode in ("sync", None)
    ]
    assert isinstance(forms[1], ShortCorridorVector)
    rng = np.random.default_rng(0)
    seen = [form.reset(seed=0)[0] for form in forms]
    assert np.array_equal(*seen)
    terminations = truncations = 0

    # when both take the same actions
    for _ in range(400):
        actions = rng.integers(0, 2, 8)
        one_by_one, together = (form.step(actions) for form in forms)

        # then they observe, pay and end alike, and reset in the step after an end
        for expected, found in zip(one_by_one[:4], together[:4], strict=True):
            assert np.array_equal(expected, found)
        terminations += int(together[2].sum())
        truncations += int(together[3].sum())
    assert terminations > 50
    assert (truncations > 50) == (limit == 7)


def test_a_reset_of_the_vector_form_starts_again_in_mid_episode() -> None:
    # given three steps of at most five, with which one of two has reached the goal
    form = ShortCorridorVector(num_envs=2, max_episode_steps=5)
    form.reset(seed=0)
    for actions in ([RIGHT, LEFT], [LEFT, LEFT], [RIGHT, LEFT]):
        _, _, terminated, _, _ = form.step(np.array(actions))
    assert terminated.tolist() == [True, False]

    # when
    observations, _ = form.reset()
    assert observations.tolist() == [[1.0], [1.0]]

    # then both walk from the start, pay for each step, and have all their steps before them
    for _ in range(4):
        _, rewards, terminated, truncated, _ = form.step(np.array([LEFT, LEFT]))
        assert rewards.tolist() == [-1.0, -1.0]
        assert not terminated.any() and not truncated.any()
    assert form.step(np.array([LEFT, LEFT]))[3].all()

    # and the way to the goal is as long as ever
    form.step(np.array([LEFT, LEFT]))  # begins the next one
    ends = [form.step(np.array([action] * 2))[2].all() for action in (RIGHT, LEFT, RIGHT)]
    assert ends == [False, False, True]


def played_by(form: Any, p: float, episodes: int) -> np.ndarray[Any, Any]:
    """The returns of this many episodes, those that begin first."""
    rng = np.random.default_rng(1)
    form.reset(seed=0)
    running = np.zeros(form.num_envs)
    returns: list[list[float]] = [[] for _ in range(form.num_envs)]
    each = episodes // form.num_envs
    while min(map(len, returns)) < each:  # as many of each, or the short ones would count more
        _, rewards, terminated, truncated, _ = form.step(
            (rng.random(form.num_envs) < p).astype(np.int64)
        )
        running += rewards
        for i in np.flatnonzero(terminated | truncated):
            returns[i].append(float(running[i]))
            running[i] = 0.0
    return np.array([one[:each] for one in returns])


@pytest.mark.parametrize("p", PROBABILITIES)
@pytest.mark.parametrize(("mode", "episodes"), [(None, 16_384), ("sync", 512)])
def test_play_earns_the_books_value(mode: str | None, episodes: int, p: float) -> None:
    # given corridors of either form
    form = gymnasium.make_vec(ENV_ID, num_envs=256, vectorization_mode=mode)

    # when episodes go right with probability p
    returns = played_by(form, p, episodes)

    # then their mean is the value, within four standard errors
    assert abs(returns.mean() - value(p)) < 4 * returns.std() / np.sqrt(returns.size)


def test_our_vector_environment_finds_its_native_form() -> None:
    environment = VectorEnvironment(ENV_ID, 3)
    assert isinstance(environment._env.unwrapped, ShortCorridorVector)
    assert environment.observation == ObservationSpec((1,), "float32")
    assert environment.action == discrete(2)
    assert environment.reset(seed=0).tolist() == [[1.0]] * 3


@pytest.mark.parametrize("bad", [2, -1])
def test_an_action_that_there_is_not_is_refused(bad: int) -> None:
    single, vector = gymnasium.make(ENV_ID), gymnasium.make_vec(ENV_ID, num_envs=2)
    single.reset()
    vector.reset()
    with pytest.raises(AssertionError):
        single.step(bad)
    with pytest.raises(AssertionError):
        vector.step(np.array([0, bad]))


@pytest.mark.processes
def test_a_program_finds_it_without_a_module(programs: Programs) -> None:
    # given a checkpoint of a network that goes left and right alike
    config = Config().replace({"env": ENV_ID})
    spec = make_spec("corridor", config, ObservationSpec((1,), "float32"), discrete(2))
    tensors = {
        f"model.{name}": np.zeros(shape, np.float32)
        for name, shape in spec.parameter_shapes().items()
    }
    checkpoint.save(programs.folder / "saved", 0, tensors, {"spec": spec.to_json()}, keep=1)

    # when another process plays it
    code, output = programs.run(
        *("impala-eval", "--checkpoint", "saved", "--sampled", "--episodes", "2000", "--json")
    )

    # then it earns what it must, within four standard errors
    assert code == 0, output
    report = json.loads(output)
    standard_error = report["std_return"] / np.sqrt(2000)
    assert abs(report["mean_return"] - value(0.5)) < 4 * standard_error
