"""The action mask of a Dict observation: of any type, it travels as a byte for each choice."""

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from impala_redis.common.encoding.actions import action_spec
from impala_redis.common.encoding.masks import mask_bytes
from impala_redis.common.encoding.observations import Encoder, observation_spec
from impala_redis.common.errors import UnsupportedEnvironment
from impala_redis.common.run.spaces import ActionSpec, ObservationSpec

BOARD = spaces.Box(-1, 1, (2,), np.int8)
SIX = spaces.Discrete(6, start=-2)

MASKS: dict[str, tuple[Any, Any]] = {
    "bits": (spaces.MultiBinary(6), np.int8),
    "bits in two dimensions": (spaces.MultiBinary([2, 3]), np.int8),
    "flags": (spaces.Box(0, 1, (6,), np.bool_), np.bool_),
    "bytes": (spaces.Box(0, 1, (6,), np.uint8), np.uint8),
    "floats": (spaces.Box(0, 1, (6,), np.float32), np.float64),
    "categories": (spaces.MultiDiscrete([2] * 6), np.int64),
    "categories of other values": (spaces.MultiDiscrete([3] * 6, start=[-1] * 6), np.int64),
}


def spec_of(mask: Any, action: Any = SIX, **parts: Any) -> ObservationSpec:
    space = spaces.Dict({"board": BOARD, "action_mask": mask} | parts)
    return observation_spec("Game-v0", space, 1, action_spec("Game-v0", action))


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_of_any_type_travels_as_ones_and_zeros(kind: str) -> None:
    # given the observations of two games
    mask, dtype = MASKS[kind]
    space = spaces.Dict({"board": BOARD, "action_mask": mask})
    spec = spec_of(mask)
    given = np.array([[0, 1, 0, 0, 1, 1], [1, 0, 0, 0, 0, 0]], dtype)
    boards = np.array([[1, 0], [-1, 1]], np.int8)

    # when
    found = Encoder(space, spec, 2).encode(
        {"board": boards, "action_mask": given.reshape(2, *mask.shape)}
    )

    # then
    assert mask_bytes(spec, found).tolist() == given.tolist()
    assert spec.mask == "action_mask"
    assert [leaf.name for leaf in spec.leaves] == ["board"]
    assert spec.num_features == 2


@pytest.mark.parametrize(
    ("action", "choices"),
    [
        (spaces.MultiDiscrete([2, 4]), 6),
        (spaces.MultiBinary([3]), 6),
        (spaces.Box(-1, 1, (2,), np.int8), 6),
        (spaces.Discrete(1), 1),
    ],
    ids=str,
)
def test_a_mask_has_a_number_for_each_choice_of_all(action: Any, choices: int) -> None:
    # then
    part = spec_of(spaces.MultiBinary(choices), action).mask_part
    assert part is not None
    assert part.shape == (choices,)
    with pytest.raises(UnsupportedEnvironment, match=rf"of {choices} choices in all; give it one"):
        spec_of(spaces.MultiBinary(choices + 1), action)


@pytest.mark.parametrize(
    ("mask", "action", "words"),
    [
        (spaces.Box(0, 1, (0,), np.int8), SIX, "give it one number for each choice"),
        (spaces.Text(6), SIX, "give it one number for each choice"),
        (spaces.Dict(a=spaces.MultiBinary(6)), SIX, "give it one number for each choice"),
        (spaces.MultiBinary(6), spaces.Box(-1, 1, (6,)), "another name than action_mask"),
    ],
    ids=["empty", "a text", "a dict", "for numbers"],
)
def test_what_cannot_be_a_mask_is_refused_with_the_remedy(
    mask: Any, action: Any, words: str
) -> None:
    with pytest.raises(UnsupportedEnvironment, match=words):
        spec_of(mask, action)


def test_a_mask_alone_is_nothing_to_see() -> None:
    space = spaces.Dict(action_mask=spaces.MultiBinary(6))
    with pytest.raises(UnsupportedEnvironment, match="holds nothing beside the action_mask"):
        observation_spec("Game-v0", space, 1, ActionSpec("discrete", (6,)))


def test_a_part_of_that_name_deeper_down_is_like_any_other() -> None:
    spec = spec_of(spaces.MultiBinary(6), inner=spaces.Dict(action_mask=spaces.MultiBinary(2)))
    assert [leaf.name for leaf in spec.leaves] == ["board", "inner.action_mask"]


def test_a_mask_that_is_no_array_of_numbers_is_named() -> None:
    # given
    space = spaces.Dict({"board": BOARD, "action_mask": spaces.MultiBinary(2)})
    spec = spec_of(spaces.MultiBinary(2), spaces.Discrete(2))
    encoder = Encoder(space, spec, 1)

    # then
    for bad in ([[1, 0, 1]], [["a", "b"]], [[np.nan, 1.0]]):
        with pytest.raises(ValueError, match="part 'action_mask' of the observation is"):
            encoder.encode({"board": np.zeros((1, 2), np.int8), "action_mask": bad})
