"""Careless observations: the same values are taken in the space's type, all others are named."""

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from impala_redis.common.encoding.observations import Encoder, observation_spec
from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.errors import EnvironmentFailed

Box = spaces.Box
Space = spaces.Space[Any]


class Careless(gymnasium.Env[Any, Any]):
    """Observes in its second step whatever it was made with, and before a sample of its space."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: Space, found: Any) -> None:
        self.observation_space, self.found = space, found
        space.seed(0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.found, 0.0, False, False, {}


Step = Callable[[Space, Any], Any]


@pytest.fixture
def step() -> Iterator[Step]:
    """What a vector of two such environments gives to the actor after a step."""

    def stepped(space: Space, found: Any) -> Any:
        gymnasium.register("Careless-v0", Careless, kwargs={"space": space, "found": found})
        environment = VectorEnvironment("Careless-v0", 2)
        try:
            environment.reset(0)
            return environment.step(np.zeros(2, np.int64)).observations
        finally:
            environment.close()
            del gymnasium.registry["Careless-v0"]

    yield stepped


@pytest.mark.parametrize(
    ("space", "found"),
    [
        # Whole numbers of another size, with the same values.
        (Box(0, 255, (3,), np.uint8), np.array([0, 7, 255], np.int64)),
        (Box(-5, 5, (3,), np.int8), np.array([-5, 0, 5], np.int32)),
        (Box(0, 9, (3,), np.int32), np.array([0, 7, 9], np.uint64)),
        (Box(0, 9, (2,), np.uint64), np.array([0, 9], np.uint64)),
        (Box(0, 2**64 - 1, (1,), np.uint64), np.array([2**63 - 1], np.uint64)),
        # Floats for whole numbers, and the reverse.
        (Box(0, 255, (2,), np.uint8), np.array([3.0, 255.0])),
        (Box(-1, 1, (2,), np.float32), np.array([-1, 1], np.int64)),
        (Box(0, 1, (2,), bool), np.array([0, 1])),
        (Box(-9, 9, (2,), np.float32), np.array([0.5, -3.25])),
        (Box(-9, 9, (2,), np.float16), np.array([0.5, -3.25])),
        # Lists, numbers, and one number with a dimension or without.
        (Box(0, 255, (2, 2), np.uint8), [[1, 2], (3, 4)]),
        (Box(-9, 9, (2,), np.float32), (1, 2.5)),
        (Box(-9, 9, (), np.float32), 2.5),
        (Box(-9, 9, (), np.float32), np.array([2.5])),
        (Box(-9, 9, (1,), np.float32), 2.5),
        (spaces.Discrete(5), 4),
        (spaces.Discrete(5), np.uint8(4)),
        (spaces.Discrete(5), 4.0),
        (spaces.Discrete(5), np.array([4])),
        (spaces.Discrete(2), np.bool_(True)),
        (spaces.MultiDiscrete([3, 300], np.int16), [2, 299]),
        (spaces.MultiBinary(3), [True, False, True]),
        (spaces.MultiBinary((1, 2)), np.array([[1, 0]], np.int64)),
    ],
    ids=str,
)
def test_the_same_values_in_another_type_are_taken(step: Step, space: Space, found: Any) -> None:
    # given the same alone, and as a part of others
    whole = spaces.Dict(a=spaces.Tuple([space, spaces.Discrete(3)]), b=Box(-1, 1, (0,)))

    # when
    alone = step(space, found)
    together = step(whole, {"a": [found, 2], "b": [], "more": None})

    # then
    expected = np.broadcast_to(np.reshape(np.array(found), space.shape or ()), (2, *space.shape))
    spec = observation_spec("MyEnv-v0", whole)
    parts = [
        together[:, part.start : part.start + part.num_bytes].view(part.dtype)
        for part in spec.parts
    ]
    assert [part.name for part in spec.parts] == ["a.0", "a.1"]
    assert parts[1].tolist() == [[2], [2]]
    assert np.array_equal(parts[0].reshape(expected.shape), expected)
    if isinstance(space, Box | spaces.Discrete):
        assert np.array_equal(alone, expected)


BOARD = Box(0, 9, (3,), np.uint8)


@pytest.mark.parametrize(
    ("space", "found", "said"),
    [
        (BOARD, np.array([0, 256, 1]), "has the value 256, which uint8 cannot hold, but its space"),
        (BOARD, np.array([0, 1, -1]), "has the value -1, which uint8 cannot hold, but its space"),
        (
            BOARD,
            [0.0, 0.5, 1.0],
            "has the value 0.5, which uint8 cannot hold, but",
        ),
        (BOARD, [0, np.nan, 1], "has the value nan, which uint8 cannot hold"),
        (BOARD, np.zeros(4, np.uint8), r"is uint8[4], not uint8[3]"),
        (BOARD, [0, 1], r"is int64[2], not uint8[3]"),
        (BOARD, [[0], [1, 2], 3], "is no array of numbers (list), but uint8[3] is its space"),
        (BOARD, ["a", "b", "c"], r"is <U1[3], not uint8[3]"),
        (BOARD, None, r"is object[], not uint8[3]"),
        (
            Box(-9, 9, (1,), np.float32),
            np.array([1e39]),
            "has the value 1e+39, which float32",
        ),
        (
            Box(0, 2**64 - 1, (1,), np.uint64),
            np.array([2**63], np.uint64),
            "has the value 9223372036854775808, which int64",
        ),
        (Box(0, 1, (2,), bool), np.array([0, 2]), "has the value 2, which bool cannot hold"),
        (spaces.Discrete(5), 5, "has the value 5, which is not in its space Discrete(5)"),
        (spaces.Discrete(5), -1, "has the value -1, which is not in its space Discrete(5)"),
        (spaces.Discrete(5), np.array(7), "has the value 7, which is not in its space Disc"),
        (spaces.Discrete(5), 1.5, "has the value 1.5, which int64 cannot hold"),
        (
            spaces.Discrete(5, start=2),
            1,
            "has the value 1, which is not in its space Discrete(",
        ),
        (spaces.Discrete(5), [1, 2], "is int64[2], not int64[]"),
        (
            spaces.MultiDiscrete([3, 4]),
            [1, 4],
            "has the value 4, which is not in its space Multi",
        ),
        (
            spaces.MultiDiscrete([3, 4]),
            [-1, 0],
            "has the value -1, which is not in its space Multi",
        ),
        (
            spaces.MultiBinary(2),
            [0, 2],
            "has the value 2, which is not in its space MultiBinary",
        ),
        (spaces.MultiBinary(2), [0, -1], "has the value -1, which is not in its space Multi"),
    ],
    ids=str,
)
def test_a_value_that_is_not_of_the_space_is_named(
    step: Step, space: Space, found: Any, said: str
) -> None:
    # when
    with pytest.raises(EnvironmentFailed) as alone:
        step(space, found)
    with pytest.raises(EnvironmentFailed) as together:
        step(spaces.Dict(a=spaces.Tuple([space])), {"a": (found,)})

    # then
    for refused, name in ((alone, "the"), (together, "part 'a.0' of the")):
        message = str(refused.value)
        assert message.startswith("Careless-v0 failed in step: ")
        assert f"{name} observation {said}" in message
        assert "; change the space or the observation" in message
        assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("space", "found", "said"),
    [
        (
            spaces.Dict(a=BOARD, b=BOARD),
            {"a": [1, 2, 3]},
            "the observation is no dict with 'a', ",
        ),
        (spaces.Dict(a=BOARD), np.zeros(3, np.uint8), "the observation is no dict with 'a'"),
        (spaces.Tuple([BOARD]), ([1, 2, 3], [1, 2, 3]), "the observation is no tuple of 1"),
        (spaces.Dict(a=spaces.Tuple([BOARD])), {"a": 5}, "part 'a' of the observation is no tuple"),
    ],
)
def test_parts_that_are_missing_are_named(step: Step, space: Space, found: Any, said: str) -> None:
    with pytest.raises(EnvironmentFailed) as refused:
        step(space, found)
    assert said in str(refused.value)


def test_a_vector_form_is_held_to_its_space_as_well() -> None:
    # given what an environment's own vector form gives for three environments
    space = spaces.Discrete(4)
    encoder = Encoder(space, observation_spec("MyEnv-v0", space), 3)
    board = Encoder(BOARD, observation_spec("MyEnv-v0", BOARD), 3)

    # when / then
    assert encoder.encode(np.array([0, 3, 1], np.uint8)).tolist() == [0, 3, 1]
    assert board.encode(np.full((3, 3), 7)).dtype == np.uint8
    with pytest.raises(ValueError, match="the observation has the value 4, which is not in"):
        encoder.encode(np.array([0, 3, 4]))
    with pytest.raises(ValueError, match="the observation has the value 700, which uint8 cannot"):
        board.encode(np.full((3, 3), 700))
