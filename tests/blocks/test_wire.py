"""Messages: what is written, byte for byte, and that anything else is refused in one way."""

import dataclasses
import struct
import time
import tracemalloc
import zlib
from collections.abc import Sequence
from math import prod
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from impala_redis.common.blocks.trajectory import (
    Block,
    Episode,
    Origin,
    Trajectory,
    empty_trajectory,
)
from impala_redis.common.blocks.wire import (
    MAX_ENVS,
    Weights,
    block_nbytes,
    pack_block,
    pack_weights,
    unpack_block,
    unpack_weights,
    weights_nbytes,
)
from impala_redis.common.errors import MessageRefused, NotFinite
from impala_redis.common.records.refusals import REFUSALS
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import WIRE_VERSION, RunSpec

quick = settings(max_examples=80, deadline=None, derandomize=True)

# Written down once more, not imported: the format is a contract between machines.
PREFIX = struct.Struct("<4sHHIQI")
BLOCK, WEIGHTS = 1, 2
REASONS = {"malformed", "version", "spec", "schema", "range", "nonfinite"}


def make_spec(
    observation: ObservationSpec, unroll_length: int = 2, hidden_sizes: tuple[int, ...] = ()
) -> RunSpec:
    return RunSpec(
        run="golden",
        env="Golden-v0",
        observation=observation,
        action=discrete(3),
        hidden_sizes=hidden_sizes,
        activation="tanh",
        unroll_length=unroll_length,
        envs_per_actor=1,
        queue_blocks=1,
        max_policy_age_s=600.0,
        seed=0,
    )


SPEC = make_spec(ObservationSpec((2,), "float32"))
HALF = dataclasses.replace(SPEC, weights_dtype="bfloat16")
INDEX = make_spec(ObservationSpec((), "int64", 5))


def make_block(
    spec: RunSpec, num_envs: int = 2, num_episodes: int = 1, seed: int = 0, actor: str = "a"
) -> Block:
    """Valid rows of random numbers."""
    rng = np.random.default_rng(seed)
    observation, t = spec.observation, spec.unroll_length
    rows = empty_trajectory(spec, num_envs)
    if observation.num_values is not None:
        rows.observations[:] = rng.integers(0, observation.num_values, (t + 1, num_envs))
    else:
        numbers = rng.normal(0.0, 50.0, rows.observations.shape)
        rows.observations[:] = np.abs(numbers) if observation.dtype == "uint8" else numbers
    rows.memory[:] = 0
    rows.is_first[:] = rng.random((t + 1, num_envs)) < 0.5
    rows.actions[:] = rng.integers(0, spec.action.sizes[0], (t, num_envs))
    rows.rewards[:] = rng.normal(0.0, 10.0, (t, num_envs))
    rows.discounts[:] = rng.random((t, num_envs)) < 0.5
    rows.behaviour_log_probs[:] = -rng.exponential(1.0, (t, num_envs))
    # Episodes end at even rows, each in front of a fake one.
    slots = rng.permutation(num_envs * ((t + 1) // 2))[:num_episodes]
    ended = sorted((int(slot) // num_envs * 2, int(slot) % num_envs) for slot in slots)
    rows.mask[:] = True
    for row, column in ended:
        rows.mask[row + 1 : row + 2, column] = False
    episodes, begins = [], [0] * num_envs
    for row, column in ended:
        here = slice(begins[column], row + 1)
        before = 0 if begins[column] else int(rng.integers(9))
        episode_return = rows.rewards[here, column].sum(dtype=np.float64) + 0.5 * before
        length = before + int(rows.mask[here, column].sum())
        episodes.append(Episode(float(np.float32(episode_return)), length, column))
        begins[column] = row + 1
    return Block(Origin(actor, 7, 1, 3), rows, tuple(episodes), 0.25)


def make_weights(spec: RunSpec) -> Weights:
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in spec.parameter_shapes().items()
    }


def weights_of(values: Sequence[float] | NDArray[np.float32], spec: RunSpec) -> Weights:
    """Weights of these numbers, in the order of the spec; what is too many is left over."""
    numbers, weights = np.array(values, np.float32), {}
    for name, shape in spec.parameter_shapes().items():
        weights[name] = numbers[: prod(shape)].reshape(shape)
        numbers = numbers[prod(shape) :]
    return weights


def from_bits(bits: Any) -> NDArray[np.float32]:
    return np.asarray(bits, np.uint32).view(np.float32)


def flat(weights: Weights) -> NDArray[np.float32]:
    return np.concatenate([array.ravel() for array in weights.values()])


def seal(
    header: Any, body: bytes, kind: int = BLOCK, version: int = WIRE_VERSION, magic: bytes = b"IMPA"
) -> bytes:
    """A message with right lengths and a right checksum, whatever is in it."""
    packed = header if isinstance(header, bytes) else msgpack.packb(header)
    checksum = zlib.crc32(packed + body)
    return PREFIX.pack(magic, version, kind, len(packed), len(body), checksum) + packed + body


def opened(message: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and body of a good message."""
    length = PREFIX.unpack_from(message)[3]
    rest = message[PREFIX.size :]
    return msgpack.unpackb(rest[:length]), rest[length:]


def refusal(message: bytes, spec: RunSpec = SPEC) -> str:
    """The reason for which a block's message is refused."""
    with pytest.raises(MessageRefused) as caught:
        unpack_block(message, spec)
    assert len(str(caught.value)) < 300
    return caught.value.reason


def assert_costs_its_column(block: Block, column: int, reason: str, spec: RunSpec = SPEC) -> None:
    """The block is read without that column and its episodes; alone, the column is refused."""
    # given an episode in each column
    n = block.trajectory.actions.shape[1]
    block = block._replace(episodes=tuple(Episode(float(i), 3, i) for i in range(n)))
    alone = Trajectory(*(rows[:, column : column + 1] for rows in block.trajectory))
    others = [i for i in range(n) if i != column]

    # when
    found = unpack_block(pack_block(block, spec), spec)

    # then
    ((found_reason, _, explanation, columns),) = found.unfit
    assert (found_reason, columns, found.episodes_left_out) == (reason, 1, 1)
    assert found.left_out == (column,)
    assert len(explanation) < 300
    assert found.num_envs == n
    assert [(e.episode_return, e.column) for e in found.episodes] == [(i, i) for i in others]
    for rows, expected in zip(found.trajectory, block.trajectory, strict=True):
        np.testing.assert_array_equal(rows, expected[:, others], strict=True)
    assert refusal(pack_block(block._replace(trajectory=alone, episodes=()), spec), spec) == reason


def assert_same_block(found: Block, expected: Block) -> None:
    assert found._replace(trajectory=None) == expected._replace(trajectory=None)  # type: ignore[arg-type]
    for name, array in found.trajectory._asdict().items():
        other = getattr(expected.trajectory, name)
        assert array.dtype == other.dtype, name
        np.testing.assert_array_equal(array, other, err_msg=name, strict=True)


MESSAGE = pack_block(make_block(SPEC), SPEC)
HEADER, BODY = opened(MESSAGE)
WEIGHTS_MESSAGE = pack_weights(make_weights(SPEC), 5, SPEC)
HALF_MESSAGE = pack_weights(make_weights(HALF), 5, HALF)
both_dtypes = pytest.mark.parametrize(
    ("message", "spec"),
    [(WEIGHTS_MESSAGE, SPEC), (HALF_MESSAGE, HALF)],
    ids=["float32", "bfloat16"],
)


# What is written.


OBSERVATIONS = [
    ObservationSpec((2,), "float32"),
    ObservationSpec((), "float64"),
    ObservationSpec((2, 1, 3), "uint8"),
    ObservationSpec((3,), "int8"),
    ObservationSpec((3,), "int16"),
    ObservationSpec((1,), "int32"),
    ObservationSpec((), "int64", 5),
]


@quick
@given(
    observation=st.sampled_from(OBSERVATIONS),
    unroll_length=st.integers(1, 4),
    num_envs=st.integers(1, 5),
    ended=st.floats(0, 1),
    seed=st.integers(0, 1000),
    actor=st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True),
    infos=st.lists(
        st.dictionaries(
            st.sampled_from(["success", "a.b", "le c\u0153ur", "x" * 64, "\U0001f3c1" * 64]),
            st.floats(width=32, allow_nan=False, allow_infinity=False),
        ),
        min_size=20,
        max_size=20,
    ),
    numbers=st.tuples(st.integers(0, 2**63), st.integers(1, 2**53), st.integers(0, 2**53)),
    unroll_s=st.floats(0, 1e300),
)
def test_a_block_reads_back_as_it_was_written(
    observation: ObservationSpec,
    unroll_length: int,
    num_envs: int,
    ended: float,
    seed: int,
    actor: str,
    infos: list[dict[str, float]],
    numbers: tuple[int, int, int],
    unroll_s: float,
) -> None:
    # given
    spec = make_spec(observation, unroll_length)
    num_episodes = round(ended * num_envs * ((unroll_length + 1) // 2))
    block = make_block(spec, num_envs, num_episodes, seed)
    episodes = [e._replace(infos=i) for e, i in zip(block.episodes, infos, strict=False)]
    block = block._replace(
        origin=Origin(actor, *numbers), unroll_s=unroll_s, episodes=tuple(episodes)
    )

    # when
    message = pack_block(block, spec)

    # then
    assert_same_block(unpack_block(message, spec), block)
    assert len(message) <= block_nbytes(spec, num_envs)


@pytest.mark.parametrize("hidden_sizes", [(), (4,), (3, 2)])
@pytest.mark.parametrize("spec", [SPEC, INDEX], ids=["box", "index"])
def test_weights_read_back_as_they_were_written(
    spec: RunSpec, hidden_sizes: tuple[int, ...]
) -> None:
    # given
    spec = dataclasses.replace(spec, hidden_sizes=hidden_sizes)
    weights = make_weights(spec)

    # when
    message = pack_weights(weights, 2**53, spec)

    # then
    version, found, _ = unpack_weights(message, spec)
    assert version == 2**53
    assert list(found) == list(spec.parameter_shapes())
    for name, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, weights[name], strict=True)
    assert len(message) <= weights_nbytes(spec)


# Bits of float32 that stay finite in bfloat16: any at all, and those half way between two.
_signs = st.sampled_from([0, 0x8000_0000])
_bits = st.builds(
    lambda sign, bits: sign | bits,
    _signs,
    st.integers(0, 0x7F7F_7FFF) | st.integers(0, 0x7F7E).map(lambda upper: upper << 16 | 0x8000),
)


def assert_rounded_as_torch_rounds(values: NDArray[np.float32], spec: RunSpec) -> None:
    # when
    message = pack_weights(weights_of(values, spec), 7, spec)

    # then
    expected = torch.from_numpy(values).to(torch.bfloat16)
    assert opened(message)[1] == expected.view(torch.int16).numpy().astype("<i2").tobytes()
    version, found, _ = unpack_weights(message, spec)
    assert version == 7
    assert {name: array.shape for name, array in found.items()} == spec.parameter_shapes()
    assert flat(found).dtype == np.float32
    assert flat(found).tobytes() == expected.to(torch.float32).numpy().tobytes()
    assert len(message) <= weights_nbytes(spec)


@quick
@given(st.lists(_bits, min_size=HALF.num_parameters, max_size=HALF.num_parameters))
def test_weights_in_bfloat16_are_rounded_as_torch_rounds_them(bits: list[int]) -> None:
    assert_rounded_as_torch_rounds(from_bits(bits), HALF)


@pytest.mark.parametrize("lower", [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], ids=hex)
def test_every_bfloat16_is_met_from_both_sides_and_from_half_way(lower: int) -> None:
    # given all that begin with the bits of a finite one, subnormals and both zeros among them
    upper = np.arange(0x7F7F, dtype=np.uint32)
    bits = np.concatenate([upper, upper | 0x8000]) << 16 | np.uint32(lower)
    spec = dataclasses.replace(
        HALF, action=discrete(1), observation=ObservationSpec((32_638,), "int8")
    )
    assert spec.num_parameters == len(bits) == 2 * 0x7F7F

    # when / then
    assert_rounded_as_torch_rounds(from_bits(bits), spec)


@pytest.mark.parametrize("bits", [0x7F7F_8000, 0x7F7F_FFFF, 0x7F80_0000, 0x7FC0_0000, 0x7FFF_FFFF])
@pytest.mark.parametrize("sign", [0, 0x8000_0000], ids=["positive", "negative"])
def test_weights_that_no_finite_bfloat16_is_near_are_not_written(sign: int, bits: int) -> None:
    # given the least float32 that rounds to an infinity, the largest, an infinity, and two NaNs
    weights = make_weights(HALF)
    weights["policy.weight"][1, 1] = from_bits(sign | bits)

    # when / then
    with pytest.raises(NotFinite, match="too large for bfloat16, or not finite; lower --learning"):
        pack_weights(weights, 1, HALF)


def test_the_largest_weights_that_bfloat16_has_are_written() -> None:
    weights = weights_of(from_bits([0x7F7F_7FFF, 0xFF7F_7FFF] * 6), HALF)
    found = unpack_weights(pack_weights(weights, 1, HALF), HALF)[1]
    assert flat(found).tobytes() == from_bits([0x7F7F_0000, 0xFF7F_0000] * 6).tobytes()


def test_the_bound_of_a_blocks_size_holds_for_the_largest_header_and_most_episodes() -> None:
    # given
    spec = make_spec(ObservationSpec((2,), "float32"), unroll_length=100)
    block = make_block(spec, num_envs=30, num_episodes=30 * 50)
    origin = Origin("x" * 64, 2**63, 2**53, 2**53)

    # when
    message = pack_block(block._replace(origin=origin, unroll_s=1e300), spec)

    # then
    assert unpack_block(message, spec).origin == origin
    unused = 32 * 259 + 4 * 4096  # no infos
    unused += 12 * 30 * 50  # no more than every other row ends an episode
    assert block_nbytes(spec, 30) - 1024 - unused < len(message) <= block_nbytes(spec, 30)


@pytest.mark.parametrize("num_episodes", [1, 128, 129, 4096, 4097])
def test_the_bound_of_a_blocks_size_holds_for_most_and_longest_infos(num_episodes: int) -> None:
    # given
    spec = make_spec(ObservationSpec((2,), "float32"), unroll_length=100)
    block = make_block(spec, num_envs=100, num_episodes=num_episodes)
    infos = {chr(0x1F300 + i) * 64: float(i) for i in range(40)}
    episodes = tuple(episode._replace(infos=infos) for episode in block.episodes)

    # when
    message = pack_block(block._replace(episodes=episodes), spec)

    # then as many are sent as have room, those whose names come first
    sent = dict(list(infos.items())[: min(32, 4096 // num_episodes)])
    assert [episode.infos for episode in unpack_block(message, spec).episodes] == [
        sent
    ] * num_episodes
    assert len(message) <= block_nbytes(spec, 100)
    most = num_episodes == 128  # with the most numbers and names
    left = 12 * (100 * 100 - 128)
    assert not most or block_nbytes(spec, 100) - 1024 - left < len(message)


def test_an_info_that_an_episode_lacks_is_not_made_up() -> None:
    # given
    infos: list[dict[str, float]] = [{"success": 1.0}, {}, {"distance": -0.5, "success": 0.0}]
    block = make_block(SPEC, num_envs=3, num_episodes=0)
    episodes = tuple(Episode(1.0, 3, i, told) for i, told in enumerate(infos))

    # when
    found = unpack_block(pack_block(block._replace(episodes=episodes), SPEC), SPEC)

    # then
    assert [dict(episode.infos) for episode in found.episodes] == infos
    assert [episode.column for episode in found.episodes] == [0, 1, 2]


def test_what_is_read_cannot_be_written_to() -> None:
    # when
    rows = unpack_block(MESSAGE, SPEC).trajectory
    weights = unpack_weights(WEIGHTS_MESSAGE, SPEC)[1]
    widened = unpack_weights(HALF_MESSAGE, HALF)[1]

    # then
    arrays = (*rows, *weights.values(), *widened.values())
    assert not any(array.flags.writeable for array in arrays)


def test_arrays_of_another_memory_order_are_written_alike() -> None:
    # given
    block = make_block(SPEC)
    fortran = Trajectory(*(np.asfortranarray(array) for array in block.trajectory))

    # when / then
    assert pack_block(block._replace(trajectory=fortran), SPEC) == pack_block(block, SPEC)


GOLDEN_BLOCK = bytes.fromhex("""
    494d5041 0600 0100 86000000 3b00000000000000 6a44377d
    8a
      a473706563 b037663339383166323035343035306563
      a56163746f72 a161
      ab696e6361726e6174696f6e 07
      a873657175656e6365 01
      af776569676874735f76657273696f6e 03
      a86e756d5f656e7673 01
      ac6e756d5f657069736f646573 01
      a5696e666f73 91 a26f6b
      a8756e726f6c6c5f73 cb3fd0000000000000
      a5636f646563 a46e6f6e65
    0102 0304 0506
    01 00 00
    02000000 01000000
    0000803f 000000bf
    0000803f 00000000
    000080bf 000080be
    01 01
    0000003f
    02000000
    00000000
    0000803e
""")

GOLDEN_WEIGHTS = bytes.fromhex("""
    494d5041 0600 0200 32000000 1800000000000000 073cfbbc
    83
      a473706563 b039393039333936373465633666613531
      a776657273696f6e 05
      a870726f6772657373 cb0000000000000000
    0000803f 000000c0
    0000003f 0000803e
    00004040
    00000000
""")

GOLDEN_WEIGHTS_IN_BFLOAT16 = bytes.fromhex("""
    494d5041 0600 0200 32000000 0c00000000000000 ff5c71f0
    83
      a473706563 b031613361343732363761313562633234
      a776657273696f6e 05
      a870726f6772657373 cb0000000000000000
    803f 00c0
    003f 803e
    4040
    0000
""")


def test_the_bytes_of_a_block_are_the_golden_ones() -> None:
    # given
    spec = make_spec(ObservationSpec((2,), "uint8"))
    rows = Trajectory(
        observations=np.array([[[1, 2]], [[3, 4]], [[5, 6]]], np.uint8),
        is_first=np.array([[True], [False], [False]]),
        actions=np.array([[2], [1]], np.int32),
        rewards=np.array([[1.0], [-0.5]], np.float32),
        discounts=np.array([[1.0], [0.0]], np.float32),
        behaviour_log_probs=np.array([[-1.0], [-0.25]], np.float32),
        mask=np.array([[True], [True]]),
        memory=np.empty((1, 1, 0), np.float32),
        tasks=np.empty((1, 1, 0), np.int16),
    )
    block = Block(Origin("a", 7, 1, 3), rows, (Episode(0.5, 2, 0, {"ok": 0.25}),), 0.25)

    # when / then
    assert pack_block(block, spec).hex() == GOLDEN_BLOCK.hex()
    assert_same_block(unpack_block(GOLDEN_BLOCK, spec), block)


@pytest.mark.parametrize(
    ("dtype", "golden"),
    [("float32", GOLDEN_WEIGHTS), ("bfloat16", GOLDEN_WEIGHTS_IN_BFLOAT16)],
    ids=["float32", "bfloat16"],
)
def test_the_bytes_of_weights_are_the_golden_ones(dtype: str, golden: bytes) -> None:
    # given
    spec = make_spec(ObservationSpec((1,), "float32"))
    spec = dataclasses.replace(spec, action=discrete(2), weights_dtype=dtype)
    weights: Weights = {
        "policy.weight": np.array([[1.0], [-2.0]], np.float32),
        "policy.bias": np.array([0.5, 0.25], np.float32),
        "baseline.weight": np.array([[3.0]], np.float32),
        "baseline.bias": np.array([0.0], np.float32),
    }

    # when
    version, found, _ = unpack_weights(golden, spec)

    # then
    assert pack_weights(weights, 5, spec).hex() == golden.hex()
    assert version == 5
    assert {n: a.tolist() for n, a in found.items()} == {n: a.tolist() for n, a in weights.items()}


# What is refused as malformed, or of another version or run.


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"IMPA",
        MESSAGE[: PREFIX.size - 1],
        b"\x80\x04\x95" + bytes(60),  # a pickle
        b"XMPA" + MESSAGE[4:],
        bytes(200),
        seal(HEADER, BODY, kind=WEIGHTS),
        seal(HEADER, BODY, kind=0),
        seal(HEADER, BODY, kind=3),
        WEIGHTS_MESSAGE,
        MESSAGE + b"\x00",
        MESSAGE + MESSAGE,
        PREFIX.pack(b"IMPA", WIRE_VERSION, 1, 2**32 - 1, 2**64 - 1, 0),
        PREFIX.pack(b"IMPA", WIRE_VERSION, 1, 0, 0, 0),
    ],
    ids=lambda message: message[:28].hex(),
)
def test_bytes_that_are_no_block_are_malformed(message: bytes) -> None:
    assert refusal(message) == "malformed"


@pytest.mark.parametrize(
    "message", [b"", b"IMPA", MESSAGE, WEIGHTS_MESSAGE[:-1], WEIGHTS_MESSAGE + b"\0"]
)
def test_bytes_that_are_no_weights_are_malformed(message: bytes) -> None:
    with pytest.raises(MessageRefused) as caught:
        unpack_weights(message, SPEC)
    assert caught.value.reason == "malformed"


def test_a_message_cut_anywhere_is_malformed() -> None:
    assert {refusal(MESSAGE[:length]) for length in range(len(MESSAGE))} == {"malformed"}


def test_a_flipped_bit_anywhere_is_noticed() -> None:
    # when
    reasons: list[str] = []
    for offset in range(len(MESSAGE)):
        for bit in range(8):
            damaged = bytearray(MESSAGE)
            damaged[offset] ^= 1 << bit
            reasons.append(refusal(bytes(damaged)))

    # then: bytes 4 and 5 are the version, which is looked at first
    assert set(reasons[4 * 8 : 6 * 8]) == {"version"}
    assert set(reasons[: 4 * 8] + reasons[6 * 8 :]) == {"malformed"}


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xc1",  # never used in msgpack
        b"\xa4spec",
        b"\x81",  # a map that ends too soon
        b"\x81\xa4spec\xa2\xff\xff",  # not UTF-8
        b"\x81\x01\x02",  # a key that is no text
        b"\x81\x90\x02",  # a key that cannot be a key
        msgpack.packb(HEADER) + b"\x00",
        msgpack.packb(HEADER)[:-1],
        msgpack.packb(list(HEADER.items())),
        msgpack.packb(None),
        msgpack.packb(HEADER | {"more": msgpack.ExtType(5, b"x")}),
        msgpack.packb(HEADER | {"more": msgpack.Timestamp(1, 1)}),
        msgpack.packb(HEADER | {"more": list(range(65))}),
        msgpack.packb(HEADER | {"more": "x" * 257}),
        msgpack.packb(HEADER | {"more": b"x" * 65}),
        msgpack.packb({f"key {i}": i for i in range(65)}),
        msgpack.packb(HEADER) + bytes(65_536),
        msgpack.packb(HEADER | {"more": [["x" * 250] * 60] * 5}),  # more than 64 KiB in all
    ],
    ids=lambda header: header[:24].hex(),
)
def test_a_header_that_is_no_small_map_is_malformed(header: bytes) -> None:
    assert refusal(seal(header, BODY)) == "malformed"


@pytest.mark.parametrize("version", [0, WIRE_VERSION - 1, WIRE_VERSION + 1, 255, 65_535])
def test_another_wire_version_is_told_apart_from_damage(version: int) -> None:
    assert refusal(seal(HEADER, BODY, version=version)) == "version"


@pytest.mark.parametrize("found", [INDEX.fingerprint, "", None, 7, [], {}, b"x", "\n" * 200])
def test_a_message_of_another_run_is_refused(found: Any) -> None:
    assert refusal(seal(HEADER | {"spec": found}, BODY)) == "spec"


def test_a_message_without_a_fingerprint_is_refused() -> None:
    assert refusal(seal({}, BODY)) == "spec"


def test_weights_of_another_network_are_refused() -> None:
    # given
    other = dataclasses.replace(SPEC, hidden_sizes=(4,))

    # when / then
    with pytest.raises(MessageRefused) as caught:
        unpack_weights(pack_weights(make_weights(other), 1, other), SPEC)
    assert caught.value.reason == "spec"


@pytest.mark.parametrize(("written", "read"), [(HALF, SPEC), (SPEC, HALF)])
def test_weights_of_another_dtype_are_refused(written: RunSpec, read: RunSpec) -> None:
    with pytest.raises(MessageRefused) as caught:
        unpack_weights(pack_weights(make_weights(written), 1, written), read)
    assert caught.value.reason == "spec"


# What is refused by the header's fields and the lengths.


FIELDS = ["actor", "incarnation", "sequence", "weights_version", "num_envs", "num_episodes"]


@pytest.mark.parametrize("name", [*FIELDS, "unroll_s", "infos"])
def test_a_header_must_have_every_field(name: str) -> None:
    header = {key: value for key, value in HEADER.items() if key != name}
    assert refusal(seal(header, BODY)) == "schema"


@pytest.mark.parametrize("value", [True, False, 1.0, "1", None, [1], {}, -1, 2**63 + 1])
@pytest.mark.parametrize("name", FIELDS[1:])
def test_a_count_in_the_header_must_be_a_whole_number_in_range(name: str, value: Any) -> None:
    assert refusal(seal(HEADER | {name: value}, BODY)) == "schema"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sequence", 0),
        ("sequence", 2**53 + 1),
        ("weights_version", 2**53 + 1),
        ("num_envs", 0),
        ("num_envs", MAX_ENVS + 1),
        ("num_episodes", 2 * SPEC.unroll_length + 1),
        ("actor", ""),
        ("actor", "x" * 65),
        ("actor", "a\nlearner: trained on b#1:1"),
        ("actor", "\x1b[2J"),
        ("actor", b"x"),
        ("actor", 7),
        ("actor", None),
        ("actor", ["x"]),
        ("unroll_s", 1),
        ("unroll_s", True),
        ("unroll_s", "1"),
        ("unroll_s", -0.5),
        ("unroll_s", float("nan")),
        ("unroll_s", float("inf")),
        ("unroll_s", None),
        ("infos", None),
        ("infos", "success"),
        ("infos", {"success": 1}),
        ("infos", [1]),
        ("infos", [None]),
        ("infos", [b"success"]),
        ("infos", [["success"]]),
        ("infos", [""]),
        ("infos", [" "]),
        ("infos", ["x" * 65]),
        ("infos", ["a\nb"]),
        ("infos", ["\x1b[2J"]),
        ("infos", ["\u202egnp"]),
        ("infos", ["nul\0"]),
        ("infos", ["twice", "twice"]),
        ("infos", [f"info {i}" for i in range(33)]),
        ("infos", ["one"]),  # the body has no number for it
    ],
)
def test_a_field_of_the_header_must_be_in_range(name: str, value: Any) -> None:
    assert refusal(seal(HEADER | {name: value}, BODY)) == "schema"


@pytest.mark.parametrize("changes", [{"num_envs": 1}, {"num_envs": 3}, {"num_envs": MAX_ENVS}])
def test_a_number_of_environments_that_does_not_fit_the_body_is_refused(
    changes: dict[str, int],
) -> None:
    assert refusal(seal(HEADER | changes, BODY)) == "schema"


def test_infos_of_more_numbers_than_a_block_may_have_are_refused() -> None:
    # given 4,097 episodes with a number each
    spec = make_spec(ObservationSpec((2,), "float32"), unroll_length=100)
    header, body = opened(pack_block(make_block(spec, 100, 4097), spec))

    # when / then
    assert refusal(seal(header | {"infos": ["one"]}, body + bytes(4 * 4097)), spec) == "schema"


@pytest.mark.parametrize("num_episodes", [0, 2, 4])
def test_a_number_of_episodes_that_does_not_fit_the_body_is_refused(num_episodes: int) -> None:
    assert refusal(seal(HEADER | {"num_episodes": num_episodes}, BODY)) == "schema"


@pytest.mark.parametrize("body", [b"", BODY[:-1], BODY[:-4], BODY + b"\0", BODY + bytes(12)])
def test_a_body_longer_or_shorter_than_the_spec_asks_is_refused(body: bytes) -> None:
    assert refusal(seal(HEADER, body)) == "schema"


@pytest.mark.parametrize("version", [True, 1.0, "1", None, -1, 2**53 + 1])
def test_the_version_of_weights_must_be_a_whole_number_in_range(version: Any) -> None:
    header, body = opened(WEIGHTS_MESSAGE)
    with pytest.raises(MessageRefused) as caught:
        unpack_weights(seal(header | {"version": version}, body, kind=WEIGHTS), SPEC)
    assert caught.value.reason == "schema"


@both_dtypes
@pytest.mark.parametrize("change", [-4, -2, -1, 1, 2, 4])
def test_weights_longer_or_shorter_than_the_network_are_refused(
    change: int, message: bytes, spec: RunSpec
) -> None:
    header, body = opened(message)
    changed = body[:change] if change < 0 else body + bytes(change)
    with pytest.raises(MessageRefused) as caught:
        unpack_weights(seal(header, changed, kind=WEIGHTS), spec)
    assert caught.value.reason == "schema"


def test_fields_that_a_header_has_beyond_ours_are_not_looked_at() -> None:
    assert_same_block(unpack_block(seal(HEADER | {"more": 1}, BODY), SPEC), make_block(SPEC))


# What is refused by the numbers in the rows.


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("actions", -1, "range"),
        ("actions", SPEC.action.sizes[0], "range"),
        ("actions", 2**31 - 1, "range"),
        ("discounts", -0.1, "range"),
        ("discounts", 1.1, "range"),
        ("discounts", np.nan, "nonfinite"),
        ("discounts", np.inf, "nonfinite"),
        ("behaviour_log_probs", 1e-6, "range"),
        ("behaviour_log_probs", 5.0, "range"),
        ("behaviour_log_probs", np.nan, "nonfinite"),
        ("behaviour_log_probs", -np.inf, "nonfinite"),
        ("rewards", np.nan, "nonfinite"),
        ("rewards", np.inf, "nonfinite"),
        ("rewards", -np.inf, "nonfinite"),
        ("rewards", 1.1e9, "range"),
        ("rewards", -3.4e38, "range"),
        ("behaviour_log_probs", -1.1e9, "range"),
        ("behaviour_log_probs", -3.4e38, "range"),
        ("observations", np.nan, "nonfinite"),
        ("observations", np.inf, "nonfinite"),
    ],
)
@pytest.mark.parametrize("place", [(0, 0), (1, 1), (1, 2)])
def test_a_number_that_cannot_be_costs_its_column_wherever_it_stands(
    name: str, value: float, reason: str, place: tuple[int, int]
) -> None:
    # given
    block = make_block(SPEC, num_envs=3)
    getattr(block.trajectory, name)[place] = value

    # when / then
    assert_costs_its_column(block, place[1], reason)


@pytest.mark.parametrize(
    ("name", "value"), [("rewards", 1e9), ("rewards", -1e9), ("behaviour_log_probs", -1e9)]
)
def test_the_largest_number_that_is_allowed_costs_nothing(name: str, value: float) -> None:
    # given
    block = make_block(SPEC, num_episodes=0)
    getattr(block.trajectory, name)[1, 0] = value

    # when / then
    assert_same_block(unpack_block(pack_block(block, SPEC), SPEC), block)


def test_columns_with_different_faults_are_counted_each_under_its_first() -> None:
    # given four columns, of which three are unfit and one of them for two causes
    block = make_block(SPEC, num_envs=4)
    rows = block.trajectory
    rows.observations[0, 0] = np.nan
    rows.rewards[0, 0] = rows.rewards[1, 2] = np.inf
    rows.actions[1, 3] = 99

    # when
    found = unpack_block(pack_block(block, SPEC), SPEC)

    # then
    assert [(u.reason, u.kind, u.columns) for u in found.unfit] == [
        ("nonfinite", "observations", 1),
        ("nonfinite", "rewards", 1),
        ("range", "actions", 1),
    ]
    np.testing.assert_array_equal(found.trajectory.rewards, rows.rewards[:, 1:2])


def test_a_block_without_a_fit_column_is_refused_for_its_first_fault() -> None:
    # given
    block = make_block(SPEC, num_envs=2)
    block.trajectory.rewards[0, 0] = np.nan
    block.trajectory.actions[0, 1] = 99

    # when
    with pytest.raises(MessageRefused) as caught:
        unpack_block(pack_block(block, SPEC), SPEC)

    # then
    assert (caught.value.reason, caught.value.kind) == ("nonfinite", "rewards")


def test_each_cause_has_words_on_the_screens() -> None:
    # given a block for each field, with a NaN or a number out of range in it
    spec = dataclasses.replace(SPEC, lstm_size=1)
    for name, kind in (
        ("observations", "observations"),
        ("is_first", "flags"),
        ("actions", "actions"),
        ("rewards", "rewards"),
        ("discounts", "flags"),
        ("behaviour_log_probs", "log_probs"),
        ("mask", "flags"),
        ("memory", "memory"),
    ):
        block = make_block(spec, num_episodes=0)
        values = getattr(block.trajectory, name)
        values[...] = 0
        if values.dtype == bool:
            values.view(np.uint8)[0, 1] = 7
        else:
            values[0, 1] = np.nan if values.dtype.kind == "f" else 99

        # when
        (unfit,) = unpack_block(pack_block(block, spec), spec).unfit

        # then
        assert unfit.kind == kind
        assert f"refused_{kind}" in REFUSALS


def test_a_hostile_block_of_many_columns_costs_one_pass() -> None:
    # given a block of the most columns, all of them unfit but for one
    block = make_block(SPEC, num_envs=MAX_ENVS)
    block.trajectory.rewards[0, 1:] = np.nan
    message = pack_block(block, SPEC)

    # when
    started = time.perf_counter()
    found = unpack_block(message, SPEC)
    elapsed_s = time.perf_counter() - started

    # then
    assert found.trajectory.actions.shape[1] == 1
    assert elapsed_s < 0.2


@pytest.mark.parametrize("value", [2, 128, 255])
@pytest.mark.parametrize("name", ["is_first", "mask"])
def test_a_flag_that_is_neither_zero_nor_one_costs_its_column(name: str, value: int) -> None:
    # given
    block = make_block(SPEC)
    getattr(block.trajectory, name).view(np.uint8)[1, 1] = value

    # when / then
    assert_costs_its_column(block, 1, "range")


@pytest.mark.parametrize("value", [-1, 5, 2**62])
def test_an_index_that_the_environment_cannot_give_costs_its_column(value: int) -> None:
    # given
    block = make_block(INDEX)
    block.trajectory.observations[2, 1] = value

    # when / then
    assert_costs_its_column(block, 1, "range", INDEX)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_observation_in_float64_must_be_finite_too(value: float) -> None:
    # given
    spec = make_spec(ObservationSpec((2,), "float64"))
    block = make_block(spec)
    block.trajectory.observations[2, 1, 1] = value

    # when / then
    assert_costs_its_column(block, 1, "nonfinite", spec)


@pytest.mark.parametrize("value", [1e39, -1e300])
def test_an_observation_in_float64_must_be_one_in_float32(value: float) -> None:
    # given
    spec = make_spec(ObservationSpec((2,), "float64"))
    block = make_block(spec)
    block.trajectory.observations[0, 0, 1] = value

    # when / then
    assert_costs_its_column(block, 0, "range", spec)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_a_return_that_is_not_finite_costs_its_episode_alone(value: float) -> None:
    # given
    episodes = (Episode(1.0, 3, 0), Episode(value, 3, 1), Episode(2.0, 4, 2))
    block = make_block(SPEC, num_envs=3)._replace(episodes=episodes)

    # when
    found = unpack_block(pack_block(block, SPEC), SPEC)

    # then
    assert found.episodes == (episodes[0], episodes[2])
    assert (found.episodes_left_out, found.unfit) == (1, ())
    np.testing.assert_array_equal(found.trajectory.rewards, block.trajectory.rewards)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_an_info_that_is_not_finite_is_absent(value: float) -> None:
    # given
    infos = {"success": value, "distance": 2.0}
    block = make_block(SPEC)._replace(episodes=(Episode(1.0, 3, 0, infos),))

    # when
    (episode,) = unpack_block(pack_block(block, SPEC), SPEC).episodes

    # then
    assert dict(episode.infos) == {"distance": 2.0}


@pytest.mark.parametrize("column", [-1, 2, 2**31 - 1, -(2**31)])
def test_an_episode_is_of_one_of_the_blocks_environments(column: int) -> None:
    block = make_block(SPEC, num_envs=2)._replace(episodes=(Episode(1.0, 3, column),))
    assert refusal(pack_block(block, SPEC)) == "range"


@pytest.mark.parametrize("length", [0, -1, -(2**31)])
def test_an_episode_that_ended_has_at_least_one_step(length: int) -> None:
    block = make_block(SPEC)._replace(episodes=(Episode(1.0, length, 0),))
    assert refusal(pack_block(block, SPEC)) == "range"


@pytest.mark.parametrize("name", list(SPEC.parameter_shapes()))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_must_be_finite(name: str, value: float) -> None:
    # given
    weights = make_weights(SPEC)
    weights[name].flat[-1] = value

    # when / then
    with pytest.raises(MessageRefused) as caught:
        unpack_weights(pack_weights(weights, 1, SPEC), SPEC)
    assert caught.value.reason == "nonfinite"


@pytest.mark.parametrize("upper", [0x7F80, 0xFF80, 0x7F81, 0x7FC0, 0xFFFF], ids=hex)
def test_weights_in_bfloat16_must_be_finite(upper: int) -> None:
    # given
    header, body = opened(HALF_MESSAGE)
    changed = body[:-2] + struct.pack("<H", upper)

    # when / then
    with pytest.raises(MessageRefused) as caught:
        unpack_weights(seal(header, changed, kind=WEIGHTS), HALF)
    assert caught.value.reason == "nonfinite"


# What would blow up or run away.


@pytest.mark.parametrize(
    "header",
    [
        b"\xdd\xff\xff\xff\xff",  # a list of 2^32 - 1 items
        b"\xdf\xff\xff\xff\xff",  # a map of as many
        b"\xdb\xff\xff\xff\xff",  # a text of as many bytes
        b"\xc6\xff\xff\xff\xff",  # bytes
        b"\xc9\xff\xff\xff\xff\x05",  # an extension type
        b"\x81\xa4spec\xdd\xff\xff\xff\xff",
        b"\x91" * 60_000,
        b"\x91" * 60_000 + b"\xc0",
        b"\xdc\x00\x40" * 20_000,  # lists of 64 in lists of 64
        (b"\x81\xa1a") * 20_000 + b"\xc0",
        msgpack.packb(HEADER | {"num_envs": MAX_ENVS, "num_episodes": MAX_ENVS}),
    ],
    ids=lambda header: f"{header[:8].hex()} {len(header)}",
)
def test_a_header_made_to_exhaust_the_reader_is_refused_at_once(header: bytes) -> None:
    # given
    message = seal(header, b"")

    # when
    tracemalloc.start()
    started = time.perf_counter()
    reason = refusal(message)
    elapsed_s = time.perf_counter() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    # then
    assert reason in {"malformed", "schema"}
    assert elapsed_s < 0.5
    assert peak < 1_000_000


@pytest.mark.parametrize("name", ["spec", "actor", "num_envs", "unroll_s"])
@pytest.mark.parametrize("depth", [100, 500, 1000, 1020, 1024, 2000])
def test_a_deeply_nested_field_is_refused_like_any_other(name: str, depth: int) -> None:
    # given
    packed = msgpack.packb(HEADER | {name: "@"})
    message = seal(packed.replace(msgpack.packb("@"), b"\x91" * depth + b"\xc0"), BODY)

    # when / then
    assert refusal(message) in {"malformed", "spec", "schema"}


def damaged(rng: np.random.Generator, message: bytes) -> bytes:
    """The message with a few bytes changed, cut out, doubled or put in."""
    data = bytearray(message)
    for _ in range(rng.integers(1, 4)):
        start = int(rng.integers(len(data)))
        end = min(len(data), start + int(rng.choice([1, 1, 4, 8, 30])))
        match rng.integers(5):
            case 0:
                data[start] = int(rng.integers(256))
            case 1:
                data[start] ^= 1 << int(rng.integers(8))
            case 2:
                del data[start:end]
            case 3:
                data[start:start] = data[start:end]
            case _:
                data[start:end] = rng.bytes(end - start)
    return bytes(data)


def resealed(message: bytes, header_length: int) -> bytes:
    """Prefix, lengths and checksum made to fit what is there."""
    rest = message[PREFIX.size :]
    return seal(rest[:header_length], rest[header_length:])


STRANGE = [None, True, 0, 1, -1, 2, 3, 2**53, 2**64 - 1, 0.5, float("nan"), "", "x", b"x", [], {}]


def test_thousands_of_damaged_messages_are_refused_or_valid_and_nothing_else() -> None:
    # given
    rng = np.random.default_rng(20_180_205)
    header_length = PREFIX.unpack_from(MESSAGE)[3]
    seen: dict[str, int] = {}

    for number in range(4000):
        # when: half of them keep a right checksum, so that the deeper checks are reached
        match number % 4:
            case 0 | 1:
                message = damaged(rng, MESSAGE)
            case 2:
                message = resealed(damaged(rng, MESSAGE), header_length)
            case _:
                name = str(rng.choice([*HEADER, "more"]))
                header = HEADER | {name: STRANGE[rng.integers(len(STRANGE))]}
                message = seal(header, damaged(rng, BODY) if number % 8 == 3 else BODY)
        try:
            block = unpack_block(message, SPEC)
        except MessageRefused as error:
            seen[error.reason] = seen.get(error.reason, 0) + 1
            continue

        # then: what is taken is within all bounds, and is written as it was read
        seen["taken"] = seen.get("taken", 0) + 1
        rows = block.trajectory
        assert rows.actions.min() >= 0
        assert rows.actions.max() < SPEC.action.sizes[0]
        assert all(np.isfinite(array).all() for array in rows)
        if not block.unfit:
            assert_same_block(unpack_block(pack_block(block, SPEC), SPEC), block)

    assert set(seen) == REASONS | {"taken"}


@both_dtypes
def test_thousands_of_damaged_weights_are_refused_or_finite_and_nothing_else(
    message: bytes, spec: RunSpec
) -> None:
    # given
    whole, rng = message, np.random.default_rng(20_180_206)
    header, body = opened(whole)
    header_length = PREFIX.unpack_from(whole)[3]
    seen: dict[str, int] = {}

    for number in range(2000):
        # when
        message = damaged(rng, whole)
        if number % 2:
            rest = message[PREFIX.size :]
            message = seal(rest[:header_length], rest[header_length:], kind=WEIGHTS)
        if number % 5 == 0:
            message = seal(header, rng.bytes(len(body)), kind=WEIGHTS)
        try:
            _, weights, _ = unpack_weights(message, spec)
        except MessageRefused as error:
            seen[error.reason] = seen.get(error.reason, 0) + 1
            continue

        # then
        seen["taken"] = seen.get("taken", 0) + 1
        assert all(np.isfinite(array).all() for array in weights.values())

    assert set(seen) <= REASONS | {"taken"}
    assert {"malformed", "spec", "schema", "nonfinite", "taken"} <= set(seen)
