"""Every action of ours is one of the space, and every one of the space can be chosen."""

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from some_spaces import BITS, choices

from impala_redis.common.encoding.actions import MAX_ACTION_CHOICES, ActionDecoder, action_spec
from impala_redis.common.errors import UnsupportedEnvironment
from impala_redis.common.run.spaces import ActionSpec

N = 3
Space = spaces.Space[Any]


@settings(max_examples=40, deadline=None)
@given(space=st.one_of(choices(), BITS), seed=st.integers(0, 2**31))
def test_every_choice_is_an_action_of_the_space_and_every_action_a_choice(
    space: Space, seed: int
) -> None:
    # given
    spec = action_spec("MyEnv-v0", space)
    decoder = ActionDecoder(space)
    sizes = np.array(spec.sizes)
    drawn = np.random.default_rng(seed).integers(0, sizes, (N, len(sizes)))
    lowest, highest = np.zeros((1, len(sizes)), np.int64), sizes[None] - 1

    # when
    ours = np.concatenate([lowest, highest, drawn])
    found = decoder.decode(ours[:, 0] if spec.kind == "discrete" else ours)

    # then they are of the space, from its lowest to its highest
    assert all(space.contains(action) for action in found)
    first = np.asarray(getattr(space, "start", 0))
    assert np.array_equal(found[0].ravel(), np.broadcast_to(first, space.shape or ()).ravel())
    assert np.array_equal((found[1:] - first).reshape(-1, len(sizes)), ours[1:])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("bound", [1.0, 3.3, 60_000.0])
def test_numbers_between_one_and_minus_one_cover_a_bounded_box(dtype: Any, bound: Any) -> None:
    # given a box with these bounds, and one not around 0
    high = np.full((2, 2), bound, dtype)
    low = np.stack([-high[0], high[1] * np.array([-0.25, 0.5], dtype)])
    space = spaces.Box(low, high, dtype=dtype)
    spec, decoder = action_spec("MyEnv-v0", space), ActionDecoder(space)
    assert spec == ActionSpec("continuous", (4,), bounded=True)

    # when
    ours = np.array([-1, 1, 0, -7, 7], np.float32)[:, None] * np.ones(4, np.float32)
    found = decoder.decode(ours)

    # then -1 .. 1 is low .. high, and more is cut
    assert all(space.contains(action) for action in found)
    for index, expected in ((0, low), (1, high), (3, low), (4, high)):
        np.testing.assert_allclose(
            found[index], expected, rtol=1e-3 if dtype == np.float16 else 1e-6
        )
    np.testing.assert_allclose(found[2], low / 2 + high / 2, rtol=1e-3)


def test_numbers_without_two_bounds_are_taken_as_they_are_and_cut_to_one() -> None:
    inf = np.inf
    space = spaces.Box(np.array([-inf, 0, -inf, -2]), np.array([inf, inf, 5, 2]), dtype=np.float64)
    found = ActionDecoder(space).decode(np.array([[9, 9, 9, 9], [-9, -9, -9, -0.5]], np.float32))
    assert found.tolist() == [[9, 9, 5, 2], [-9, 0, -9, -1]]


@pytest.mark.parametrize(
    ("dtype", "bound"),
    [
        *((dtype, np.finfo(dtype).max) for dtype in (np.float16, np.float32, np.float64)),
        *((np.float32, bound) for bound in (1e9, 2.0**31, 1e20, 1e37)),
        (np.float64, 1e300),
    ],
)
def test_absurd_bounds_are_none(dtype: Any, bound: float) -> None:
    # given numbers with two such bounds, with one of each kind, and with real ones
    high = np.array([bound, bound, 3.0, 1.0], dtype)
    space = spaces.Box(np.array([-bound, 0.0, -bound, -1.0], dtype), high, dtype=dtype)
    spec, decoder = action_spec("MyEnv-v0", space), ActionDecoder(space)

    # when
    found = decoder.decode(np.array([[2, 2, 2, 2], [-2, -2, -2, -0.5]], np.float32))

    # then they are taken as drawn, and cut to what is a bound
    assert spec == ActionSpec("continuous", (4,), bounded=False)
    assert found.tolist() == [[2, 2, 2, 1], [-2, 0, -2, -0.5]]
    assert all(space.contains(action) for action in found)


def test_large_bounds_that_are_near_each_other_are_meant() -> None:
    space = spaces.Box(2e9, 4e9, (1,), np.float64)
    assert action_spec("MyEnv-v0", space).bounded
    found = ActionDecoder(space).decode(np.array([[-1], [0], [1]], np.float32))
    assert found.tolist() == [[2e9], [3e9], [4e9]]


@pytest.mark.parametrize(
    ("space", "sizes"),
    [
        (spaces.Box(0, 3, (2,), np.int64), (4, 4)),
        (spaces.Box(np.array([-2, 5]), np.array([0, 5]), dtype=np.int32), (3, 1)),
        (spaces.Box(0, 255, (1,), np.uint8), (256,)),
        (spaces.Box(-128, 127, (2, 2), np.int8), (256,) * 4),
        (spaces.Box(0, 1, (3,), bool), (2, 2, 2)),
        (spaces.Box(1, 6, (), np.int16), (6,)),
    ],
    ids=str,
)
def test_whole_numbers_between_bounds_are_choices(space: Space, sizes: tuple[int, ...]) -> None:
    # given
    spec, decoder = action_spec("MyEnv-v0", space), ActionDecoder(space)
    assert spec == ActionSpec("multi_discrete", sizes)

    # when the first and the last of each are chosen
    found = decoder.decode(np.array([[0] * len(sizes), [size - 1 for size in sizes]]))

    # then they are the bounds
    assert isinstance(space, spaces.Box)
    assert np.array_equal(found, [space.low, space.high])
    assert all(space.contains(np.asarray(action)) for action in found)


def test_one_number_alone_is_an_action() -> None:
    space = spaces.Box(0, 4, ())
    assert action_spec("MyEnv-v0", space) == ActionSpec("continuous", (1,), bounded=True)
    found = ActionDecoder(space).decode(np.array([[-1], [0.5]], np.float32))
    assert (found.tolist(), found.dtype) == ([0, 3], np.float32)


def test_actions_from_zero_are_not_copied() -> None:
    actions = np.arange(3)
    assert ActionDecoder(spaces.Discrete(3)).decode(actions) is actions
    assert ActionDecoder(spaces.Discrete(3, start=5)).decode(actions).tolist() == [5, 6, 7]


@pytest.mark.parametrize(
    "space",
    [
        spaces.Tuple([spaces.Discrete(2), spaces.Discrete(3)]),
        spaces.Dict({"a": spaces.Discrete(2)}),
        spaces.Box(0, 2**31 - 1, (2,), np.int32),
        spaces.Box(-(2**63), 2**63 - 1, (1,), np.int64),
        spaces.Box(-1, 1, (0,)),
        spaces.Discrete(70_000),
        spaces.Text(3),
    ],
)
def test_an_action_space_that_we_cannot_take_is_refused(space: Space) -> None:
    with pytest.raises(UnsupportedEnvironment) as refused:
        action_spec("MyEnv-v0", space)
    message = str(refused.value)
    assert message.startswith("MyEnv-v0 has the action space ")
    assert message.endswith(
        "supported are Discrete, MultiDiscrete, MultiBinary, Box of floats, and Box of whole "
        "numbers between near bounds"
    )


def test_too_many_choices_at_once_are_refused() -> None:
    action_spec("MyEnv-v0", spaces.MultiBinary(MAX_ACTION_CHOICES))
    with pytest.raises(UnsupportedEnvironment, match="which is 65 choices at once; supported are"):
        action_spec("MyEnv-v0", spaces.MultiBinary(MAX_ACTION_CHOICES + 1))
