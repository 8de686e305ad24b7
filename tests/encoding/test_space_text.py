"""Gymnasium's spaces as a text, and back."""

import json
import tracemalloc
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from impala_redis.common.encoding.space_text import spaces_in, text_of
from impala_redis.common.errors import SpecMismatch
from impala_redis.common.run.spaces import MAX_CHOICES, MAX_OBSERVATION_SIZE, MAX_PARTS
from impala_redis.common.run.spec import MAX_SPACES_LENGTH

ONE = spaces.Discrete(2)
KINDS: dict[str, spaces.Space[Any]] = {
    "numbers": spaces.Box(-1.5, 2.0, (3,), np.float32),
    "one-bound-each": spaces.Box(np.array([-1, 0.1]), np.array([np.inf, 7.0]), dtype=np.float64),
    "without-bounds": spaces.Box(-np.inf, np.inf, (2, 2), np.float32),
    "half-bounded": spaces.Box(
        np.array([-np.inf, 0], np.float32), np.array([0, np.inf], np.float32)
    ),
    "picture": spaces.Box(0, 255, (8, 8, 3), np.uint8),
    "whole-numbers": spaces.Box(np.array([-3, 0]), np.array([3, 2**40]), dtype=np.int64),
    "one-number": spaces.Box(0.0, 1.0, (), np.float32),
    "choice": spaces.Discrete(5, start=-2),
    "choices": spaces.MultiDiscrete([2, 3]),
    "grid-of-choices": spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, 1], [2, 3]]),
    "small-choice": spaces.Discrete(5, dtype=np.int32),
    "small-choices": spaces.MultiDiscrete([2, 3], dtype=np.uint8),
    "bits": spaces.MultiBinary([2, 3]),
    "row-of-bits": spaces.MultiBinary(4),
    "text": spaces.Text(12, min_length=2, charset="abc d"),
    "dict": spaces.Dict({"z": ONE, "a": spaces.Dict({"inner": spaces.Box(0, 1, (2,))})}),
    "tuple": spaces.Tuple((ONE, spaces.Box(0, 1, (2,)))),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_space_comes_back_as_it_was(name: str) -> None:
    # when
    observation, action = spaces_in(text_of(KINDS[name], ONE))

    # then
    assert observation == KINDS[name]
    assert action == ONE
    if isinstance(observation, spaces.Dict):
        assert list(observation) == list(KINDS[name])  # type: ignore[call-overload]


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "FrozenLake-v1"])
def test_the_spaces_of_gymnasiums_own_environments_come_back(env_id: str) -> None:
    with gymnasium.make(env_id) as env:
        text = text_of(env.observation_space, env.action_space)
        assert spaces_in(text) == (env.observation_space, env.action_space)


def test_bounds_that_are_too_many_become_the_widest() -> None:
    # given
    low = np.linspace(-5.0, -4.0, 10_000, dtype=np.float32)
    box = spaces.Box(low, -low)

    # when
    text = text_of(box, ONE)
    found, _ = spaces_in(text)

    # then
    assert len(text) <= MAX_SPACES_LENGTH
    assert found == spaces.Box(-5.0, 5.0, (10_000,))


def test_bounds_of_actions_are_told_even_if_those_of_observations_are_too_many() -> None:
    # given observations with more bounds than a spec has room for
    low = np.linspace(-5.0, -4.0, 10_000, dtype=np.float32)
    action = spaces.Box(np.array([2.0, -1.0]), np.array([4.0, 5.0]), dtype=np.float64)

    # when
    text = text_of(spaces.Box(low, -low), action)

    # then
    assert len(text) <= MAX_SPACES_LENGTH
    assert spaces_in(text)[1] == action


def test_a_space_that_cannot_be_told_has_an_empty_text() -> None:
    assert text_of(spaces.Sequence(ONE), ONE) == ""
    assert text_of(ONE, spaces.Graph(ONE, ONE)) == ""


def damaged(**changes: Any) -> str:
    """A text whose observation space, a Box, has other fields."""
    told = json.loads(text_of(KINDS["numbers"], ONE))
    told["observation"] |= changes
    return json.dumps(told)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        50_000 * "[",
        '{"observation": 1, "action": 2}',
        damaged(kind="os.system"),
        damaged(kind=None),
        damaged(shape=[-1]),
        damaged(shape=[10**6, 10**6]),
        damaged(shape="three"),
        damaged(dtype="object"),
        damaged(dtype="numpy.float32; import os"),
        damaged(dtype="float128"),
        damaged(dtype=["float32"]),
        damaged(low=[0, 0]),
        damaged(low="a"),
        damaged(low=3.0),
        damaged(kind="discrete", n=-1, start=0),
        damaged(kind="dict", spaces=[["a"]]),
    ],
)
def test_what_holds_no_spaces_is_refused(text: str) -> None:
    with pytest.raises(SpecMismatch, match="odd spaces"):
        spaces_in(text)


def large(number: int, count: int, kind: str = "box", what: str = "observation") -> str:
    """A text of which one space has so many parts of so many numbers each."""
    bounds = {"low": 0, "high": 1, "dtype": "float64", "nvec": [], "start": []}
    inner = {"kind": kind, "shape": [number], **bounds}
    both = json.loads(text_of(ONE, ONE))
    both[what] = {"kind": "tuple", "spaces": [inner] * count}
    return json.dumps(both)


@pytest.mark.parametrize(
    "text",
    [
        large(MAX_OBSERVATION_SIZE, 2),
        large(MAX_OBSERVATION_SIZE // MAX_PARTS, MAX_PARTS + 1),
        large(1, MAX_PARTS + 1),
        large(MAX_OBSERVATION_SIZE, 2, "multi_binary"),
        large(MAX_CHOICES + 1, 1, what="action"),
    ],
    ids=["two", "too many parts", "small parts", "bits", "an action"],
)
def test_spaces_of_more_than_a_run_may_have_take_no_memory(text: str) -> None:
    # when
    tracemalloc.start()
    with pytest.raises(SpecMismatch, match=r"odd spaces: of [\d,]+ numbers in \d+ parts"):
        spaces_in(text)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    # then
    assert most < 1_000_000


def test_one_number_as_a_bound_is_made_into_an_array_once() -> None:
    # given bounds of 8 MB each, which Gymnasium keeps beside two of flags of 1 MB
    text = large(1_000_000, 1)

    # when
    tracemalloc.start()
    observation, _ = spaces_in(text)
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    # then
    assert observation == spaces.Tuple([spaces.Box(0, 1, (1_000_000,), np.float64)])
    assert most < kept + 4_000_000 < 24_000_000
