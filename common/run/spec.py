"""The run's spec: all that an actor or an evaluator must know to join, one JSON text in Redis.

The fingerprint names what must agree for data and weights to fit; every frame on the wire carries
it, so that nothing of another run, environment or model ever reaches the learner.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from impala_redis.common.errors import SpecMismatch
from impala_redis.common.run.architecture import NETWORKS, NetworkSpec
from impala_redis.common.run.config import Config
from impala_redis.common.run.settings import MAX_ENVS, MAX_FRAME_STACK
from impala_redis.common.run.spaces import (
    ITEM_BYTES,
    MAX_CHOICES,
    MAX_OBSERVATION_SIZE,
    MAX_PARTS,
    OBSERVATION_DTYPES,
    ActionSpec,
    ObservationPart,
    ObservationSpec,
)

# Raised by one whenever a frame's or the spec's form changes.
WIRE_VERSION = 3

WEIGHTS_DTYPES = ("float32", "bfloat16")
COMPRESSIONS = ("none", "zstd")
# The fields that data and weights depend on; the others may differ between programs.
_FITTING = (
    "env",
    "observation",
    "action",
    "network",
    "hidden_sizes",
    "activation",
    "lstm_size",
    "extra_inputs",
    "unroll_length",
    "weights_dtype",
    "wire_version",
)
# A spec takes some hundred characters, and some hundred more for each part of an observation.
MAX_SPEC_LENGTH = 65_536


@dataclass(frozen=True, kw_only=True)
class RunSpec(NetworkSpec):
    """What joins actors, learner and evaluators of one run."""

    run: str
    env: str
    unroll_length: int  # T
    envs_per_actor: int  # N
    queue_blocks: int
    max_policy_age_s: float
    seed: int
    weights_dtype: str = "float32"  # as they travel: one of WEIGHTS_DTYPES
    compression: str = "none"  # of blocks as they travel: one of COMPRESSIONS
    start_frames: int = 0  # of this part of the run: a resumed part plays other episodes
    wire_version: int = WIRE_VERSION

    @cached_property  # every frame asks for it, and hashing takes longer than packing
    def fingerprint(self) -> str:
        """16 hex digits of everything that data and weights depend on."""
        whole = dataclasses.asdict(self)
        fitting = {name: whole[name] for name in _FITTING}
        return hashlib.sha256(json.dumps(fitting, sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "RunSpec":
        """The spec in `text`. Raises SpecMismatch if it is not one, or of another version."""
        if len(text) > MAX_SPEC_LENGTH:
            raise SpecMismatch(f"the run's spec is not a spec: it is {len(text):,} long")
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SpecMismatch(f"the run's spec is not JSON: {str(error)[:200]}") from error
        if not isinstance(document, dict) or "wire_version" not in document:
            raise SpecMismatch("the run's spec is not a spec: it has no wire_version")
        version = document["wire_version"]
        if type(version) is not int or version != WIRE_VERSION:
            raise SpecMismatch(
                f"the run speaks wire version {str(version)[:20]} and this "
                f"program {WIRE_VERSION}; install the same version of impala-redis on both sides"
            )
        return _spec_from(document)

    def difference(self, other: "RunSpec") -> str:
        """What does not fit, in words: "hidden_sizes is [64] here and [32] there"."""
        return "; ".join(
            f"{name} is {getattr(self, name)} here and {getattr(other, name)} there"
            for name in _FITTING
            if getattr(self, name) != getattr(other, name)
        )


def module_of(env_id: str) -> str:
    """The module that is imported to make an environment, as in module:Id; empty for none."""
    return env_id.rpartition(":")[0]


def make_spec(
    run: str, config: Config, observation: ObservationSpec, action: ActionSpec
) -> RunSpec:
    """The spec of a run with that config in an environment of those spaces."""
    return RunSpec(
        run=run,
        env=config.environment.env,
        observation=observation,
        action=action,
        hidden_sizes=config.model.hidden_sizes,
        activation=config.model.activation,
        unroll_length=config.environment.unroll_length,
        envs_per_actor=config.environment.envs_per_actor,
        queue_blocks=config.transport.queue_blocks,
        max_policy_age_s=config.transport.max_policy_age_s,
        seed=config.training.seed,
        network=config.model.network,
        lstm_size=config.model.lstm_size,
        extra_inputs=config.model.extra_inputs,
        weights_dtype=config.transport.weights_dtype,
        compression=config.transport.compression,
    )


def _spec_from(document: dict[str, Any]) -> RunSpec:
    """Builds the spec after checking each field's type and range. Raises SpecMismatch."""
    expected = {item.name for item in dataclasses.fields(RunSpec)}
    if set(document) != expected:
        odd = ", ".join(sorted(str(name)[:40] for name in set(document) ^ expected)[:5])
        raise SpecMismatch(f"the run's spec has missing or unknown fields: {odd}")
    age = document["max_policy_age_s"]
    if isinstance(age, bool) or not isinstance(age, int | float) or not 0 < age <= 1e9:
        raise SpecMismatch(f"the run's spec has max_policy_age_s {str(age)[:40]}")
    return RunSpec(
        run=_text("run", document["run"]),
        env=_text("env", document["env"]),
        observation=_observation_from(document["observation"]),
        action=_action_from(document["action"]),
        hidden_sizes=_whole_numbers("hidden_sizes", document["hidden_sizes"], 1, 65_536),
        activation=_text("activation", document["activation"], ("tanh", "relu")),
        unroll_length=_whole_number("unroll_length", document["unroll_length"], 1, 10_000),
        envs_per_actor=_whole_number("envs_per_actor", document["envs_per_actor"], 1, MAX_ENVS),
        queue_blocks=_whole_number("queue_blocks", document["queue_blocks"], 1, 1_000_000_000),
        max_policy_age_s=float(age),
        seed=_whole_number("seed", document["seed"], 0, 2**63),
        network=_text("network", document["network"], NETWORKS),
        lstm_size=_whole_number("lstm_size", document["lstm_size"], 0, 65_536),
        extra_inputs=_text(
            "extra_inputs", document["extra_inputs"], ("none", "last_action_reward")
        ),
        weights_dtype=_text("weights_dtype", document["weights_dtype"], WEIGHTS_DTYPES),
        compression=_text("compression", document["compression"], COMPRESSIONS),
        start_frames=_whole_number("start_frames", document["start_frames"], 0, 2**63),
    )


def _observation_from(document: Any) -> ObservationSpec:
    fields = _fields("observation", document, ObservationSpec)
    shape, dtype = _array_from("observation", fields)
    values = fields["num_values"]
    if values is not None:
        values = _whole_number("observation.num_values", values, 1, MAX_CHOICES)
        if shape or dtype != "int64":
            raise SpecMismatch("the run's spec has num_values for what is not an int64 index")
    found = fields["parts"]
    if not isinstance(found, list) or len(found) > MAX_PARTS:
        raise SpecMismatch(f"the run's spec has observation.parts {str(found)[:60]}, not a list")
    parts = tuple(map(_part_from, found))
    if parts and (dtype, values, len(shape)) != ("uint8", None, 1):
        raise SpecMismatch("the run's spec has parts of what is not a row of bytes")
    if parts and shape[0] < max(part.start + part.num_bytes for part in parts):
        raise SpecMismatch("the run's spec has parts that are not inside their row")
    stack = _whole_number("observation.frame_stack", fields["frame_stack"], 1, MAX_FRAME_STACK)
    return ObservationSpec(shape, dtype, values, parts, stack)


def _part_from(document: Any) -> ObservationPart:
    fields = _fields("observation.parts", document, ObservationPart)
    shape, dtype = _array_from("observation.parts", fields)
    values = _whole_numbers(
        "num_values", fields["num_values"], 1, MAX_CHOICES, longest=MAX_OBSERVATION_SIZE
    )
    if values and (len(values) != prod(shape) or "int" not in dtype):
        raise SpecMismatch("the run's spec has num_values that do not fit their part")
    start = _whole_number("start", fields["start"], 0, MAX_OBSERVATION_SIZE)
    if start % ITEM_BYTES[dtype]:
        raise SpecMismatch("the run's spec has a part that does not start at a whole item")
    return ObservationPart(_text("name", fields["name"]), shape, dtype, values, start)


def _array_from(name: str, fields: dict[str, Any]) -> tuple[tuple[int, ...], str]:
    shape = _whole_numbers(f"{name}.shape", fields["shape"], 0, MAX_OBSERVATION_SIZE)
    if len(shape) > 8 or not 0 < prod(shape) <= MAX_OBSERVATION_SIZE:
        raise SpecMismatch(
            f"the run's spec has an observation of shape {shape}: empty or too large"
        )
    return shape, _text("dtype", fields["dtype"], OBSERVATION_DTYPES)


def _action_from(document: Any) -> ActionSpec:
    fields = _fields("action", document, ActionSpec)
    kind = _text("action.kind", fields["kind"], ("discrete", "multi_discrete", "continuous"))
    sizes = _whole_numbers("action.sizes", fields["sizes"], 1, MAX_CHOICES)
    bounded = fields["bounded"]
    if not isinstance(bounded, bool) or (bounded and kind != "continuous"):
        raise SpecMismatch(f"the run's spec has action.bounded {str(bounded)[:60]}")
    if not sizes or (len(sizes) > 1 and kind != "multi_discrete") or sum(sizes) > MAX_CHOICES:
        raise SpecMismatch(f"the run's spec has action.sizes {str(sizes)[:60]}")
    return ActionSpec(kind, sizes, bounded)  # type: ignore[arg-type]


def _fields(name: str, document: Any, of: type) -> dict[str, Any]:
    """The fields of a part of the spec, all of them and no others."""
    expected = [item.name for item in dataclasses.fields(of)]
    if not isinstance(document, dict) or set(document) != set(expected):
        raise SpecMismatch(f"the run's spec has {name} without {', '.join(expected)}")
    return document


def _text(name: str, value: Any, choices: tuple[str, ...] = ()) -> str:
    if not isinstance(value, str) or len(value) > 256 or (choices and value not in choices):
        raise SpecMismatch(f"the run's spec has {name} {str(value)[:60]!r}")
    return value


def _whole_number(name: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise SpecMismatch(f"the run's spec has {name} {str(value)[:60]}, not {least} to {most}")
    return value


def _whole_numbers(
    name: str, value: Any, least: int, most: int, longest: int = 64
) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > longest:
        raise SpecMismatch(f"the run's spec has {name} {str(value)[:60]}, not a list")
    return tuple(_whole_number(name, item, least, most) for item in value)
