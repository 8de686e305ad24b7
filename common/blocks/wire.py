"""Messages: the bytes of blocks and weights. Nothing read here can execute; nothing is trusted.

A message is, little-endian:

    offset  size  field
         0     4  magic, b"IMPA"
         4     2  wire version
         6     2  kind: 1 block, 2 weights
         8     4  length of the header in bytes, at most 64 KiB
        12     8  length of the body in bytes
        20     4  CRC-32 of header and body
        24     -  header: one msgpack map
         -     -  body: raw tensors back to back, in the order of the tables below

Shapes and dtypes are never taken from the message: the reader derives them from its own run spec
and from the number of environments, and the lengths must then agree to the byte. Only after that
are arrays made.

The body of a block has the arrays of a `Trajectory` in their order, then those of the K episodes
that ended in it: float32 returns [K], int32 lengths [K], int32 columns [K] and float32 infos
[K, I]. The header lists the I names of the infos; NaN stands where an episode has none of that
name. All of the body is one Zstandard frame if the header says so. The body of weights has the
spec's parameters in its order, in the spec's `weights_dtype`; a bfloat16 is the upper half of a
float32. Behind them are the statistics in their order, float32.
"""

import contextlib
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from impala_redis.common.blocks import bodies, compression, episodes
from impala_redis.common.blocks.bfloat16 import rounded, widened
from impala_redis.common.blocks.checks import fit_part
from impala_redis.common.blocks.trajectory import Block, Origin, Trajectory, layout
from impala_redis.common.blocks.weights import VersionedWeights, Weights
from impala_redis.common.errors import MessageRefused
from impala_redis.common.run.spec import WIRE_VERSION, RunSpec
from impala_redis.common.settings.declaring import MAX_ENVS, MAX_INFOS, is_name

# Gives the place of the observations of a block of so many columns; None where there is none.
Room = Callable[[int], NDArray[Any] | None]

MAGIC = b"IMPA"
BLOCK, WEIGHTS = 1, 2
PREFIX = struct.Struct("<4sHHIQI")
MAX_HEADER_BYTES = 65_536
MAX_SEQUENCE = 2**53  # the largest that a server-side function counts exactly

_LIMITS = {
    "raw": False,
    "strict_map_key": True,
    "max_str_len": 256,
    "max_bin_len": 64,
    "max_array_len": 64,
    "max_map_len": 64,
    "max_ext_len": 0,
}


def pack_block(block: Block, spec: RunSpec) -> bytes:
    """The message with a block of that run."""
    origin, rows = block.origin, block.trajectory
    names = episodes.info_names(block.episodes)
    header = {
        "spec": spec.fingerprint,
        "actor": origin.actor,
        "incarnation": origin.incarnation,
        "sequence": origin.sequence,
        "weights_version": origin.weights_version,
        "num_envs": rows.actions.shape[1],
        "num_episodes": len(block.episodes),
        "infos": names,
        "unroll_s": float(block.unroll_s),
        "codec": spec.compression,
    }
    ended = episodes.as_arrays(block.episodes, names)
    return _pack(BLOCK, header, [*rows, *ended], spec.compression)


def unpack_block(message: bytes, spec: RunSpec, room: Room | None = None) -> Block:
    """The block in `message`, without the columns and episodes whose numbers are unfit.

    Its arrays are read-only views into the message, or copies if columns were left out. The
    observations of a large compressed block are unpacked to the `room` that there is for them.

    Raises MessageRefused, with the reason that names its counter: "malformed" (no message, cut, or
    damaged), "version", "spec" (another run's), "schema" (lengths that do not fit the spec),
    "range" (a count, an episode or a number in each column cannot be) or "nonfinite" (in each).
    """
    header, body = _unpack(message, BLOCK, spec)
    try:
        return _block(header, body, spec, room)
    except MessageRefused as error:
        with contextlib.suppress(MessageRefused):
            error.actor = _text(header, "actor")
        raise


def _block(header: dict[str, Any], body: memoryview, spec: RunSpec, room: Room | None) -> Block:
    """The block of that header and body. Raises MessageRefused."""
    num_envs = _count(header, "num_envs", 1, MAX_ENVS)
    # Behind each end is a fake row, or the block's end.
    num_episodes = _count(header, "num_episodes", 0, num_envs * ((spec.unroll_length + 1) // 2))
    names = _info_names(header, num_episodes)
    rows_layout = layout(spec, num_envs)
    parts = [*rows_layout, *episodes.layout(num_episodes, len(names))]
    if _text(header, "codec") != "none":
        if num_envs > spec.envs_per_actor:  # a few bytes could unpack to gigabytes
            raise MessageRefused("schema", f"a packed block of more than {spec.envs_per_actor}")
        is_large = bodies.size(parts) >= bodies.LARGE_NBYTES
        place = room(num_envs) if room and is_large else None
        arrays = bodies.unpacked(body, header["codec"], parts, place)
    else:
        arrays = bodies.split(body, parts)
    rows = Trajectory(*arrays[: len(rows_layout)])
    trajectory, fit, unfit = fit_part(rows, spec)
    ended = episodes.from_arrays(arrays[len(rows_layout) :], names, trajectory, fit)
    return Block(
        origin=Origin(
            actor=_text(header, "actor"),
            incarnation=_count(header, "incarnation", 0, 2**63),
            sequence=_count(header, "sequence", 1, MAX_SEQUENCE),
            weights_version=_count(header, "weights_version", 0, MAX_SEQUENCE),
        ),
        trajectory=trajectory,
        episodes=ended,
        unroll_s=_seconds(header, "unroll_s"),
        unfit=unfit,
        episodes_left_out=num_episodes - len(ended),
        left_out=tuple(np.flatnonzero(~fit).tolist()) if unfit else (),
        tasks=tuple(rows.tasks.reshape(-1).tolist()),
    )


def pack_weights(weights: Weights, version: int, spec: RunSpec, progress: float = 0.0) -> bytes:
    """The message with a network's parameters, in the spec's order and `weights_dtype`.

    Statistics follow, always as float32. `progress` is the share of the training that is done.

    Raises NotFinite: a parameter has no finite bfloat16. Float32 is checked by the reader.
    """
    header = {"spec": spec.fingerprint, "version": version, "progress": float(progress)}
    tensors: list[NDArray[Any]] = [
        np.asarray(weights[name], "<f4") for name in spec.parameter_shapes()
    ]
    if spec.weights_dtype == "bfloat16":
        tensors = [rounded(np.concatenate([tensor.reshape(-1) for tensor in tensors]))]
    tensors += [np.asarray(weights[name], "<f4") for name in spec.statistic_shapes()]
    return _pack(WEIGHTS, header, tensors)


def unpack_weights(message: bytes, spec: RunSpec) -> VersionedWeights:
    """The version and the float32 arrays in `message`, read-only. Raises MessageRefused."""
    header, body = _unpack(message, WEIGHTS, spec)
    shapes = spec.weight_shapes()
    if spec.weights_dtype == "bfloat16":
        halves, statistics = bodies.split(
            body, [("uint16", (spec.num_parameters,)), ("float32", (spec.num_statistics,))]
        )
        whole = np.concatenate([widened(halves), statistics])
        body = whole.view(np.uint8).data.toreadonly()
    tensors = bodies.split(body, [("float32", shape) for shape in shapes.values()])
    if not np.isfinite(np.frombuffer(body, "<f4")).all():
        raise MessageRefused("nonfinite", "the weights hold a NaN or an infinity")
    return VersionedWeights(
        _count(header, "version", 0, MAX_SEQUENCE),
        dict(zip(shapes, tensors, strict=True)),
        _share(header, "progress"),
    )


def block_nbytes(spec: RunSpec, num_envs: int) -> int:
    """An upper bound of the message with one block of `num_envs` environments, in bytes."""
    t, n = spec.unroll_length, num_envs
    body = bodies.size(layout(spec, n)) + episodes.most_nbytes(t * n)
    if spec.compression != "none":
        body = compression.most_bytes(body)
    return PREFIX.size + 1024 + episodes.NAMES_NBYTES + body


def weights_nbytes(spec: RunSpec) -> int:
    """An upper bound of the message with the run's weights, in bytes."""
    each = 2 if spec.weights_dtype == "bfloat16" else 4
    return PREFIX.size + 1024 + each * spec.num_parameters + 4 * spec.num_statistics


def _pack(
    kind: int, header: dict[str, Any], tensors: list[NDArray[Any]], codec: str = "none"
) -> bytes:
    packed: bytes = msgpack.packb(header)
    body: list[memoryview | bytes] = [
        memoryview(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data)
        for tensor in tensors
    ]
    if codec != "none":
        body = [compression.compressed(b"".join(body))]
    checksum = zlib.crc32(packed)
    for part in body:
        checksum = zlib.crc32(part, checksum)
    length = sum(map(len, body))
    prefix = PREFIX.pack(MAGIC, WIRE_VERSION, kind, len(packed), length, checksum)
    return b"".join([prefix, packed, *body])


def _unpack(message: bytes, kind: int, spec: RunSpec) -> tuple[dict[str, Any], memoryview]:
    """Header and body of a whole, undamaged message of this kind and run."""
    if len(message) < PREFIX.size or not message.startswith(MAGIC):
        raise MessageRefused("malformed", "the bytes do not start with a message's prefix")
    _, version, found_kind, header_length, body_length, checksum = PREFIX.unpack_from(message)
    if version != WIRE_VERSION:
        text = f"the message is of wire version {version}, not {WIRE_VERSION}"
        raise MessageRefused("version", text)
    whole = PREFIX.size + header_length + body_length
    if found_kind != kind or header_length > MAX_HEADER_BYTES or whole != len(message):
        raise MessageRefused("malformed", "the message's kind or lengths do not fit its bytes")
    rest = memoryview(message)[PREFIX.size :]
    if zlib.crc32(rest) != checksum:
        raise MessageRefused("malformed", "the message's checksum does not fit: it is damaged")
    try:
        header = msgpack.unpackb(rest[:header_length], **_LIMITS)
    except Exception as error:  # msgpack's errors have no common base
        text = f"the header is not msgpack: {str(error)[:80]}"
        raise MessageRefused("malformed", text) from error
    if not isinstance(header, dict):
        raise MessageRefused("malformed", "the header is not a map")
    found = header.get("spec")
    if found != spec.fingerprint:
        found = found[:32] if isinstance(found, str) else type(found).__name__
        raise MessageRefused("spec", f"the message is of spec {found}, not {spec.fingerprint}")
    return header, rest[header_length:]


def _count(header: dict[str, Any], name: str, least: int, most: int) -> int:
    value = header.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise MessageRefused("schema", f"the header's {name} is not in {least} .. {most}")
    return value


def _info_names(header: dict[str, Any], num_episodes: int) -> list[str]:
    names = header.get("infos")
    if not isinstance(names, list) or not all(map(is_name, names)):
        raise MessageRefused("schema", "the header's infos are not a list of names")
    if len(names) > MAX_INFOS or len(names) * num_episodes > episodes.MAX_NUMBERS:
        raise MessageRefused("schema", f"the header's {len(names)} infos are too many")
    if len(set(names)) < len(names):
        raise MessageRefused("schema", "a name stands twice in the header's infos")
    return names


def _seconds(header: dict[str, Any], name: str) -> float:
    value = header.get(name)
    if not isinstance(value, float) or not 0 <= value < float("inf"):
        raise MessageRefused("schema", f"the header's {name} is not a time")
    return value


def _share(header: dict[str, Any], name: str) -> float:
    value = header.get(name)
    if not isinstance(value, float) or not 0 <= value <= 1:
        raise MessageRefused("schema", f"the header's {name} is not in 0 .. 1")
    return value


def _text(header: dict[str, Any], name: str) -> str:
    value = header.get(name)
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", value):
        raise MessageRefused("schema", f"the header's {name} is not a name")
    return value
