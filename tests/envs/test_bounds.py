"""What a number is divided by follows from its space's bounds, wherever the number stands."""

import json
import logging
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from impala_redis.common.blocks.features import features
from impala_redis.common.encoding.observations import MAX_SCALE_TEXT, Encoder, observation_spec
from impala_redis.common.encoding.space_text import text_of
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spaces_json import observation_from
from impala_redis.common.run.spec import MAX_SPEC_LENGTH, RunSpec, make_spec

Box = spaces.Box
Space = spaces.Space[Any]
LEAST, MOST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


def box(low: list[int], high: list[int], dtype: Any) -> Box:
    """A Box whose numbers have bounds of their own."""
    return Box(np.array(low, dtype), np.array(high, dtype), dtype=dtype)


@pytest.mark.parametrize(
    ("space", "scale"),
    [
        # Bytes: pixels, and codes of every size.
        (Box(0, 255, (8, 8, 3), np.uint8), (255,)),
        (Box(0, 255, (4,), np.uint8), (255,)),
        (Box(0, 1, (4,), np.uint8), ()),
        (Box(0, 0, (4,), np.uint8), ()),
        (Box(0, 10, (3, 3), np.uint8), (10,)),
        (Box(250, 254, (), np.uint8), (254,)),
        (box([0, 0, 0], [1, 20, 255], np.uint8), (1, 20, 255)),
        (box([0, 0, 0], [0, 1, 1], np.uint8), ()),
        # Other whole numbers: the largest magnitude, unless a bound says nothing.
        (Box(0, 1, (4,), np.int8), ()),
        (Box(-1, 1, (4,), np.int8), ()),
        (Box(-9, 5, (2,), np.int16), (9,)),
        (Box(-3, -2, (2,), np.int32), (3,)),
        (Box(0, 20, (), np.int64), (20,)),
        (Box(0, 127, (2,), np.int8), ()),
        (Box(-128, 5, (2,), np.int8), ()),
        (Box(0, 2**31 - 1, (2,), np.int32), ()),
        (Box(LEAST, MOST, (2,), np.int64), ()),
        (Box(0, 10**12, (2,), np.int64), (10**12,)),
        (box([0, -128, -7], [12, 3, 5], np.int8), (12, 1, 7)),
        # Those that are kept in a larger type are judged by their own.
        (Box(0, 255, (2,), np.uint16), (255,)),
        (Box(0, 65_535, (2,), np.uint16), ()),
        (Box(0, 10, (2,), np.uint32), (10,)),
        (Box(0, 2**32 - 1, (2,), np.uint32), ()),
        # What has a fraction stays as it is, but for pixels.
        (Box(0, 1, (4,), np.float32), ()),
        (Box(-40, 40, (4,), np.float64), ()),
        (Box(0, 255, (4,), np.float32), ()),
        (Box(0, 255, (8, 8), np.float32), (255,)),
        (Box(0, 1, (8, 8), np.float32), ()),
        (Box(-np.inf, np.inf, (8, 8), np.float16), ()),
        (Box(0, 1, (4,), bool), ()),
    ],
    ids=str,
)
def test_the_bounds_say_what_numbers_are_divided_by(space: Space, scale: tuple[int, ...]) -> None:
    # given the space, alone and as a part of another beside categories
    alone = observation_spec("MyEnv-v0", space)
    whole = observation_spec("MyEnv-v0", spaces.Dict(a=spaces.MultiDiscrete([3, 4]), b=space))

    # then
    assert alone.scale == scale
    assert [part.scale for part in whole.parts] == [(), scale]
    for spec in (alone, whole):
        assert observation_from(json.loads(json.dumps(asdict(spec)))) == spec


def test_the_highest_of_each_number_is_seen_as_one() -> None:
    # given
    space = spaces.Dict(
        codes=box([0, 0, -8, -128], [1, 20, 4, 4], np.int8),
        board=Box(0, 12, (2, 2), np.uint8),
        speed=Box(-5, 5, (1,), np.float32),
    )
    spec = observation_spec("MyEnv-v0", space)
    observed = {
        "codes": np.array([[1, 20, -8, 4]], np.int8),
        "board": np.array([[[12, 0], [6, 3]]], np.uint8),
        "speed": np.array([[5.0]], np.float32),
    }

    # when
    seen = features(spec, Encoder(space, spec, 1).encode(observed))

    # then; a bound at the end of the type says nothing
    assert seen.tolist() == [[1, 1, -1, 4, 1, 0, 0.5, 0.25, 5]]


def test_where_there_are_too_many_bounds_the_largest_is_taken_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # given pictures of which each number has a bound of its own
    high = np.arange(1, 84 * 84 + 1).reshape(84, 84)
    large = Box(np.zeros((84, 84), np.int32), high.astype(np.int32), dtype=np.int32)
    small = box([0, 0], [1, 5], np.uint8)

    # when
    with caplog.at_level(logging.WARNING):
        spec = observation_spec("MyEnv-v0", spaces.Dict(map=large, tail=small))

    # then
    assert [part.scale for part in spec.parts] == [(7056,), (1, 5)]
    (record,) = caplog.records
    assert record.getMessage() == (
        "MyEnv-v0: the numbers of its part 'map' have too many different bounds to tell each; all "
        "are divided by the largest, 7056"
    )

    # and it is an array's own, too
    assert observation_spec("MyEnv-v0", large).scale == (7056,)


def test_a_spec_with_as_many_bounds_as_are_told_can_be_joined() -> None:
    # given many parts of many numbers, together more than there is room for
    numbers = Box(np.zeros(600, np.int64), np.arange(10**9, 10**9 + 600), dtype=np.int64)
    space = spaces.Dict({f"part {index}": numbers for index in range(9)})

    # when
    spec = observation_spec("MyEnv-v0", space)

    # then
    told = [part.scale for part in spec.parts if len(part.scale) > 1]
    assert 0 < len(told) < 9
    assert sum(len(str(scale)) for scale in told) <= MAX_SCALE_TEXT
    assert {part.scale for part in spec.parts if len(part.scale) == 1} == {(10**9 + 599,)}
    text = make_spec("mine", Config(), spec, discrete(2)).to_json()
    assert len(text) < MAX_SPEC_LENGTH


def test_spaces_that_are_too_long_beside_all_else_do_not_travel() -> None:
    # given names that take six characters for each letter, in the parts and in the spaces
    space = spaces.Dict({chr(0x4E00 + index) * 240: Box(0, 1, (2,)) for index in range(20)})
    told = text_of(space, spaces.Discrete(2))
    assert told

    # when
    spec = make_spec("mine", Config(), observation_spec("MyEnv-v0", space), discrete(2), told)

    # then the run can be joined all the same
    assert spec.spaces == ""
    assert RunSpec.from_json(spec.to_json()) == spec


def test_a_run_keeps_its_scales_whatever_the_bounds_are_later() -> None:
    # given what an environment says today, and what a run was begun with
    today = observation_spec("MyEnv-v0", spaces.Dict(a=Box(0, 1, (2,), np.uint8)), 4)
    begun = observation_spec("MyEnv-v0", spaces.Dict(a=Box(0, 255, (2,), np.uint8)), 4)
    assert today != begun

    # when / then
    assert today.scaled_as(begun) == begun
    for other in (
        observation_spec("MyEnv-v0", spaces.Dict(a=Box(0, 255, (2,), np.uint8))),
        observation_spec("MyEnv-v0", spaces.Dict(b=Box(0, 255, (2,), np.uint8)), 4),
        ObservationSpec((2,), "uint8", scale=(255,), frame_stack=4),
    ):
        assert today.scaled_as(other) == today
