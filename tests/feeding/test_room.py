"""Large compressed blocks: their observations are unpacked to a batch, and are none's twice."""

import random
from typing import Any

import numpy as np
import pytest

from impala_redis.common.blocks import bodies, compression
from impala_redis.common.blocks.trajectory import Block, Origin, Trajectory, empty_trajectory
from impala_redis.common.blocks.wire import pack_block, unpack_block
from impala_redis.common.errors import MessageRefused
from impala_redis.common.feeding.batch import Batch
from impala_redis.common.run.spaces import ObservationPart, ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec

pytest.importorskip("zstandard")

WIDTH = 3  # of a block
PARTS = (ObservationPart("a", (3,), "uint8", ()), ObservationPart("b", (2,), "float32", (), 4))
KINDS = {
    "stacked frames": ObservationSpec((7, 5), "uint8", frame_stack=4),
    "numbers": ObservationSpec((4,), "float32"),
    "one number": ObservationSpec((), "float64"),
    "parts": ObservationSpec((12,), "uint8", parts=PARTS),
}


@pytest.fixture(autouse=True)
def every_block_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "LARGE_NBYTES", 1)


def make_spec(kind: str) -> RunSpec:
    return RunSpec(
        run="test",
        env="Test-v0",
        observation=KINDS[kind],
        action=discrete(3),
        hidden_sizes=(),
        activation="tanh",
        unroll_length=5,
        envs_per_actor=WIDTH,
        queue_blocks=1,
        max_policy_age_s=600.0,
        seed=0,
        compression="zstd",
    )


def make_rows(spec: RunSpec, seed: int = 0) -> Trajectory:
    """Valid rows, of which no two columns look alike."""
    rng = np.random.default_rng(seed)
    rows = empty_trajectory(spec, WIDTH)
    for array in rows:
        array[...] = 1
    shape = rows.observations.shape
    rows.observations[...] = rng.integers(0, 100, shape)
    for part in spec.observation.parts:
        values = np.ascontiguousarray(rng.integers(0, 100, (*shape[:2], *part.shape)), part.dtype)
        stop = part.start + part.num_bytes
        rows.observations[..., part.start : stop] = values.view(np.uint8).reshape(*shape[:2], -1)
    rows.rewards[...] = rng.random(rows.rewards.shape)
    rows.behaviour_log_probs[...] = -0.5
    return rows


def message_of(spec: RunSpec, rows: Trajectory) -> bytes:
    return pack_block(Block(Origin("a", 7, 1, 3), rows, (), 0.25), spec)


def empty_batch(spec: RunSpec, columns: int) -> Batch:
    batch = Batch(empty_trajectory(spec, columns))
    for array in batch.rows:
        array[...] = 0
    return batch


def columns_of(batch: Batch, columns: slice) -> list[Any]:
    return [array[:, columns] for array in batch.rows]


def assert_same(one: Any, other: Any) -> None:
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("columns", [WIDTH, 2 * WIDTH + 1])
def test_the_observations_are_unpacked_to_the_batch_that_has_room(kind: str, columns: int) -> None:
    # given a batch that has a column, but for where the block fills it all
    spec, first = make_spec(kind), columns - WIDTH
    rows, batch = make_rows(spec), empty_batch(spec, columns)
    batch.filled = first

    # when
    block = unpack_block(message_of(spec, rows), spec, batch.room)
    written = batch.rows.observations[:, first:].copy()
    taken = batch.take(block.trajectory, 0, 3)

    # then they are there before the block is taken, and nothing else has changed
    assert_same([written], [rows.observations])
    assert np.shares_memory(block.trajectory.observations, batch.rows.observations)
    assert (taken, batch.filled) == (WIDTH, columns)
    assert_same(columns_of(batch, slice(first, None)), rows)
    assert all(not array.any() for array in columns_of(batch, slice(first)))


def test_a_block_for_which_the_batch_has_too_few_columns_is_spread_over_two() -> None:
    # given
    spec = make_spec("stacked frames")
    rows, batch, second = make_rows(spec), empty_batch(spec, 2), empty_batch(spec, 2)

    # when
    block = unpack_block(message_of(spec, rows), spec, batch.room)
    taken = batch.take(block.trajectory, 0, 3)
    second.take(block.trajectory, taken, 3)

    # then
    assert_same(batch.rows, [array[:, :2] for array in rows])
    assert_same(columns_of(second, slice(1)), [array[:, 2:] for array in rows])


def test_what_is_left_of_a_block_with_an_unfit_column_is_taken_whole() -> None:
    # given
    spec = make_spec("stacked frames")
    rows, batch = make_rows(spec), empty_batch(spec, WIDTH)
    rows.rewards[2, 1] = np.nan

    # when
    block = unpack_block(message_of(spec, rows), spec, batch.room)
    batch.take(block.trajectory, 0, 3)

    # then
    assert (block.left_out, batch.filled) == ((1,), 2)
    assert_same(columns_of(batch, slice(2)), [array[:, [0, 2]] for array in rows])


def test_a_refused_block_leaves_its_place_to_the_next() -> None:
    # given a block whose discounts, behind the observations, cannot be
    spec = make_spec("numbers")
    bad, rows, batch = make_rows(spec), make_rows(spec, seed=1), empty_batch(spec, WIDTH)
    bad.discounts[...] = 2

    # when
    with pytest.raises(MessageRefused):
        unpack_block(message_of(spec, bad), spec, batch.room)
    assert batch.filled == 0
    batch.take(unpack_block(message_of(spec, rows), spec).trajectory, 0, 3)

    # then
    assert_same(batch.rows, rows)


def test_no_frame_that_is_refused_as_a_whole_is_accepted_in_pieces() -> None:
    # given frames that were cut, or changed in some places, and whole ones
    rng = random.Random(0)
    data = np.random.default_rng(0).integers(0, 4, 200_000, np.uint8).tobytes()
    frame = compression.compressed(data)
    frames = [frame, frame[:-1], frame[:-3], frame[: len(frame) // 2], frame + b"more", frame * 2]
    for _ in range(100):
        changed = bytearray(frame)
        for _ in range(rng.randrange(1, 4)):
            changed[rng.randrange(rng.choice([30, len(frame)]))] = rng.randrange(256)
        frames.append(bytes(changed))

    accepted = 0
    for one in map(memoryview, frames):
        pieces = [memoryview(bytearray(size)) for size in (1, 150_000, 49_999)]
        try:
            compression.decompress_into(one, "zstd", pieces)
        except MessageRefused as error:
            assert error.reason == "schema"
        else:
            # then it is the same as a whole, which is not refused
            whole = compression.decompressed(one, "zstd", len(data))
            assert b"".join(pieces) == whole
            accepted += 1
    assert 0 < accepted < len(frames)
