"""Blocks of every kind of observation and action, with memory and compressed, on the wire."""

import dataclasses
from typing import Any

import msgpack
import numpy as np
import pytest
import zstandard

from impala_redis.common.blocks import compression
from impala_redis.common.blocks.trajectory import Block, Episode, Origin, empty_trajectory
from impala_redis.common.blocks.wire import PREFIX, block_nbytes, pack_block, unpack_block
from impala_redis.common.errors import ConfigError, MessageRefused
from impala_redis.common.run.spaces import ActionSpec, ObservationPart, ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec

PARTS = ObservationSpec(
    (24,),
    "uint8",
    parts=(
        ObservationPart("image", (2, 2), "uint8", (3, 4, 3, 4)),
        ObservationPart("speed", (2,), "float32", (), 8),
        ObservationPart("goal", (), "int32", (300,), 16),
    ),
)
PICTURES = ObservationSpec((6, 5), "uint8", frame_stack=4)


def make_spec(
    observation: ObservationSpec = PARTS, action: ActionSpec | None = None, **changes: Any
) -> RunSpec:
    fields: dict[str, Any] = {
        "run": "kinds",
        "env": "Kinds-v0",
        "observation": observation,
        "action": action or discrete(3),
        "hidden_sizes": (),
        "activation": "tanh",
        "unroll_length": 3,
        "envs_per_actor": 2,
        "queue_blocks": 1,
        "max_policy_age_s": 600.0,
        "seed": 0,
    }
    return RunSpec(**(fields | changes))


def make_block(spec: RunSpec, num_envs: int = 2) -> Block:
    """Valid rows in which everything is one, but for what must not be."""
    rows = empty_trajectory(spec, num_envs)
    for array in rows:
        array[...] = 1
    for part in spec.observation.parts:
        rows.observations[..., part.start : part.start + part.num_bytes] = (
            np.ones(part.shape, part.dtype).reshape(-1).view(np.uint8)
        )
    rows.behaviour_log_probs[...] = -0.5
    return Block(Origin("a", 7, 1, 3), rows, (Episode(3.0, 3, 0),), 0.25)


KINDS = {
    "parts": make_spec(),
    "stacked frames": make_spec(PICTURES),
    "several choices": make_spec(action=ActionSpec("multi_discrete", (2, 5))),
    "numbers": make_spec(action=ActionSpec("continuous", (2,))),
    "memory": make_spec(lstm_size=3, extra_inputs="last_action_reward"),
}


def refusal(message: bytes, spec: RunSpec) -> MessageRefused:
    with pytest.raises(MessageRefused) as caught:
        unpack_block(message, spec)
    return caught.value


def of_codec(message: bytes, codec: Any, body: bytes | None = None) -> bytes:
    """The message with another codec in its header, and perhaps another body."""
    from zlib import crc32

    _, version, kind, length, _, _ = PREFIX.unpack_from(message)
    header = msgpack.unpackb(message[PREFIX.size : PREFIX.size + length])
    packed = msgpack.packb(header | {"codec": codec})
    body = message[PREFIX.size + length :] if body is None else body
    checksum = crc32(packed + body)
    return PREFIX.pack(b"IMPA", version, kind, len(packed), len(body), checksum) + packed + body


@pytest.mark.parametrize("codec", ["none", "zstd"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_block_of_any_kind_reads_back_as_it_was_written(kind: str, codec: str) -> None:
    # given
    spec = dataclasses.replace(KINDS[kind], compression=codec)
    block = make_block(spec)

    # when
    message = pack_block(block, spec)
    read = unpack_block(message, spec)

    # then
    assert read._replace(trajectory=None) == block._replace(trajectory=None)  # type: ignore[arg-type]
    for mine, theirs in zip(block.trajectory, read.trajectory, strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
    assert len(message) <= block_nbytes(spec, 2)


def test_each_frame_of_a_stack_travels_once() -> None:
    # given an unroll of three steps whose network sees four frames at once
    rows = make_block(KINDS["stacked frames"]).trajectory

    # then three rows of history come before those of the unroll, and no more
    assert rows.observations.shape == (3 + 3 + 1, 2, 6, 5)


@pytest.mark.parametrize(
    ("kind", "field", "place", "value", "reason"),
    [
        ("parts", "observations", (0, 1, 3), 4, "range"),  # a cell of the image
        ("parts", "observations", (2, 0, 2), 3, "range"),
        ("parts", "observations", (1, 1, 17), 2, "range"),  # the goal: 513
        ("parts", "observations", (1, 1, 19), 128, "range"),  # below 0
        ("parts", "observations", (3, 0, slice(10, 12)), (0x80, 0x7F), "nonfinite"),  # the speed
        ("several choices", "actions", (0, 0, 0), 2, "range"),
        ("several choices", "actions", (2, 1, 1), -1, "range"),
        ("numbers", "actions", (0, 1, 1), np.nan, "nonfinite"),
        ("numbers", "actions", (2, 0, 0), -1e38, "range"),
        ("numbers", "behaviour_log_probs", (0, 1), np.inf, "nonfinite"),
        ("numbers", "behaviour_log_probs", (0, 1), 3e38, "range"),
        ("memory", "memory", (0, 1, 4), np.nan, "nonfinite"),
        ("memory", "memory", (0, 1, 2), 1e38, "range"),
    ],
)
def test_a_value_that_cannot_be_costs_its_column(
    kind: str, field: str, place: Any, value: Any, reason: str
) -> None:
    # given
    spec = KINDS[kind]
    block = make_block(spec)
    getattr(block.trajectory, field)[place] = value
    column = place[1]

    # when
    read = unpack_block(pack_block(block, spec), spec)

    # then the other column is left
    (unfit,) = read.unfit
    assert (unfit.reason, unfit.kind, unfit.columns) == (
        reason,
        {"behaviour_log_probs": "log_probs"}.get(field, field),
        1,
    )
    for mine, theirs in zip(block.trajectory, read.trajectory, strict=True):
        np.testing.assert_array_equal(mine[:, 1 - column : 2 - column], theirs)


def test_a_refusal_names_the_part() -> None:
    # given
    block = make_block(KINDS["parts"], num_envs=1)
    block.trajectory.observations[0, 0, 0] = 3

    # when / then
    said = str(refusal(pack_block(block, KINDS["parts"]), KINDS["parts"]))
    assert said == "an observation (image) is not in 0 .. 3"


def test_a_density_may_be_above_one() -> None:
    # given
    block = make_block(KINDS["numbers"])
    block.trajectory.behaviour_log_probs[...] = 3.0

    # when
    read = unpack_block(pack_block(block, KINDS["numbers"]), KINDS["numbers"])

    # then
    assert read.trajectory.behaviour_log_probs.max() == 3.0


def test_a_block_of_another_picture_size_is_refused() -> None:
    # given
    wider = make_spec(ObservationSpec((6, 6), "uint8", frame_stack=4))

    # when / then
    message = pack_block(make_block(wider), wider)
    assert refusal(message, KINDS["stacked frames"]).reason == "spec"


# Compression.


def test_pictures_get_smaller_and_noise_hardly_larger() -> None:
    # given
    spec = make_spec(ObservationSpec((84, 84), "uint8", frame_stack=4), compression="zstd")
    flat, noise = make_block(spec), make_block(spec)
    rng = np.random.default_rng(0)
    noise.trajectory.observations[...] = rng.integers(0, 256, noise.trajectory.observations.shape)

    # when
    small, large = len(pack_block(flat, spec)), len(pack_block(noise, spec))

    # then
    assert small < 0.05 * large
    assert large <= block_nbytes(spec, 2)


def test_blocks_of_both_kinds_are_read_side_by_side() -> None:
    # given a run whose compression was changed when it was resumed
    before, after = make_spec(), make_spec(compression="zstd")

    # when / then
    assert unpack_block(pack_block(make_block(before), before), after).episodes
    assert unpack_block(pack_block(make_block(after), after), before).episodes


@pytest.mark.parametrize("codec", ["zip", "lz5", "none "])
def test_an_unknown_codec_is_refused(codec: str) -> None:
    message = of_codec(pack_block(make_block(make_spec()), make_spec()), codec)
    assert refusal(message, make_spec()).reason == "schema"


@pytest.mark.parametrize("codec", [None, 1, b"zstd", ["zstd"], {}])
def test_a_codec_is_a_name(codec: Any) -> None:
    message = of_codec(pack_block(make_block(make_spec()), make_spec()), codec)
    assert refusal(message, make_spec()).reason == "schema"


def test_a_body_that_unpacks_to_more_or_less_than_the_spec_asks_is_refused() -> None:
    # given bodies of another length, rightly packed
    spec = make_spec(compression="zstd")
    message = pack_block(make_block(spec), spec)
    for plain in (b"", b"x" * 10, bytes(10**6)):
        packed = compression.compressed(plain)

        # when / then
        assert refusal(of_codec(message, "zstd", packed), spec).reason == "schema"
    said = zstandard.ZstdCompressor().compress(bytes(10**9 // 100))  # of ten megabytes
    assert refusal(of_codec(message, "zstd", said), spec).reason == "schema"


def test_a_packed_block_of_more_environments_than_an_actor_has_is_refused_unread() -> None:
    # given a few bytes that would unpack to many
    spec = make_spec(compression="zstd")
    larger = dataclasses.replace(spec, envs_per_actor=3)
    message = pack_block(make_block(larger, num_envs=3), larger)

    # when / then
    assert unpack_block(message, larger).episodes
    assert "more than 2" in str(refusal(message, spec))


def test_bytes_that_are_not_compressed_are_refused() -> None:
    # given
    spec = make_spec()
    message = pack_block(make_block(spec), spec)

    # when / then
    assert refusal(of_codec(message, "zstd"), spec).reason == "schema"


def test_without_zstandard_a_run_that_compresses_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a machine without it
    spec = make_spec(compression="zstd")
    message = pack_block(make_block(spec), spec)
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)

    # when / then
    with pytest.raises(ConfigError, match=r"pip install 'impala-redis\[zstd\]'"):
        compression.check_installed()
    assert "install zstandard" in str(refusal(message, spec))
