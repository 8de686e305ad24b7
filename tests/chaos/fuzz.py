"""A seeded fuzzer of all that is read from Redis: the messages of blocks and weights, and specs.

Half of the mutated messages get right lengths and a right checksum again, so that they pass the
gate and reach the msgpack header, the body and its numbers. `python fuzz.py SEED COUNT` reads so
many inputs in a process of its own and prints a report as JSON: how they ended, what went wrong,
the most CPU time that one took, and how far the process grew. `python fuzz.py messages` and `python
fuzz.py specs SIZE` measure, one by one, inputs that are made to exhaust a reader.
"""

import dataclasses
import json
import os
import random
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import numpy as np
from numpy.typing import NDArray

from impala_redis.common.blocks.trajectory import Block, Episode, Origin, empty_trajectory
from impala_redis.common.blocks.wire import pack_block, pack_weights, unpack_block, unpack_weights
from impala_redis.common.errors import MessageRefused, SpecMismatch
from impala_redis.common.run.spaces import (
    OBSERVATION_DTYPES,
    ObservationPart,
    ObservationSpec,
    discrete,
)
from impala_redis.common.run.spec import WIRE_VERSION, RunSpec
from impala_redis.common.tasks.task import Task

PREFIX = struct.Struct("<4sHHIQI")  # written down once more: the format is a contract
KINDS = {"block": 1, "weights": 2}
MOST_HEADER_BYTES = 65_536
# An input that took longer is read again: what the machine did meanwhile is not the reader's.
SLOW_S, TRIES = 0.05, 4
MOST_FAILURES = 10

NUMBERS = [
    0,
    1,
    -1,
    2,
    63,
    4097,
    65_536,
    2**31 - 1,
    2**31,
    2**53,
    2**53 + 1,
    2**63,
    2**64 - 1,
    -(2**63),
]
FLOATS = [0.0, -0.0, 0.5, 1e-45, -1e-45, 3.4e38, -3.4e38, 1e308, float("inf"), float("nan")]
STRANGE: list[Any] = [None, True, False, "", "x" * 65, "x" * 257, "\ud800", [], [1], {}, {"a": []}]
RAW = [struct.pack("<f", min(number, 3.4e38)) for number in FLOATS] + [
    *(struct.pack("<q", n) for n in (-1, 3, 2**31, 2**62)),
    *(struct.pack("<d", n) for n in (float("nan"), float("-inf"), 1e308)),
    *(b"\xff" * n for n in (1, 4, 8)),
    *(bytes(n) for n in (1, 4, 8)),
]
REST: dict[str, Any] = {"num_values": None, "parts": [], "frame_stack": 1, "scale": []}
# Values at the bounds of their fields, each of which a spec may have.
LARGE: dict[str, list[Any]] = {
    "envs_per_actor": [1, 4096],
    "unroll_length": [1, 10_000],
    "hidden_sizes": [[], [1], [65_536], [65_536] * 2, [65_536] * 64, [4096] * 3],
    "lstm_size": [0, 1, 4096, 65_536],
    "network": ["mlp", "shallow", "nature", "deep"],
    "extra_inputs": ["none", "last_action_reward"],
    "weights_dtype": ["float32", "bfloat16"],
    "max_policy_age_s": [1, 1.0, 1e9, 1e-300, 0.999],
    "seed": [0, 2**63 - 1],
    "start_frames": [0, 2**63],
    "observation": [
        {"shape": [2**24], "dtype": "uint8"} | REST,
        {"shape": [4096, 4096], "dtype": "float64"} | REST,
        {"shape": [210, 160, 3], "dtype": "uint8"} | REST,
        {"shape": [84, 84], "dtype": "uint8"} | REST | {"frame_stack": 16},
        {"shape": [], "dtype": "int64"} | REST | {"num_values": 65_536, "frame_stack": 16},
    ],
    "action": [
        {"kind": "discrete", "sizes": [65_536], "bounded": False},
        {"kind": "multi_discrete", "sizes": [1024] * 64, "bounded": False},
        {"kind": "continuous", "sizes": [65_536], "bounded": True},
    ],
}
LISTS = ("shape", "hidden_sizes", "sizes", "num_values", "scale")
TOKENS = [b"", b"0", b"-", b'"', b"[", b"]", b"{", b"}", b",", b":", b"e9", b"NaN", b"\xff", b"\\"]


class Case(NamedTuple):
    """One input: "block", "weights" or "spec"; the reader's own spec; the bytes."""

    kind: str
    spec: RunSpec
    data: bytes


class Sealed(NamedTuple):
    """A good message, taken apart."""

    kind: str
    spec: RunSpec
    header: dict[str, Any]
    body: bytes
    message: bytes


def seal(kind: int, header: bytes, body: bytes, version: int = WIRE_VERSION) -> bytes:
    """A message with right lengths and a right checksum, whatever is in it."""
    checksum = zlib.crc32(header + body)
    return PREFIX.pack(b"IMPA", version, kind, len(header), len(body), checksum) + header + body


def make_spec(observation: ObservationSpec, hidden_sizes: tuple[int, ...] = ()) -> RunSpec:
    """A run of small blocks: T = 2, two actions."""
    return RunSpec(
        run="fuzz",
        env="Fuzz-v0",
        observation=observation,
        action=discrete(2),
        hidden_sizes=hidden_sizes,
        activation="tanh",
        unroll_length=2,
        envs_per_actor=2,
        queue_blocks=4,
        max_policy_age_s=600.0,
        seed=0,
    )


def make_block(spec: RunSpec, num_envs: int, sequence: int = 1, actor: str = "fuzz") -> Block:
    """Valid rows: zeros where nothing else is asked, one episode that began before."""
    rows = empty_trajectory(spec, num_envs)
    for array in rows:
        array[:] = 0
    rows.behaviour_log_probs[:] = -0.5
    rows.discounts[:] = rows.mask[:] = 1
    episode = Episode(1.5, spec.unroll_length + 1, 0, {"x": 0.5})
    return Block(Origin(actor, 7, sequence, 0), rows, (episode,), 0.25)


SPECS = [
    make_spec(ObservationSpec((2,), "float32"), (2,)),
    make_spec(ObservationSpec((), "int64", 5)),
    make_spec(ObservationSpec((2, 1), "uint8")),
    make_spec(ObservationSpec((1,), "float64"), (1, 3)),
    dataclasses.replace(
        make_spec(
            ObservationSpec(
                (16,),
                "uint8",
                parts=(
                    ObservationPart("a", (2,), "float32"),
                    ObservationPart("b", (2,), "uint8", (3, 4), 8),
                ),
                frame_stack=2,
            )
        ),
        lstm_size=2,
        extra_inputs="last_action_reward",
        compression="zstd",
    ),
    dataclasses.replace(
        make_spec(ObservationSpec((1,), "float32")),
        tasks=(Task("near", "Fuzz-v0", share=2), Task("far", "Far-v0", env_kwargs='{"size": 3}')),
        num_tasks=2,
    ),
]


def _corpus() -> list[Sealed]:
    messages: list[tuple[str, RunSpec, bytes]] = []
    for spec in SPECS:
        messages += [("block", spec, pack_block(make_block(spec, n), spec)) for n in (1, 2)]
        shapes = spec.parameter_shapes()
        weights = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
        messages.append(("weights", spec, pack_weights(weights, 5, spec)))
    sealed = []
    for kind, spec, message in messages:
        length = PREFIX.unpack_from(message)[3]
        rest = message[PREFIX.size :]
        header: dict[str, Any] = msgpack.unpackb(rest[:length])
        sealed.append(Sealed(kind, spec, header, rest[length:], message))
    return sealed


class Fuzzer:
    """Draws cases, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._messages = _corpus()
        self._texts = [spec.to_json().encode() for spec in SPECS]

    def draw(self) -> Case:
        """The next input."""
        draw = self._random
        if draw.random() < 0.2:
            return Case("spec", SPECS[0], self._spec())
        good = draw.choice(self._messages)
        change = draw.choices(
            (self._damaged, self._with_body, self._with_header, self._spliced, self._bomb),
            (30, 30, 30, 8, 1),
        )[0]
        return Case(good.kind, good.spec, change(good))

    # Messages.

    def _damaged(self, good: Sealed) -> bytes:
        """Bytes changed with nothing put right, or the prefix's numbers changed."""
        if self._random.random() < 0.7:
            return self._mutated(good.message)
        fields = list(PREFIX.unpack_from(good.message))
        place, size = self._random.choice([(1, 16), (2, 16), (3, 32), (4, 64), (5, 32)])
        fields[place] = self._random.choice(NUMBERS) % 2**size
        return PREFIX.pack(*fields) + good.message[PREFIX.size :]

    def _with_body(self, good: Sealed) -> bytes:
        """Another body under a right checksum: extreme numbers, or other lengths."""
        draw, body = self._random, bytearray(good.body)
        if draw.random() < 0.3:
            body = bytearray(self._mutated(good.body))
        else:
            for _ in range(draw.randint(1, 2)):
                raw = draw.choice(RAW)
                start = draw.randrange(0, len(body), len(raw)) if body else 0
                body[start : start + len(raw)] = raw
        return seal(KINDS[good.kind], _packed(good.header), bytes(body))

    def _with_header(self, good: Sealed) -> bytes:
        """Another header under a right checksum: other values and types, or other bytes."""
        draw, header = self._random, dict(good.header)
        packed: bytes
        match draw.randrange(6):
            case 0 | 1 | 2:
                header[draw.choice([*header, "more"])] = self._value()
                packed = _packed(header)
            case 3:
                del header[draw.choice(list(header))]
                packed = _packed(header)
            case 4:  # a key that comes twice
                twice = _packed(draw.choice(list(header))) + _packed(self._value())
                packed = bytes([0x81 + len(header)]) + _packed(header)[1:] + twice
            case _:
                packed = self._mutated(_packed(header))
        return seal(KINDS[good.kind], packed, good.body)

    def _spliced(self, good: Sealed) -> bytes:
        """Parts of two messages, with and without a checksum that fits."""
        draw, other = self._random, self._random.choice(self._messages)
        match draw.randrange(4):
            case 0:
                cut, paste = draw.randrange(len(good.message)), draw.randrange(len(other.message))
                return good.message[:cut] + other.message[paste:]
            case 1:
                return good.message + other.message
            case 2:
                return seal(KINDS[other.kind], _packed(good.header), good.body)
            case _:
                return seal(KINDS[good.kind], _packed(good.header), other.body)

    def _bomb(self, good: Sealed) -> bytes:
        """A header that asks for far more than it is, whole or as one of the fields."""
        draw = self._random
        size = draw.choice((draw.randint(100, 60_000), draw.randint(60_000, 70_000)))
        bomb = header_bomb(draw, size)
        if draw.random() < 0.6:
            field = _packed(draw.choice([*good.header, "more"]))
            packed = _packed(good.header)
            bomb = bytes([0x81 + len(good.header)]) + packed[1:] + field + bomb
        return seal(KINDS[good.kind], bomb, good.body)

    # Specs.

    def _spec(self) -> bytes:
        draw = self._random
        text = draw.choice(self._texts)
        match draw.randrange(10):
            case 0 | 1 | 2:
                data = bytearray(text)
                for _ in range(draw.randint(1, 4)):
                    start = draw.randrange(len(data))
                    data[start : start + draw.choice((0, 1, 1, 2, 8))] = draw.choice(TOKENS)
                return bytes(data)
            case 3:
                return self._mutated(text)
            case 4:
                other = draw.choice(self._texts)
                return text[: draw.randrange(len(text))] + other[draw.randrange(len(other)) :]
            case 5 if draw.random() < 0.1:
                return spec_bomb(draw, text, draw.randint(10, 20_000))
            case _:
                return self._changed_document(json.loads(text))

    def _changed_document(self, document: dict[str, Any]) -> bytes:
        draw = self._random
        targets = [document["observation"], document["action"], *document["observation"]["parts"]]
        target = draw.choice(targets) if draw.random() < 0.4 else document
        for _ in range(draw.choice((0, 0, 1, 3, 6))):
            name, values = draw.choice(list(LARGE.items()))
            document[name] = draw.choice(values)
        name = draw.choice([*target, "more"])
        value = self._value()
        if name in LISTS and draw.random() < 0.8:
            value = [draw.choice(NUMBERS) for _ in range(draw.choice((1, 2, 2, 8, 9, 64, 65)))]
        elif name == "parts" and draw.random() < 0.8:
            value = draw.choice((target[name] * 2, target[name] * 65, [dict(target)], [[], 1]))
        target[name] = value
        if draw.random() < 0.1:
            del target[draw.choice(list(target))]
        return json.dumps(document).encode()

    # Both.

    def _value(self) -> Any:
        draw = self._random
        return draw.choice(draw.choice((NUMBERS, FLOATS, STRANGE, OBSERVATION_DTYPES)))

    def _mutated(self, data: bytes) -> bytes:
        """Bits flipped, bytes cut off, cut out, put in, doubled or replaced."""
        draw, changed = self._random, bytearray(data)
        for _ in range(draw.randint(1, 3)):
            start = draw.randrange(len(changed) + 1)
            end = start + draw.choice((1, 1, 2, 4, 8, 30))
            match draw.randrange(7):
                case 0 | 1 if start < len(changed):
                    changed[start] ^= 1 << draw.randrange(8)
                case 2:
                    del changed[start:]
                case 3:
                    del changed[start:end]
                case 4:
                    changed[start:start] = draw.randbytes(end - start)
                case 5:
                    changed[start:start] = changed[start:end]
                case _:
                    changed[start:end] = draw.choice(RAW)
        return bytes(changed)


def _packed(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    return packed


def header_bomb(draw: random.Random, size: int) -> bytes:
    """At most `size` bytes of msgpack that would need many times as much, or never end."""
    match draw.randrange(7):
        case 0:
            return bytes([draw.choice(b"\xdd\xdf\xdb\xc6\xc9")]) + draw.randbytes(4)
        case 1:
            return b"\x91" * draw.randint(1, min(size - 1, 2000)) + b"\xc0"
        case 2:
            return b"\x91" * (size - 1) + b"\xc0"
        case 3:  # lists of 64 in lists of 64, and so on
            return b"\xdc\x00\x40" * (size // 3)
        case 4:
            return b"\x81\xa1a" * (size // 3)
        case 5:  # complete: 64 lists of 64 lists of empty lists or maps
            empty = draw.choice((b"\x90", b"\x80", b"\xa0", b"\xc4\x00"))
            width = max(1, min(15, size // 64 // 64 - 1))
            inner = bytes([0x90 + width]) + empty * width
            return b"\xdc\x00\x40" + (b"\xdc\x00\x40" + inner * 64) * 64
        case _:
            return b"\xde\x00\x40" + b"\xa1a\x90" * (size // 3)


def spec_bomb(draw: random.Random, text: bytes, size: int) -> bytes:
    """About `size` bytes of JSON that are deep, long or endless, whole or as one of the fields."""
    bombs: list[Callable[[], bytes]] = [
        lambda: b"[" * size,
        lambda: b"[" * size + b"]" * size,
        lambda: b'{"a":' * (size // 5) + b"1" + b"}" * (size // 5),
        lambda: b"[" * draw.randint(900, 1000),
        lambda: (b"[" * (depth := draw.randint(900, 1000))) + b"]" * depth,
        lambda: b"9" * size,
        lambda: b"1e" + b"9" * 20,
        lambda: b'"' + rb"\u0000" * (size // 6) + b'"',
        lambda: b"[" + b"[]," * (size // 3) + b"1]",
        lambda: b'{"a":1' + b',"a":1' * (size // 6) + b"}",
    ]
    bomb = draw.choice(bombs)()
    if draw.random() < 0.3:
        return bomb
    name = draw.choice(list(json.loads(text)))
    return json.dumps(json.loads(text) | {name: "@"}).encode().replace(b'"@"', bomb)


def read(case: Case) -> str:
    """How the case ends: "taken", "mismatch" or the reason of the refusal.

    Raises whatever else a reader raises, and AssertionError when what it took is not sound.
    """
    try:
        if case.kind == "block":
            block = unpack_block(case.data, case.spec)
            _check_block(block, case.spec)
            whole = not (block.unfit or block.episodes_left_out)
            if whole and b"zstd" not in case.data:  # or its bytes are fewer
                infos = len(case_infos(case.data))
                episodes = np.empty((3 + infos) * len(block.episodes), "f4")
                _check_size(case.data, [*block.trajectory, episodes])
        elif case.kind == "weights":
            _, weights, _ = unpack_weights(case.data, case.spec)
            assert {n: w.shape for n, w in weights.items()} == case.spec.parameter_shapes()
            assert all(np.isfinite(array).all() for array in weights.values())
            _check_size(case.data, list(weights.values()))
        else:
            _check_spec(RunSpec.from_json(case.data))
    except MessageRefused as error:
        assert case.kind != "spec"
        assert len(str(error)) < 400
        return error.reason
    except SpecMismatch as error:
        assert case.kind == "spec"
        assert len(str(error)) < 600
        return "mismatch"
    return "taken"


def _check_block(block: Block, spec: RunSpec) -> None:
    rows, t = block.trajectory, spec.unroll_length
    n = rows.actions.shape[1]
    history = spec.observation.frame_stack - 1
    assert rows.observations.shape == (history + t + 1, n, *spec.observation.shape)
    assert rows.observations.dtype == spec.observation.dtype
    for array, length in zip(rows[1:-2], (t + 1, t, t, t, t, t), strict=True):
        assert array.shape == (length, n)
    assert rows.memory.shape == (1, n, spec.memory_size)
    assert rows.tasks.shape == (1, n, spec.task_size)
    assert ((rows.tasks >= 0) & (rows.tasks < spec.num_tasks)).all()
    assert all(np.isfinite(array).all() for array in rows)
    assert rows.actions.min() >= 0 and rows.actions.max() < spec.action.sizes[0]
    assert rows.discounts.min() >= 0 and rows.discounts.max() <= 1
    assert rows.behaviour_log_probs.max() <= 0
    if spec.observation.num_values:
        assert rows.observations.min() >= 0
        assert rows.observations.max() < spec.observation.num_values
    assert max(rows.mask.view(np.uint8).max(), rows.is_first.view(np.uint8).max()) <= 1
    assert all(abs(e.episode_return) < 4e38 and e.length > 0 for e in block.episodes)
    assert len(block.episodes) + block.episodes_left_out <= block.num_envs * t
    assert all(0 <= e.column < block.num_envs and len(e.infos) <= 32 for e in block.episodes)
    for name, value in (item for e in block.episodes for item in e.infos.items()):
        assert name.isprintable() and 1 <= len(name) <= 64 and np.isfinite(value)
    assert 0 <= block.unroll_s < float("inf")
    assert block.origin.sequence >= 1


def case_infos(message: bytes) -> list[str]:
    """The names of the infos that a good message lists."""
    length = PREFIX.unpack_from(message)[3]
    names: list[str] = msgpack.unpackb(message[PREFIX.size :][:length])["infos"]
    return names


def _check_size(message: bytes, arrays: list[NDArray[Any]]) -> None:
    header_bytes = PREFIX.unpack_from(message)[3]
    assert header_bytes <= MOST_HEADER_BYTES
    assert PREFIX.size + header_bytes + sum(array.nbytes for array in arrays) == len(message)


def _check_spec(spec: RunSpec) -> None:
    assert RunSpec.from_json(spec.to_json()) == spec
    counts = (*spec.hidden_sizes, *spec.observation.shape, spec.action.sizes[0], spec.unroll_length)
    assert all(type(count) is int for count in counts)
    assert 0 < spec.observation.num_features <= 16_777_216 * 16
    assert 1 <= spec.max_policy_age_s < float("inf")
    assert spec.rows_nbytes <= 2**29
    assert spec.num_parameters <= 2**28
    assert spec.envs_per_actor * spec.widest_layer <= 2**28
    assert len(spec.fingerprint) == 16


def cpu_s(case: Case, look: Callable[[Case], object] = read) -> float:
    """The least CPU time, of a few tries, that this thread needs to read the case."""
    times = []
    for _ in range(TRIES):
        started = time.thread_time()
        look(case)
        times.append(time.thread_time() - started)
        if times[-1] < SLOW_S:
            break
    return min(times)


def resident_mb() -> float:
    """What the process holds now."""
    return _status_mb("VmRSS")


def peak_mb() -> float:
    """The most that the process has held."""
    return _status_mb("VmHWM")


def _status_mb(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"/proc/self/status has no {name}")


def run(seed: int, count: int) -> dict[str, Any]:
    """Reads `count` inputs and reports."""
    fuzzer = Fuzzer(seed)
    outcomes: Counter[str] = Counter()
    failures: list[dict[str, Any]] = []
    slowest_s, before_mb = 0.0, resident_mb()
    for number in range(count):
        case = fuzzer.draw()
        started = time.thread_time()
        try:
            outcomes[f"{case.kind} {read(case)}"] += 1
            took_s = time.thread_time() - started
            if took_s > SLOW_S:
                took_s = cpu_s(case)
            slowest_s = max(slowest_s, took_s)
        except Exception as error:
            failures.append(
                {
                    "number": number,
                    "kind": case.kind,
                    "error": repr(error)[:300],
                    "data": case.data[:2000].hex(),
                }
            )
            if len(failures) >= MOST_FAILURES:
                break
    return {
        "seed": seed,
        "count": count,
        "outcomes": dict(sorted(outcomes.items())),
        "failures": failures,
        "slowest_s": slowest_s,
        "growth_mb": peak_mb() - before_mb,
    }


def message_bombs() -> dict[str, Case]:
    """Messages that are made to exhaust a reader, by name."""
    spec = SPECS[0]
    width = 14  # so that the whole is just below the longest header
    nested = b"\xdc\x00\x40" + (b"\xdc\x00\x40" + (b"\x9e" + b"@" * width) * 64) * 64
    headers = {
        "64 x 64 x 14 empty lists": nested.replace(b"@" * width, b"\x90" * width),
        "64 x 64 x 14 empty maps": nested.replace(b"@" * width, b"\x80" * width),
        "2^32 - 1 items": b"\xdd\xff\xff\xff\xff",
        "2^32 - 1 pairs": b"\xdf\xff\xff\xff\xff",
        "a text of 4 GB": b"\xdb\xff\xff\xff\xff",
        "lists of 64, without end": b"\xdc\x00\x40" * 21_000,
        "depth 1,000": b"\x91" * 1000 + b"\xc0",
        "depth 60,000": b"\x91" * 60_000 + b"\xc0",
        "depth 100,000": b"\x91" * 100_000 + b"\xc0",
        "20 MB of empty lists": b"\xdd\x01\x31\x2d\x00" + b"\x90" * 20_000_000,
    }
    made: dict[str, Case] = {}
    for good in [sealed for sealed in _corpus() if sealed.spec is spec][1:]:
        number, packed = KINDS[good.kind], _packed(good.header)
        for name, header in headers.items():
            inside = bytes([packed[0] + 1]) + packed[1:] + _packed("more") + header
            made[f"{good.kind}, {name}"] = Case(good.kind, spec, seal(number, header, good.body))
            made[f"{good.kind}, a field with {name}"] = Case(
                good.kind, spec, seal(number, inside, good.body)
            )
        most = _packed(
            good.header | {"num_envs": 4096, "num_episodes": 8192, "sequence": 2**64 - 1}
        )
        for name, message in {
            "the most environments": seal(number, most, good.body),
            "the largest lengths": PREFIX.pack(
                b"IMPA", WIRE_VERSION, number, 2**32 - 1, 2**64 - 1, 0
            ),
            "50 MB of zeros": seal(number, packed, bytes(50_000_000)),
        }.items():
            made[f"{good.kind}, {name}"] = Case(good.kind, spec, message)
    return made


def spec_bombs(size: int) -> dict[str, Case]:
    """JSON of about `size` bytes that is made to exhaust a reader, by name."""
    texts = {
        "empty lists": b"[" + b"[]," * (size // 3) + b"1]",
        "empty maps": b"[" + b"{}," * (size // 3) + b"1]",
        "one key": b'{"a":1' + b',"a":1' * (size // 6) + b"}",
        "digits": b"9" * size,
        "depth": b"[" * size,
        "escapes": b'"' + rb"\u0000" * (size // 6) + b'"',
        "spaces": b" " * size,
    }
    good = json.loads(SPECS[0].to_json()) | {"env": "@"}
    before, _, after = json.dumps(good).encode().partition(b'"@"')
    made = {f"spec, {name}": Case("spec", SPECS[0], text) for name, text in texts.items()}
    return made | {
        f"spec, a field with {name}": Case("spec", SPECS[0], before + text + after)
        for name, text in texts.items()
    }


def measure(case: Case) -> dict[str, Any]:
    """How a case ends, the CPU time of its reading, and how far a process of its own grows."""
    source, sink = os.pipe()
    if not (child := os.fork()):  # fresh: memory that another case left behind would hide growth
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
            before_mb = resident_mb()
            outcome = read(case)
            report = {"outcome": outcome, "growth_mb": peak_mb() - before_mb}
            os.write(sink, json.dumps(report | {"cpu_s": cpu_s(case)}).encode())
        finally:
            os._exit(0)
    os.close(sink)
    with os.fdopen(source) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    found: dict[str, Any] = json.loads(text)
    return found


def main() -> None:
    """SEED COUNT runs the fuzzer; `messages`, and `specs SIZE`, measure bombs. Prints JSON."""
    report: dict[str, Any]
    match sys.argv[1:]:
        case ["messages"]:
            report = {name: measure(bomb) for name, bomb in message_bombs().items()}
        case ["specs", size]:
            report = {name: measure(bomb) for name, bomb in spec_bombs(int(size)).items()}
        case [seed, count]:
            report = run(int(seed), int(count))
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
