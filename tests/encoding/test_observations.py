"""Gymnasium's observations and ours: nothing is lost on the way in."""

import dataclasses
import json
import re
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array
from hypothesis import given, settings
from hypothesis import strategies as st
from some_spaces import NUMERIC

from impala_redis.common.blocks.features import features
from impala_redis.common.encoding.observations import Encoder, encoded_text, observation_spec
from impala_redis.common.errors import UnsupportedEnvironment
from impala_redis.common.run.spaces import (
    TEXT_BUCKETS,
    TEXT_WORDS,
    ObservationPart,
    ObservationSpec,
)
from impala_redis.common.run.spaces_json import observation_from

N = 3
Space = spaces.Space[Any]
Array = np.ndarray[Any, Any]


def nested(leaves: st.SearchStrategy[Space]) -> st.SearchStrategy[Space]:
    """Dicts and Tuples of such spaces, and of one another."""
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.dictionaries(st.sampled_from("abcd"), inner, min_size=1).map(spaces.Dict),
            st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
        ),
        max_leaves=6,
    )


def batch(space: Space, samples: list[Any]) -> Any:
    """This many observations, as Gymnasium's vector environments give them."""
    return concatenate(space, samples, create_empty_array(space, len(samples)))


def flat_leaves(space: Space, value: Any) -> list[tuple[Space, Any]]:
    """Gymnasium's own order of what has no parts."""
    if isinstance(space, spaces.Dict):
        items = [(inner, value[key]) for key, inner in space.spaces.items()]
    elif isinstance(space, spaces.Tuple):
        items = list(zip(space.spaces, value, strict=True))
    else:
        return [(space, value)]
    return [leaf for inner, one in items for leaf in flat_leaves(inner, one)]


def taken_apart(spec: ObservationSpec, row: Array) -> list[Array]:
    """What each part of one encoded observation holds."""
    if not spec.parts:
        return [row]
    return [
        row[part.start : part.start + part.num_bytes].view(part.dtype).reshape(part.shape)
        for part in spec.parts
    ]


def divisors(box: spaces.Box) -> list[float]:
    """What each number of a Box is divided by, one by one."""
    found = []
    for low, high in zip(box.low.ravel().tolist(), box.high.ravel().tolist(), strict=True):
        largest = max(abs(low), abs(high), 1)
        if np.dtype(box.dtype).kind not in "iu":
            largest = 1
        elif box.dtype != np.uint8:
            ends = np.iinfo(box.dtype)  # type: ignore[type-var]
            if high == ends.max or (low == ends.min and low < 0):
                largest = 1
        found.append(float(largest))
    return found


def refusal(space: Space) -> str:
    with pytest.raises(UnsupportedEnvironment) as refused:
        observation_spec("MyEnv-v0", space)
    message = str(refused.value)
    assert message.startswith("MyEnv-v0 has the observation space ")
    assert len(message.splitlines()) == 1, message
    return message


# Observations.


def test_the_parts_of_a_nested_space_have_names_and_aligned_places() -> None:
    # given
    space = spaces.Dict(
        {
            "view": spaces.Box(0, 255, (5, 5, 3), np.uint8),
            "arm": spaces.Tuple([spaces.Box(-1, 1, (3,)), spaces.Discrete(300, start=1)]),
            "lamps": spaces.MultiBinary(3),
        }
    )

    # when
    spec = observation_spec("MyEnv-v0", space, frame_stack=4)

    # then they are in Gymnasium's order: that of the keys
    assert spec == ObservationSpec(
        (112,),
        "uint8",
        parts=(
            ObservationPart("arm.0", (3,), "float32", (), 0),
            ObservationPart("arm.1", (), "int32", (300,), 16),
            ObservationPart("lamps", (3,), "int8", (), 24),
            ObservationPart("view", (5, 5, 3), "uint8", (), 32, (255,)),
        ),
        frame_stack=4,
    )


def test_a_box_and_an_index_travel_as_they_are() -> None:
    box, index = spaces.Box(0, 255, (4, 4), np.uint8), spaces.Discrete(5, start=2)
    assert observation_spec("MyEnv-v0", box, 4) == ObservationSpec(
        (4, 4), "uint8", frame_stack=4, scale=(255,)
    )
    assert observation_spec("MyEnv-v0", index, 2) == ObservationSpec((), "int64", 5, frame_stack=2)


@settings(max_examples=60, deadline=None)
@given(space=nested(NUMERIC), seed=st.integers(0, 2**31))
def test_what_is_encoded_is_what_was_observed(space: Space, seed: int) -> None:
    # given observations of a random space
    space.seed(seed)
    samples = [space.sample() for _ in range(N)]
    spec = observation_spec("MyEnv-v0", space)

    # when
    encoded = Encoder(space, spec, N).encode(batch(space, samples))

    # then each part holds the leaf's values, counted from 0, and gaps hold nothing
    assert (encoded.shape, encoded.dtype) == ((N, *spec.shape), spec.dtype)
    for sample, row in zip(samples, encoded, strict=True):
        leaves = flat_leaves(space, sample)
        for (leaf, value), part in zip(leaves, taken_apart(spec, row), strict=True):
            assert part.shape == leaf.shape or not spec.parts
            assert np.array_equal(part, np.asarray(value) - getattr(leaf, "start", 0 * part))
    if spec.parts:
        bytes_of_parts = sum(part.num_bytes for part in spec.parts)
        used = np.zeros(spec.shape, np.bool_)
        for part in spec.parts:
            assert part.start % 8 == 0
            used[part.start : part.start + part.num_bytes] = True
        assert used.sum() == bytes_of_parts  # none overlaps
        assert not encoded[:, ~used].any()


@settings(max_examples=60, deadline=None)
@given(space=nested(NUMERIC), seed=st.integers(0, 2**31))
def test_the_network_sees_what_gymnasium_flattens(space: Space, seed: int) -> None:
    # given
    space.seed(seed)
    samples = [space.sample() for _ in range(N)]
    spec = observation_spec("MyEnv-v0", space)

    # when
    seen = features(spec, Encoder(space, spec, N).encode(batch(space, samples)))

    # then it is Gymnasium's own flat form, with whole numbers divided by what their bounds allow
    assert seen.shape == (N, spec.num_features)
    for sample, found in zip(samples, seen, strict=True):
        expected = []
        for leaf, value in flat_leaves(space, sample):
            numbers = np.asarray(spaces.flatten(leaf, value), np.float32)
            if isinstance(leaf, spaces.Box):
                numbers = numbers / np.array(divisors(leaf), np.float32)
            expected.append(numbers)
        assert np.array_equal(found, np.concatenate(expected))


@settings(max_examples=30, deadline=None)
@given(space=nested(NUMERIC))
def test_a_spec_of_a_random_space_is_one_that_others_accept(space: Space) -> None:
    spec = observation_spec("MyEnv-v0", space)
    assert observation_from(json.loads(json.dumps(dataclasses.asdict(spec)))) == spec


@pytest.mark.parametrize(
    ("space", "observed"),
    [
        (spaces.Box(-1, 1, (2,)), np.zeros((N, 1), np.float32)),
        (spaces.Discrete(4), np.zeros((N, 1), np.int64)),
        (spaces.Dict(a=spaces.Box(-1, 1, (2,))), {"a": np.zeros((1, 2), np.float32)}),
        (spaces.Dict(a=spaces.Discrete(4)), {"a": np.full(N, 4)}),
        (spaces.Dict(a=spaces.Discrete(4)), {"a": np.full(N, 1.5)}),
        (spaces.Dict(a=spaces.Discrete(4, start=2)), {"a": np.full(N, 1)}),
        (spaces.MultiDiscrete([9, 9], np.uint8), np.full((N, 2), 9, np.uint8)),
        (spaces.MultiBinary(2), np.full((N, 2), 2, np.int8)),
        (spaces.Dict(a=spaces.Text(9)), {"a": ("only one",)}),
    ],
)
def test_what_is_not_of_the_space_is_refused_and_not_stretched_or_cut(
    space: Space, observed: Any
) -> None:
    encoder = Encoder(space, observation_spec("MyEnv-v0", space), N)
    with pytest.raises(ValueError, match=r"(observation (is|has) |part '.*' (is|has|of) ).*"):
        encoder.encode(observed)


def test_a_box_of_our_own_types_is_not_copied() -> None:
    space = spaces.Box(-1, 1, (2,))
    observed = np.ones((N, 2), np.float32)
    assert Encoder(space, observation_spec("MyEnv-v0", space), N).encode(observed) is observed


@pytest.mark.parametrize(
    ("space", "says"),
    [
        (spaces.Dict(a=spaces.Dict(b=spaces.Sequence(spaces.Discrete(2)))), "in part 'a.b'; supp"),
        (spaces.Tuple([spaces.Discrete(2), spaces.OneOf([spaces.Discrete(2)])]), "in part '1'; "),
        (spaces.Dict(a=spaces.Graph(spaces.Box(-1, 1, (2,)), None)), "Graph.* in part 'a'; "),
        (spaces.Dict(a=spaces.Box(-1, 1, (0,))), r"Dict.*\), which holds nothing; "),
        (spaces.Tuple([spaces.Dict(), spaces.Box(-1, 1, (2, 0))]), ", which holds nothing; "),
        (spaces.Box(-1, 1, (0,)), "which is empty or too large; "),
        (spaces.Box(-1, 1, (1,) * 9), "which is empty or too large; "),
        (spaces.Dict(a=spaces.Discrete(70_000)), "in part 'a', which has more than 65,536 values"),
        (spaces.Discrete(70_000), "which has more than 65,536 values; "),
        (spaces.Dict({"a" * 300: spaces.Discrete(2)}), "whose name is longer than 256; "),
        (spaces.Dict(), "which holds nothing; "),
        (spaces.Tuple([spaces.Discrete(2)] * 65), "of 65 parts, which is more than 64; "),
        (spaces.MultiDiscrete([2] * 5000), "of more than 4096 categories in all; "),
        (spaces.MultiDiscrete([60_000] * 2), "more than 65,536 values in all; "),
        (spaces.Tuple([spaces.Box(0, 1, (2_000_000,))] * 3), "of 24,000,000 bytes, which is more"),
    ],
)
def test_a_space_that_we_cannot_take_is_refused_and_its_part_named(space: Space, says: str) -> None:
    message = refusal(space)
    assert re.search(says, message), message
    assert message.endswith(
        "Discrete, MultiDiscrete, MultiBinary, Text, and Dict or Tuple of these"
    )


# Texts.


def test_a_text_is_its_first_words_wherever_they_stand() -> None:
    one, other = encoded_text("Go to the RED ball!"), encoded_text("go,to  the_red... ball")
    assert np.array_equal(one, other)
    assert np.count_nonzero(one) == 5
    assert np.array_equal(encoded_text(""), np.zeros(TEXT_WORDS))
    assert np.array_equal(encoded_text("a " * 99), encoded_text("a " * TEXT_WORDS))
    assert not one.flags.writeable
    assert one[:5].tolist() == [26, 103, 77, 32, 96]  # what a checkpoint has learnt on


WORDS = """
red green blue purple yellow grey ball box key door goal lava wall floor square room rooms opening
object hallway left right front behind end open pick put go get fetch find use unlock reach traverse
avoid up to the a at and then after next near in on of from you your must matching
"""


def test_words_of_missions_do_not_share_buckets() -> None:
    words = WORDS.split()
    buckets = {int(encoded_text(word)[0]) for word in words}
    assert len(buckets) == len(words)
    assert 0 < min(buckets) <= max(buckets) < TEXT_BUCKETS


def test_only_a_text_travels_in_the_form_of_a_text() -> None:
    # given the notes of 16 voices, which have as many values as a text has
    notes = spaces.MultiDiscrete([TEXT_BUCKETS] * TEXT_WORDS)
    space = spaces.Dict(lyrics=spaces.Text(50), notes=notes)

    # when
    spec = observation_spec("MyEnv-v0", space)
    sample = {"lyrics": ("la la",), "notes": np.arange(112, 128)[None]}
    encoded = Encoder(space, spec, 1).encode(sample)

    # then
    assert [part.is_text for part in spec.parts] == [True, False]
    assert taken_apart(spec, encoded[0])[1].tolist() == list(range(112, 128))


def test_texts_of_a_vector_are_encoded_one_by_one() -> None:
    space = spaces.Dict(mission=spaces.Text(50, min_length=0), steps=spaces.Discrete(5, start=1))
    spec = observation_spec("MyEnv-v0", space)
    observed = {"mission": ("get the key", "", "get the key"), "steps": np.array([1, 2, 5])}
    encoded = Encoder(space, spec, 3).encode(observed)
    missions, steps = zip(*(taken_apart(spec, row) for row in encoded), strict=True)
    assert [text.tolist() for text in missions] == [
        encoded_text(text).tolist() for text in observed["mission"]
    ]
    assert [int(step) for step in steps] == [0, 1, 4]
    assert features(spec, encoded).sum(axis=1).tolist() == [TEXT_WORDS + 1] * 3
    # and so is a text alone
    alone = observation_spec("MyEnv-v0", space["mission"])
    assert np.array_equal(
        Encoder(space["mission"], alone, 3).encode(observed["mission"]), np.stack(missions)
    )
